"""Reads sessions of one place into the archive, page by page, and of each only what is new.

What can't be read now holds up nothing else: it is to be read again a while later. This module
must not know what is due, or how the place is reached.
"""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

from perry.archive.archive import LATE
from perry.archive.models import Piece
from perry.errors import ArchiveError, SessionNotFound, WorkerError, WorkerFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from perry.agent.models import PlacedSession
    from perry.archive.archive import Archive
    from perry.archive.models import Merged
    from perry.archive.redaction import Redactor
    from perry.client.session_client import SessionClient
    from perry.sessions.models import Message, Session

log = logging.getLogger(__name__)

PAGES = (200, 20, 1)
"""Messages that are asked for at a time; fewer where they are too large for one answer."""

OVERLAP = 16
"""Messages that are read once more, so that a session that was rewritten is noticed."""

FURTHER = 16  # times as many, where the rewriting began before those
BATCH = 200  # messages of several sessions that are taken in together

WHOLE = 0.0
"""A session was taken in as it is; other numbers are the seconds until it is to be read again."""

SOON, RETRY, LONG_RETRY = 0.001, 5.0, 60.0  # s

WAITS: dict[Merged, float] = {"same": WHOLE, "taken": WHOLE, "late": float(LATE), "off": RETRY}

Outcome = tuple["PlacedSession", float]


class Reading:
    """Reads through a place's client; `redactor` blots secrets out, where that is wanted.

    `go_on` is asked now and then whether to, and `rest` called after each bit of work.
    """

    def __init__(
        self,
        client: SessionClient,
        archive: Archive,
        redactor: Redactor | None,
        *,
        go_on: Callable[[], bool],
        rest: Callable[[], None],
    ) -> None:
        self._client = client
        self._archive = archive
        self._redactor = redactor
        self._go_on = go_on
        self._rest = rest

    def read(self, sessions: Iterable[PlacedSession]) -> Iterator[Outcome]:
        """Take in sessions; yields each, and when it is to be read again. Raises ArchiveError."""
        batch: list[tuple[PlacedSession, Piece]] = []
        for session in sessions:
            if not self._go_on():
                break
            try:
                piece = self._end_of(session)
            except SessionNotFound:
                yield session, WHOLE  # gone before it was read
                continue
            except WorkerError as error:  # the others come first, the next time
                log.info("%s of %s: %s", session.id, session.workspace, error.message)
                yield session, RETRY
                break
            if piece is None:
                yield session, self._read_long(session)
                continue
            batch.append((session, piece))
            if sum(len(piece.messages) for _, piece in batch) >= BATCH:
                yield from self._merged(batch)
                batch = []
        yield from self._merged(batch)

    def _end_of(self, session: PlacedSession) -> Piece | None:
        """Read what is new of a session, if that is a page at most."""
        held = self._held(session)
        limit = session.message_count - held + OVERLAP
        if limit > PAGES[0]:
            return None
        try:
            page = self._client.list_messages(session.id, limit=limit, agent=session.agent_type)
        except WorkerFailure:  # such large messages are read fewer at a time
            return None
        start = page.total - len(page.messages)
        return self._piece(session, start, page.messages, is_last=True)

    def _merged(self, batch: list[tuple[PlacedSession, Piece]]) -> Iterator[Outcome]:
        self._rest()
        try:
            merged = self._archive.merge(piece for _, piece in batch)
        except ArchiveError:
            raise
        except Exception:
            # One of them defeats the archive, and must not keep the others out of it.
            log.exception("sessions are taken in one by one")
            for session, _ in batch:
                yield session, self._read_long(session)
            return
        for (session, _), done in zip(batch, merged, strict=True):
            yield session, self._read_long(session) if done == "again" else WAITS[done]

    def _read_long(self, session: PlacedSession) -> float:
        """Read a session piece by piece, from where it is kept up to."""
        for page in PAGES:
            try:
                return self._read_pieces(session, page)
            except SessionNotFound:
                return WHOLE
            except WorkerFailure as error:
                log.info("%s of %s: %s", session.id, session.workspace, error.message)
            except WorkerError:
                return RETRY
            except ArchiveError:
                raise
            except Exception:
                log.exception("%s of %s can't be taken in", session.id, session.workspace)
                return LONG_RETRY
        log.warning("%s of %s can't be read for the archive", session.id, session.workspace)
        return LONG_RETRY

    def _read_pieces(self, session: PlacedSession, page: int) -> float:
        held, overlap = self._held(session), OVERLAP
        while True:
            wait = self._read_from(session, max(0, held - overlap), page)
            if wait is not None:
                return wait
            overlap *= FURTHER

    def _read_from(self, session: PlacedSession, start: int, page: int) -> float | None:
        """Read from a message on; None where what is kept differs from before that."""
        goes_on = False
        messages = self._client.iterate_messages(
            session.id, agent=session.agent_type, page=page, start=start
        )
        while True:
            self._rest()
            part = tuple(itertools.islice(messages, page))
            is_last = len(part) < page
            piece = self._piece(session, start, part, is_last=is_last, goes_on=goes_on)
            [merged] = self._archive.merge([piece])
            if merged == "again":
                return None
            if is_last or WAITS[merged]:
                return WAITS[merged]
            if merged == "taken" and not self._go_on():
                return SOON  # what is kept by now isn't read again
            start, goes_on = start + len(part), True

    def _held(self, session: PlacedSession) -> int:
        """Return how many messages are kept, at most as many as there are."""
        held = self._archive.held((session.workspace, session.agent_type, session.id))
        return min(held, session.message_count)

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
        shown = redacted(session, self._redactor)
        return Piece(session.workspace, shown, start, messages, is_last, goes_on)


def redacted(session: Session, redactor: Redactor | None) -> Session:
    """Give a session as the archive is to show it."""
    return session if redactor is None else redactor.session(session)
