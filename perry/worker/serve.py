"""Runs a worker: one socket, one watcher, one uvicorn, until a signal comes.

The order matters: the port is bound first, so that a taken one is a clear error, and answers
`starting` while the first scan runs in the watcher's thread. At the end nothing is waited for that
could take long: readers are abandoned, since what they remember is written to survive a kill.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Generic, NoReturn, TextIO, TypeVar

from uvicorn.config import Config
from uvicorn.server import Server

from perry.errors import PerryError, PortInUse, UsageError
from perry.sessions.index import SessionIndex
from perry.worker.app import create_app, streams_of
from perry.worker.config import EVERYWHERE
from perry.worker.events import PATIENCE, Streams
from perry.worker.logfile import is_large, log_to
from perry.worker.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from starlette.types import ASGIApp

    from perry.worker.config import WorkerConfig

log = logging.getLogger(__name__)

Thing = TypeVar("Thing")

GRACE = 0.25  # s for requests in flight; 1 s is promised, and uvicorn needs 0.2 s and more
BACKLOG = 512
DATE = 1.0  # s for which the date in answers is good
KEEP_ALIVE = 75  # s; longer than clients keep idle connections, so that they close first


def run(config: WorkerConfig, *, log_file: str | None = None) -> NoReturn:
    """Serve until SIGTERM or SIGINT, then end the process at once with exit code 0.

    For a process that is a worker and nothing else: threads that still read files don't delay its
    end. `log_file` is where stderr goes, and is kept from growing without bound.
    Raises what `serve` raises.
    """
    if log_file is not None:
        log_through(BoundedLog(log_file))
    serve(config)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def serve(config: WorkerConfig, *, on_listening: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; logs go to stderr.

    `on_listening` is called with the base URL once the port is bound.
    Raises PerryError where the port is taken or the host isn't one of this machine.
    """
    log_through(logging.StreamHandler())
    with listen(config.host, config.port) as listener:
        url = url_of(config.host, listener)
        log.info("listening on %s for the sessions of %s", url, config.home)
        if on_listening is not None:
            on_listening(url)
        index = SessionIndex.of_home(config.home, config.env, remember=True)
        watcher = Watcher(index)
        streams = streams_of(index)
        watcher.start()
        try:
            serve_app(create_app(config, index, watcher, streams), listener, streams)
        finally:
            watcher.stop()
            if watcher.ready.is_set():
                index.save()
    log.info("ended")


def serve_app(app: ASGIApp, listener: socket.socket, streams: Streams[Thing]) -> None:
    """Serve an application on a socket until SIGTERM or SIGINT; its event streams end first."""
    config = Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,  # type: ignore[arg-type] # given to asyncio.wait_for, which takes fractions
    )
    with _SignalsEndQuietly():
        _Server(config, streams).run(sockets=[listener])


class _Server(Server, Generic[Thing]):
    """Ends the event streams, which have no end of their own, before it waits for its clients.

    While it serves it sleeps until a signal comes, where uvicorn looks ten times a second.
    """

    def __init__(self, config: Config, streams: Streams[Thing]) -> None:
        super().__init__(config)
        self._streams = streams
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signalled = asyncio.Event()

    async def main_loop(self) -> None:
        """Serve until a signal comes."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._signalled.wait(), DATE)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take in a signal."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._signalled.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the server."""
        self._streams.close()
        await super().shutdown(sockets)


class BoundedLog(logging.StreamHandler[TextIO]):
    """Logs to stderr, and moves the file behind it aside when it has grown large."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if is_large(self._path):
            log_to(self._path)
        super().emit(record)


def log_through(handler: logging.Handler) -> None:
    """Log through a handler; does nothing where somebody has set logging up."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[handler],
    )


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen; `::` means every address of both families.

    Raises PortInUse, and UsageError where the host can't be bound.
    """
    try:
        if host == EVERYWHERE:
            listener = _listen_everywhere(port)
        else:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise _cannot_listen(host, port, error) from error
    # Handed down to each connection. asyncio only does it for sockets made with IPPROTO_TCP named,
    # and without it the body of an answer waits 40 ms for the acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer that takes nothing more loses its connection. Closing it would not do: asyncio would
    # wait for what is still to be sent, for ever.
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = int(PATIENCE * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    return listener


def _listen_everywhere(port: int) -> socket.socket:
    try:
        return socket.create_server(
            (EVERYWHERE, port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
        )
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise
        # A kernel without IPv6 says so in one of several ways; IPv4 is enough then.
        return socket.create_server(("0.0.0.0", port), backlog=BACKLOG)  # noqa: S104 - only with a token


def _cannot_listen(host: str, port: int, error: OSError) -> PerryError:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"Port {port} is in use by another process.",
            hint="Stop that process, or choose another port with --port.",
        )
    if error.errno == errno.EACCES:
        return PerryError(
            f"This user may not listen on port {port}.",
            hint="Choose a port above 1023 with --port.",
        )
    return UsageError(
        f"Can't listen on {host}: {error.strerror or error}.",
        hint="Give --host an address of this machine.",
    )


def url_of(host: str, listener: socket.socket) -> str:
    """Return the base URL of a server that listens."""
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _SignalsEndQuietly:
    """Lets SIGTERM and SIGINT end the server as a success.

    uvicorn raises a signal that ended it once more, for whoever had a handler before. Without one
    that would kill the process with an error.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __enter__(self) -> None:
        self._before = {each: signal.signal(each, self._ignore) for each in self.SIGNALS}

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    @staticmethod
    def _ignore(_signal: int, _frame: FrameType | None) -> None:
        return
