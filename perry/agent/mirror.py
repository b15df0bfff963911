"""What the daemon knows of every place's sessions, in memory and ready to be listed.

The keepers put in what their places say, whole or change by change; questions are answered from
here without asking anybody, so that a place which doesn't answer delays no other. Each change goes
to the ledger first. This module must not know how places are reached.
"""

from __future__ import annotations

import secrets
import threading
from bisect import bisect_left
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from perry.agent.models import Place, PlacedSession, placed
from perry.errors import LedgerUnwritable
from perry.sessions.journal import kind_of
from perry.workspace.names import HOST

if TYPE_CHECKING:
    from perry.agent.ledger import Ledger, Thing
    from perry.agent.models import Standing
    from perry.sessions.journal import Key, Kind
    from perry.sessions.models import Session

Listing = tuple[PlacedSession, ...]
Asked = tuple[str | None, str | None, bool]
"""What is listed: a place, a coding agent (None for all), and whether children are, too."""

Known = dict["Key", PlacedSession]
One = tuple[PlacedSession | None, PlacedSession | None]
Changed = tuple["Kind", "Key", "Thing | None"]


class Mirror:
    """The sessions of all places; may be used from any thread.

    What the ledger knows from an earlier run is shown as remembered until its place is read.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._journal = ledger.journal
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._places: dict[str, Place] = {}
        self._known: dict[str, Known] = {}
        self._listings: dict[Asked, Listing] = {}
        self._version = 0
        self._run = secrets.token_hex(8)
        for key, thing in ledger.things():
            if isinstance(thing, Place):
                known_until = 0 if thing.as_of is None else thing.as_of
                self._places[key[0]] = msgspec.structs.replace(
                    thing, via="memory", as_of=known_until
                )
            else:
                self._known.setdefault(key[0], {})[key] = thing

    @property
    def run(self) -> str:
        """Name the run of versions: those of two daemons can't be compared."""
        return self._run

    @property
    def version(self) -> int:
        """A number that rises with every change of what is listed."""
        return self._version

    def places(self) -> tuple[Place, ...]:
        """List how each place is known, the host first and then by name."""
        with self._lock:
            found = list(self._places.values())
        return tuple(sorted(found, key=lambda place: (place.name != HOST, place.name)))

    def place(self, name: str) -> Place | None:
        """Return how a place is known, None for one that isn't."""
        with self._lock:
            return self._places.get(name)

    def session(self, key: Key) -> PlacedSession | None:
        """Return one session by its place, coding agent and id, None where there is none."""
        with self._lock:
            return self._known.get(key[0], {}).get(key)

    def standing(self, key: Key) -> Standing:
        """Tell where a session stands, whether its place has it or not."""
        return "archived" if self.session(key) is None else self.stands(key[0])

    def stands(self, name: str) -> Standing:
        """Tell where the sessions stand that a place has."""
        place = self.place(name)
        return "live" if place is not None and place.via in {"host", "worker"} else "stopped"

    def sessions(
        self, *, workspace: str | None = None, agent: str | None = None, children: bool = False
    ) -> Listing:
        """List sessions, newest activity first; the very same tuple until something changes."""
        asked = (workspace, agent, children)
        with self._lock:
            found = self._listings.get(asked)
            if found is None:
                names = self._known if workspace is None else (workspace,)
                sessions = (it for name in names for it in self._known.get(name, {}).values())
                fitting = [session for session in sessions if _fits(session, asked)]
                found = tuple(sorted(fitting, key=_age))
                if found:  # whatever is asked for, few combinations have sessions
                    self._listings[asked] = found
            return found

    def put_place(self, place: Place) -> None:
        """Take in how a place is known now. Raises LedgerUnwritable."""
        with self._writing:
            before = self._places.get(place.name)
            if before is None or _news(before) != _news(place):
                self._journal.add([(kind_of(before, place), (place.name,), place)])
            with self._lock:
                self._places[place.name] = place

    def replace(self, place: Place, sessions: Iterable[Session]) -> None:
        """Take in all sessions of a place at once. Raises LedgerUnwritable."""
        name = place.name
        now = {_key(name, session): placed(session, name) for session in sessions}
        with self._writing:
            before = self._known.get(name, {})
            now |= {key: was for key, was in before.items() if now.get(key) == was}  # kept once
            changes: list[Changed] = [
                (kind_of(before.get(key), session), key, session)
                for key, session in sorted(now.items(), key=lambda item: item[1].last_activity)
                if before.get(key) != session
            ]
            changes += [("deleted", key, None) for key in before if key not in now]
            self._change(name, now, changes)
        self.put_place(place)

    def put(self, name: str, session: Session) -> None:
        """Take in one session as it is now. Raises LedgerUnwritable."""
        key, now = _key(name, session), placed(session, name)
        with self._writing:
            before = self._known.get(name, {})
            was = before.get(key)
            if was != now:
                changes: list[Changed] = [(kind_of(was, now), key, now)]
                self._change(name, {**before, key: now}, changes, (was, now))

    def drop(self, name: str, agent: str, session_id: str) -> None:
        """Forget one session. Raises LedgerUnwritable."""
        gone = (name, agent, session_id)
        with self._writing:
            before = self._known.get(name, {})
            if gone in before:
                left = {key: session for key, session in before.items() if key != gone}
                self._change(name, left, [("deleted", gone, None)], (before[gone], None))

    def forget(self, name: str) -> None:
        """Forget a place and its sessions: it is gone. Raises LedgerUnwritable."""
        with self._writing:
            known = self._known.get(name, {})
            changes: list[Changed] = [("deleted", key, None) for key in known]
            self._change(name, None, changes)
            if name in self._places:
                self._journal.add([("deleted", (name,), None)])
                with self._lock:
                    del self._places[name]

    def _change(
        self, name: str, now: Known | None, changes: Iterable[Changed], one: One | None = None
    ) -> None:
        """Show a place's sessions as they are now, then tell; nothing is shown that can't be.

        `one` is the only session that changed, as it was and as it is.
        """
        before = self._known.get(name)
        self._show(name, now, one)
        try:
            self._journal.add(changes)
        except LedgerUnwritable:
            self._show(name, before, None)
            raise

    def _show(self, name: str, now: Known | None, one: One | None) -> None:
        with self._lock:
            if now is None:
                self._known.pop(name, None)
            else:
                self._known[name] = now
            self._listings = (
                {}
                if one is None
                else {
                    asked: _moved(listing, asked, *one) for asked, listing in self._listings.items()
                }
            )
            self._version += 1


def _fits(session: PlacedSession, asked: Asked) -> bool:
    workspace, agent, children = asked
    return (
        workspace in (None, session.workspace)
        and agent in (None, session.agent_type)
        and (children or session.parent_id is None)
    )


def _moved(
    listing: Listing, asked: Asked, was: PlacedSession | None, now: PlacedSession | None
) -> Listing:
    """Bring a list in line with the change of one session; to sort all of it would take longer."""
    if was is not None and _fits(was, asked):
        at = listing.index(was, bisect_left(listing, _age(was), key=_age))
        listing = listing[:at] + listing[at + 1 :]
    if now is not None and _fits(now, asked):
        at = bisect_left(listing, _age(now), key=_age)
        listing = (*listing[:at], now, *listing[at:])
    return listing


def _age(session: PlacedSession) -> int:
    return -session.last_activity


def _news(place: Place) -> Place:
    """Leave out what changes without being news: how old is what is shown."""
    return msgspec.structs.replace(place, as_of=None if place.as_of is None else 0)


def _key(name: str, session: Session) -> Key:
    return name, session.agent_type, session.id
