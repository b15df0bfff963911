"""The host and all workspaces, asked at once.

Sessions live on the host and in the workspaces, so a question about sessions goes to each of these
places; a slow or broken one must neither hold up nor hide the others. Here are the asking, the
sorting and the finding of a session by the start of its id. This module must not print, and must
not know how a worker is reached or revived, or how the host or a stopped workspace is read.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias, TypeVar

from perry.cli.host import Host
from perry.cli.text import counted, one_line, shortened
from perry.errors import (
    PerryError,
    SessionAmbiguous,
    SessionNotFound,
    WorkerUnreachable,
    WorkspaceNotRunning,
)
from perry.workspace import names

if TYPE_CHECKING:
    from perry.cli.snapshots import Taken
    from perry.client.session_client import SessionClient
    from perry.sessions.models import Session
    from perry.workspace.models import Workspace

Answer = TypeVar("Answer")

Place: TypeAlias = "Workspace | Host"
"""Where sessions are."""

Standing = Literal["live", "stopped", "archived"]
"""Whether the place itself answered for a session, a snapshot of its files, or the archive."""

ENGINE = "the engine"
"""What couldn't answer where the workspaces are not even known."""

PATIENCE = 60.0
"""Seconds for all workspaces together; a worker may have to be started first."""

TOLD = 10
"""Candidates of an ambiguous id that are listed."""


@dataclass(frozen=True)
class Archived:
    """A place that the archive answers for; `reason` says in words why not the place itself."""

    name: str
    reason: str
    home: str = ""


@dataclass(frozen=True)
class Found:
    """A session and the place it is in; `taken` is the snapshot that it was read from, if any."""

    session: Session
    place: Place | Archived
    taken: Taken | None = None

    @property
    def standing(self) -> Standing:
        """Who answered for it."""
        if isinstance(self.place, Archived):
            return "archived"
        return "live" if self.taken is None else "stopped"


@dataclass(frozen=True)
class Gathered:
    """The sessions of all places, newest activity first, and whoever didn't answer.

    `asked` names the places that were asked, those in `failures` included; `taken` tells of those
    that were read from a snapshot.
    """

    found: tuple[Found, ...]
    failures: Mapping[str, PerryError]
    asked: tuple[str, ...]
    taken: Mapping[str, Taken] = field(default_factory=dict)

    @property
    def nobody_answered(self) -> bool:
        """Whether there were places to ask and none of them answered."""
        return bool(self.asked) and set(self.asked) <= self.failures.keys()


@dataclass(frozen=True)
class Fleet:
    """The places that questions about sessions go to: the host, and workspaces.

    `connect` reaches who answers for a place, reviving a worker where needed, and raises
    PerryError; where that was a snapshot, `taken` has it by then, by the place's name. `missing` is
    what keeps other places from being asked at all.
    """

    places: Sequence[Place]
    connect: Callable[[Place], AbstractContextManager[SessionClient]]
    missing: Mapping[str, PerryError] = field(default_factory=dict)
    taken: Mapping[str, Taken] = field(default_factory=dict)

    def sessions(
        self, *, agent: str | None = None, children: bool = False, limit: int | None = None
    ) -> Gathered:
        """Ask all places for their sessions; who can't answer is in `failures`."""

        def listed(place: Place) -> Sequence[Session]:
            with self.connect(place) as client:
                return client.list_sessions(agent=agent, children=children, limit=limit)

        answers, failures = ask_each(self.places, listed, PATIENCE)
        taken = {name: self.taken[name] for name in answers if name in self.taken}
        found = [
            Found(session, place, taken.get(place.name))
            for place in self.places
            for session in answers.get(place.name, ())
        ]
        found.sort(key=lambda one: one.session.last_activity, reverse=True)
        asked = tuple(place.name for place in self.places)
        return Gathered(tuple(found[:limit]), {**self.missing, **failures}, asked, taken)

    def find(self, prefix: str, *, agent: str | None = None) -> tuple[Found, Gathered]:
        """Find the one session whose id begins with `prefix`, children included.

        Returns it with everything that was gathered on the way. Raises SessionNotFound,
        SessionAmbiguous, and the error of the only place there is if that one can't answer.
        """
        gathered = self.sessions(agent=agent, children=True)
        return self.pick(prefix, gathered), gathered

    def pick(self, prefix: str, gathered: Gathered) -> Found:
        """Find a session in what was gathered; raises what `find` raises."""
        if len(self.places) == 1 and not self.missing:
            for failure in gathered.failures.values():
                raise failure
        return resolved(prefix, gathered)


