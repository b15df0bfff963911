"""What changed lately in the index, for whoever wants to hear of it.

Kept like a compacted log: of each session only the last change, in the order of these changes, so
the journal is as small as the number of sessions that changed lately, whatever goes on in them,
and who reads slowly skips states that were overtaken. A reader keeps nothing here but a number,
its position, so none can hold the index back or make it grow. This module must not know who reads
or how readers are told.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perry.sessions.models import Session
    from perry.sessions.source import Entry

CAPACITY = 4096
"""Sessions whose last change is remembered; 10,000 sessions changing at once are a reset."""

Kind = Literal["created", "updated", "deleted"]


class Change(NamedTuple):
    """The last change of one session, as it looks from a reader's position.

    `session` is None where it was deleted.
    """

    sequence: int
    kind: Kind
    agent: str
    session_id: str
    session: Session | None

    def data(self) -> object:
        """Give what a reader is told of it, in the shape that it has as JSON."""
        if self.session is None:
            return {"id": self.session_id, "agentType": self.agent}
        return {"session": self.session}


class Unread(NamedTuple):
    """Changes after a position, oldest first, and the position after them."""

    changes: list[Change]
    position: int


class _Last(NamedTuple):
    """A session's last change, and when it was first and last created, as far as is known here."""

    sequence: int
    first: int
    born: int
    session: Session | None


class Journal:
    """The last changes of an index; every method may be called from any thread."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._last: OrderedDict[tuple[str, str], _Last] = OrderedDict()
        self._position = 0
        self._forgotten = 0
        self._listeners: frozenset[Callable[[], None]] = frozenset()

    @property
    def position(self) -> int:
        """The sequence of the newest change, 0 before the first."""
        with self._lock:
            return self._position

    def since(self, position: int, limit: int = CAPACITY) -> Unread | None:
        """Give the oldest changes after a position: of each session only its last.

        `limit` bounds how many are looked at. What was created and deleted again since the position
        is left out, and what was deleted and created again is `created`: each event says how its
        session is now. None means that the position is unknown or too old, so that changes may be
        missing.
        """
        with self._lock:
            if not self._forgotten <= position <= self._position:
                return None
            unread = []
            for key, last in reversed(self._last.items()):
                if last.sequence <= position:
                    break
                unread.append((key, last))
        unread = unread[::-1][:limit]
        seen = (_seen_from(position, *key, last) for key, last in unread)
        return Unread(
            [change for change in seen if change is not None],
            unread[-1][1].sequence if unread else position,
        )

    def listen(self, listener: Callable[[], None]) -> None:
        """Have a function called after changes, in the thread that made them: it must be quick."""
        with self._lock:
            self._listeners |= {listener}

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Stop calling a function; one that isn't called is no error."""
        with self._lock:
            self._listeners -= {listener}

    def record(self, agent: str, before: Mapping[str, Entry], after: Mapping[str, Entry]) -> None:
        """Take in how one coding agent's sessions changed; those without messages don't exist.

        Sessions that didn't change may be left out of both mappings. Called after the index shows
        the change, and by one thread at a time.
        """
        changed: list[tuple[str, Session | None, bool]] = []
        for session_id, entry in after.items():
            earlier = before.get(session_id)
            if earlier is not None and earlier.session is entry.session:
                continue  # nearly all of them, at every change
            was, now = _listed(earlier), _listed(entry)
            if was != now:
                changed.append((session_id, now, was is None))
        gone = before.keys() - after.keys()
        changed += [(name, None, False) for name in gone if _listed(before[name]) is not None]
        if not changed:
            return
        with self._lock:
            for session_id, session, is_new in changed:
                self._add((agent, session_id), session, is_new=is_new)
            listeners = self._listeners
        for listener in listeners:
            listener()

    def _add(self, key: tuple[str, str], session: Session | None, *, is_new: bool) -> None:
        self._position += 1
        last = self._last.pop(key, None)
        born = self._position if is_new else last.born if last else 0
        first = last.first if last else born
        self._last[key] = _Last(self._position, first, born, session)
        if len(self._last) > self._capacity:
            _, oldest = self._last.popitem(last=False)
            self._forgotten = oldest.sequence


def _listed(entry: Entry | None) -> Session | None:
    return entry.session if entry is not None and entry.session.message_count else None


def _seen_from(position: int, agent: str, session_id: str, last: _Last) -> Change | None:
    if last.session is not None:
        kind: Kind = "created" if last.born > position else "updated"
        return Change(last.sequence, kind, agent, session_id, last.session)
    if last.first > position:
        return None  # never seen from there
    return Change(last.sequence, "deleted", agent, session_id, None)
