"""The worker's HTTP API: a table of routes over a SessionIndex.

Every answer, errors included, is JSON, and its shapes are those of `sessions/models.py` and
`protocol.py`. Whatever touches files or databases runs in a thread, so that the event loop always
answers `/health`. This module must not know how sessions are stored or how changes are noticed.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

import perry
from perry.errors import SessionError, SessionInTheWay, SessionNotFound, SessionNotKept
from perry.protocol import DEFAULT_PAGE, Health, proof
from perry.sessions.models import DeletedList, Session, SessionAnswer, SessionList
from perry.sessions.search import DEFAULT_HITS, LONGEST_QUERY, words_in
from perry.worker.answers import (
    asked_agent,
    flag,
    has_tag,
    in_thread,
    json_answer,
    number,
    raw_answer,
    refused,
)
from perry.worker.encoding import encode
from perry.worker.events import Streams
from perry.worker.guard import Guard, is_authorised
from perry.worker.searches import Searches

if TYPE_CHECKING:
    from starlette.requests import Request

    from perry.sessions.index import SessionIndex
    from perry.sessions.journal import Change
    from perry.worker.config import WorkerConfig
    from perry.worker.watcher import Watcher

LONGEST_NONCE = 256  # characters


def create_app(
    config: WorkerConfig,
    index: SessionIndex,
    watcher: Watcher,
    streams: Streams[Session] | None = None,
) -> Guard:
    """Build the ASGI application that serves `index`, whose changes `watcher` brings in.

    `streams` are the event streams, for who wants to end them.
    """
    api = Api(config, index, watcher, streams or streams_of(index))
    app = Starlette(
        routes=routes(api),
        exception_handlers={
            HTTPException: refused,
            SessionNotFound: _no_such_session,
            SessionInTheWay: _in_the_way,
            SessionNotKept: _no_room,
            SessionError: _not_now,
            Exception: _failed,
        },
    )
    app.router.redirect_slashes = False
    return Guard(app, config.token)


def routes(api: Api) -> list[Route]:
    """Tell which endpoint answers which call."""
    return [
        Route("/health", api.health),
        Route("/sessions", api.sessions),
        Route("/sessions/{id}", api.session, methods=["GET", "DELETE"]),
        Route("/sessions/{id}/messages", api.messages),
        Route("/sessions/{id}/restore", api.restore, methods=["POST"]),
        Route("/deleted", api.deleted),
        Route("/refresh", api.refresh, methods=["POST"]),
        Route("/events", api.events),
    ]


def streams_of(index: SessionIndex) -> Streams[Session]:
    """Make the event streams of an index."""
    return Streams(index.journal, told)


def told(change: Change[Session]) -> object:
    """Give what is told of a change, in the shape that it has as JSON."""
    if change.now is None:
        agent, session_id = change.key
        return {"id": session_id, "agentType": agent}
    return SessionAnswer(change.now)


class Api:
    """The endpoints, one method each."""

    def __init__(
        self, config: WorkerConfig, index: SessionIndex, watcher: Watcher, streams: Streams[Session]
    ) -> None:
        self._config = config
        self._index = index
        self._watcher = watcher
        self._streams = streams
        self._searches = Searches(index)
        self._listed: tuple[tuple[Session, ...] | None, bytes] = (None, b"")
        self._run = secrets.token_hex(8)  # versions of two runs of a worker can't be compared

    async def health(self, request: Request) -> Response:
        """Say how the worker is, and prove that it has the token where asked to."""
        answer_to = self._proof(request.query_params.get("challenge"))
        if not self._watcher.ready.is_set():
            return json_answer(Health(status="starting", proof=answer_to), 503)
        verbose = flag(request, "verbose") and is_authorised(request.scope, self._config.token)
        if not verbose:
            return json_answer(self._health(answer_to, verbose=False))
        return json_answer(await in_thread(self._health, answer_to, verbose=True))

    def _health(self, answer_to: str | None, *, verbose: bool) -> Health:
        return Health(
            status="ok",
            version=perry.__version__,
            digest=self._config.digest,
            session_count=len(self._index.listing()),
            watch=self._watcher.mode,
            proof=answer_to,
            skipped_lines=self._index.skipped_lines() if verbose else None,
            unreadable=self._index.unreadable() if verbose else None,
        )

    def _proof(self, nonce: str | None) -> str | None:
        if nonce is None or self._config.token is None:
            return None
        if len(nonce) > LONGEST_NONCE:
            raise HTTPException(400, f"challenge is longer than {LONGEST_NONCE} characters")
        return proof(self._config.token, nonce)

    async def sessions(self, request: Request) -> Response:
        """List the sessions, newest activity first; with `q`, find words in them."""
        self._require_ready()
        if "q" in request.query_params:
            return await self._search(request)
        limit, offset = number(request, "limit"), number(request, "offset") or 0
        agent, children = asked_agent(request), flag(request, "children")
        # Taken before the list: a change in between makes the tag too old, never too new.
        tag = f'"{self._run}-{self._index.version}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if has_tag(request, tag):
            return Response(status_code=304, headers=headers)

        found = self._index.listing(agent=agent, children=children)
        if offset or limit is not None:
            found = found[offset : None if limit is None else offset + limit]
        listed, body = self._listed
        if listed is not found:
            body = await in_thread(encode, SessionList(found))
            self._listed = found, body
        return raw_answer(body, headers=headers)

    async def _search(self, request: Request) -> Response:
        query, limit = request.query_params["q"], number(request, "limit")
        if len(query) > LONGEST_QUERY:
            raise HTTPException(400, f"q is longer than {LONGEST_QUERY} characters")
        page = await self._searches.page(
            request,
            words_in(query),
            agent=asked_agent(request),
            since=number(request, "since"),
            limit=DEFAULT_HITS if limit is None else limit,
            offset=number(request, "offset") or 0,
        )
        return json_answer(page)

    async def session(self, request: Request) -> Response:
        """Show or delete one session."""
        self._require_ready()
        session_id, agent = request.path_params["id"], asked_agent(request)
        if request.method == "DELETE":
            return await self._delete(session_id, agent, for_good=flag(request, "forgood"))
        return json_answer(SessionAnswer(await in_thread(self._index.get, session_id, agent=agent)))

    async def _delete(self, session_id: str, agent: str | None, *, for_good: bool) -> Response:
        try:
            await in_thread(self._index.delete, session_id, agent=agent, for_good=for_good)
        except SessionNotFound as error:
            return json_answer({"success": False, "error": error.message}, 404)
        return json_answer({"success": True})

    async def deleted(self, _: Request) -> Response:
        """List what can be restored, what was deleted last first."""
        self._require_ready()
        return json_answer(DeletedList(await in_thread(self._index.deleted)))

    async def restore(self, request: Request) -> Response:
        """Bring back what was deleted last under an id."""
        self._require_ready()
        session_id, agent = request.path_params["id"], asked_agent(request)
        await in_thread(self._index.restore, session_id, agent=agent)
        return json_answer({"success": True})

    async def messages(self, request: Request) -> Response:
        """Give one page of a session's messages; `offset` counts back from the newest."""
        self._require_ready()
        session_id, agent = request.path_params["id"], asked_agent(request)
        limit, offset = number(request, "limit"), number(request, "offset") or 0

        def encoded() -> bytes:
            return encode(
                self._index.messages(
                    session_id,
                    limit=DEFAULT_PAGE if limit is None else limit,
                    offset=offset,
                    agent=agent,
                )
            )

        return raw_answer(await in_thread(encoded))

    async def refresh(self, _: Request) -> Response:
        """Look at all files again, and answer when that is done."""
        await in_thread(self._index.refresh)
        return json_answer({"success": True})

    async def events(self, request: Request) -> Response:
        """Stream what changes: `Last-Event-ID`, or else `since`, says where to go on."""
        self._require_ready()
        since = request.headers.get("last-event-id") or request.query_params.get("since")
        return self._streams.subscribe(since or None)

    def _require_ready(self) -> None:
        if not self._watcher.ready.is_set():
            raise HTTPException(503, "the worker is still on its first scan", {"Retry-After": "1"})


# Starlette's type of an exception handler is wider than what it is called with: hence the asserts.


async def _no_such_session(_: Request, error: Exception) -> Response:
    assert isinstance(error, SessionNotFound)  # noqa: S101 - as above
    return json_answer({"error": error.message}, 404)


async def _in_the_way(_: Request, error: Exception) -> Response:
    assert isinstance(error, SessionInTheWay)  # noqa: S101 - as above
    return json_answer({"error": error.message}, 409)


async def _no_room(_: Request, error: Exception) -> Response:
    assert isinstance(error, SessionNotKept)  # noqa: S101 - as above
    return json_answer({"error": error.message}, 507)


async def _not_now(_: Request, error: Exception) -> Response:
    assert isinstance(error, SessionError)  # noqa: S101 - as above
    return json_answer({"error": error.message}, 503, {"Retry-After": "1"})


async def _failed(_: Request, error: Exception) -> Response:
    # Starlette raises it again after this answer, and uvicorn logs it with its traceback.
    return json_answer({"error": f"the worker failed: {type(error).__name__}"}, 500)
