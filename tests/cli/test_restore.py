"""`perry session restore` over real workers, and on the host."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

from perry.cli.fleet import Fleet, Place
from perry.cli.restore import gather, pick, restorable_view
from perry.client.worker_client import WorkerClient
from perry.errors import SessionAmbiguous, SessionNotFound, WorkerUnreachable
from tests.worker.running import ClaudeHome, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from perry.workspace.models import Workspace

Perry = Callable[..., subprocess.CompletedProcess[str]]
Fleets = Callable[..., Fleet]

ONE = "aaaa1111-0000-4000-8000-000000000001"
TWO = "aaaa2222-0000-4000-8000-000000000002"


@pytest.fixture
def fleets(
    tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[..., Workspace]
) -> Iterator[Fleets]:
    """Workspaces in which sessions were deleted: `demo` and `site`; others can't answer."""
    demo, site = (ClaudeHome(tmp_path_factory.mktemp(name)) for name in ("demo", "site"))
    demo.session("Fix the login", session_id=ONE)
    site.session("Fix the logout", session_id=ONE)
    site.session("Fix the cart", session_id=TWO)
    with WorkerProcess(demo.home) as first, WorkerProcess(site.home) as second:
        workers = {"demo": first, "site": second}
        for worker in workers.values():
            for session in sorted(worker.ids()):
                assert worker.http.delete(f"/sessions/{session}").status_code == 200

        def connect(place: Place) -> AbstractContextManager[WorkerClient]:
            if place.name not in workers:
                raise WorkerUnreachable(f"nothing answers in {place.name}", workspace=place.name)
            worker = workers[place.name]
            url = f"http://127.0.0.1:{worker.port}"
            return WorkerClient(url, worker.token, workspace=place.name)

        def make(*names: str) -> Fleet:
            states = {"off": "exited"}
            places = [make_workspace(name=n, state=states.get(n, "running")) for n in names]
            return Fleet(places, connect)

        yield make


def test_what_can_be_restored_is_gathered_from_all_places_the_last_deleted_first(
    fleets: Fleets,
) -> None:
    found, failures = gather(fleets("demo", "site", "broken", "off"))
    told = [(one.place.name, one.deleted.session.id) for one in found]
    assert told == [("site", TWO), ("site", ONE), ("demo", ONE)]
    assert failures["broken"].message == "nothing answers in broken"
    assert "once it runs" in failures["off"].message
    assert gather(fleets("demo"), "codex")[0] == []


def test_a_deleted_session_s_json_has_the_session_s_keys_and_three_more(fleets: Fleets) -> None:
    view = restorable_view(gather(fleets("demo"))[0][0])
    always = {
        "workspace", "id", "agentType", "title", "directory", "filePath", "messageCount",
        "firstPrompt", "lastActivity", "deletedAt", "until", "size",
    }  # fmt: skip
    assert always <= set(view) <= always | {"gitBranch", "startedAt", "model", "parentId"}
    assert (view["workspace"], view["id"], view["messageCount"]) == ("demo", ONE, 1)
    assert view["until"] - view["deletedAt"] == 30 * 24 * 3600 * 1000
    assert view["size"] > 0


def test_the_start_of_an_id_is_enough_where_it_fits_one(fleets: Fleets) -> None:
    found, failures = gather(fleets("demo", "site"))
    assert pick("aaaa2", found, failures).deleted.session.id == TWO
    with pytest.raises(SessionAmbiguous) as raised:
        pick("aaaa1", found, failures)
    assert "demo" in raised.value.hint
    assert "Fix the logout" in raised.value.hint
    assert "--workspace" in raised.value.hint
    only, _ = gather(fleets("demo"))
    assert pick("a", only, {}).place.name == "demo"


def test_who_could_not_be_asked_is_named_where_nothing_fits(fleets: Fleets) -> None:
    found, failures = gather(fleets("demo", "off"))
    with pytest.raises(SessionNotFound, match="'bbbb'") as raised:
        pick("bbbb", found, failures)
    assert "off is exited" in raised.value.hint
    assert "restore --list" in raised.value.hint


def test_the_last_of_several_deletions_of_one_session_is_picked(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    with WorkerProcess(tmp_path) as worker:
        for prompt in ("first", "second"):
            home.session(prompt, session_id=ONE)
            worker.http.post("/refresh")
            worker.http.delete(f"/sessions/{ONE}")
        from perry.cli.host import Host  # noqa: PLC0415

        url = f"http://127.0.0.1:{worker.port}"
        fleet = Fleet(
            [Host(str(tmp_path))], lambda _: WorkerClient(url, worker.token, workspace="host")
        )
        found, failures = gather(fleet)
    assert len(found) == 2
    assert pick("aaaa", found, failures).deleted.session.title == "second"


def test_a_session_of_the_host_is_deleted_listed_and_restored(perry: Perry, tmp_path: Path) -> None:
    path = ClaudeHome(tmp_path).session("Fix the login", session_id=ONE)
    before, status = path.read_bytes(), path.stat()
    done = perry("session", "delete", "aaaa", "-w", "host", "--yes")
    assert (done.returncode, done.stdout) == (0, f"deleted {ONE} from host\n")
    assert f"perry session restore {ONE} -w host" in done.stderr
    assert not path.exists()
    listed = json.loads(perry("session", "restore", "--list", "-w", "host", "--json").stdout)
    assert [(one["workspace"], one["id"]) for one in listed["deleted"]] == [("host", ONE)]
    table = perry("session", "restore", "--list", "-w", "host").stdout.splitlines()
    assert table[0].split() == ["ID", "WORKSPACE", "AGENT", "TITLE", "MSGS", "DELETED", "UNTIL"]
    assert table[1].split()[:3] == [ONE, "host", "claude"]
    done = perry("session", "restore", "aaaa", "-w", "host")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"restored {ONE} to host\n", "")
    after = path.stat()
    assert path.read_bytes() == before
    assert (after.st_mode, after.st_mtime_ns) == (status.st_mode, status.st_mtime_ns)
    done = perry("session", "restore", "aaaa", "-w", "host")
    assert (done.returncode, done.stdout) == (1, "")
    assert "No deleted session has the id 'aaaa'" in done.stderr
    done = perry("session", "restore", "--list", "-w", "host")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing can be restored on the host" in done.stderr


def test_for_good_is_for_good(perry: Perry, tmp_path: Path) -> None:
    ClaudeHome(tmp_path).session("Fix the login", session_id=ONE)
    done = perry("session", "delete", "aaaa", "-w", "host", "--yes", "--for-good")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"deleted {ONE} from host\n", "")
    listed = json.loads(perry("session", "restore", "--list", "-w", "host", "--json").stdout)
    assert listed == {"deleted": []}


def test_what_is_in_the_way_is_told_and_stays(perry: Perry, tmp_path: Path) -> None:
    path = ClaudeHome(tmp_path).session("Fix the login", session_id=ONE)
    perry("session", "delete", "aaaa", "-w", "host", "--yes")
    path.write_text("mine")
    done = perry("session", "restore", "aaaa", "-w", "host")
    assert (done.returncode, done.stdout) == (1, "")
    assert str(path) in done.stderr
    assert path.read_text() == "mine"


@pytest.mark.parametrize("words", [(), ("aaaa", "--list"), ("aaaa", "--json")])
def test_either_an_id_or_the_list_is_asked_for(perry: Perry, words: tuple[str, ...]) -> None:
    done = perry("session", "restore", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--list" in done.stderr
