"""Who may ask the daemon: the token or the cookie made of it, from this machine's own pages.

It stands before the routes, so that nothing behind it can forget to ask. A web page elsewhere can
make a browser send requests here: it is refused by the Origin and Sec-Fetch-Site that browsers add,
and a name of its own that was made to resolve to this machine by the Host header. Browsers don't
tell ports apart when they send cookies, so pages on other ports of this machine are foreign too.
It must not know what the routes do.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from typing import TYPE_CHECKING

from perry.agent.access import LOGIN, cookie_value
from perry.worker.answers import json_answer

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = frozenset({"/health", LOGIN})
COOKIE = "perry_agent"

STRANGERS = frozenset({b"cross-site", b"same-site"})
"""What browsers say of requests that pages of other origins make."""

ONCE = (b"host", b"origin", b"sec-fetch-site", b"authorization", b"cookie")
"""Headers that decide: of two of a kind, neither can be trusted."""

HARDENING = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
"""With every answer: no page of another origin may use it as its script, image or frame."""

_HOST = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:@/?#\\]+))(?::[0-9]{1,5})?")


class Guard:
    """Lets a request through to `app`, or answers it.

    `hosts` are names, besides addresses and localhost, that the Host header may have.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self._app = app
        self._token = token.encode()
        self._cookie = cookie_value(token).encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""

        async def harden(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HARDENING]
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, harden)

    def _refusal(self, scope: Scope) -> Response | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        given = {name: value for name, value in headers if name in ONCE}
        if len(given) < sum(name in ONCE for name, _ in headers):
            return json_answer({"error": "a header that may be given once is given twice"}, 400)
        host = given.get(b"host", b"").decode("latin-1").lower()
        if not self._is_ours(host):
            words = "this daemon doesn't go by that name: ask it by its address"
            return json_answer({"error": words}, 403)
        if _is_foreign(scope, given, host):
            return json_answer({"error": "other pages may not ask this daemon"}, 403)
        if scope["path"] not in OPEN_PATHS and not self._is_authorised(given):
            words = "a token is needed: perry agent token shows it"
            return json_answer({"error": words}, 401, {"WWW-Authenticate": "Bearer"})
        if b"%2f" in scope["raw_path"].lower():
            return json_answer({"error": "Not Found"}, 404)
        return None

    def _is_ours(self, host: str) -> bool:
        """Tell whether a Host header names this machine; an address can't be made to lie."""
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1] or match[2]
        if name == "localhost" or name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_authorised(self, given: dict[bytes, bytes]) -> bool:
        """Tell in constant time whether a request has the token, or else the cookie."""
        if b"authorization" in given:
            scheme, _, credentials = given[b"authorization"].partition(b" ")
            fits = hmac.compare_digest(credentials.strip(), self._token)
            return fits and scheme.lower() == b"bearer"
        # Whatever else on this machine sets cookies: none of them, of whatever shape, hides ours.
        cookies = (one.strip().partition(b"=") for one in given.get(b"cookie", b"").split(b";"))
        return any(
            name == COOKIE.encode() and hmac.compare_digest(value, self._cookie)
            for name, _, value in cookies
        )


def _is_foreign(scope: Scope, given: dict[bytes, bytes], host: str) -> bool:
    """Tell whether a page of another origin makes a request, as far as a browser says so.

    A link that was clicked there leads to the login and nowhere else: it has to have the token.
    """
    origin = given.get(b"origin", b"").decode("latin-1").lower()
    if origin and origin != f"http://{host}":
        return True
    if given.get(b"sec-fetch-site") not in STRANGERS:
        return False
    is_click = (b"sec-fetch-mode", b"navigate") in scope["headers"]
    in_a_tab = (b"sec-fetch-dest", b"document") in scope["headers"]
    return not (scope["path"] == LOGIN and is_click and in_a_tab)
