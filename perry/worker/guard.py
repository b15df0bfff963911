"""Who may ask the worker: the token, or where there is none, only pages of this machine.

It stands before the routes, so that nothing behind it can forget to ask. It must not know what the
routes do, except that `/health` is open: a client has to be able to see the proof before it sends
the token.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN_PATH = "/health"
OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
    """Lets a request through to `app`, or answers it.

    With a token: 401 for everything but `/health`. Without: 403 for a Host header that names
    another machine, which is what a web page sends that had its own name resolved to loopback.
    An encoded slash in a path is 404, so that an id can't become another path.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        if self._token is None and _host_name(scope) not in OWN_NAMES:
            return _error(403, "this worker only answers to localhost")
        if scope["path"] != OPEN_PATH and not is_authorised(scope, self._token):
            return _error(401, "a token is needed", {"WWW-Authenticate": "Bearer"})
        if b"%2f" in scope.get("raw_path", b"").lower():
            return _error(404, "Not Found")
        return None


def is_authorised(scope: Scope, token: str | None) -> bool:
    """Tell in constant time whether a request carries the token, or needs none."""
    if token is None:
        return True
    given = _header(scope, b"authorization")
    scheme, _, credentials = given.partition(b" ")
    fits = hmac.compare_digest(credentials.strip(), token.encode())
    return fits and scheme.lower() == b"bearer"


def _host_name(scope: Scope) -> str:
    host = _header(scope, b"host").decode("latin-1").lower()
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _header(scope: Scope, name: bytes) -> bytes:
    values: list[bytes] = [value for key, value in scope["headers"] if key == name]
    return values[0] if len(values) == 1 else b""  # given twice, neither can be trusted


def _error(status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    body = msgspec.json.encode({"error": words})
    return Response(body, status, headers, "application/json")
