"""What the tests of faults do to workspaces, and how they wait for what comes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import docker
from docker.models.containers import Container

from perry.workspace import names
from perry.workspace.engine import Engine
from perry.workspace.manager import WorkspaceManager
from tests.e2e.command import BUSYBOX, KILL_WORKER
from tests.e2e.eventually import eventually
from tests.e2e.running_agent import RunningAgent
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_line

LIVE = 10.0
"""Seconds that recovery may take at most; the machines that run this are slow and busy."""


def workspaces_of(client: docker.DockerClient) -> list[Container]:
    """Return the workspaces' containers, running or not."""
    found: list[Container] = client.containers.list(all=True, filters={"label": names.LABEL})
    return found


def manager_of(agent: RunningAgent) -> WorkspaceManager:
    """Reach the daemon's engine past the daemon."""
    return WorkspaceManager(Engine(docker.APIClient(base_url=agent.address)))


def shell(container: Container, script: str, *, user: str = "", detach: bool = False) -> str:
    """Run a script in a container with the bundle's shell, and return what it printed."""
    done = container.exec_run([BUSYBOX, "sh", "-c", script, BUSYBOX], user=user, detach=detach)
    if detach:
        return ""
    assert done.exit_code == 0, done.output
    return str(done.output.decode())


def write(container: Container, session: str, count: int, *, first: int = 0) -> None:
    """Append so many messages to a session in a workspace."""
    lines = "".join(
        claude_line("user", f"message {number}", uuid=f"u-{number:04x}", session=session)
        for number in range(first, first + count)
    )
    path = f"$HOME/{CLAUDE_DIRECTORY}"
    shell(
        container,
        f"{BUSYBOX} mkdir -p {path}\n"
        f"{BUSYBOX} cat >> {path}/{session}.jsonl <<'LINES'\n{lines}LINES",
    )


def kill_worker(container: Container) -> None:
    """Kill the worker."""
    container.exec_run([*KILL_WORKER], user="0")


def until_recovered(agent: RunningAgent, kill: Callable[[], object], name: str = "work") -> float:
    """Do what a worker dies of, and wait until another is live; returns the seconds since then.

    That it was dead can be missed, so quickly it may be back: the record of its revival can't.
    """
    before = _revived_at(agent, name)
    kill()
    killed = time.monotonic()
    eventually(lambda: _revived_at(agent, name), lambda it: it != before, within=LIVE)
    agent.until_live(name, within=LIVE)
    return time.monotonic() - killed


def _revived_at(agent: RunningAgent, name: str) -> int | None:
    answer = agent.ask("GET", f"/api/workspaces/{name}")
    revival = answer.json()["workspace"]["revival"] if answer.is_success else None
    return None if revival is None else int(revival["at"])


def until_archived(agent: RunningAgent, count: int) -> None:
    """Wait until so many messages are in the archive, which answers where a place can't."""
    eventually(
        lambda: agent.get("/api/search", q="message"),
        lambda it: (it["by"], len(it["hits"])) == ("archive", count),
        within=LIVE,
    )


@dataclass
class Answers:
    """What somebody was answered who asked all the time: the statuses, and the longest wait."""

    statuses: list[int] = field(default_factory=list)
    longest: float = 0.0

    def add(self, status: int, seconds: float) -> None:
        self.statuses.append(status)
        self.longest = max(self.longest, seconds)

    def until_last(self, status: int) -> None:
        """Wait until it is the same for a while."""
        eventually(lambda: self.statuses[-3:], lambda it: it == [status] * 3, within=30)

    def __str__(self) -> str:
        return f"{len(self.statuses)} questions answered, within {self.longest:.1f} s"


@contextmanager
def asked(agent: RunningAgent, path: str) -> Iterator[Answers]:
    """Ask the same thing all the time, beside a block; it has been answered once before that."""
    answers, ended = Answers(), threading.Event()

    def ask() -> None:
        while not ended.is_set():
            began = time.monotonic()
            status = agent.ask("GET", path).status_code
            answers.add(status, time.monotonic() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        eventually(lambda: answers.statuses, bool)
        yield answers
    finally:
        ended.set()
        thread.join()
