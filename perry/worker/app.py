"""The worker's HTTP API: a table of routes over a SessionIndex.

Every answer, errors included, is JSON, and its shapes are those of `sessions/models.py` and
`protocol.py`. Whatever touches files or databases runs in a thread, so that the event loop always
answers `/health`. This module must not know how sessions are stored or how changes are noticed.
"""

from __future__ import annotations

import functools
import secrets
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

import perry
from perry.errors import SessionError, SessionNotFound
from perry.protocol import DEFAULT_PAGE, Health, proof
from perry.sessions.models import Session, SessionAnswer, SessionList
from perry.sessions.search import DEFAULT_HITS, words_in
from perry.worker.encoding import encode
from perry.worker.events import Streams
from perry.worker.guard import Guard, is_authorised
from perry.worker.searches import Searches

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from perry.sessions.index import SessionIndex
    from perry.worker.config import WorkerConfig
    from perry.worker.watcher import Watcher

T = TypeVar("T")

LONGEST_NONCE = 256  # characters
LONGEST_QUERY = 1000  # characters
LARGEST_NUMBER = 2**53  # beyond it JSON numbers are no longer exact; no session is that long


def create_app(
    config: WorkerConfig, index: SessionIndex, watcher: Watcher, streams: Streams | None = None
) -> Guard:
    """Build the ASGI application that serves `index`, whose changes `watcher` brings in.

    `streams` are the event streams, for who wants to end them.
    """
    api = Api(config, index, watcher, streams or Streams(index.journal))
    routes = [
        Route("/health", api.health),
        Route("/sessions", api.sessions),
        Route("/sessions/{id}", api.session, methods=["GET", "DELETE"]),
        Route("/sessions/{id}/messages", api.messages),
        Route("/refresh", api.refresh, methods=["POST"]),
        Route("/events", api.events),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _refused,
            SessionNotFound: _no_such_session,
            SessionError: _not_now,
            Exception: _failed,
        },
    )
    app.router.redirect_slashes = False
    return Guard(app, config.token)


class Api:
    """The endpoints, one method each."""

    def __init__(
        self, config: WorkerConfig, index: SessionIndex, watcher: Watcher, streams: Streams
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
            return _json(Health(status="starting", proof=answer_to), 503)
        verbose = _flag(request, "verbose") and is_authorised(request.scope, self._config.token)
        if not verbose:
            return _json(self._health(answer_to, verbose=False))
        return _json(await _in_thread(self._health, answer_to, verbose=True))

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
        """List the sessions, newest activity first; with `q`, find words in their messages."""
        self._require_ready()
        if "q" in request.query_params:
            return await self._search(request)
        limit, offset = _number(request, "limit"), _number(request, "offset") or 0
        agent, children = _agent(request), _flag(request, "children")
        # Taken before the list: a change in between makes the tag too old, never too new.
        tag = f'"{self._run}-{self._index.version}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if _has_tag(request, tag):
            return Response(status_code=304, headers=headers)

        found = self._index.listing(agent=agent, children=children)
        if offset or limit is not None:
            found = found[offset : None if limit is None else offset + limit]
        listed, body = self._listed
        if listed is not found:
            body = await _in_thread(encode, SessionList(found))
            self._listed = found, body
        return _raw(body, headers=headers)

    async def _search(self, request: Request) -> Response:
        query, limit = request.query_params["q"], _number(request, "limit")
        if len(query) > LONGEST_QUERY:
            raise HTTPException(400, f"q is longer than {LONGEST_QUERY} characters")
        page = await self._searches.page(
            request,
            words_in(query),
            agent=_agent(request),
            since=_number(request, "since"),
            limit=DEFAULT_HITS if limit is None else limit,
            offset=_number(request, "offset") or 0,
        )
        return _json(page)

    async def session(self, request: Request) -> Response:
        """Show or delete one session."""
        self._require_ready()
        session_id, agent = request.path_params["id"], _agent(request)
        if request.method == "DELETE":
            return await self._delete(session_id, agent)
        return _json(SessionAnswer(await _in_thread(self._index.get, session_id, agent=agent)))

    async def _delete(self, session_id: str, agent: str | None) -> Response:
        try:
            await _in_thread(self._index.delete, session_id, agent=agent)
        except SessionNotFound as error:
            return _json({"success": False, "error": error.message}, 404)
        return _json({"success": True})

    async def messages(self, request: Request) -> Response:
        """Give one page of a session's messages; `offset` counts back from the newest."""
        self._require_ready()
        session_id, agent = request.path_params["id"], _agent(request)
        limit, offset = _number(request, "limit"), _number(request, "offset") or 0

        def encoded() -> bytes:
            return encode(
                self._index.messages(
                    session_id,
                    limit=DEFAULT_PAGE if limit is None else limit,
                    offset=offset,
                    agent=agent,
                )
            )

        return _raw(await _in_thread(encoded))

    async def refresh(self, _: Request) -> Response:
        """Look at all files again, and answer when that is done."""
        await _in_thread(self._index.refresh)
        return _json({"success": True})

    async def events(self, request: Request) -> Response:
        """Stream what changes: `Last-Event-ID`, or else `since`, says where to go on."""
        self._require_ready()
        since = request.headers.get("last-event-id") or request.query_params.get("since")
        return self._streams.subscribe(since or None)

    def _require_ready(self) -> None:
        if not self._watcher.ready.is_set():
            raise HTTPException(503, "the worker is still on its first scan", {"Retry-After": "1"})


async def _in_thread(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:  # noqa: ANN401 - handed through unchanged
    # Abandoned when cancelled: a long parse must not hold up the end of the process.
    call = functools.partial(function, *args, **kwargs)
    return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)


def _json(answer: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return _raw(encode(answer), status, headers)


def _raw(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, "application/json")


def _agent(request: Request) -> str | None:
    return request.query_params.get("agent") or None


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise HTTPException(400, f"{name} must be a whole number, 0 or more")
    # 16 digits are more than the largest number, and Python refuses to convert thousands of them
    return min(int(text.lstrip("0")[:17] or "0"), LARGEST_NUMBER)


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "0").lower()
    if text not in {"0", "1", "false", "true"}:
        raise HTTPException(400, f"{name} must be 0 or 1")
    return text in {"1", "true"}


def _has_tag(request: Request, tag: str) -> bool:
    given = [each.strip() for each in request.headers.get("if-none-match", "").split(",")]
    return "*" in given or tag in (each.removeprefix("W/") for each in given)


# Starlette's type of an exception handler is wider than what it is called with: hence the asserts.


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    return _json({"error": error.detail}, error.status_code, dict(error.headers or {}))


async def _no_such_session(_: Request, error: Exception) -> Response:
    assert isinstance(error, SessionNotFound)  # noqa: S101 - as above
    return _json({"error": error.message}, 404)


async def _not_now(_: Request, error: Exception) -> Response:
    assert isinstance(error, SessionError)  # noqa: S101 - as above
    return _json({"error": error.message}, 503, {"Retry-After": "1"})


async def _failed(_: Request, error: Exception) -> Response:
    # Starlette raises it again after this answer, and uvicorn logs it with its traceback.
    return _json({"error": f"the worker failed: {type(error).__name__}"}, 500)
