"""Logs that are followed over the daemon's API: they go on, and end with what they hang on."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from docker.models.containers import Container

from perry.workspace import names
from tests.e2e.command import BUSYBOX, KILL_WORKER
from tests.e2e.eventually import eventually
from tests.e2e.own_engine import OwnEngine
from tests.e2e.running_agent import PATIENCE, RunningAgent

COUNTING = f"n=0; while :; do echo $n; n=$((n+1)); {BUSYBOX} sleep 0.05; done"
KINDS = ["command", "worker"]


@pytest.fixture(scope="module")
def own(second_engine: OwnEngine) -> OwnEngine:
    second_engine.reset()
    return second_engine


@pytest.fixture
def agent(own: OwnEngine, tmp_path: Path) -> Iterator[RunningAgent]:
    running = RunningAgent(tmp_path, own.address)
    running.start()
    eventually(lambda: running.get("/api/status")["engine"]["reachable"], bool, within=PATIENCE)
    yield running
    running.stop()
    own.reset()


@pytest.fixture
def counting(agent: RunningAgent, own: OwnEngine) -> Container:
    """A workspace whose command prints numbers, for ever."""
    wanted = {"name": "counts", "command": [BUSYBOX, "sh", "-c", COUNTING]}
    answer = agent.ask("POST", "/api/workspaces", json=wanted)
    assert answer.status_code == 200, answer.text
    agent.until_live("counts")
    return own.client.containers.get("workspace-counts")


@dataclass
class Reader:
    """Somebody who follows a log: what they have read, and how that ended."""

    text: str = ""
    error: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def lines(self) -> list[str]:
        return self.text.splitlines()

    def until_ended(self) -> None:
        assert self.ended.wait(PATIENCE), f"it goes on: {self.text[-200:]}"


@contextmanager
def following(agent: RunningAgent, kind: str, **params: str) -> Iterator[Reader]:
    """Follow a log until it ends, beside a block."""
    reader = Reader()
    asked = {"follow": "1", "worker": str(int(kind == "worker")), **params}

    def read() -> None:
        url = f"http://127.0.0.1:{agent.port}/api/workspaces/counts/logs"
        headers = {"Authorization": f"Bearer {agent.token}"}
        patience = httpx.Timeout(PATIENCE)
        try:
            with httpx.stream("GET", url, params=asked, headers=headers, timeout=patience) as got:
                assert got.status_code == 200, got.read()
                assert got.headers["content-type"].startswith("text/plain")
                for text in got.iter_text():
                    reader.text += text
        except (httpx.HTTPError, AssertionError) as error:
            reader.error = error
        finally:
            reader.ended.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    eventually(lambda: reader.text or reader.error, bool, within=PATIENCE)
    assert reader.error is None
    yield reader


def descriptors(agent: RunningAgent) -> int:
    assert agent.process is not None
    return len(os.listdir(f"/proc/{agent.process.pid}/fd"))  # noqa: PTH208 - only counted


def followers(container: Container) -> list[str]:
    """The programs in a container that follow its worker's log."""
    programs = [row[-1] for row in container.top()["Processes"]]
    return [program for program in programs if " tail " in program]


def test_what_a_command_prints_is_followed_without_a_gap(
    agent: RunningAgent, counting: Container
) -> None:
    eventually(lambda: counting.logs().count(b"\n"), lambda lines: lines > 10, within=PATIENCE)
    with following(agent, "command", tail="3") as reader:
        eventually(reader.lines, lambda it: len(it) > 30, within=PATIENCE)
        numbers = [int(line) for line in reader.lines()[:-1]]
    assert numbers[0] > 5
    assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]


def test_what_a_terminal_showed_is_followed_too(agent: RunningAgent, own: OwnEngine) -> None:
    """Docker gives it in another form, and another container's owner may have asked for one."""
    own.client.containers.run(
        own.runtime,
        ["sh", "-c", COUNTING.replace(BUSYBOX, "/runtime/busybox")],
        entrypoint=["/runtime/busybox"],
        labels={names.LABEL: "counts"},
        detach=True,
        tty=True,
    )
    eventually(lambda: agent.place("counts"), bool, within=PATIENCE)
    with following(agent, "command", tail="1") as reader:
        eventually(reader.lines, lambda it: len(it) > 10, within=PATIENCE)
        numbers = [int(line) for line in reader.lines()[:-1]]
    assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]


def test_what_a_worker_logs_is_followed_over_its_death(
    agent: RunningAgent, counting: Container
) -> None:
    with following(agent, "worker", tail="9" * 20) as reader:
        eventually(lambda: reader.text.count("listening on"), lambda it: it == 1, within=PATIENCE)
        counting.exec_run([*KILL_WORKER], user="0")
        eventually(lambda: reader.text.count("listening on"), lambda it: it == 2, within=PATIENCE)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_a_client_that_goes_away_while_the_log_is_silent(
    agent: RunningAgent, own: OwnEngine, kind: str
) -> None:
    assert agent.ask("POST", "/api/workspaces", json={"name": "counts"}).status_code == 200
    agent.until_live("counts")
    silent = own.client.containers.get("workspace-counts")
    before = descriptors(agent)
    request = (
        f"GET /api/workspaces/counts/logs?follow=1&worker={int(kind == 'worker')} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{agent.port}\r\nAuthorization: Bearer {agent.token}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", agent.port), timeout=PATIENCE) as client:
        client.sendall(request.encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
        if kind == "worker":
            eventually(lambda: followers(silent), bool, within=PATIENCE)
    eventually(lambda: followers(silent), lambda it: not it, within=PATIENCE)
    eventually(lambda: descriptors(agent), lambda it: it <= before, within=PATIENCE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_followed_log_ends_with_its_container(
    agent: RunningAgent, counting: Container, kind: str
) -> None:
    with following(agent, kind) as reader:
        counting.remove(force=True)
        reader.until_ended()
        assert reader.error is None
    answer = agent.ask("GET", "/api/workspaces/counts/logs", params={"follow": "1"})
    assert answer.status_code == 404


@pytest.mark.parametrize("kind", KINDS)
def test_a_followed_log_ends_with_the_daemon(
    agent: RunningAgent, counting: Container, kind: str
) -> None:
    with following(agent, kind) as reader:
        began = time.monotonic()
        agent.stop()
        assert time.monotonic() - began < 10
        reader.until_ended()
        assert reader.error is None
    eventually(lambda: followers(counting), lambda it: not it, within=PATIENCE)


def test_a_stopped_workspace_has_a_log_that_ends_and_no_worker_that_goes_on(
    agent: RunningAgent, counting: Container
) -> None:
    counting.kill()
    with following(agent, "command", tail="2") as reader:
        reader.until_ended()
        assert (reader.error, len(reader.lines())) == (None, 2)
    path = "/api/workspaces/counts/logs"
    assert agent.ask("GET", path, params={"follow": "1", "worker": "1"}).status_code == 409
    assert agent.ask("GET", path, params={"follow": "2"}).status_code == 400
    assert agent.ask("HEAD", path, params={"follow": "1"}).status_code == 200
