"""`perry session tail` over real workers, in this process and as a process of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perry.cli.fleet import Fleet, Place
from perry.cli.listening import Ended, merged
from perry.cli.tail import (
    Change,
    Gone,
    Rewritten,
    change_line,
    change_view,
    changes,
    follower,
    new_messages,
)
from perry.client.worker_client import WorkerClient
from perry.errors import WorkerUnreachable, WorkspaceNotFound
from perry.sessions.models import Message, Session
from perry.workspace.models import Workspace
from tests.worker.running import PATIENCE, ClaudeHome, WorkerProcess, eventually

Workspaces = Callable[..., Workspace]


class Heard:
    """Collects in a thread what an iterator gives."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items: list[Any] = []
        self.ended = False
        threading.Thread(target=self._collect, args=(items,), daemon=True).start()

    def _collect(self, items: Iterator[Any]) -> None:
        with contextlib.suppress(WorkspaceNotFound):  # the test is over
            self.items.extend(items)
        self.ended = True

    def wait(self, count: int) -> list[Any]:
        eventually(lambda: len(self.items) >= count, f"{count} things are heard: {self.items}")
        return self.items


class Revived:
    """A workspace's worker that is started again whenever it is reached and dead."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.worker = WorkerProcess(home)
        self.removed = False

    def connect(self, workspace: Place) -> WorkerClient:
        if self.removed:
            raise WorkspaceNotFound("removed", workspace=workspace.name)
        if self.worker.process.poll() is not None:
            self.worker = WorkerProcess(self.home)
        url = f"http://127.0.0.1:{self.worker.port}"
        return WorkerClient(url, self.worker.token, workspace=workspace.name)

    def kill(self) -> None:
        self.worker.process.kill()
        self.worker.process.wait()


@pytest.fixture
def home(tmp_path: Path) -> ClaudeHome:
    return ClaudeHome(tmp_path)


@pytest.fixture
def revived(home: ClaudeHome) -> Iterator[Revived]:
    home.session(*(f"prompt {number}" for number in range(5)), session_id="mine")
    made = Revived(home.home)
    eventually(made.worker.is_ready, "the worker is healthy")
    yield made
    made.removed = True
    made.worker.__exit__()


@pytest.fixture
def fleet(revived: Revived, make_workspace: Workspaces) -> Fleet:
    return Fleet([make_workspace(name="demo")], revived.connect)


def path(home: ClaudeHome, name: str = "mine") -> Path:
    return home.projects / "-srv-app" / f"{name}.jsonl"


def tailed(fleet: Fleet, lines: int) -> Heard:
    with fleet.connect(fleet.places[0]) as client:
        session = client.get_session("mine")
    return Heard(new_messages(follower(fleet, fleet.places[0]), session, lines))


def contents(items: list[Any]) -> list[str]:
    return [item.content if isinstance(item, Message) else repr(item) for item in items]


def told(heard: Heard) -> list[str]:
    return [f"{one.session.id}{one.session.message_count}" for one in heard.items]


def changed(fleet: Fleet, home: ClaudeHome) -> Heard:
    """Hear of changes, from a moment on at which all is quiet."""
    heard = Heard(changes(follower(fleet, fleet.places[0]), "demo", None))
    count = 1
    warm_up = home.session("1", session_id="warm-up")
    while not heard.items:
        count += 1
        home.append(warm_up, str(count))
        time.sleep(0.05)
    eventually(lambda: warm_up.stem + str(count) in told(heard), f"it has settled at {count}")
    heard.items.clear()
    return heard


def kinds(items: list[Change]) -> list[tuple[str, str, int]]:
    return [(item.kind, item.session.id, item.session.message_count) for item in items]


def test_the_newest_messages_come_first_and_then_the_new_ones(
    fleet: Fleet, home: ClaudeHome
) -> None:
    heard = tailed(fleet, 2)
    assert contents(heard.wait(2)) == ["prompt 3", "prompt 4"]
    home.session("not this one", session_id="other")
    for number in range(20):
        home.append(path(home), f"new {number}")
        time.sleep(0.005)
    assert contents(heard.wait(22))[2:] == [f"new {number}" for number in range(20)]


@pytest.mark.parametrize(("lines", "expected"), [(0, []), (99, [f"prompt {n}" for n in range(5)])])
def test_it_begins_with_as_many_as_there_are(
    fleet: Fleet, home: ClaudeHome, lines: int, expected: list[str]
) -> None:
    heard = tailed(fleet, lines)
    heard.wait(len(expected))
    number = 0
    while len(heard.items) == len(expected):  # with none at first, nothing says when it listens
        number += 1
        home.append(path(home), f"new {number}")
        time.sleep(0.05)
    eventually(lambda: contents(heard.items)[-1] == f"new {number}", "the newest is told")
    assert contents(heard.items)[: len(expected)] == expected


def test_messages_written_while_the_worker_was_dead_come_once(
    fleet: Fleet, home: ClaudeHome, revived: Revived
) -> None:
    heard = tailed(fleet, 1)
    heard.wait(1)
    for number in range(3):
        home.append(path(home), f"alive {number}")
        heard.wait(2 + 2 * number)
        revived.kill()
        home.append(path(home), f"dead {number}")
        heard.wait(3 + 2 * number)
    assert contents(heard.items) == [
        "prompt 4", "alive 0", "dead 0", "alive 1", "dead 1", "alive 2", "dead 2",
    ]  # fmt: skip


def test_a_rewritten_session_is_told_and_followed(fleet: Fleet, home: ClaudeHome) -> None:
    heard = tailed(fleet, 1)
    heard.wait(1)
    home.session("only one", session_id="mine")
    assert heard.wait(2)[1] == Rewritten(1)
    home.append(path(home), "and another")
    assert contents(heard.wait(3))[2] == "and another"


def test_a_deleted_session_ends_it(fleet: Fleet, home: ClaudeHome) -> None:
    heard = tailed(fleet, 1)
    heard.wait(1)
    path(home).unlink()
    assert heard.wait(2)[1] == Gone()
    eventually(lambda: heard.ended, "it ends")


def test_changes_are_told_as_they_happen(fleet: Fleet, home: ClaudeHome) -> None:
    heard = changed(fleet, home)
    other = home.session("one", session_id="other")
    heard.wait(1)
    home.append(other, "two")
    heard.wait(2)
    other.unlink()
    assert kinds(heard.wait(3)) == [
        ("created", "other", 1),
        ("updated", "other", 2),
        ("deleted", "other", 2),
    ]


def test_changes_while_the_worker_was_dead_are_told_once(
    fleet: Fleet, home: ClaudeHome, revived: Revived
) -> None:
    home.session("one", session_id="doomed")
    eventually(lambda: "doomed" in revived.worker.ids(), "it is there")
    heard = changed(fleet, home)
    home.append(path(home), "first")
    heard.wait(1)
    heard.items.clear()
    revived.kill()
    home.append(path(home), "second")
    path(home, "doomed").unlink()
    home.session("one", session_id="new")
    heard.wait(3)
    home.append(path(home), "third")
    assert sorted(kinds(heard.wait(4))[:3]) == [
        ("created", "new", 1),
        ("deleted", "doomed", 1),
        ("updated", "mine", 7),
    ]
    assert kinds(heard.items)[3:] == [("updated", "mine", 8)]


def test_changes_of_other_coding_agents_are_left_out(fleet: Fleet, home: ClaudeHome) -> None:
    other = Heard(changes(follower(fleet, fleet.places[0]), "demo", "pi"))
    heard = changed(fleet, home)
    home.append(path(home), "more")
    heard.wait(1)
    assert other.items == []


def test_what_several_workspaces_say_is_merged_and_one_failure_ends_one(
    make_workspace: Workspaces,
) -> None:
    workspaces = [make_workspace(name=name) for name in ("a", "broken", "c")]

    def heard(workspace: Place) -> Iterator[str]:
        yield workspace.name
        if workspace.name == "broken":
            raise WorkerUnreachable("gone")
        yield workspace.name.upper()

    told = list(merged(workspaces, heard, idle=lambda: None))
    endings = [item for item in told if isinstance(item, Ended)]
    assert sorted(item for item in told if isinstance(item, str)) == ["A", "C", "a", "broken", "c"]
    assert [(one.workspace, one.error.message) for one in endings] == [("broken", "gone")]


def test_a_fault_of_our_own_is_not_swallowed(make_workspace: Workspaces) -> None:
    def heard(_: Place) -> Iterator[str]:
        yield "x"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(merged([make_workspace()], heard, idle=lambda: None))


def test_what_is_heard_waits_in_a_bounded_queue(make_workspace: Workspaces) -> None:
    made = []

    def heard(_: Place) -> Iterator[int]:
        for number in itertools.count():
            made.append(number)
            yield number

    told = merged([make_workspace()], heard, idle=lambda: None)
    assert next(told) == 0
    eventually(lambda: len(made) >= 1000, "the queue is full")
    time.sleep(0.05)
    assert len(made) < 1010


def test_a_change_is_a_line_that_fits(make_session: Callable[..., Session]) -> None:
    change = Change("demo", "updated", make_session(title="Fix\x1b[2J the\nlogin", message_count=3))
    line = change_line(change, "10:11:12", 6, None)
    assert line == "10:11:12  demo    claude    updated    3 messages  Fix\\x1b[2J the login"
    assert len(change_line(change, "10:11:12", 6, 40)) <= 40


def test_the_json_of_a_change_has_the_pinned_keys(make_session: Callable[..., Session]) -> None:
    view = change_view(Change("demo", "deleted", make_session()))
    assert view.keys() == {"workspace", "event", "session"}
    assert (view["event"], view["session"]["agentType"]) == ("deleted", "claude")


SCRIPT = """
import sys
from perry.cli import tail
from perry.cli.fleet import Fleet, Place
from perry.cli.main import app, get_command, print_error
from perry.client.worker_client import WorkerClient
from perry.errors import PerryError
from tests.cli.conftest import WORKSPACE
url, token, *arguments = sys.argv[1:]
fleet = Fleet([WORKSPACE], lambda one: WorkerClient(url, token, workspace=one.name))
@app.command()
def test(what: str, json: bool = False):
    if what == "all":
        tail.tail_all(fleet, agent=None, json=json)
    tail.tail_session(fleet, fleet.find(what)[0], lines=1, full=False, json=json)
