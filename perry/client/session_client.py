"""What can be asked about the sessions of one place, whoever answers.

A worker answers for its workspace over HTTP; for the host, an index in this process does. Whoever
asks takes a `SessionClient` and need not know which. This module must not know how either finds
its answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from perry.errors import SessionInTheWay, SessionNotFound, SessionNotKept, WorkerFailure
from perry.protocol import DEFAULT_PAGE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from types import TracebackType

    from perry.client.events import Event
    from perry.sessions.models import (
        DeletedSession,
        Message,
        MessagePage,
        SearchPage,
        Session,
    )

RESTARTS = 20  # of a page whose session grew while it was read

OK, BAD_REQUEST, IN_THE_WAY, NOT_NOW, NO_ROOM = 200, 400, 409, 503, 507
"""The HTTP statuses that stand in a WorkerFailure, whether there was HTTP or not."""


class SessionClient(Protocol):
    """Asks about the sessions of one place; a context manager that ends with it.

    `workspace` is the workspace's name, or `host`. Every method may raise WorkerError; its
    WorkerFailure has the HTTP status that a worker answers with, or would.
    """

    workspace: str

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""

    def close(self) -> None:
        """Give back what was opened for the asking."""

    def list_sessions(
        self,
        *,
        agent: str | None = None,
        children: bool = False,
        limit: int | None = None,
        offset: int | None = None,
    ) -> tuple[Session, ...]:
        """List sessions, newest activity first; all of them without `limit`."""

    def search(
        self,
        words: str,
        *,
        agent: str | None = None,
        since: int | None = None,
        limit: int = DEFAULT_PAGE,
        offset: int = 0,
    ) -> SearchPage:
        """Find what holds all the words, whatever their case: newest sessions first.

        `since` is in milliseconds since the epoch; `offset` leaves out so many hits; there are 1000
        at most.
        """

    def get_session(self, session_id: str, *, agent: str | None = None) -> Session:
        """Get one session; raises SessionNotFound."""

    def list_messages(
        self,
        session_id: str,
        *,
        limit: int = DEFAULT_PAGE,
        offset: int = 0,
        agent: str | None = None,
    ) -> MessagePage:
        """Get a page of messages in time order; `offset` counts back from the newest.

        Raises SessionNotFound.
        """

    def iterate_messages(
        self,
        session_id: str,
        *,
        agent: str | None = None,
        page: int = DEFAULT_PAGE,
        start: int = 0,
    ) -> Iterator[Message]:
        """Yield all messages of a session in time order, as `messages_of` does."""

    def events(self, since: str | None = None) -> Generator[Event, None, None]:
        """Yield what changes, from the event with the id `since` on, or from now.

        The first is `ready`, or `reset` where what happened since is not known any more.
        """

    def delete_session(
        self, session_id: str, *, agent: str | None = None, for_good: bool = False
    ) -> None:
        """Delete a session with its children and side files.

        It can be restored, unless it is deleted `for_good`. Raises SessionNotFound, and
        SessionNotKept where it can't be kept for that: it isn't deleted then.
        """

    def list_deleted(self) -> tuple[DeletedSession, ...]:
        """List what can be restored, what was deleted last first."""

    def restore_session(self, session_id: str, *, agent: str | None = None) -> None:
        """Bring back what was deleted last under an id; a session that is there is no error.

        Raises SessionNotFound where nothing is kept of it, and SessionInTheWay where something else
        is in its place by now.
        """

    def refresh(self) -> None:
        """Have all files looked at again; returns when that is done."""


def messages_of(
    client: SessionClient, session_id: str, *, agent: str | None, page: int, start: int
) -> Iterator[Message]:
    """Yield all messages of a session in time order, those written meanwhile included.

    `page` is how many are asked for at a time; `start` leaves out so many of the oldest.
    Raises SessionNotFound, and WorkerFailure where the session changes faster than it is read.
    """
    total = client.list_messages(session_id, limit=1, agent=agent).total
    restarts = 0
    while start < total:
        count = min(page, total - start)
        got = client.list_messages(
            session_id, limit=count, offset=total - start - count, agent=agent
        )
        if got.total != total:
            # The page is counted from another end than it was asked for: ask again.
            total, restarts = got.total, restarts + 1
            if restarts > RESTARTS:
                raise _unreadable(client, session_id, "changes faster than it can be read")
            continue
        if len(got.messages) != count:
            raise _unreadable(client, session_id, "has fewer messages than it says")
        yield from got.messages
        start, restarts = start + count, 0


def _unreadable(client: SessionClient, session_id: str, what: str) -> WorkerFailure:
    return WorkerFailure(
        f"Session {session_id} of {client.workspace} {what}.",
        status=OK,
        hint="Try again in a moment.",
        workspace=client.workspace,
    )


def require_numbers(workspace: str, **given: int | None) -> None:
    """See that numbers that were given are none below 0. Raises WorkerFailure."""
    for name, number in given.items():
        if number is not None and number < 0:
            raise refused(workspace, f"{name} must be a whole number, 0 or more")


def refused(workspace: str, what: str) -> WorkerFailure:
    """Make the error for what can't be asked."""
    return WorkerFailure(
        f"The sessions of {workspace} can't be asked so: {what}.",
        status=BAD_REQUEST,
        workspace=workspace,
    )


def not_found(session_id: str, workspace: str) -> SessionNotFound:
    """Make the error for a session that isn't there; the id is shown as it is, so make it safe."""
    return SessionNotFound(
        f"There is no session {session_id!r} in {workspace}.",
        hint=f"`perry session list --workspace {workspace}` lists its sessions.",
        workspace=workspace,
    )


def not_deleted(session_id: str, workspace: str) -> SessionNotFound:
    """Make the error for a session of which nothing is kept; see `not_found` about the id."""
    return SessionNotFound(
        f"No deleted session {session_id!r} is kept in {workspace}.",
        hint=f"`perry session restore --list --workspace {workspace}` lists what can be restored.",
        workspace=workspace,
    )


def not_kept(words: str, workspace: str) -> SessionNotKept:
    """Make the error for a session that isn't deleted, as it can't be kept."""
    return SessionNotKept(
        f"{words or 'The session is not deleted'} (in {workspace}).",
        hint="Make room there, or delete it with --for-good, which keeps nothing of it.",
        workspace=workspace,
    )


def in_the_way(words: str, workspace: str) -> SessionInTheWay:
    """Make the error for a session that can't go back to where it was."""
    return SessionInTheWay(
        f"{words or 'Something else is there by now'} (in {workspace}).",
        hint="Nothing was restored. What is there now would have to be moved away, or deleted.",
        workspace=workspace,
    )
