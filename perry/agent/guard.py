"""Who may ask the daemon: the token or the cookie made of it, from this machine's own pages.

It stands before the routes, so that nothing behind it can forget to ask. A web page elsewhere can
make a browser send requests here: it is refused by the Origin and Sec-Fetch-Site that browsers add,
and a name of its own that was made to resolve to this machine by the Host header. It must not know
what the routes do.
"""

from __future__ import annotations

import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from perry.agent.access import cookie_value
from perry.worker.answers import json_answer

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN_PATHS = frozenset({"/health", "/login"})
COOKIE = "perry_agent"
STRANGERS = frozenset({b"cross-site", b"same-site"})
"""What browsers say of requests that pages of other origins make."""


class Guard:
    """Lets a request through to `app`, or answers it.

    `hosts` are names, besides addresses and localhost, that the Host header may have.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self._app = app
        self._token = token.encode()
        self._cookie = cookie_value(token)
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        host = _header(scope, b"host").decode("latin-1").lower()
        if not self._is_ours(host):
            return json_answer({"error": "this daemon doesn't go by that name"}, 403)
        origin = _header(scope, b"origin")
        if origin and origin.decode("latin-1").lower() != f"http://{host}":
            return json_answer({"error": "other pages may not ask this daemon"}, 403)
        if _header(scope, b"sec-fetch-site") in STRANGERS:
            return json_answer({"error": "other pages may not ask this daemon"}, 403)
        if scope["path"] not in OPEN_PATHS and not self._is_authorised(scope):
            words = "a token is needed: perry agent token shows it"
            return json_answer({"error": words}, 401, {"WWW-Authenticate": "Bearer"})
        if b"%2f" in scope.get("raw_path", b"").lower():
            return json_answer({"error": "Not Found"}, 404)
        return None

    def _is_ours(self, host: str) -> bool:
        """Tell whether a Host header names this machine; an address can't be made to lie."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_authorised(self, scope: Scope) -> bool:
        scheme, _, credentials = _header(scope, b"authorization").partition(b" ")
        if scheme:
            fits = hmac.compare_digest(credentials.strip(), self._token)
            return fits and scheme.lower() == b"bearer"
        try:
            cookies = SimpleCookie(_header(scope, b"cookie").decode("latin-1"))
        except CookieError:
            return False
        given = cookies[COOKIE].value if COOKIE in cookies else ""
        return hmac.compare_digest(given.encode(), self._cookie.encode())


def _header(scope: Scope, name: bytes) -> bytes:
    values: list[bytes] = [value for key, value in scope["headers"] if key == name]
    return values[0] if len(values) == 1 else b""  # given twice, neither can be trusted
