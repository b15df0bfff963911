"""What changed lately in the index, for whoever wants to hear of it.

Kept like a compacted log: of each session only the last change, in the order of these changes, so
the journal is as small as the number of sessions that changed lately, whatever goes on in them,
and who reads slowly skips states that were overtaken. A reader keeps nothing here but a number,
its position, so none can hold the index back or make it grow. This module must not know who reads
or how readers are told.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perry.sessions.models import Session
    from perry.sessions.source import Entry

CAPACITY = 4096
"""Sessions whose last change is remembered; 10,000 sessions changing at once are a reset."""

Kind = Literal["created", "updated", "deleted"]


Key = tuple[str, ...]
"""What a journal tells apart: (coding agent, session id) in an index."""

Thing = TypeVar("Thing")


class Change(NamedTuple, Generic[Thing]):
    """The last change of one thing, as it looks from a reader's position.

    `now` is the session as it is, None where it was deleted.
    """

    sequence: int
    kind: Kind
    key: Key
    now: Thing | None


class Unread(NamedTuple, Generic[Thing]):
    """Changes after a position, oldest first, and the position after them."""

    changes: list[Change[Thing]]
    position: int


class Last(NamedTuple, Generic[Thing]):
    """A thing's last change, and when it was first and last created, as far as is known here."""

    sequence: int
    first: int
    born: int
    now: Thing | None


class Journal(Generic[Thing]):
    """The last changes of an index; every method may be called from any thread.

    `run` tells its sequences from those of any other journal; `keep` is given what is new before
    anybody is told of it. A journal that was kept goes on with its run, with `known` in the order
    of the sequences, `position` and `forgotten` (up to which changes are missing).
    """

    def __init__(
        self,
        capacity: int = CAPACITY,
        *,
        run: str | None = None,
        keep: Callable[[Sequence[tuple[Key, Last[Thing]]]], None] = lambda _: None,
        known: Iterable[tuple[Key, Last[Thing]]] = (),
        position: int = 0,
        forgotten: int = 0,
    ) -> None:
        self.run = run or secrets.token_hex(8)
        self._capacity = capacity
        self._keep = keep
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._last: OrderedDict[Key, Last[Thing]] = OrderedDict(known)
        self._position = position
        self._forgotten = forgotten
        self._listeners: frozenset[Callable[[], None]] = frozenset()

    @property
    def position(self) -> int:
        """The sequence of the newest change, 0 before the first."""
        with self._lock:
            return self._position

    def since(self, position: int, limit: int = CAPACITY) -> Unread[Thing] | None:
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
        seen = (_seen_from(position, key, last) for key, last in unread)
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

    def add(self, changes: Iterable[tuple[Key, Thing | None, bool]]) -> None:
        """Take in changes: what changed, how it is now, and whether it is new."""
        with self._writing:
            fresh = self._numbered(changes)
            if not fresh:
                return
            self._keep(fresh)
            with self._lock:
                for key, last in fresh:
                    self._last.pop(key, None)
                    self._last[key] = last
                    self._position = last.sequence
                while len(self._last) > self._capacity:
                    _, oldest = self._last.popitem(last=False)
                    self._forgotten = oldest.sequence
                listeners = self._listeners
        for listener in listeners:
            listener()

    def _numbered(
        self, changes: Iterable[tuple[Key, Thing | None, bool]]
    ) -> list[tuple[Key, Last[Thing]]]:
        """Give changes their sequences; only the writer changes what is read here."""
        fresh: dict[Key, Last[Thing]] = {}
        for sequence, (key, now, is_new) in enumerate(changes, self._position + 1):
            last = fresh.pop(key, None) or self._last.get(key)
            born = sequence if is_new else last.born if last else 0
            fresh[key] = Last(sequence, last.first if last else born, born, now)
        return list(fresh.items())


def changes_between(
    agent: str, before: Mapping[str, Entry], after: Mapping[str, Entry]
) -> list[tuple[Key, Session | None, bool]]:
    """Tell how one coding agent's sessions changed; those without messages don't exist.

    Sessions that didn't change may be left out of both mappings.
    """
    changed: list[tuple[Key, Session | None, bool]] = []
    for session_id, entry in after.items():
        earlier = before.get(session_id)
        if earlier is not None and earlier.session is entry.session:
            continue  # nearly all of them, at every change
        was, now = _listed(earlier), _listed(entry)
        if was != now:
            changed.append(((agent, session_id), now, was is None))
    gone = before.keys() - after.keys()
    changed += [((agent, name), None, False) for name in gone if _listed(before[name]) is not None]
    return changed


def _listed(entry: Entry | None) -> Session | None:
    return entry.session if entry is not None and entry.session.message_count else None


def _seen_from(position: int, key: Key, last: Last[Thing]) -> Change[Thing] | None:
    if last.now is not None:
        kind: Kind = "created" if last.born > position else "updated"
        return Change(last.sequence, kind, key, last.now)
    if last.first > position:
        return None  # never seen from there
    return Change(last.sequence, "deleted", key, None)
