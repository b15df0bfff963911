"""Event streams: what changes in a journal, sent to whoever listens.

A stream is a loop of one coroutine: send what its subscription has to tell, and when there is
nothing more, sleep until the index wakes it or a heartbeat is due. All streams are woken at once,
and what they are sent is read and put into bytes once for all that stand at the same place: the
last of many must not wait for the first.
A subscriber that reads slowly costs nothing; one that doesn't read at all is dropped. This module
must not know how changes are noticed or what a session is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
from starlette.responses import Response

from perry.protocol import HEARTBEAT
from perry.sessions.subscription import Subscription
from perry.worker.encoding import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import Receive, Scope, Send

    from perry.sessions.journal import Change, Journal

log = logging.getLogger(__name__)

Thing = TypeVar("Thing")

PATIENCE = 30.0  # s that a subscriber may leave what it was sent unread
FAREWELL = 0.05  # s for the end of a stream, which a subscriber that reads gets at once
CHUNK = 32 * 1024  # bytes from which on a chunk takes no more events
SHARED = 8 * CHUNK  # bytes of chunks that are kept for all streams

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
MEDIA_TYPE = "text/event-stream"
COMMENT = b":\n\n"


class Streams(Generic[Thing]):
    """All event streams of one journal; used on the event loop only.

    `tell` gives what is told of a change, in the shape that it has as JSON; `heartbeat` and
    `patience` are in seconds.
    """

    def __init__(
        self,
        journal: Journal[Thing],
        tell: Callable[[Change[Thing]], object],
        *,
        heartbeat: float = HEARTBEAT,
        patience: float = PATIENCE,
    ) -> None:
        self._journal = journal
        self._news = _News(journal, tell, heartbeat)
        self._patience = patience
        self._open: set[anyio.CancelScope] = set()
        self._closed = False

    def subscribe(self, since: str | None) -> Response:
        """Make the answer that goes on after the event of that id; without one, it starts now."""
        events = _Events(Subscription(self._journal, since), self._news)
        return EventStream(self, events, self._patience)

    def close(self) -> None:
        """End all streams, now and in future."""
        self._closed = True
        for stream in self._open:
            stream.cancel()

    @contextlib.contextmanager
    def until_closed(self) -> Iterator[anyio.CancelScope]:
        """Run a block that `close` ends."""
        with anyio.CancelScope() as scope:
            if self._closed:
                scope.cancel()
            self._open.add(scope)
            try:
                yield scope
            finally:
                self._open.discard(scope)


class EventStream(Response, Generic[Thing]):
    """One subscriber's answer, which ends when it goes, when it is stuck, or with the worker."""

    def __init__(self, streams: Streams[Thing], events: _Events[Thing], patience: float) -> None:
        self.status_code = 200
        self.media_type = MEDIA_TYPE
        self.background = None
        self.init_headers(HEADERS)
        self._streams = streams
        self._events = events
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until there is a reason to stop."""
        if scope["method"] == "HEAD":
            await self._start(send)
            await send({"type": "http.response.body", "body": b""})
            return
        gone = asyncio.create_task(_disconnected(receive))
        try:
            with self._streams.until_closed() as stream:
                gone.add_done_callback(lambda _: stream.cancel())
                await self._send_events(send)
        finally:
            gone.cancel()
        with anyio.move_on_after(FAREWELL):
            await send({"type": "http.response.body", "body": b""})

    async def _start(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )

    async def _send_events(self, send: Send) -> None:
        await self._start(send)
        loop = asyncio.get_running_loop()
        with self._events.listening(), anyio.CancelScope() as stuck:
            while True:
                chunk = await self._events.next_chunk()
                late = loop.call_later(self._patience, stuck.cancel)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                late.cancel()
        if stuck.cancelled_caught:
            log.warning("dropped a subscriber that read nothing in %g s", self._patience)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _News(Generic[Thing]):
    """Wakes all streams of a journal at once, and keeps for the others what one of them was sent.

    It wakes them after `heartbeat` seconds of silence as well, and counts these `beats`.
    """

    def __init__(
        self, journal: Journal[Thing], tell: Callable[[Change[Thing]], object], heartbeat: float
    ) -> None:
        self._journal = journal
        self._tell = tell
        self._heartbeat = heartbeat
        self._listening = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next_beat: asyncio.TimerHandle | None = None
        self._is_waking = False
        self._chunks: dict[int, tuple[bytes, int]] = {}
        self._weight = 0
        self.beats = 0
        self.coming = asyncio.Event()
        """Is set by the next change or beat; the one after it sets another event."""

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Be woken for a block."""
        self._listening += 1
        if self._listening == 1:
            self._loop = asyncio.get_running_loop()
            self._next_beat = self._loop.call_later(self._heartbeat, self._beat)
            self._journal.listen(self._hear)
        try:
            yield
        finally:
            self._listening -= 1
            if not self._listening:
                self._journal.unlisten(self._hear)
                self._rest()

    def next_of(self, subscription: Subscription[Thing]) -> bytes:
        """Give what a subscription has to tell next, as it is sent; nothing where it has nothing.

        Whoever stands where another one stood is given the very same bytes.
        """
        place = subscription.place
        if place is not None and place in self._chunks:
            chunk, subscription.place = self._chunks[place]
            return chunk
        chunk = self._read(subscription)
        if chunk and place is not None and subscription.place is not None:
            self._weight += len(chunk)
            if self._weight > SHARED:
                self._chunks, self._weight = {}, len(chunk)
            self._chunks[place] = chunk, subscription.place
        return chunk

    def _read(self, subscription: Subscription[Thing]) -> bytes:
        chunk = bytearray()
        for told in subscription.unread():
            data = {} if told.change is None else self._tell(told.change)
            chunk += f"id: {told.id}\nevent: {told.kind}\ndata: ".encode() + encode(data) + b"\n\n"
            if len(chunk) >= CHUNK:
                break
        return bytes(chunk)

    def _hear(self) -> None:
        if self._is_waking or self._loop is None:
            return  # what is recorded by now is read when the streams get to it
        self._is_waking = True
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the streams with it
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._is_waking = False
        self._rest()
        if self._listening and self._loop is not None:
            self._next_beat = self._loop.call_later(self._heartbeat, self._beat)
        self.coming.set()
        self.coming = asyncio.Event()

    def _beat(self) -> None:
        self.beats += 1
        self._wake()

    def _rest(self) -> None:
        if self._next_beat is not None:
            self._next_beat.cancel()


class _Events(Generic[Thing]):
    """What one subscriber is sent next."""

    def __init__(self, subscription: Subscription[Thing], news: _News[Thing]) -> None:
        self._subscription = subscription
        self._news = news
        self.listening = news.listening

    async def next_chunk(self) -> bytes:
        """Wait for the next events, or for the time to say that there are none."""
        beats = self._news.beats
        while True:
            coming = self._news.coming  # before reading: what comes in between is not waited for
            if chunk := self._news.next_of(self._subscription):
                return chunk
            if self._news.beats != beats:
                return COMMENT
            await coming.wait()
