"""Fills the archive with what the places' sessions say, as they say it.

What the mirror tells of is what is due; the messages are read page by page from the place that has
them, and of a session that has grown only what is new. What is due is known from comparing the
archive with the mirror, so nothing is lost with this process: whatever was not taken in is found
due again by the next. This module must not know how places are reached, or how messages are kept.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING

from perry.agent.models import Place
from perry.archive.archive import Archive
from perry.archive.database import set_aside
from perry.archive.models import Piece
from perry.errors import ArchiveBroken, ArchiveUnusable, PerryError, SessionNotFound, WorkerFailure
from perry.sessions.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from perry.agent.ledger import Thing
    from perry.agent.mirror import Mirror
    from perry.agent.models import PlacedSession
    from perry.archive.redaction import Redactor
    from perry.client.session_client import SessionClient
    from perry.config import ArchiveConfig
    from perry.sessions.journal import Journal, Key
    from perry.sessions.models import Message, Session
    from perry.sessions.subscription import Told

log = logging.getLogger(__name__)

GATHERING = 0.2
"""Seconds that changes are gathered before they are taken in: each commit waits for the disk."""

PAGES = (200, 20, 1)
"""Messages that are asked for at a time; fewer where they are too large for one answer."""

OVERLAP = 16
"""Messages that are read once more, so that a session that was rewritten is noticed."""

LONGEST_REST = 1.0  # s
TURN = 400  # sessions of a place, after which it is looked what else is due
NOW = 5 * 60 * 1000  # ms in which a session's last activity is now
BATCH = 200  # messages of several sessions that are taken in together
RETRY = 5.0  # s until what failed is tried again
PRUNED_EVERY = 3600.0  # s
DAY = 24 * 3600 * 1000  # ms
REST = 1.5
"""Seconds of rest for each second of work: whoever asks a question meanwhile comes first."""

ASKABLE = frozenset({"host", "worker", "snapshot"})


class Intake:
    """Takes in all sessions of the mirror; `asking` gives a client for a place.

    `path` is the archive's file, `config` says how much it keeps, and `redactor` blots out secrets
    of what comes in, where that is wanted.
    """

    def __init__(
        self,
        path: Path,
        mirror: Mirror,
        journal: Journal[Thing],
        asking: Callable[[str], SessionClient],
        *,
        config: ArchiveConfig,
        redactor: Redactor | None = None,
    ) -> None:
        self._path = path
        self._mirror = mirror
        self._journal = journal
        self._asking = asking
        self._config = config
        self._redactor = redactor
        self._archive: Archive | None = None
        self._problem: PerryError | None = None
        self._due: dict[str, set[Key]] = {}
        self._retry_at: dict[str, float] = {}
        self._subscription: Subscription[Thing] | None = None
        self._rested_at = 0.0
        self._pruned_at = 0.0
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._settled = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    @property
    def archive(self) -> Archive:
        """The archive. Raises ArchiveError where it can't be used."""
        if self._archive is None:
            raise self._problem or ArchiveUnusable(
                "The archive isn't open yet", hint="Try again in a moment."
            )
        return self._archive

    @property
    def problem(self) -> PerryError | None:
        """Why nothing can be taken in now, None while it can."""
        return self._problem

    @property
    def pending(self) -> int:
        """How many sessions are not taken in yet as they are now, as far as is known."""
        if self._subscription is None:
            return len(self._mirror.sessions(children=True))
        return self._subscription.behind + sum(map(len, list(self._due.values())))

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; whatever isn't taken in by then will be due at the next start."""
        self._stopped.set()
        self._woken.set()

    def settle(self, place: str, patience: float) -> None:
        """Wait until a place's sessions are taken in, for `patience` seconds at most."""
        with self._settled:
            self._settled.wait_for(lambda: not self._due.get(place), patience)

    def _run(self) -> None:
        self._journal.listen(self._woken.set)
        while not self._stopped.is_set():
            try:
                self._archive = self._archive or Archive(self._path)
                self._take_in_all()
            except ArchiveBroken as error:
                self._replace(error)
            except PerryError as error:
                if self._problem is None:
                    log.warning("%s", error.message)
                self._problem = error
                self._stopped.wait(RETRY)
            except Exception as error:
                # An intake that has died would lose all that is said from then on.
                log.exception("filling the archive failed")
                self._problem = ArchiveUnusable(f"Filling it failed: {type(error).__name__}")
                self._stopped.wait(RETRY)
        self._journal.unlisten(self._woken.set)

    def _replace(self, error: ArchiveBroken) -> None:
        """Begin a new archive; what is live is taken in anew."""
        archive, self._archive = self._archive, None
        if archive is not None:
            archive.close()
        log.error("%s; it is kept as %s, and a new one begun", error.message, set_aside(self._path))

    def _take_in_all(self) -> None:
        """Take in what is due, without an end. Raises ArchiveError."""
        subscription = Subscription(self._journal, None)
        self._due.clear()
        self._retry_at.clear()
        while not self._stopped.is_set():
            self._woken.clear()  # before reading: what comes in between wakes once more
            if self.archive.is_off:
                self._due.clear()
                subscription = Subscription(self._journal, None)
                self._stopped.wait(RETRY)
                continue
            self._prune()
            while told := [*subscription.unread()]:
                for one in told:
                    self._hear(one)
            self._subscription = subscription
            self._due = {place: keys for place, keys in self._due.items() if keys}
            ready = [place for place in self._due if self._is_ready(place)]
            for place in ready:
                self._take_in(place)
            self._problem = None
            with self._settled:
                self._settled.notify_all()
            if ready:
                self._stopped.wait(GATHERING)
            else:
                self._woken.wait(RETRY)

    def _hear(self, told: Told[Thing]) -> None:
        if told.change is None:
            for place in self._mirror.places():
                self._compare(place)
        elif isinstance(told.change.now, Place):
            self._compare(told.change.now)
        elif len(told.change.key) == 1:
            self._due.pop(told.change.key[0], None)
        elif told.change.now is not None:
            self._due.setdefault(told.change.key[0], set()).add(told.change.key)

    def _compare(self, place: Place) -> None:
        """Find what is due of a place that can be asked; what is only remembered can't be read."""
        if place.via in ASKABLE:
            known = self._mirror.sessions(workspace=place.name, children=True)
            sessions = map(self._redacted, known)
            stale = self.archive.stale(place.name, sessions)
            due = {(place.name, one.agent_type, one.id) for one in stale}
            self._due.setdefault(place.name, set()).update(due)

    def _is_ready(self, name: str) -> bool:
        place = self._mirror.place(name)
        is_askable = place is not None and place.via in ASKABLE
        return is_askable and time.monotonic() >= self._retry_at.get(name, 0.0)

    def _take_in(self, place: str) -> None:
        """Take in some of what is due of a place: what is being said now, then the oldest first.

        In the order in which messages come in they are found, the newest first.
        """
        oldest = self._oldest() or 0
        known = {key: self._mirror.session(key) for key in self._due[place]}
        wanted = {key: one for key, one in known.items() if one and one.last_activity >= oldest}
        self._due[place] = set(wanted)
        now = time.time() * 1000 - NOW
        sessions = sorted(
            wanted.values(), key=lambda one: (one.last_activity < now, one.last_activity)
        )[:TURN]
        self._rested_at = time.monotonic()
        try:
            with self._asking(place) as client:
                self._read(client, sessions)
        except ArchiveUnusable:
            raise
        except PerryError as error:
            log.info("sessions of %s are taken in later: %s", place, error.message)
            self._retry_at[place] = time.monotonic() + RETRY

    def _read(self, client: SessionClient, sessions: Iterable[PlacedSession]) -> None:
        batch: list[tuple[PlacedSession, Piece]] = []
        for session in sessions:
            if self._stopped.is_set():
                return
            try:
                piece = self._end_of(client, session)
            except SessionNotFound:
                self._done(session)  # gone before it was read
                continue
            if piece is None:
                self._read_long(client, session)
                continue
            batch.append((session, piece))
            if sum(len(piece.messages) for _, piece in batch) >= BATCH:
                self._merge(client, batch)
                batch = []
        self._merge(client, batch)

    def _end_of(self, client: SessionClient, session: PlacedSession) -> Piece | None:
        """Read what is new of a session, if that is a page at most."""
        held = self.archive.held((session.workspace, session.agent_type, session.id))
        fresh = session.message_count - min(held, session.message_count)
        limit = fresh + OVERLAP
        if limit > PAGES[0]:
            return None
        try:
            page = client.list_messages(session.id, limit=limit, agent=session.agent_type)
        except WorkerFailure:  # such large messages are read fewer at a time
            return None
        start = page.total - len(page.messages)
        return self._piece(session, start, page.messages, is_last=True)

    def _merge(self, client: SessionClient, batch: list[tuple[PlacedSession, Piece]]) -> None:
        self._rest()
        merged = self.archive.merge(piece for _, piece in batch)
        for (session, _), done in zip(batch, merged, strict=True):
            if done == "again":
                self._read_long(client, session, afresh=True)
            else:
                self._done(session)

    def _read_long(
        self, client: SessionClient, session: PlacedSession, *, afresh: bool = False
    ) -> None:
        """Read a session piece by piece, from where it is kept up to or `afresh`."""
        for page in PAGES:
            try:
                self._read_pieces(client, session, page, afresh=afresh)
            except SessionNotFound:
                self._done(session)
            except WorkerFailure as error:
                log.info("%s of %s: %s", session.id, session.workspace, error.message)
                continue
            return
        log.warning("session %s of %s can't be taken in", session.id, session.workspace)
        self._done(session)

    def _read_pieces(
        self, client: SessionClient, session: PlacedSession, page: int, *, afresh: bool
    ) -> None:
        held = self.archive.held((session.workspace, session.agent_type, session.id))
        start = 0 if afresh else max(0, min(held, session.message_count) - OVERLAP)
        goes_on = False
        messages = client.iterate_messages(
            session.id, agent=session.agent_type, page=page, start=start
        )
        while not self._stopped.is_set():
            self._rest()
            part = tuple(itertools.islice(messages, page))
            is_last = len(part) < page
            piece = self._piece(session, start, part, is_last=is_last, goes_on=goes_on)
            if self.archive.merge([piece]) == ["again"]:
                self._read_pieces(client, session, page, afresh=True)
                return
            if is_last:
                self._done(session)
                return
            start, goes_on = start + len(part), True

    def _rest(self) -> None:
        """Leave the processor to others for a while after some work."""
        worked = time.monotonic() - self._rested_at
        self._stopped.wait(min(LONGEST_REST, REST * worked))
        self._rested_at = time.monotonic()

    def _piece(
        self,
        session: PlacedSession,
        start: int,
        messages: tuple[Message, ...],
        *,
        is_last: bool,
        goes_on: bool = False,
    ) -> Piece:
        if self._redactor is not None:
            messages = tuple(map(self._redactor, messages))
        shown = self._redacted(session)
        return Piece(session.workspace, shown, start, messages, is_last, goes_on)

    def _redacted(self, session: PlacedSession) -> Session:
        return session if self._redactor is None else self._redactor.session(session)

    def _done(self, session: PlacedSession) -> None:
        """Take a session off the list, unless it has changed since it was read."""
        key = (session.workspace, session.agent_type, session.id)
        if self._mirror.session(key) in {None, session}:
            self._due.get(session.workspace, set()).discard(key)

    def _prune(self) -> None:
        now = time.monotonic()
        if self._pruned_at and now - self._pruned_at < PRUNED_EVERY:
            return
        self._pruned_at = now
        removed = self.archive.prune(oldest=self._oldest(), largest=self._config.largest)
        if removed:
            log.info("removed %d sessions from the archive, which are beyond its bounds", removed)

    def _oldest(self) -> int | None:
        """Tell since when (ms since the epoch) a session must have been active to be kept."""
        days = self._config.keep_days
        return None if days is None else int(time.time() * 1000) - days * DAY
