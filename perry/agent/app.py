"""The daemon's HTTP API: the table of its routes.

What is answered about sessions and workspaces is in modules of their own; here are the rest of the
endpoints, and how errors leave. `docs/http-api.md` describes them all. It must not know how
anything is found out.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import time
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

import perry
from perry.agent.access import LOGIN, cookie_value
from perry.agent.failures import broken, failed
from perry.agent.guard import COOKIE, Guard
from perry.agent.search_api import SearchApi
from perry.agent.sessions_api import SessionsApi
from perry.agent.workspaces_api import WorkspacesApi
from perry.errors import EngineError, PerryError
from perry.protocol import Health, proof
from perry.worker.answers import json_answer, refused
from perry.worker.events import Streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import Scope

    from perry.agent.daemon import Daemon
    from perry.agent.ledger import Thing
    from perry.sessions.journal import Change

LONGEST_NONCE = 256  # characters
LOGIN_LASTS = 30 * 24 * 3600  # s

# A page and no redirect: a browser that was led here by another site's link would follow that
# without the new cookie, which goes with what is clicked on this page.
_LOGGED_IN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>perry</title>
<p>This browser may ask the agent daemon now: <a href="/api/sessions">/api/sessions</a>.</p></html>
"""
_LOGIN_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; form-action 'none'; base-uri 'none'",
}


def create_app(
    daemon: Daemon,
    token: str,
    streams: Streams[Thing],
    *,
    hosts: frozenset[str],
    stop: Callable[[], None],
) -> Guard:
    """Build the ASGI application of a daemon; `stop` ends the server it runs in.

    `hosts` are the names, besides addresses and localhost, that it goes by.
    """
    app = Starlette(
        routes=routes(daemon, token, streams, stop),
        exception_handlers={HTTPException: refused, PerryError: failed, Exception: broken},
    )
    app.router.redirect_slashes = False
    return Guard(app, token, hosts)


def routes(
    daemon: Daemon, token: str, streams: Streams[Thing], stop: Callable[[], None]
) -> list[Route]:
    """Give the table of all that is answered."""
    api = Api(daemon, token, streams, stop)
    return [
        Route("/health", api.health),
        Route(LOGIN, api.login),
        Route("/api/status", api.status),
        Route("/api/stop", api.stop, methods=["POST"]),
        Route("/api/events", api.events),
        *SessionsApi(daemon).routes(),
        *SearchApi(daemon).routes(),
        *WorkspacesApi(daemon, streams).routes(),
    ]


class Api:
    """The endpoints that are about the daemon itself, one method each."""

    def __init__(
        self, daemon: Daemon, token: str, streams: Streams[Thing], stop: Callable[[], None]
    ) -> None:
        self._daemon = daemon
        self._token = token
        self._streams = streams
        self._stop = stop
        self._started_at = int(time.time() * 1000)

    async def health(self, request: Request) -> Response:
        """Say that the daemon runs, and prove that it has the token where asked to.

        Whoever asks names the address that they ask, so that nobody can have a daemon prove in
        their stead, between it and a client of theirs.
        """
        challenge = request.query_params.get("challenge")
        answer_to = None
        if challenge is not None:
            if len(challenge) > LONGEST_NONCE:
                raise HTTPException(400, f"challenge is longer than {LONGEST_NONCE} characters")
            audience = f"{_address(request.scope)}/"
            if not challenge.startswith(audience):
                raise HTTPException(400, f"challenge must begin with {audience}")
            answer_to = proof(self._token, challenge)
        return json_answer(Health(status="ok", version=perry.__version__, proof=answer_to))

    async def login(self, request: Request) -> Response:
        """Let a browser in that has the token in its link, from then on by a cookie."""
        given = request.query_params.get("token", "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            words = "this link is not this daemon's: perry agent token --link shows it"
            return json_answer({"error": words}, 401, _LOGIN_HEADERS)
        answer = HTMLResponse(_LOGGED_IN, headers=_LOGIN_HEADERS)
        answer.set_cookie(
            COOKIE,
            cookie_value(self._token),
            max_age=LOGIN_LASTS,
            httponly=True,
            samesite="strict",
        )
        return answer

    async def status(self, _: Request) -> Response:
        """Say how the daemon, the engine and every place are."""
        problem, host = self._engine_problem(), self._daemon.host
        return json_answer(
            {
                "version": perry.__version__,
                "pid": os.getpid(),
                "startedAt": self._started_at,
                "engine": {"reachable": problem is None, "error": problem and problem.message},
                "watch": host.watch if host.is_ready else None,
                "archive": self._archive(),
                "places": self._daemon.mirror.places(),
            }
        )

    def _archive(self) -> dict[str, object]:
        intake = self._daemon.intake
        problem = intake.problem
        return {"pending": intake.pending, "error": problem and problem.message}

    def _engine_problem(self) -> EngineError | None:
        try:
            _ = self._daemon.reconciler.manager
        except EngineError as error:
            return error  # never reached so far
        return self._daemon.reconciler.problem

    async def stop(self, _: Request) -> Response:
        """End the daemon; workers and workspaces go on."""
        self._stop()
        return json_answer({"success": True})

    async def events(self, request: Request) -> Response:
        """Stream what changes: `Last-Event-ID`, or else `since`, says where to go on."""
        since = request.headers.get("last-event-id") or request.query_params.get("since")
        return self._streams.subscribe(since or None)


def told(change: Change[Thing]) -> object:
    """Give what is told of a change, in the shape that it has as JSON."""
    match change.key:
        case (name,):
            return {"place": change.now or {"name": name}}
        case (name, agent, session_id):
            if change.now is None:
                return {"id": session_id, "agentType": agent, "workspace": name}
            return {"session": change.now}
    raise ValueError(change.key)


def _address(scope: Scope) -> str:
    """Give the address and port at which a request came in, as a URL has them."""
    host, port = scope["server"]
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"  # noqa: PLR2004 - IPv6
