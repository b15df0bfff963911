"""The worker's HTTP API as typed questions and answers.

Whoever wants to know about the sessions of a workspace asks here, however the worker is reached.
A workspace runs code that nobody vouches for, so ids can't leave their place in a path, and
answers are decoded strictly. This module must not know Docker, or how an address was found.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, NoReturn, Self, TypeVar
from urllib.parse import quote

import msgspec

from perry.client.channel import (
    CONNECT_TIMEOUT,
    LARGEST_ANSWER,
    NOT_FOUND,
    OK,
    STARTING,
    Answer,
    Channel,
    words_in,
)
from perry.client.events import Event, event_of, split
from perry.client.quoting import plain
from perry.client.session_client import (
    IN_THE_WAY,
    NO_ROOM,
    in_the_way,
    messages_of,
    not_deleted,
    not_found,
    not_kept,
)
from perry.client.transport import TransportFactory, over_tcp
from perry.errors import SessionNotFound, WorkerFailure
from perry.protocol import DEFAULT_PAGE, HEARTBEAT, Health
from perry.sessions.models import (
    DeletedList,
    DeletedSession,
    Message,
    MessagePage,
    SearchPage,
    Session,
    SessionAnswer,
    SessionList,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from types import TracebackType

T = TypeVar("T")

REFRESH_TIMEOUT = 120.0  # s: a full scan of a large home
DELETE_TIMEOUT = 120.0  # s: all of the session is kept first, or written back
SEARCH_TIMEOUT = 120.0  # s: tens of gigabytes of logs, or the searches of others before this one
LONGEST_ID = 1024  # characters; file names, which ids come from, are shorter
SILENCE = HEARTBEAT + 5.0  # s after which a stream without a heartbeat counts as dead


class _Done(msgspec.Struct):
    success: bool


class WorkerClient:
    """Asks one worker; a SessionClient, and a context manager that keeps its connection alive.

    `base_url` is like `http://172.17.0.2:7392`; `token` None is for a worker that wants none;
    `workspace` is for error messages; `timeout` is how many seconds the worker may be silent;
    `connect_timeout` how many a connection may take; `largest_answer` is in bytes. `transport`
    makes another way to it than TCP, of one connection at a time: it is called once for all
    questions and once for each event stream. One that doesn't hand on httpcore's trace events has
    to end at the same worker for all its life, since the client can't see its connections change.
    Every method may raise WorkerUnreachable, WorkerUntrusted or WorkerFailure.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        workspace: str,
        transport: TransportFactory = over_tcp,
        timeout: float = 10.0,
        connect_timeout: float = CONNECT_TIMEOUT,
        largest_answer: int = LARGEST_ANSWER,
    ) -> None:
        self.workspace = workspace
        self._largest_answer = largest_answer
        self._open_channel = functools.partial(
            Channel,
            base_url,
            token,
            workspace=workspace,
            transport=transport,
            timeout=timeout,
            connect_timeout=connect_timeout,
            largest_answer=largest_answer,
        )
        self._channel = self._open_channel()
        self._streams: set[Channel] = set()

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
        """Close the connection."""
        self._channel.close()

    def cut(self) -> bool:
        """Have what other threads ask, event streams too, fail now: the worker may have moved.

        False where it isn't reached at an address, so that it can't have: then nothing is cut.
        """
        were_cut = [channel.cut() for channel in (self._channel, *tuple(self._streams))]
        return any(were_cut)

    def authenticate(self) -> Health:
        """Let the worker prove that it has the token; done by itself before the first use of it.

        Asks once, without retrying, and returns how the worker is: the word of who proved himself.
        Raises WorkerUntrusted where the proof is wrong or missing.
        """
        return self._decoded(self._channel.prove(), Health)

    def health(self, challenge: str | None = None, *, verbose: bool = False) -> Health:
        """Ask how the worker is, once, without retrying; `starting` is an answer.

        The token is only sent for `verbose`, after a proof.
        """
        params = {} if challenge is None else {"challenge": challenge}
        if verbose:
            params["verbose"] = "1"
        answer = self._channel.ask_openly("/health", params, with_token=verbose)
        if answer.status not in {OK, STARTING}:
            self._fail(answer)
        return self._decoded(answer, Health)

    def list_sessions(
        self,
        *,
        agent: str | None = None,
        children: bool = False,
        limit: int | None = None,
        offset: int | None = None,
    ) -> tuple[Session, ...]:
        """List sessions, newest activity first; all of them without `limit`."""
        params = _params(agent=agent, limit=limit, offset=offset)
        if children:
            params["children"] = "1"
        return self._get("/sessions", params, SessionList).sessions

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

        Within a session its title comes first, then the newest message; child sessions are searched
        too. `since` is in milliseconds since the epoch; `offset` leaves out so many hits. A worker
        gives 1000 hits at most, and waits with its answer until it has them: for SEARCH_TIMEOUT
        seconds at most.
        """
        params = _params(q=words, agent=agent, since=since, limit=limit, offset=offset)
        return self._get("/sessions", params, SearchPage, timeout=SEARCH_TIMEOUT)

    def get_session(self, session_id: str, *, agent: str | None = None) -> Session:
        """Get one session; raises SessionNotFound."""
        path = self._path(session_id)
        return self._get(path, _params(agent=agent), SessionAnswer, session_id).session

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
        path = self._path(session_id) + "/messages"
        params = _params(agent=agent, limit=limit, offset=offset)
        return self._get(path, params, MessagePage, session_id)

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

        The first is `ready`, or `reset` where what happened since is not known any more. Goes over
        a connection of its own, opened with the first event and closed with the iterator. Ends
        when the worker ends it.
        """
        with (
            self._own_channel() as channel,
            channel.stream("/events", _params(since=since), silence=SILENCE) as got,
        ):
            if isinstance(got, Answer):
                self._fail(got)
            try:
                for block in split(got, self._largest_answer):
                    if (event := event_of(block)) is not None:
                        yield event
            except (ValueError, RecursionError) as error:
                words = f"The worker of {self.workspace} sent an event that makes no sense"
                raise self._failure(f"{words}: {error}.", OK) from error

    def delete_session(
        self, session_id: str, *, agent: str | None = None, for_good: bool = False
    ) -> None:
        """Delete a session with its children and side files.

        It can be restored, unless it is deleted `for_good`. Raises SessionNotFound, and
        SessionNotKept where it can't be kept for that: it isn't deleted then. Not sent again once
        it may have reached the worker.
        """
        params = _params(agent=agent, forgood="1" if for_good else None)
        answer = self._channel.ask("DELETE", self._path(session_id), params, timeout=DELETE_TIMEOUT)
        if answer.status == NO_ROOM:
            raise not_kept(words_in(answer), self.workspace)
        self._require_done(self._expected(answer, session_id))

    def list_deleted(self) -> tuple[DeletedSession, ...]:
        """List what can be restored, what was deleted last first."""
        return self._get("/deleted", {}, DeletedList).deleted

    def restore_session(self, session_id: str, *, agent: str | None = None) -> None:
        """Bring back what was deleted last under an id; a session that is there is no error.

        Raises SessionNotFound where nothing is kept of it, and SessionInTheWay where something else
        is in its place by now. Not sent again once it may have reached the worker.
        """
        path = self._path(session_id) + "/restore"
        answer = self._channel.ask("POST", path, _params(agent=agent), timeout=DELETE_TIMEOUT)
        if answer.status == NOT_FOUND:
            raise not_deleted(plain(session_id), self.workspace)
        if answer.status == IN_THE_WAY:
            raise in_the_way(words_in(answer), self.workspace)
        self._require_done(self._expected(answer))

    def refresh(self) -> None:
        """Let the worker look at all files again; returns when that is done."""
        answer = self._channel.ask("POST", "/refresh", timeout=REFRESH_TIMEOUT)
        self._require_done(self._expected(answer))

    @contextlib.contextmanager
    def _own_channel(self) -> Iterator[Channel]:
        with contextlib.closing(self._open_channel()) as channel:
            self._streams.add(channel)
            try:
                yield channel
            finally:
                self._streams.discard(channel)

    def _get(
        self,
        path: str,
        params: dict[str, str],
        shape: type[T],
        session_id: str | None = None,
        *,
        timeout: float | None = None,
    ) -> T:
        answer = self._channel.ask("GET", path, params, timeout=timeout)
        return self._decoded(self._expected(answer, session_id), shape)

    def _path(self, session_id: str) -> str:
        possible = 0 < len(session_id) <= LONGEST_ID and session_id.strip(".")
        if not possible or "/" in session_id or not _is_text(session_id):
            # No session can have such an id, and some clients and servers would rewrite the path.
            raise self._not_found(session_id)
        return "/sessions/" + quote(session_id, safe="")

    def _expected(self, answer: Answer, session_id: str | None = None) -> Answer:
        if answer.status == NOT_FOUND and session_id is not None:
            raise self._not_found(session_id)
        if answer.status != OK:
            self._fail(answer)
        return answer

    def _require_done(self, answer: Answer) -> None:
        if not self._decoded(answer, _Done).success:
            self._fail(answer)

    def _decoded(self, answer: Answer, shape: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            words = f"The worker of {self.workspace} gave an answer that makes no sense: {error}."
            raise self._failure(words, answer.status) from error

    def _not_found(self, session_id: str) -> SessionNotFound:
        return not_found(plain(session_id), self.workspace)

    def _fail(self, answer: Answer) -> NoReturn:
        words = words_in(answer)
        said = f": {words}" if words else ""
        raise self._failure(
            f"The worker of {self.workspace} answered with HTTP status {answer.status}{said}.",
            answer.status,
        )

    def _failure(self, message: str, status: int) -> WorkerFailure:
        return WorkerFailure(
            message,
            status=status,
            hint=f"`perry workspace logs {self.workspace}` shows its log.",
            workspace=self.workspace,
        )


def _params(**given: str | int | None) -> dict[str, str]:
    return {name: str(value) for name, value in given.items() if value is not None}


def _is_text(words: str) -> bool:
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True
