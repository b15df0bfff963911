"""The sessions of one place as the archive has them, with the questions and answers of a worker.

Whoever asks about a workspace that is gone gets what its worker said last, errors and limits
included. Nothing here changes by itself, so there is nothing to follow or to look at again. This
module must not know who fills the archive, nor whether the place still exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Self

from perry.archive.models import Filters
from perry.archive.terms import parse
from perry.client.quoting import plain
from perry.client.session_client import (
    BAD_REQUEST,
    messages_of,
    not_deleted,
    refused,
    require_numbers,
)
from perry.errors import SessionNotFound, WorkerFailure
from perry.protocol import DEFAULT_PAGE
from perry.sessions.models import SearchPage
from perry.sessions.search import LONGEST_QUERY, MOST_HITS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from types import TracebackType

    from perry.archive.archive import Archive
    from perry.archive.models import Kept
    from perry.client.events import Event
    from perry.sessions.models import DeletedSession, Message, MessagePage, Session


class ArchiveClient:
    """Asks an archive about what was in one place; a SessionClient.

    The archive is somebody else's to close. Every method may raise ArchiveError.
    """

    def __init__(self, archive: Archive, *, workspace: str) -> None:
        self.workspace = workspace
        self._archive = archive

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
        """Do nothing: nothing was opened for the asking."""

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
        found = tuple(
            kept.session
            for kept in self._archive.sessions(self.workspace)
            if (not agent or kept.session.agent_type == agent)
            and (children or kept.session.parent_id is None)
        )
        return found[start : None if limit is None else start + limit]

    def search(
        self,
        words: str,
        *,
        agent: str | None = None,
        since: int | None = None,
        limit: int = DEFAULT_PAGE,
        offset: int = 0,
    ) -> SearchPage:
        """Find what holds all the words, phrases and prefixes, ranked as the archive does."""
        require_numbers(self.workspace, since=since, limit=limit, offset=offset)
        if len(words) > LONGEST_QUERY:
            raise refused(self.workspace, f"q is longer than {LONGEST_QUERY} characters")
        found = self._archive.search(
            parse(words),
            Filters(workspace=self.workspace, agent=agent or None, since=since),
            limit=min(limit, MOST_HITS),
            offset=offset,
        )
        return SearchPage(tuple(kept.session for kept in found.sessions), found.hits)

    def get_session(self, session_id: str, *, agent: str | None = None) -> Session:
        """Get one session; raises SessionNotFound."""
        return self._find(session_id, agent).session

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
        require_numbers(self.workspace, limit=limit, offset=offset)
        key = self._find(session_id, agent).key
        try:
            return self._archive.messages(key, limit=limit, offset=offset)
        except SessionNotFound as error:  # it was deleted a moment ago
            raise self._not_found(session_id) from error

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
        """Raise WorkerFailure: what is archived doesn't change by itself."""
        del since
        return self._no_events()

    def delete_session(
        self, session_id: str, *, agent: str | None = None, for_good: bool = False
    ) -> None:
        """Delete a session with its children, so that it can be restored unless `for_good`.

        Raises SessionNotFound.
        """
        self._archive.delete(self._find(session_id, agent).key, for_good=for_good)

    def list_deleted(self) -> tuple[DeletedSession, ...]:
        """List what can be restored, what was deleted last first; the archive tells no sizes."""
        hidden = self._archive.sessions(self.workspace, deleted=True)
        found = [kept.restorable for kept in hidden if kept.restorable is not None]
        return tuple(sorted(found, key=lambda one: -one.deleted_at))

    def restore_session(self, session_id: str, *, agent: str | None = None) -> None:
        """Show again what was deleted under an id; one that is there is no error.

        Raises SessionNotFound where there is no such session.
        """
        for kept in self._archive.sessions(self.workspace, deleted=True):
            if kept.session.id == session_id and agent in {None, "", kept.session.agent_type}:
                self._archive.restore(kept.key)
                return
        if self._archive.find(self.workspace, session_id, agent or None) is None:
            raise not_deleted(plain(session_id), self.workspace)

    def refresh(self) -> None:
        """Do nothing: there are no files to look at."""

    def _no_events(self) -> NoReturn:
        raise WorkerFailure(
            f"The archived sessions of {self.workspace} don't change, so they can't be followed.",
            status=BAD_REQUEST,
            hint=f"`perry session list --archived --workspace {self.workspace}` shows them.",
            workspace=self.workspace,
        )

    def _find(self, session_id: str, agent: str | None) -> Kept:
        """Find a session; where two coding agents share its id, the newer one answers.

        Raises SessionNotFound.
        """
        found = None
        if _is_text(session_id):
            found = self._archive.find(self.workspace, session_id, agent or None)
        if found is None:
            raise self._not_found(session_id)
        return found

    def _not_found(self, session_id: str) -> SessionNotFound:
        return SessionNotFound(
            f"The archive has no session {plain(session_id)!r} of {self.workspace}.",
            hint=f"`perry session list --workspace {self.workspace} --archived` lists what it has.",
            workspace=self.workspace,
        )


def _is_text(words: str) -> bool:
    try:
        words.encode()
    except UnicodeEncodeError:
        return False  # no database takes a lone surrogate, so no session has such an id
    return True
