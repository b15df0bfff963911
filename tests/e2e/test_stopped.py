"""The session commands over workspaces in which no worker can be asked."""

from __future__ import annotations

import json
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from perry.workspace.models import Workspace
from perry.workspace.progress import finish
from tests.conftest import Workspaces
from tests.e2e.command import Perry
from tests.e2e.labels import LABEL
from tests.e2e.test_sessions import Lines
from tests.e2e.test_snapshot import put
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_session, every_agents_home

OLD = 1_795_000_000
HOME = "/home/workspace"
TITLE = "Why is the cart empty?"


@pytest.fixture
def perry(tmp_path: Path) -> Perry:
    """The command with a home, and a cache, of its own."""
    home = tmp_path / "home"
    (home / CLAUDE_DIRECTORY).mkdir(parents=True)
    (home / CLAUDE_DIRECTORY / "mine.jsonl").write_text(claude_session("Asked on the host"))
    return Perry(tmp_path, {"HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "cache")})


@pytest.fixture
def full(workspaces: Workspaces, tmp_path: Path) -> Workspace:
    """A running workspace with sessions of every coding agent, all of them seen by its worker."""
    workspace = workspaces.init().workspace
    every_agents_home(tmp_path / "theirs", OLD)
    put(workspaces.engine, workspace.container_id, HOME, tmp_path / "theirs")
    workspaces.run(workspace.name, f"chown -R workspace {HOME}", user="0")
    with workspaces.manager.connect(workspace) as worker:
        worker.refresh()
    return workspace


@pytest.fixture
def stopped(workspaces: Workspaces, full: Workspace) -> str:
    workspaces.manager.stop(full.name)
    return full.name


@pytest.fixture
def read_only(
    workspaces: Workspaces, client: docker.DockerClient, runtime_image: str, tmp_path: Path
) -> Iterator[str]:
    """A running workspace with the same sessions, in which no worker can run."""
    every_agents_home(tmp_path / "bound", OLD)
    container = client.containers.run(
        runtime_image,
        entrypoint=["/runtime/busybox", "sleep", "600"],
        environment={"HOME": "/root"},
        volumes=[f"{tmp_path}/bound:/root"],
        labels={LABEL: "1"},
        name=f"test-{secrets.token_hex(4)}",
        read_only=True,
        detach=True,
    )
    name = workspaces.name()
    assert finish(workspaces.manager.adopt(str(container.name), name)).worker is None
    yield name
    container.remove(force=True)


def everything_told(perry: Perry, name: str) -> dict[str, Any]:
    """Ask all questions about a workspace's sessions, in JSON and as a document."""
    listed = perry.json("session", "list", "--children", "-w", name)["sessions"]
    told: dict[str, Any] = {"list": listed}
    for session in listed:
        which = (session["id"], "-w", name, "--agent", session["agentType"])
        told[f"show {session['id']}"] = perry.json("session", "show", *which)
        told[f"export {session['id']}"] = perry.ok("session", "export", *which)
    told["search"] = perry.json("session", "search", "cart", "-w", name)["hits"]
    return told


def without_age(told: Any) -> Any:
    """Take out what only a snapshot's answers have, seeing that it is right."""
    if isinstance(told, list):
        return [without_age(one) for one in told]
    if not isinstance(told, dict):
        return told
    if "via" in told:
        assert told["via"] == "snapshot"
        assert 0 <= time.time() * 1000 - told["asOf"] < 120_000
    return {key: without_age(one) for key, one in told.items() if key not in {"via", "asOf"}}


def views_of(told: dict[str, Any]) -> list[dict[str, Any]]:
    shown = [one["session"] for key, one in told.items() if key.startswith("show ")]
    return [*told["list"], *shown, *told["search"]]


def test_a_stopped_workspaces_sessions_are_told_as_before_the_stop(
    perry: Perry, workspaces: Workspaces, full: Workspace
) -> None:
    before = everything_told(perry, full.name)
    assert len(before["list"]) == 7
    assert before["search"]
    assert not any({"via", "asOf"} & set(view) for view in views_of(before))
    workspaces.manager.stop(full.name)
    after = everything_told(perry, full.name)
    assert all({"via", "asOf"} <= set(view) for view in views_of(after))
    assert without_age(after) == before


def test_every_command_says_how_old_what_it_read_is(perry: Perry, stopped: str) -> None:
    note = f"note: {stopped} is exited; read from a snapshot taken just now\n"
    here = ("-w", stopped)
    for arguments in (
        ("list", *here),
        ("list", "--json", *here),
        ("show", "pi-one", *here),
        ("export", "pi-one", *here),
        ("search", "cart", *here),
    ):
        done = perry.run("session", *arguments)
        assert (done.returncode, done.stderr) == (0, note), arguments


def test_stopped_workspaces_stand_beside_all_others(
    perry: Perry, workspaces: Workspaces, stopped: str
) -> None:
    running = workspaces.init().workspace.name
    text = claude_session("Asked in the workspace")
    directory = f"~/{CLAUDE_DIRECTORY}"
    workspaces.run(
        running, f"mkdir -p {directory}; cat > {directory}/theirs.jsonl <<'EOF'\n{text}EOF"
    )
    with workspaces.manager.connect(workspaces.manager.get(running)) as worker:
        worker.refresh()
    done = perry.run("session", "list", "--json")
    found = {(one["workspace"], one["id"]) for one in json.loads(done.stdout)["sessions"]}
    assert {("host", "mine"), (running, "theirs"), (stopped, "pi-one")} <= found
    assert f"note: {stopped} is exited" in done.stderr
    assert running not in done.stderr


def test_a_paused_workspace_is_read_too(
    perry: Perry, workspaces: Workspaces, client: docker.DockerClient, full: Workspace
) -> None:
    client.containers.get(full.container_id).pause()
    done = perry.run("session", "show", "pi-one", "-w", full.name)
    assert "Paint it" in done.stdout
    assert done.stderr == f"note: {full.name} is paused; read from a snapshot taken just now\n"
    assert workspaces.manager.get(full.name).state == "paused"


def test_a_container_where_no_worker_can_run_is_read_and_says_why(
    perry: Perry, read_only: str
) -> None:
    done = perry.run("session", "list", "--json", "-w", read_only)
    sessions = json.loads(done.stdout)["sessions"]
    assert {one["via"] for one in sessions} == {"snapshot"}
    assert len(sessions) == 7
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("note: No worker can run")
    assert "read-only; read from a snapshot taken just now" in done.stderr
    assert TITLE in perry.ok("session", "show", "s", "--agent", "claude", "-w", read_only)
    done = perry.run("session", "delete", "pi-one", "-w", read_only, "--yes")
    assert done.returncode == 1
    assert f"perry workspace sync {read_only}" in done.stderr


def test_a_session_of_a_stopped_workspace_is_deleted_only_once_it_runs(
    perry: Perry, workspaces: Workspaces, stopped: str
) -> None:
    asked = ("session", "delete", "pi-one", "-w", stopped)
    done = perry.run(*asked)  # nothing is asked first: there is nobody to ask
    assert (done.returncode, done.stdout) == (1, "")
    assert "read from a snapshot and can't be deleted" in done.stderr
    assert f"perry workspace start {stopped}" in done.stderr
    finish(workspaces.manager.start(stopped))
    assert perry.ok(*asked, "--yes") == f"deleted pi-one from {stopped}\n"


def test_a_stopped_workspace_cannot_be_followed(perry: Perry, stopped: str) -> None:
    for arguments in ((), ("pi-one",)):
        done = perry.run("session", "tail", *arguments, "-w", stopped)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"The workspace {stopped} is exited" in done.stderr


@pytest.mark.parametrize("which", ["stopped", "read_only"])
def test_of_a_removed_workspace_nothing_stays_in_the_cache(
    request: pytest.FixtureRequest, perry: Perry, tmp_path: Path, which: str
) -> None:
    name = request.getfixturevalue(which)
    perry.ok("session", "list", "-w", name)
    container = perry.json("workspace", "show", name)["workspace"]["containerId"]
    kept = [*(tmp_path / "cache").rglob(container)]
    assert len(kept) == 1
    assert [*kept[0].rglob("s.jsonl")]
    perry.ok("workspace", "remove", name, "--yes")
    assert not [*(tmp_path / "cache").rglob(container)]
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not [path for path in left if TITLE.encode() in path.read_bytes()]
    assert not [path for path in left if path.parent.name in {"homes", "revivals"}]


def test_a_home_that_takes_long_holds_up_nobody_and_can_be_interrupted(
    perry: Perry, workspaces: Workspaces, stopped: str
) -> None:
    finish(workspaces.manager.start(stopped))
    workspaces.run(stopped, "truncate -s 1099511627776 ~/.pi/agent/sessions/zero.jsonl")
    workspaces.manager.stop(stopped)
    search = perry.start("session", "search", "asked", "host")
    try:
        told = Lines(search)
        assert told.line().startswith("mine  host")
        assert search.poll() is None
    finally:
        began = time.monotonic()
        search.send_signal(signal.SIGINT)
        assert search.wait(10) == 130
        assert time.monotonic() - began < 5
