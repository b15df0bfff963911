"""What all endpoints have in common: numbers out of queries, JSON into answers, errors into words.

Every answer, errors included, is JSON. It must not know any route.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.responses import Response

from perry.worker.encoding import encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

T = TypeVar("T")

LARGEST_NUMBER = 2**53  # beyond it JSON numbers are no longer exact; no session is that long


async def in_thread(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:  # noqa: ANN401 - handed through unchanged
    """Call what may block, in a thread."""
    # Abandoned when cancelled: a long parse must not hold up the end of the process.
    call = functools.partial(function, *args, **kwargs)
    return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)


def json_answer(
    answer: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Answer with a value as JSON."""
    return raw_answer(encode(answer), status, headers)


def raw_answer(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with what is JSON already."""
    return Response(body, status, headers, "application/json")


def asked_agent(request: Request) -> str | None:
    """Read which coding agent is asked for."""
    return request.query_params.get("agent") or None


def number(request: Request, name: str) -> int | None:
    """Read a whole number, None where it isn't given. Raises HTTPException 400."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise HTTPException(400, f"{name} must be a whole number, 0 or more")
    # 16 digits are more than the largest number, and Python refuses to convert thousands of them
    return min(int(text.lstrip("0")[:17] or "0"), LARGEST_NUMBER)


def flag(request: Request, name: str) -> bool:
    """Read a 0 or 1, 0 where it isn't given. Raises HTTPException 400."""
    text = request.query_params.get(name, "0").lower()
    if text not in {"0", "1", "false", "true"}:
        raise HTTPException(400, f"{name} must be 0 or 1")
    return text in {"1", "true"}


def has_tag(request: Request, tag: str) -> bool:
    """Tell whether the client has the answer of that ETag already."""
    given = [each.strip() for each in request.headers.get("if-none-match", "").split(",")]
    return "*" in given or tag in (each.removeprefix("W/") for each in given)


async def refused(_: Request, error: Exception) -> Response:
    """Answer an HTTPException."""
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette's type is wider than its calls
    return json_answer({"error": error.detail}, error.status_code, dict(error.headers or {}))