try:
    get_command(app)(["test", *arguments])
except PerryError as error:
    print_error(error)
    sys.exit(error.exit_code)
"""


class Process:
    """The command in a process of its own, in a fleet of one worker."""

    def __init__(self, revived: Revived, *arguments: str) -> None:
        url, token = f"http://127.0.0.1:{revived.worker.port}", str(revived.worker.token)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, url, token, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self) -> str:
        return self._lines.get(timeout=PATIENCE)

    def is_silent(self) -> bool:
        return self._lines.empty()

    def end(self) -> tuple[int, str]:
        assert self.process.stderr is not None
        code = self.process.wait(PATIENCE)
        return code, self.process.stderr.read()


def test_lines_reach_a_pipe_at_once_and_ctrl_c_ends_cleanly(
    revived: Revived, home: ClaudeHome
) -> None:
    process = Process(revived, "mine")
    assert process.line().startswith("USER")
    assert process.line() == "prompt 4"
    home.append(path(home), "one more")
    assert [process.line() for _ in range(3)][2] == "one more"
    process.process.send_signal(signal.SIGINT)
    assert process.end() == (130, "perry: Interrupted.\n")


@pytest.mark.parametrize("delay", [0.001, 0.01, 0.05])
def test_ctrl_c_pressed_twice_ends_as_cleanly(revived: Revived, delay: float) -> None:
    process = Process(revived, "mine")
    process.line()
    process.process.send_signal(signal.SIGINT)
    time.sleep(delay)
    process.process.send_signal(signal.SIGINT)
    assert process.end() == (130, "perry: Interrupted.\n")


def test_json_is_an_object_a_line(revived: Revived, home: ClaudeHome) -> None:
    process = Process(revived, "mine", "--json")
    told = json.loads(process.line())
    assert told.keys() == {"workspace", "id", "message"}
    assert (told["id"], told["message"]["content"]) == ("mine", "prompt 4")
    path(home).unlink()
    code, said = process.end()
    assert (code, "deleted" in said) == (0, True)


def test_a_closed_pipe_ends_it_even_while_nothing_happens(revived: Revived) -> None:
    url, token = f"http://127.0.0.1:{revived.worker.port}", str(revived.worker.token)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, url, token, "mine"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b"USER")
    process.stdout.close()
    assert process.wait(PATIENCE) == 141
    assert process.stderr.read() == b""


def test_all_changes_are_printed_until_no_workspace_is_left(
    revived: Revived, home: ClaudeHome
) -> None:
    process = Process(revived, "all", "--json")
    while process.is_silent():
        home.append(path(home), "more")
        time.sleep(0.05)
    told = json.loads(process.line())
    assert (told["workspace"], told["event"], told["session"]["id"]) == ("demo", "updated", "mine")
    process.process.send_signal(signal.SIGINT)
    assert process.end()[0] == 130
    revived.kill()
    code, said = Process(revived, "all").end()
    assert code == 1
    assert "demo" in said
