"""What one subscriber to an index's changes is told next, over HTTP or in the same process.

A subscriber is greeted with `ready`, or with `reset` where changes may be missing, and then told
each change. It keeps nothing but its position. An id is the run of the journal and a sequence in
it: no id of another run fits, and whoever comes with one is told `reset`. This module must not know
how anybody is told, or woken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeVar

from perry.sessions import journal

if TYPE_CHECKING:
    from collections.abc import Iterator

Thing = TypeVar("Thing")

BATCH = 64  # changes read from the journal at a time


class Told(NamedTuple, Generic[Thing]):
    """One event; `id` is where to go on after it, and only `ready` and `reset` have no change."""

    id: str
    kind: Literal["ready", "reset"] | journal.Kind
    change: journal.Change[Thing] | None = None


class Subscription(Generic[Thing]):
    """One subscriber's place in a journal; used by one thread at a time.

    `since` is the id after which to go on; without one it begins now. `place` is the sequence of
    the last change that was told, None before the greeting; whoever tells the next changes without
    reading them here moves it.
    """

    def __init__(self, of: journal.Journal[Thing], since: str | None) -> None:
        self._journal = of
        self._begin = of.position if since is None else self._position_of(since)
        self.place: int | None = None

    @property
    def behind(self) -> int:
        """How many changes there are that were not told of yet."""
        return self._journal.position - (self._position or 0)

    def unread(self) -> Iterator[Told[Thing]]:
        """Yield what comes next, up to a batch; nothing where there is nothing new.

        What is yielded counts as told: who stops in between goes on there.
        """
        position = self._position
        found = None if position is None else self._journal.since(position, BATCH)
        if position is None or found is None:
            self.place = self._journal.position
            yield Told(self._id(self.place), "reset")
        elif self.place is None:
            self.place = position
            yield Told(self._id(position), "ready")
        else:
            for change in found.changes:
                self.place = change.sequence
                yield Told(self._id(change.sequence), change.kind, change)

    @property
    def _position(self) -> int | None:
        return self._begin if self.place is None else self.place

    def _id(self, sequence: int) -> str:
        return f"{self._journal.run}-{sequence}"

    def _position_of(self, event_id: str) -> int | None:
        """Read an id; None for one that isn't of this journal."""
        run, _, sequence = event_id.partition("-")
        known = run == self._journal.run and sequence.isascii() and sequence.isdigit()
        return int(sequence) if known and len(sequence) <= len(str(2**63)) else None