def ask_each(
    places: Sequence[Place],
    question: Callable[[Place], Answer],
    seconds: float,
) -> tuple[dict[str, Answer], dict[str, PerryError]]:
    """Ask every place in a thread of its own; answers and failures by the place's name.

    Who hasn't answered after `seconds` counts as WorkerUnreachable, and its thread is left behind
    (a daemon: it doesn't keep the process alive).
    """
    done: queue.SimpleQueue[tuple[str, Callable[[], Answer]]] = queue.SimpleQueue()

    def ask(place: Place) -> None:
        outcome = _outcome(lambda: question(place))
        done.put((place.name, outcome))

    for place in places:
        threading.Thread(target=ask, args=(place,), daemon=True).start()
    answers: dict[str, Answer] = {}
    failures: dict[str, PerryError] = {}
    deadline = time.monotonic() + seconds
    while len(answers) + len(failures) < len(places):
        try:
            name, outcome = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        try:
            answers[name] = outcome()
        except PerryError as error:
            failures[name] = error
    for place in places:
        if place.name not in answers and place.name not in failures:
            failures[place.name] = _too_late(place, seconds)
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


def _too_late(place: Place, seconds: float) -> PerryError:
    if isinstance(place, Host):
        return WorkerUnreachable(
            f"The host's sessions were not read within {seconds:g} s.",
            hint="`perry worker serve` reads them in its own time; after it they are remembered.",
            workspace=place.name,
        )
    if not place.is_running:
        return WorkerUnreachable(
            f"The files of the workspace {place.name} ({place.state}) were not copied within "
            f"{seconds:g} s.",
            hint=f"What was copied is kept: ask again, or start it: "
            f"perry workspace start {place.name}",
            workspace=place.name,
        )
    return WorkerUnreachable(
        f"The workspace {place.name} has not answered within {seconds:g} s.",
        hint=f"`perry workspace logs --worker {place.name}` may say why.",
        workspace=place.name,
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
        hint="\n".join([*lines, f"Give {_what_tells_apart(fitting)}."]),
    )


def _what_tells_apart(fitting: Sequence[Found]) -> str:
    ways = {
        "more of the id": len({one.session.id for one in fitting}),
        "--workspace": len({one.place.name for one in fitting}),
        "--agent": len({one.session.agent_type for one in fitting}),
    }
    return ", or ".join(way for way, number in ways.items() if number > 1)


def _candidate(one: Found) -> str:
    title = shortened(one_line(one.session.title), 40)
    return f"{one.session.id}  {one.place.name}  {one.session.agent_type}  {title}"


def _unasked(gathered: Gathered) -> str:
    if not gathered.failures:
        return "`perry session list` shows them all."
    lines = [f"  {name}: {error.message}" for name, error in sorted(gathered.failures.items())]
    return "\n".join(["Not asked, because they can't answer:", *lines])


def whereabouts(places: Sequence[str]) -> str:
    """Say where was looked: `on the host and in 2 workspaces`."""
    on_host = names.HOST in places
    count = len(places) - on_host
    parts = ["on the host"] * on_host + [f"in {counted(count, 'workspace')}"] * bool(count)
    return " and ".join(parts)


NONE_RUNNING = "no workspace is running; start one: perry workspace init NAME"


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
