"""Work that takes a while, done in a thread and told as it goes.

It goes on to its end when nobody listens any more: half a workspace is worth nothing. It must not
know what the work is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING

import anyio
from starlette.responses import Response, StreamingResponse

from perry.agent.failures import answer_to, status_of, told
from perry.errors import PerryError
from perry.protocol import HEARTBEAT
from perry.worker.answers import json_answer
from perry.worker.encoding import encode
from perry.worker.events import COMMENT, HEADERS, MEDIA_TYPE
from perry.workspace.models import Ready, Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from perry.workspace.models import Steps

    Tell = Callable[["Step | Ready | PerryError"], None]

log = logging.getLogger(__name__)


async def answer(request: Request, begin: Callable[[], Steps]) -> Response:
    """Do work: its steps as server-sent events where the client accepts them, else its end as JSON.

    The events are `step`, and at the end `ready` or `error`.
    """
    if MEDIA_TYPE in request.headers.get("accept", ""):
        return StreamingResponse(_events(begin), media_type=MEDIA_TYPE, headers=HEADERS)
    async for one in _told(begin):
        if isinstance(one, PerryError):
            return answer_to(one)
        if isinstance(one, Ready):
            return json_answer(one)
    raise AssertionError("work without an end")


async def _events(begin: Callable[[], Steps]) -> AsyncIterator[bytes]:
    async for one in _told(begin):
        match one:
            case None:
                yield COMMENT
            case Step():
                yield _event("step", one)
            case Ready():
                yield _event("ready", one)
            case PerryError():
                yield _event("error", {**told(one), "status": status_of(one)})


def _event(kind: str, data: object) -> bytes:
    return f"event: {kind}\ndata: ".encode() + encode(data) + b"\n\n"


async def _told(begin: Callable[[], Steps]) -> AsyncIterator[Step | Ready | PerryError | None]:
    """Give each step, and then what they led to; None for a while in which nothing happened."""
    loop = asyncio.get_running_loop()
    coming: asyncio.Queue[Step | Ready | PerryError] = asyncio.Queue()

    def tell(one: Step | Ready | PerryError) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and whoever listened is gone
            loop.call_soon_threadsafe(coming.put_nowait, one)

    threading.Thread(target=_run, args=(begin, tell), name="work", daemon=True).start()
    one: Step | Ready | PerryError | None = None
    while one is None or isinstance(one, Step):
        one = None
        with anyio.move_on_after(HEARTBEAT):
            one = await coming.get()
        yield one


def _run(begin: Callable[[], Steps], tell: Tell) -> None:
    """Tell every step, and one end, whatever happens: somebody may be waiting for it."""
    try:
        work = begin()
        while True:
            try:
                tell(next(work))
            except StopIteration as end:
                tell(end.value)
                return
    except PerryError as error:
        tell(error)
    except Exception as error:
        log.exception("work failed")
        tell(PerryError(f"the daemon failed: {type(error).__name__}"))
