"""What the daemon knows of every place's sessions, in memory and ready to be listed.

The keepers put in what their places say, whole or change by change; questions are answered from
here without asking anybody, so that a place which doesn't answer delays no other. Each change goes
to the ledger first. This module must not know how places are reached.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from perry.agent.models import Place, PlacedSession, placed
from perry.errors import LedgerUnwritable
from perry.sessions.journal import kind_of
from perry.workspace.names import HOST

if TYPE_CHECKING:
    from perry.agent.ledger import Ledger, Thing
    from perry.sessions.journal import Key, Kind
    from perry.sessions.models import Session

Listing = tuple[PlacedSession, ...]
Known = dict["Key", PlacedSession]
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
        self._listings: dict[tuple[str | None, str | None, bool], Listing] = {}
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

    def sessions(
        self, *, workspace: str | None = None, agent: str | None = None, children: bool = False
    ) -> Listing:
        """List sessions, newest activity first; the very same tuple until something changes."""
        asked = (workspace, agent, children)
        with self._lock:
            found = self._listings.get(asked)
            if found is None:
                names = self._known if workspace is None else (workspace,)
                found = tuple(
                    sorted(
                        (
                            session
                            for name in names
                            for session in self._known.get(name, {}).values()
                            if agent in (None, session.agent_type)
                            and (children or session.parent_id is None)
                        ),
                        key=_activity,
                        reverse=True,
                    )
                )
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
            if before.get(key) != now:
                self._change(
                    name, {**before, key: now}, [(kind_of(before.get(key), now), key, now)]
                )

    def drop(self, name: str, agent: str, session_id: str) -> None:
        """Forget one session. Raises LedgerUnwritable."""
        gone = (name, agent, session_id)
        with self._writing:
            before = self._known.get(name, {})
            if gone in before:
                left = {key: session for key, session in before.items() if key != gone}
                self._change(name, left, [("deleted", gone, None)])

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

    def _change(self, name: str, now: Known | None, changes: Iterable[Changed]) -> None:
        """Show a place's sessions as they are now, then tell; nothing is shown that can't be."""
        before = self._known.get(name)
        self._show(name, now)
        try:
            self._journal.add(changes)
        except LedgerUnwritable:
            self._show(name, before)
            raise

    def _show(self, name: str, now: Known | None) -> None:
        with self._lock:
            if now is None:
                self._known.pop(name, None)
            else:
                self._known[name] = now
            self._listings.clear()
            self._version += 1


def _news(place: Place) -> Place:
    """Leave out what changes without being news: how old is what is shown."""
    return msgspec.structs.replace(place, as_of=None if place.as_of is None else 0)


_activity = attrgetter("last_activity")


def _key(name: str, session: Session) -> Key:
    return name, session.agent_type, session.id
