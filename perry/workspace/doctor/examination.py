"""The examination: every check on this machine, the engine and the workspaces, as findings.

Findings are yielded as they come, and nobody is waited for longer than a while: what doesn't answer
in time is a finding too, and its thread is left behind. Workspaces are asked several at a time, and
each one's findings come together. It must not know what is checked.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from perry.workspace.doctor import engine_checks, host_checks, workspace_checks
from perry.workspace.doctor.engine_checks import EngineSeen
from perry.workspace.doctor.finding import (
    ENGINE,
    HOST,
    About,
    Finding,
    Verdict,
    failure,
    finding,
    findings,
)
from perry.workspace.doctor.host_checks import AskDaemon, ThisMachine
from perry.workspace.doctor.workspace_checks import WorkspaceSeen
from perry.workspace.engine import Engine
from perry.workspace.ladder import Ladder
from perry.workspace.models import Workspace
from perry.workspace.objects import Container

PATIENCE = 20.0
"""Seconds for this machine, for the engine, and for each workspace."""

AT_ONCE = 8
"""Workspaces that are asked at the same time."""


def examine(
    *,
    daemon: AskDaemon,
    connect: Callable[[], Engine] = Engine.connect,
    patience: float = PATIENCE,
) -> Iterator[Finding]:
    """Yield what every check finds: of this machine, of the engine, of the workspaces by name.

    `daemon` asks this user's agent daemon; `connect` reaches the engine; `patience` is in seconds.
    """
    machine = ThisMachine(daemon)
    yield from _in_time(HOST, findings(HOST, host_checks.CHECKS, machine), patience)
    seen = EngineSeen(connect)
    last = None
    for one in _in_time(ENGINE, _of_engine(seen), patience):
        yield one
        last = one
    if last is not None and last.name == "workspaces" and last.level != "failure":
        yield from _of_workspaces(seen, patience)


def _of_engine(seen: EngineSeen) -> Iterator[Finding]:
    """Check the engine; where none answers, that is the one thing to say."""
    for one in findings(ENGINE, engine_checks.CHECKS, seen):
        yield one
        if (one.name, one.level) == ("connection", "failure"):
            return


def _of_workspaces(seen: EngineSeen, patience: float) -> Iterator[Finding]:
    """Check the workspaces, several at a time; whichever is done first comes first."""
    waiting: queue.SimpleQueue[tuple[Workspace, Container] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[Sequence[Finding]] = queue.SimpleQueue()
    # A key that isn't the engine's is told of; nothing is forgotten here.
    ladder = Ladder(seen.engine, seen.token, forget_key=lambda: None)

    def ask() -> None:
        while (member := waiting.get()) is not None:
            about = About("workspace", member[0].name)
            looked_at = WorkspaceSeen(
                seen.engine, ladder, *member, wanted=seen.bundle, now=seen.told.time
            )
            found = findings(about, workspace_checks.CHECKS, looked_at)
            done.put(list(_in_time(about, found, patience)))

    for member in (*seen.members, *(None,) * AT_ONCE):
        waiting.put(member)
    for _ in range(AT_ONCE):
        threading.Thread(target=ask, daemon=True).start()
    for _ in seen.members:
        yield from done.get()


def _in_time(about: About, found: Iterable[Finding], patience: float) -> Iterator[Finding]:
    """Yield findings as they come from a thread, and one more where that takes too long."""
    coming: queue.SimpleQueue[Finding | None] = queue.SimpleQueue()

    def look() -> None:
        for one in found:
            coming.put(one)
        coming.put(None)

    threading.Thread(target=look, daemon=True).start()
    deadline = time.monotonic() + patience
    while True:
        try:
            one = coming.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            yield finding(about, "patience", _too_late(about, patience))
            return
        if one is None:
            return
        yield one


def _too_late(about: About, patience: float) -> Verdict:
    advice = {
        "host": "See whether its disks answer: df",
        "engine": "See whether it answers at all: docker version",
        "workspace": f"Start it again: perry workspace restart {about.workspace}",
    }
    words = f"no answer within {patience:g} s; what was not looked at yet is left out"
    return failure(words, advice[about.subject])
