"""Fills the archive with what the places' sessions say, as they say it.

What the mirror tells of is what is due; the messages are read from the place that has
them, one place after the other, each for a moment. What is due is known from comparing the archive
with the mirror, so nothing is lost with this process: whatever was not taken in is found due again
by the next. This module must not know how places are reached, or how messages are kept.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from perry.agent.models import Place
from perry.agent.reading import RETRY, WHOLE, Reading, redacted
from perry.archive.archive import Archive
from perry.archive.database import set_aside
from perry.errors import ArchiveBroken, ArchiveError, ArchiveUnusable, PerryError
from perry.sessions.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from perry.agent.ledger import Thing
    from perry.agent.mirror import Mirror
    from perry.agent.models import PlacedSession
    from perry.archive.redaction import Redactor
    from perry.client.session_client import SessionClient
    from perry.config import ArchiveConfig
    from perry.sessions.journal import Journal, Key
    from perry.sessions.subscription import Told

log = logging.getLogger(__name__)

GATHERING = 0.2
"""Seconds that changes are gathered before they are taken in: each commit waits for the disk."""

LONGEST_REST = 1.0  # s
TURN = 1.0  # s for a place, after which it is looked what else is due
NOW = 5 * 60 * 1000  # ms in which a session's last activity is now
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
        self._due: dict[str, dict[Key, float]] = {}
        self._subscription: Subscription[Thing] | None = None
        self._is_off = False
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
            problem = self._problem
            raise ArchiveUnusable(
                problem.message if problem else "The archive isn't open yet",
                hint=problem.hint if problem else "Try again in a moment.",
            )
        return self._archive

    @property
    def problem(self) -> PerryError | None:
        """Why nothing can be taken in now, None while it can."""
        return self._problem

    @property
    def pending(self) -> int:
        """How many sessions are still to be taken in as they are now, as far as is known."""
        if self._is_off:
            return 0
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
            self._settled.wait_for(lambda: self._is_settled(place), patience)

    def _is_settled(self, place: str) -> bool:
        heard = self._subscription
        return heard is not None and not heard.behind and not self._due.get(place)

    def _run(self) -> None:
        self._journal.listen(self._woken.set)
        while not self._stopped.is_set():
            wait = RETRY
            try:
                self._archive = self._archive or Archive(self._path)
                self._take_in_all()
            except ArchiveBroken as error:
                if self._replace(error):
                    wait = 0.0
            except PerryError as error:
                if self._problem is None:
                    log.warning("%s", error.message)
                self._problem = error
            except Exception as error:
                # An intake that has died would lose all that is said from then on.
                log.exception("filling the archive failed")
                self._problem = ArchiveUnusable(f"Filling it failed: {type(error).__name__}")
            self._stopped.wait(wait)
        self._journal.unlisten(self._woken.set)

    def _replace(self, error: ArchiveBroken) -> bool:
        """Make room for a new archive, into which what is live is taken anew; tells whether."""
        archive, self._archive = self._archive, None
        try:
            aside = set_aside(self._path) if archive is None else archive.set_aside()
        except OSError as failure:
            log.error("%s, and can't be set aside: %s", error.message, failure)  # noqa: TRY400 - no traceback
            self._problem = error
            return False
        log.error("%s; it is kept as %s, and a new one begun", error.message, aside)
        return True

    def _take_in_all(self) -> None:
        """Take in what is due, without an end. Raises ArchiveError."""
        subscription = Subscription(self._journal, None)
        self._due.clear()
        while not self._stopped.is_set():
            self._woken.clear()  # before reading: what comes in between wakes once more
            self._is_off = self.archive.is_off
            if self._is_off:
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
            has_worked = False
            for place in [*self._due]:
                has_worked |= self._take_in(place)
            self._problem = None
            with self._settled:
                self._settled.notify_all()
            if has_worked:
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
            self._due.setdefault(told.change.key[0], {}).setdefault(told.change.key, 0.0)

    def _compare(self, place: Place) -> None:
        """Find what is due of a place that can be asked; what is only remembered can't be read."""
        if place.via in ASKABLE:
            known = self._mirror.sessions(workspace=place.name, children=True)
            sessions = [redacted(session, self._redactor) for session in known]
            stale = self.archive.stale(place.name, sessions)
            due: dict[Key, float] = {(place.name, one.agent_type, one.id): 0.0 for one in stale}
            self._due[place.name] = {**due, **self._due.get(place.name, {})}

    def _take_in(self, name: str) -> bool:
        """Take in some of what is due of a place; tells whether there was anything to do.

        What is being said now comes first, then the oldest: what comes in last is found first.
        """
        place = self._mirror.place(name)
        sessions = self._sessions_due(name)
        if place is None or place.via not in ASKABLE or not sessions:
            return False
        self._rested_at = began = time.monotonic()

        def go_on() -> bool:
            return not self._stopped.is_set() and time.monotonic() - began < TURN

        try:
            with self._asking(name) as client:
                reading = Reading(
                    client, self.archive, self._redactor, go_on=go_on, rest=self._rest
                )
                for session, wait in reading.read(sessions):
                    self._done(session, wait)
        except ArchiveError:
            raise
        except PerryError as error:
            log.info("sessions of %s are taken in later: %s", name, error.message)
            for key in self._due[name]:
                self._due[name][key] = time.monotonic() + RETRY
        return True

    def _sessions_due(self, name: str) -> list[PlacedSession]:
        """List what of a place is to be read now, and forget what is gone or too old."""
        oldest = max(self._oldest() or 0, self.archive.floor)
        known = {key: self._mirror.session(key) for key in self._due[name]}
        wanted = {key: one for key, one in known.items() if one and one.last_activity >= oldest}
        self._due[name] = {key: self._due[name][key] for key in wanted}
        now, recent = time.monotonic(), time.time() * 1000 - NOW
        sessions = [one for key, one in wanted.items() if self._due[name][key] <= now]
        return sorted(sessions, key=lambda one: (one.last_activity < recent, one.last_activity))

    def _rest(self) -> None:
        """Leave the processor to others for a while after some work."""
        worked = time.monotonic() - self._rested_at
        self._stopped.wait(min(LONGEST_REST, REST * worked))
        self._rested_at = time.monotonic()

    def _done(self, session: PlacedSession, wait: float) -> None:
        """Take a session off the list, unless it has changed since, or is to be read again."""
        key = (session.workspace, session.agent_type, session.id)
        due = self._due.get(session.workspace, {})
        if wait != WHOLE:
            due[key] = time.monotonic() + wait
        elif self._mirror.session(key) in {None, session}:
            due.pop(key, None)

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
