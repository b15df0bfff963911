"""Searches in messages, which may read every log there is, beside answers that must not wait.

A search runs in a thread that is told to stop when its client has gone or the worker ends, and
lets others have the interpreter every few milliseconds. Few run at the same time; the others wait
for their turn. This module must not know how words are found, or what an answer looks like.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from perry.sessions.search import search_page

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from perry.sessions.index import SessionIndex
    from perry.sessions.models import SearchPage

AT_ONCE = 2  # searches that run at the same time


class Searches:
    """The searches of one worker."""

    def __init__(self, index: SessionIndex) -> None:
        self._index = index
        self._turns = anyio.CapacityLimiter(AT_ONCE)

    async def page(
        self,
        request: Request,
        words: Sequence[str],
        **wanted: Any,  # noqa: ANN401 - handed on to search_page as they are
    ) -> SearchPage:
        """Search as `search_page` does, for as long as the request's client is there."""
        stopped = threading.Event()

        def go_on() -> bool:
            time.sleep(0)  # others may have the interpreter now; a search is never in a hurry
            return not stopped.is_set()

        find = functools.partial(search_page, self._index, words, go_on=go_on, **wanted)
        gone = asyncio.create_task(_gone(request))
        gone.add_done_callback(lambda _: stopped.set())
        try:
            # What is found by then goes nowhere if the client has gone.
            return await anyio.to_thread.run_sync(find, abandon_on_cancel=True, limiter=self._turns)
        finally:
            stopped.set()
            gone.cancel()


async def _gone(request: Request) -> None:
    """Wait until the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
