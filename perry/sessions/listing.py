"""The order in which sessions are listed, kept while they change one by one.

Sorting ten thousand sessions takes longer than everything else that an appended line causes, so a
session that changed is moved to its new place instead. This module must not know where sessions
come from.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable
from operator import attrgetter

from perry.sessions.models import Session

_FEW = 64  # changes from which on sorting is quicker than moving


class Listing:
    """The sessions that have messages, newest activity first; any thread may ask at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered: list[Session] = []
        self._asked: dict[tuple[str | None, bool], tuple[Session, ...]] = {}

    def change(self, before: Iterable[Session], after: Iterable[Session]) -> None:
        """Take sessions out and put others in."""
        gone = [session for session in before if session.message_count]
        come = [session for session in after if session.message_count]
        with self._lock:
            if len(gone) + len(come) > _FEW:
                left = {_place(session) for session in gone}
                kept = [s for s in self._ordered if not left or _place(s) not in left]
                # As sorting by `_place` would, but without a tuple for each.
                ordered = sorted([*kept, *come], key=_by_agent)
                ordered.sort(key=_by_id)
                ordered.sort(key=_by_activity, reverse=True)
                self._ordered = ordered
            else:
                for session in gone:
                    del self._ordered[self._find(session)]
                for session in come:
                    self._ordered.insert(self._find(session), session)
            self._asked.clear()

    def sessions(self, agent: str | None, *, children: bool) -> tuple[Session, ...]:
        """List one coding agent's or all sessions, with or without those that others started.

        The very same tuple until something changes.
        """
        with self._lock:
            found = self._asked.get((agent, children))
            if found is None:
                found = tuple(
                    session
                    for session in self._ordered
                    if (agent is None or session.agent_type == agent)
                    and (children or session.parent_id is None)
                )
                if found:  # whatever agents are asked for, few have sessions
                    self._asked[agent, children] = found
            return found

    def _find(self, session: Session) -> int:
        return bisect_left(self._ordered, _place(session), key=_place)


_by_agent = attrgetter("agent_type")
_by_id = attrgetter("id")
_by_activity = attrgetter("last_activity")


def _place(session: Session) -> tuple[int, str, str]:
    return -session.last_activity, session.id, session.agent_type
