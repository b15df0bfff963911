"""What changed lately in the index, for whoever wants to hear of it.

A log of the latest changes, numbered without gaps. A reader keeps nothing here but a number, its
position, so none can hold the index back or make it grow: one that stays away for longer than the
log reaches back is told so. This module must not know who reads or how readers are told.
"""

from __future__ import annotations

import itertools
import secrets
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perry.sessions.models import Session
    from perry.sessions.source import Entry

CAPACITY = 4096
"""Changes that are remembered; 10,000 sessions changing at once are a reset."""

WEIGHT = 2 * 1024 * 1024
"""Bytes of texts in them, at most: a session may have a very long first prompt."""

Kind = Literal["created", "updated", "deleted"]

Key = tuple[str, ...]
"""What a journal tells apart: (coding agent, session id) in an index."""

Thing = TypeVar("Thing")


class Change(NamedTuple, Generic[Thing]):
    """One change; `now` is how the thing was after it, None where it was deleted."""

    sequence: int
    kind: Kind
    key: Key
    now: Thing | None


class Unread(NamedTuple, Generic[Thing]):
    """Changes after a position, oldest first, and the position after them."""

    changes: list[Change[Thing]]
    position: int


class Journal(Generic[Thing]):
    """The latest changes of an index; every method may be called from any thread.

    It forgets the oldest changes beyond `capacity` of them, or beyond WEIGHT by what `weigh` says
    of each. `run` tells its sequences from those of any other journal; `keep` is given what is new
    before anybody is told of it. A journal that was kept goes on with its run, its `position`, and
    the changes up to it that are `known`.
    """

    def __init__(
        self,
        capacity: int = CAPACITY,
        *,
        weigh: Callable[[Thing], int],
        run: str | None = None,
        keep: Callable[[Sequence[Change[Thing]]], None] = lambda _: None,
        known: Iterable[Change[Thing]] = (),
        position: int = 0,
    ) -> None:
        self.run = run or secrets.token_hex(8)
        self._capacity = capacity
        self._weigh = weigh
        self._keep = keep
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._log: deque[Change[Thing]] = deque()
        self._weight = 0
        self._position = position
        self._remember(known)
        self._listeners: frozenset[Callable[[], None]] = frozenset()

    @property
    def position(self) -> int:
        """The sequence of the newest change, 0 before the first."""
        with self._lock:
            return self._position

    def since(self, position: int, limit: int = CAPACITY) -> Unread[Thing] | None:
        """Give the oldest changes after a position, at most so many.

        None means that the position is unknown or too old, so that changes may be missing.
        """
        with self._lock:
            unread = self._position - position
            if not 0 <= unread <= len(self._log):
                return None
            if not unread:
                return Unread([], position)
            # From the end, where readers are: a deque is slow in its middle.
            newest = list(itertools.islice(reversed(self._log), unread))
        changes = newest[::-1][:limit]
        return Unread(changes, position + len(changes))

    def listen(self, listener: Callable[[], None]) -> None:
        """Have a function called after changes, in the thread that made them: it must be quick."""
        with self._lock:
            self._listeners |= {listener}

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Stop calling a function; one that isn't called is no error."""
        with self._lock:
            self._listeners -= {listener}

    def add(self, changes: Iterable[tuple[Kind, Key, Thing | None]]) -> None:
        """Take in changes: what happened to what, and how it is now."""
        with self._writing:
            numbered = enumerate(changes, self._position + 1)
            fresh = [Change(sequence, *change) for sequence, change in numbered]
            if not fresh:
                return
            self._keep(fresh)
            with self._lock:
                self._remember(fresh)
                self._position = fresh[-1].sequence
                listeners = self._listeners
        for listener in listeners:
            listener()

    def _remember(self, changes: Iterable[Change[Thing]]) -> None:
        for change in changes:
            self._log.append(change)
            self._weight += self._weight_of(change)
        while len(self._log) > self._capacity or self._weight > WEIGHT:
            self._weight -= self._weight_of(self._log.popleft())

    def _weight_of(self, change: Change[Thing]) -> int:
        return 0 if change.now is None else self._weigh(change.now)


def weight(session: Session) -> int:
    """Tell how many bytes a session's texts take in memory."""
    texts = (session.title, session.first_prompt, session.directory, session.file_path)
    return sum(map(sys.getsizeof, texts))


def changes_between(
    agent: str, before: Mapping[str, Entry], after: Mapping[str, Entry]
) -> list[tuple[Kind, Key, Session | None]]:
    """Tell how one coding agent's sessions changed; those without messages don't exist.

    Sessions that didn't change may be left out of both mappings.
    """
    changed: list[tuple[Kind, Key, Session | None]] = []
    for session_id, entry in after.items():
        earlier = before.get(session_id)
        if earlier is not None and earlier.session is entry.session:
            continue  # nearly all of them, at every change
        was, now = _listed(earlier), _listed(entry)
        if was != now:
            changed.append((kind_of(was, now), (agent, session_id), now))
    gone = before.keys() - after.keys()
    changed += [
        ("deleted", (agent, name), None) for name in gone if _listed(before[name]) is not None
    ]
    return changed


def kind_of(was: object | None, now: object | None) -> Kind:
    """Name what happened to a thing that was, and is now, so or not there (None)."""
    if now is None:
        return "deleted"
    return "created" if was is None else "updated"


def _listed(entry: Entry | None) -> Session | None:
    return entry.session if entry is not None and entry.session.message_count else None
