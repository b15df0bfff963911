"""The host's own sessions beside the workspaces', and by themselves where there is no engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perry.cli.connection import connect_fleet
from perry.cli.fleet import ENGINE
from perry.cli.host import Host, HostReader
from perry.errors import EngineUnreachable, SessionNotFound, WorkerCannotRun
from tests.worker.running import PATIENCE, ClaudeHome, eventually

Perry = Callable[..., subprocess.CompletedProcess[str]]

ID = "aaaa1111-0000-4000-8000-000000000001"


@pytest.fixture
def home(tmp_path: Path) -> ClaudeHome:
    """The home of the `perry` fixture, where no engine is."""
    made = ClaudeHome(tmp_path)
    made.session("Fix the empty cart", "And test it", session_id=ID)
    return made


def no_engine(done: subprocess.CompletedProcess[str]) -> bool:
    return "No Docker engine answers" in done.stderr and "Traceback" not in done.stderr


def test_without_an_engine_the_host_is_listed_and_the_engine_told(
    perry: Perry, home: ClaudeHome
) -> None:
    done = perry("session", "list", "--json")
    (session,) = json.loads(done.stdout)["sessions"]
    assert (session["workspace"], session["id"], session["messageCount"]) == ("host", ID, 2)
    assert session["filePath"].startswith(str(home.home))
    assert (done.returncode, no_engine(done)) == (0, True)
    done = perry("session", "list")
    assert done.stdout.splitlines()[1].split()[:3] == [ID, "host", "claude"]
    assert (done.returncode, no_engine(done)) == (0, True)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("list",), f"{ID}  host"),
        (("show", "aaaa"), "claude · host · /srv/app · 2 messages"),
        (("search", "CART", "fix"), f"{ID}  host  claude  Fix the empty cart"),
        (("export", "aaaa"), "- Workspace: host"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_the_host_by_name_needs_no_engine(
    perry: Perry, arguments: tuple[str, ...], told: str
) -> None:
    done = perry("session", *arguments, "--workspace", "host")
    assert (done.returncode, done.stderr) == (0, "")
    assert told in done.stdout


def test_a_session_of_the_host_is_found_by_the_start_of_its_id_without_an_engine(
    perry: Perry, home: ClaudeHome
) -> None:
    shown = json.loads(perry("session", "show", "aaaa", "--json").stdout)
    assert [message["content"] for message in shown["messages"]] == [
        "Fix the empty cart", "And test it",
    ]  # fmt: skip
    assert shown["session"]["workspace"] == "host"
    done = perry("session", "delete", "aaaa", "--yes")
    assert (done.returncode, done.stdout) == (0, f"deleted {ID} from host\n")
    assert not [*home.projects.rglob("*.jsonl")]
    done = perry("session", "show", "aaaa")
    assert (done.returncode, done.stdout, no_engine(done)) == (1, "", True)


@pytest.mark.usefixtures("home")
def test_a_search_tells_that_the_workspaces_could_not_be_searched(perry: Perry) -> None:
    done = perry("session", "search", "cart", "--json")
    assert {hit["workspace"] for hit in json.loads(done.stdout)["hits"]} == {"host"}
    assert (done.returncode, no_engine(done)) == (0, True)


def test_without_sessions_the_host_is_named(perry: Perry) -> None:
    done = perry("session", "list", "-w", "host")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no sessions on the host\n")
    done = perry("session", "search", "x", "-w", "host")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing found on the host\n")


def test_what_was_read_is_remembered_in_the_cache_directory_and_nothing_else_is_written(
    perry: Perry, home: ClaudeHome, tmp_path: Path
) -> None:
    cache = tmp_path / "elsewhere"
    path = home.projects / "-srv-app" / f"{ID}.jsonl"
    for _ in range(2):
        done = perry("session", "list", "-w", "host", XDG_CACHE_HOME=str(cache))
        assert "Fix the empty cart" in done.stdout
        before = path.stat()
        path.write_text(path.read_text().replace("Fix", "Cut"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # nothing tells of the change
    assert len([*(cache / "perry").iterdir()]) == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == [".claude", "elsewhere"]


class Tail:
    """`perry session tail --json` with no engine."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "perry", "session", "tail", "--json", *arguments],
            env={**os.environ, "HOME": str(home), "DOCKER_HOST": f"unix://{home}/no.sock"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.told: list[Any] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.told.extend(map(json.loads, self.process.stdout))

    def wait(self, count: int) -> list[Any]:
        eventually(lambda: len(self.told) >= count, f"{count} lines: {self.told}")
        return self.told

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        assert self.process.stderr is not None
        return self.process.wait(PATIENCE), self.process.stderr.read()


def test_a_session_of_the_host_is_followed(home: ClaudeHome) -> None:
    path = home.projects / "-srv-app" / f"{ID}.jsonl"
    tail = Tail(home.home, "aaaa", "-n", "1", "-w", "host")
    assert tail.wait(1)[0]["message"]["content"] == "And test it"
    for number in range(3):
        home.append(path, f"new {number}")
        assert tail.wait(2 + number)[-1]["message"]["content"] == f"new {number}"
    assert tail.end() == (130, "perry: Interrupted.\n")


def test_changes_on_the_host_are_told_without_an_engine(home: ClaudeHome) -> None:
    tail = Tail(home.home)
    number = 0
    while not tail.told:  # nothing says when it listens
        number += 1
        home.session("one", session_id=f"new-{number}")
        time.sleep(0.05)
    assert {told["workspace"] for told in tail.told} == {"host"}
    code, said = tail.end()
    assert code == 130
    assert "No Docker engine answers" in said
    assert "Traceback" not in said


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, home: ClaudeHome) -> None:
    monkeypatch.setenv("HOME", str(home.home))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{home.home}/no.sock")


@pytest.mark.usefixtures("no_docker")
def test_a_fleet_without_an_engine_is_the_host_and_says_why() -> None:
    fleet = connect_fleet(None)
    assert [place.name for place in fleet.places] == ["host"]
    assert isinstance(fleet.missing[ENGINE], EngineUnreachable)
    gathered = fleet.sessions()
    assert [(one.place.name, one.session.id) for one in gathered.found] == [("host", ID)]
    assert not gathered.nobody_answered
    with pytest.raises(SessionNotFound) as raised:
        fleet.find("zzz")
    assert "No Docker engine answers" in raised.value.hint


@pytest.mark.usefixtures("no_docker")
def test_what_one_question_read_the_next_one_has(home: ClaudeHome) -> None:
    reader = HostReader(watched=False)
    assert reader.host == Host(str(home.home))
    with reader.connect() as client:
        assert len(client.list_sessions()) == 1
    home.session("another", session_id="later")
    with reader.connect() as client:
        assert len(client.list_sessions()) == 1


@pytest.mark.usefixtures("no_docker")
def test_a_watched_host_is_fresh_by_itself(home: ClaudeHome) -> None:
    reader = HostReader(watched=True)
    with reader.connect() as client:
        home.session("another", session_id="later")
        eventually(lambda: len(client.list_sessions()) == 2, "the new session is seen")


def test_a_user_without_a_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 4_000_000_000)
    with pytest.raises(WorkerCannotRun, match="no home") as raised:
        HostReader(watched=False).connect()
    assert "HOME" in raised.value.hint
