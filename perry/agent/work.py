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

from starlette.responses import Response, StreamingResponse

from perry.agent.failures import status_of, told
from perry.errors import PerryError
from perry.worker.answers import json_answer
from perry.worker.encoding import encode
from perry.worker.events import HEADERS, MEDIA_TYPE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from perry.workspace.models import Ready, Step, Steps

log = logging.getLogger(__name__)


async def answer(request: Request, begin: Callable[[], Steps]) -> Response:
    """Do work: its steps as server-sent events where the client accepts them, else its end as JSON.

    The events are `step`, and at the end `ready` or `error`.
    """
    if MEDIA_TYPE in request.headers.get("accept", ""):
        return StreamingResponse(_events(begin), media_type=MEDIA_TYPE, headers=HEADERS)
    *_, end = [one async for one in _told(begin)]
    if isinstance(end, PerryError):
        return json_answer(told(end), status_of(end))
    return json_answer(end)


async def _events(begin: Callable[[], Steps]) -> AsyncIterator[bytes]:
    kinds = {"Step": "step", "Ready": "ready"}
    async for one in _told(begin):
        kind = kinds.get(type(one).__name__, "error")
        data = told(one) if isinstance(one, PerryError) else one
        yield f"event: {kind}\ndata: ".encode() + encode(data) + b"\n\n"


async def _told(begin: Callable[[], Steps]) -> AsyncIterator[Step | Ready | PerryError]:
    """Give each step, and then what they led to."""
    loop = asyncio.get_running_loop()
    coming: asyncio.Queue[Step | Ready | PerryError] = asyncio.Queue()
    ended = asyncio.Event()

    def tell(one: Step | Ready | PerryError, *, last: bool = False) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and whoever listened is gone
            loop.call_soon_threadsafe(coming.put_nowait, one)
            if last:
                loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=_run, args=(begin, tell), daemon=True).start()
    while not (ended.is_set() and coming.empty()):
        yield await coming.get()


def _run(begin: Callable[[], Steps], tell: Callable[..., None]) -> None:
    try:
        work = begin()
        while True:
            try:
                tell(next(work))
            except StopIteration as end:
                tell(end.value, last=True)
                return
    except PerryError as error:
        tell(error, last=True)
    except Exception as error:
        # Whoever waits for the end has to get one.
        log.exception("work failed")
        tell(PerryError(f"the daemon failed: {type(error).__name__}"), last=True)
