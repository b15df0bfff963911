"""The sessions of one place read in this process, with the questions and answers of a worker.

The host has no worker: an index of its own files answers for it, and whoever asks gets what a
worker over the same files would say, errors and limits included. Who keeps the index fresh is the
caller's to know: this module must not, nor whose files they are.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Self

from perry.client.events import Event
from perry.client.quoting import plain
from perry.client.session_client import (
    NOT_NOW,
    in_the_way,
    messages_of,
    not_deleted,
    not_found,
    not_kept,
    refused,
    require_numbers,
)
from perry.errors import (
    SessionError,
    SessionInTheWay,
    SessionNotFound,
    SessionNotKept,
    WorkerFailure,
)
from perry.protocol import DEFAULT_PAGE, HEARTBEAT
from perry.sessions.search import LONGEST_QUERY, always, search_page, words_in
from perry.sessions.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import TracebackType

    from perry.sessions.index import SessionIndex
    from perry.sessions.models import DeletedSession, Message, MessagePage, SearchPage, Session
    from perry.sessions.subscription import Told


class LocalClient:
    """Asks an index in this process; a SessionClient.

    `workspace` is for error messages. Other threads may ask the same index, through other clients
    as well. It is as fresh as its last `refresh` unless something watches its files.
    """

    def __init__(self, index: SessionIndex, *, workspace: str) -> None:
        self.workspace = workspace
        self._index = index

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: the index is somebody else's, and nothing was opened for the asking."""

    def list_sessions(
        self,
        *,
        agent: str | None = None,
        children: bool = False,
        limit: int | None = None,
        offset: int | None = None,
    ) -> tuple[Session, ...]:
        """List sessions, newest activity first; all of them without `limit`."""
        require_numbers(self.workspace, limit=limit, offset=offset)
        start = offset or 0
        found = self._index.listing(agent=agent or None, children=children)
        return found[start : None if limit is None else start + limit]

    def search(
        self,
        words: str,
        *,
        agent: str | None = None,
        since: int | None = None,
        limit: int = DEFAULT_PAGE,
        offset: int = 0,
        go_on: Callable[[], bool] = always,
    ) -> SearchPage:
        """Find what holds all the words, as a worker does; asks now and then whether to `go_on`."""
        require_numbers(self.workspace, since=since, limit=limit, offset=offset)
        if len(words) > LONGEST_QUERY:
            raise refused(self.workspace, f"q is longer than {LONGEST_QUERY} characters")
        return search_page(
            self._index,
            words_in(words),
            agent=agent or None,
            since=since,
            limit=limit,
            offset=offset,
            go_on=go_on,
        )

    def get_session(self, session_id: str, *, agent: str | None = None) -> Session:
        """Get one session; raises SessionNotFound."""
        with self._errors(session_id):
            return self._index.get(session_id, agent=agent or None)

    def list_messages(
        self,
        session_id: str,
        *,
        limit: int = DEFAULT_PAGE,
        offset: int = 0,
        agent: str | None = None,
    ) -> MessagePage:
        """Get a page of messages in time order; `offset` counts back from the newest.

        Raises SessionNotFound, and WorkerFailure while the session keeps changing.
        """
        require_numbers(self.workspace, limit=limit, offset=offset)
        with self._errors(session_id):
            return self._index.messages(session_id, limit=limit, offset=offset, agent=agent or None)

    def iterate_messages(
        self,
        session_id: str,
        *,
        agent: str | None = None,
        page: int = DEFAULT_PAGE,
        start: int = 0,
    ) -> Iterator[Message]:
        """Yield all messages of a session in time order, as `messages_of` does."""
        return messages_of(self, session_id, agent=agent, page=page, start=start)

    def events(self, since: str | None = None) -> Generator[Event, None, None]:
        """Yield what changes, from the event with the id `since` on, or from now.

        The first is `ready`, or `reset` where what happened since is not known any more. Has no
        end; ids of any client of the same index will do.
        """
        subscription = Subscription(self._index.journal, since)
        woken = threading.Event()
        self._index.journal.listen(woken.set)
        try:
            while True:
                woken.clear()  # before reading: what comes in between wakes once more
                told = [*subscription.unread()]
                yield from map(_event, told)
                if not told:
                    woken.wait(HEARTBEAT)
        finally:
            self._index.journal.unlisten(woken.set)

    def delete_session(
        self, session_id: str, *, agent: str | None = None, for_good: bool = False
    ) -> None:
        """Delete a session with its children and side files, so that it can be restored.

        Nothing is kept of one that is deleted `for_good`. Raises SessionNotFound, SessionNotKept
        where it can't be kept and isn't deleted, and WorkerFailure where it can't be deleted.
        """
        with self._errors(session_id):
            self._index.delete(session_id, agent=agent or None, for_good=for_good)

    def list_deleted(self) -> tuple[DeletedSession, ...]:
        """List what can be restored, what was deleted last first."""
        with self._errors(""):
            return self._index.deleted()

    def restore_session(self, session_id: str, *, agent: str | None = None) -> None:
        """Bring back what was deleted last under an id; a session that is there is no error.

        Raises SessionNotFound where nothing is kept of it, SessionInTheWay where something else is
        in its place by now, and WorkerFailure where its files can't be written.
        """
        try:
            with self._errors(session_id):
                self._index.restore(session_id, agent=agent or None)
        except SessionNotFound as error:
            raise not_deleted(plain(session_id), self.workspace) from error

    def refresh(self) -> None:
        """Look at all files again."""
        self._index.refresh()

    @contextlib.contextmanager
    def _errors(self, session_id: str) -> Iterator[None]:
        try:
            yield
        except SessionNotFound as error:
            raise not_found(plain(session_id), self.workspace) from error
        except SessionNotKept as error:
            raise not_kept(error.message, self.workspace) from error
        except SessionInTheWay as error:
            raise in_the_way(error.message, self.workspace) from error
        except SessionError as error:
            raise WorkerFailure(
                f"{error.message} (in {self.workspace}).",
                status=NOT_NOW,
                hint=error.hint,
                workspace=self.workspace,
            ) from error


def _event(told: Told[Session]) -> Event:
    if told.change is None:
        return Event(told.id, told.kind)
    agent, session_id = told.change.key
    return Event(told.id, told.kind, told.change.now, session_id, agent)
