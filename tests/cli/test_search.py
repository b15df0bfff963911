"""`perry session search` over real workers, printed as they answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import pytest

from perry.cli.fleet import Fleet, Place
from perry.cli.search import Asked, moment_of
from perry.client.worker_client import WorkerClient
from perry.errors import UsageError, WorkerUnreachable
from perry.workspace.models import Workspace
from tests.worker.running import PATIENCE, ClaudeHome, WorkerProcess

NOW = 1_700_000_000.0


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, WorkerProcess]]:
    demo = ClaudeHome(tmp_path_factory.mktemp("demo"))
    demo.session("where is the needle", "hay", session_id="aaaa-one")
    site = ClaudeHome(tmp_path_factory.mktemp("site"))
    site.session("a NEEDLE", "one more needle", session_id="bbbb-two")
    with WorkerProcess(demo.home) as first, WorkerProcess(site.home) as second:
        yield {"demo": first, "site": second}


class Fleets:
    """Makes fleets of the workers; `held` is waited for before the workspace `slow` answers."""

    def __init__(
        self, workers: dict[str, WorkerProcess], make_workspace: Callable[..., Workspace]
    ) -> None:
        self.held = threading.Event()
        self._workers = workers
        self._make = make_workspace

    def __call__(self, *names: str) -> Fleet:
        return Fleet([self._make(name=name) for name in names], self._connect)

    def _connect(self, workspace: Place) -> AbstractContextManager[WorkerClient]:
        if workspace.name == "broken":
            raise WorkerUnreachable("nothing answers in broken", workspace=workspace.name)
        if workspace.name == "slow":
            assert self.held.wait(PATIENCE)
        worker = self._workers.get(workspace.name, self._workers["demo"])
        url = f"http://127.0.0.1:{worker.port}"
        return WorkerClient(url, worker.token, workspace=workspace.name)


@pytest.fixture
def fleets(
    workers: dict[str, WorkerProcess], make_workspace: Callable[..., Workspace]
) -> Iterator[Fleets]:
    made = Fleets(workers, make_workspace)
    yield made
    made.held.set()


def ask(fleet: Fleet, query: str = "needle", *, limit: int = 50, **given: Any) -> Asked:
    return Asked(fleet, query, given.get("agent"), given.get("since"), limit)


def test_the_finds_of_all_workspaces_are_printed(
    fleets: Fleets, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(fleets("demo", "site")).as_lines() == 3
    told = capsys.readouterr().out.split("\n\n")
    assert sorted(part.split()[:3] for part in told) == [
        ["aaaa-one", "demo", "claude"],
        ["bbbb-two", "site", "claude"],
    ]
    assert "where is the needle" in "".join(told)


def test_a_workspace_is_shown_before_a_slower_one_has_answered(fleets: Fleets) -> None:
    pages = ask(fleets("slow", "site")).pages()
    assert next(pages)[0] == "site"
    fleets.held.set()
    assert next(pages)[0] == "slow"
    assert next(pages, None) is None


def test_one_that_cannot_answer_is_told_and_hides_no_other(
    fleets: Fleets, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ask(fleets("broken", "demo"))
    assert (asked.as_lines(), asked.failed) == (1, 1)
    told = capsys.readouterr()
    assert "nothing answers in broken" in told.err
    assert "aaaa-one" in told.out


def test_json_is_one_object_of_all_hits(fleets: Fleets, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(fleets("site", "broken", "demo")).as_json() == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == {"hits"}
    assert {(hit["workspace"], hit["sessionId"]) for hit in answer["hits"]} == {
        ("demo", "aaaa-one"),
        ("site", "bbbb-two"),
    }


def test_nothing_found_is_an_empty_list_in_json(
    fleets: Fleets, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(fleets("demo"), "nowhere").as_json() == 0
    assert json.loads(capsys.readouterr().out) == {"hits": []}


def test_a_limit_that_cuts_is_told(fleets: Fleets, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(fleets("site"), limit=1).as_lines() == 1
    assert capsys.readouterr().err == "only 1 hit of site; --limit shows more\n"


def test_agent_and_since_are_handed_on(fleets: Fleets) -> None:
    assert ask(fleets("demo"), agent="pi").as_lines() == 0
    assert ask(fleets("demo"), since=int(time.time() * 1000)).as_lines() == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("2h", 7200), ("3d", 259_200), ("1W", 604_800), (" 2h ", 7200)],
)
def test_since_takes_an_age(text: str, seconds: int) -> None:
    assert moment_of(text, NOW) == (NOW - seconds) * 1000


def test_since_takes_dates_and_times_local_unless_they_say_otherwise() -> None:
    local = datetime(2023, 11, 10).astimezone().timestamp() * 1000
    assert moment_of("2023-11-10", NOW) == local
    assert moment_of("2023-11-10T00:00", NOW) == local
    assert moment_of("2023-11-10T12:00:00Z", NOW) == 1_699_617_600_000
    assert moment_of("2023-11-10T12:00:00+02:00", NOW) == 1_699_610_400_000
    assert moment_of("99999999w", NOW) == 0


@pytest.mark.parametrize("text", ["", "yesterday", "2x", "-2h", "2023-13-01", "1.5h", "h"])
def test_since_takes_nothing_else(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        moment_of(text, NOW)
    assert raised.value.exit_code == 2


def test_what_is_asked_wrongly_is_exit_code_2(perry: Callable[..., Any]) -> None:
    assert perry("session", "search", " ").returncode == 2
    assert perry("session", "search", "x", "--since", "then").returncode == 2
    assert perry("session", "search", "x", "--limit", "0").returncode == 2
    assert perry("session", "search").returncode == 2
