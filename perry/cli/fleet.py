"""All running workspaces, asked at once.

Sessions live in the workspaces, so a question about sessions goes to every one that runs; a slow
or broken one must neither hold up nor hide the others. Here are the asking, the sorting and the
finding of a session by the start of its id. This module must not print, and must not know how a
worker is reached or revived.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

from perry.cli.text import counted, one_line, shortened
from perry.errors import (
    PerryError,
    SessionAmbiguous,
    SessionNotFound,
    WorkerUnreachable,
    WorkspaceNotRunning,
)

if TYPE_CHECKING:
    from perry.client.session_client import SessionClient
    from perry.sessions.models import Session
    from perry.workspace.models import Workspace

Answer = TypeVar("Answer")

PATIENCE = 60.0
"""Seconds for all workspaces together; a worker may have to be started first."""

TOLD = 10
"""Candidates of an ambiguous id that are listed."""


@dataclass(frozen=True)
class Found:
    """A session and the workspace it is in."""

    session: Session
    workspace: Workspace


@dataclass(frozen=True)
class Gathered:
    """The sessions of all workspaces, newest activity first, and whoever didn't answer.

    `asked` counts the workspaces that were asked, those in `failures` included.
    """

    found: tuple[Found, ...]
    failures: Mapping[str, PerryError]
    asked: int

    @property
    def nobody_answered(self) -> bool:
        """Whether there were workspaces to ask and none of them answered."""
        return self.asked > 0 and len(self.failures) == self.asked


@dataclass(frozen=True)
class Fleet:
    """The workspaces that questions about sessions go to.

    `connect` reaches a workspace's worker, reviving it where needed, and raises PerryError.
    """

    workspaces: Sequence[Workspace]
    connect: Callable[[Workspace], AbstractContextManager[SessionClient]]

    def sessions(
        self, *, agent: str | None = None, children: bool = False, limit: int | None = None
    ) -> Gathered:
        """Ask all workspaces for their sessions; who can't answer is in `failures`."""

        def listed(workspace: Workspace) -> Sequence[Session]:
            with self.connect(workspace) as client:
                return client.list_sessions(agent=agent, children=children, limit=limit)

        answers, failures = ask_each(self.workspaces, listed, PATIENCE)
        found = [
            Found(session, workspace)
            for workspace in self.workspaces
            for session in answers.get(workspace.name, ())
        ]
        found.sort(key=lambda one: one.session.last_activity, reverse=True)
        return Gathered(tuple(found[:limit]), failures, len(self.workspaces))

    def find(self, prefix: str, *, agent: str | None = None) -> tuple[Found, Gathered]:
        """Find the one session whose id begins with `prefix`, children included.

        Returns it with everything that was gathered on the way. Raises SessionNotFound,
        SessionAmbiguous, and the error of the only workspace asked if that one can't answer.
        """
        gathered = self.sessions(agent=agent, children=True)
        if len(self.workspaces) == 1:
            for failure in gathered.failures.values():
                raise failure
        return resolved(prefix, gathered), gathered


def ask_each(
    workspaces: Sequence[Workspace],
    question: Callable[[Workspace], Answer],
    seconds: float,
) -> tuple[dict[str, Answer], dict[str, PerryError]]:
    """Ask every workspace in a thread of its own; answers and failures by workspace name.

    Who hasn't answered after `seconds` counts as WorkerUnreachable, and its thread is left behind
    (a daemon: it doesn't keep the process alive).
    """
    done: queue.SimpleQueue[tuple[str, Callable[[], Answer]]] = queue.SimpleQueue()

    def ask(workspace: Workspace) -> None:
        outcome = _outcome(lambda: question(workspace))
        done.put((workspace.name, outcome))

    for workspace in workspaces:
        threading.Thread(target=ask, args=(workspace,), daemon=True).start()
    answers: dict[str, Answer] = {}
    failures: dict[str, PerryError] = {}
    deadline = time.monotonic() + seconds
    while len(answers) + len(failures) < len(workspaces):
        try:
            name, outcome = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        try:
            answers[name] = outcome()
        except PerryError as error:
            failures[name] = error
    for workspace in workspaces:
        if workspace.name not in answers and workspace.name not in failures:
            failures[workspace.name] = _too_late(workspace.name, seconds)
    return answers, failures


def _outcome(question: Callable[[], Answer]) -> Callable[[], Answer]:
    """Ask now; what comes back gives the answer, or raises the error, where it is called."""
    try:
        answer = question()
    except Exception as error:  # noqa: BLE001  # raised again in the thread that waits for it
        return _raising(error)
    return lambda: answer


def _raising(error: Exception) -> Callable[[], NoReturn]:
    def raise_it() -> NoReturn:
        raise error

    return raise_it


def _too_late(name: str, seconds: float) -> PerryError:
    return WorkerUnreachable(
        f"The workspace {name} has not answered within {seconds:g} s.",
        hint=f"`perry workspace logs --worker {name}` may say why.",
        workspace=name,
    )


def resolved(prefix: str, gathered: Gathered) -> Found:
    """Pick the one session whose id is `prefix`, or else the one whose id begins with it.

    Raises SessionNotFound and SessionAmbiguous.
    """
    exact = [one for one in gathered.found if one.session.id == prefix]
    fitting = exact or [
        one for one in gathered.found if prefix and one.session.id.startswith(prefix)
    ]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise SessionNotFound(f"No session has the id {prefix!r}.", hint=_unasked(gathered))
    lines = [f"  {_candidate(one)}" for one in fitting[:TOLD]]
    if len(fitting) > TOLD:
        lines.append(f"  and {len(fitting) - TOLD} more")
    raise SessionAmbiguous(
        f"{prefix!r} fits {counted(len(fitting), 'session')}:",
        candidates=tuple(one.session.id for one in fitting),
        hint="\n".join([*lines, "Give more of the id, or --workspace, or --agent."]),
    )


def _candidate(one: Found) -> str:
    title = shortened(one_line(one.session.title), 40)
    return f"{one.session.id}  {one.workspace.name}  {one.session.agent_type}  {title}"


def _unasked(gathered: Gathered) -> str:
    if gathered.failures:
        return f"Not asked, because they can't answer: {', '.join(sorted(gathered.failures))}."
    if not gathered.asked:
        return "No workspace is running; `perry workspace list` shows them all."
    return "`perry session list` shows them all."


def running(workspaces: Sequence[Workspace], only: str | None) -> list[Workspace]:
    """Keep the workspaces that can be asked.

    `only` names the one that is wanted: WorkspaceNotRunning if that one is stopped.
    """
    for workspace in workspaces:
        if workspace.name == only and not workspace.is_running:
            raise WorkspaceNotRunning(
                f"The workspace {only} is {workspace.state}.",
                hint=f"Start it: perry workspace start {only}",
                workspace=only,
            )
    return [one for one in workspaces if one.is_running]


def short_ids(ids: Sequence[str], least: int = 8) -> dict[str, str]:
    """Shorten each id to what tells it from the others, and at least `least` characters."""
    shortest = {}
    ordered = sorted(set(ids))
    for place, one in enumerate(ordered):
        neighbours = ordered[max(0, place - 1) : place] + ordered[place + 1 : place + 2]
        shared = max((_shared(one, other) for other in neighbours), default=0)
        shortest[one] = one[: max(least, shared + 1)]
    return shortest


def _shared(one: str, other: str) -> int:
    """Count the characters that two ids begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
