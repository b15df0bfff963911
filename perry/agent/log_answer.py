"""A followed log as an answer without an end of its own.

It ends when the log does, when the client goes, and with the daemon. It must not know whose log it
is.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from perry.agent.ledger import Thing
    from perry.worker.events import Streams
    from perry.workspace.log_stream import LogStream

FAREWELL = 0.05  # s for the end of an answer, which a client that reads gets at once
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class LogAnswer(Response):
    """Sends a log as it comes; `readers` bounds the threads that wait for more of one.

    It is ended with `streams`. Nothing is read ahead of a slow client.
    """

    def __init__(
        self, log: LogStream, streams: Streams[Thing], readers: anyio.CapacityLimiter
    ) -> None:
        self.status_code = 200
        self.media_type = "text/plain"
        self.background = None
        self.init_headers(HEADERS)
        self._log = log
        self._streams = streams
        self._readers = readers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI has it
        """Send what comes until there is a reason to stop."""
        gone = asyncio.create_task(_disconnected(receive))
        try:
            with self._streams.until_closed() as sending:
                gone.add_done_callback(lambda _: sending.cancel())
                await send(
                    {
                        "type": "http.response.start",
                        "status": self.status_code,
                        "headers": self.raw_headers,
                    }
                )
                while chunk := await self._next_chunk():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            gone.cancel()
            self._log.close()
        with anyio.move_on_after(FAREWELL):
            await send({"type": "http.response.body", "body": b""})

    async def _next_chunk(self) -> bytes:
        # Abandoned when cancelled: the thread ends with the log, which is closed then.
        return await anyio.to_thread.run_sync(
            self._log.read, abandon_on_cancel=True, limiter=self._readers
        )


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
