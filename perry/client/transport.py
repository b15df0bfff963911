"""HTTP over any stream of bytes, for a worker that no address leads to.

httpcore makes its connections through a backend, and this one has them opened by whoever knows the
way. Everything above it stays as it is over TCP: the pool, the timeouts, and the trace events that
tell of a new connection, on which the proof before the token depends. This module must not know
what carries the bytes.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import httpcore
import httpx

IDLE = 30.0
"""Seconds after which a connection that nobody used is closed."""

UNUSED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""What every transport is given in place of a context of its own: a worker speaks plain HTTP, and
to read the system's certificates takes 50 ms."""

TransportFactory = Callable[[], httpx.BaseTransport]
"""Makes one connection's transport; every channel to a worker has its own."""


class ByteStream(Protocol):
    """A connection that somebody opened.

    `timeout` is in seconds, None for none. Raises TimeoutError, and OSError for all else.
    """

    def read(self, most: int, timeout: float | None, /) -> bytes:
        """Return up to `most` bytes, at least one; none where the other side has ended."""

    def write(self, data: bytes, timeout: float | None, /) -> None:
        """Send all of the bytes."""

    def is_readable(self) -> bool:
        """Tell whether `read` would return at once; so it does at the stream's end."""

    def close(self) -> None:
        """End the connection; closing twice does no harm."""


Opener = Callable[[float | None], ByteStream]
"""Opens a connection within so many seconds; raises what a ByteStream raises."""


def over_tcp() -> httpx.BaseTransport:
    """Make a transport of one TCP connection. No proxy ever sees a worker."""
    return httpx.HTTPTransport(
        trust_env=False,
        verify=UNUSED,
        limits=httpx.Limits(max_connections=1, keepalive_expiry=IDLE),
    )


class StreamTransport(httpx.HTTPTransport):
    """A transport of one connection at a time, each one opened by `open_stream`."""

    def __init__(self, open_stream: Opener) -> None:
        super().__init__(trust_env=False, verify=UNUSED)
        self._pool = httpcore.ConnectionPool(
            max_connections=1, keepalive_expiry=IDLE, network_backend=_Backend(open_stream)
        )


class _Backend(httpcore.NetworkBackend):
    def __init__(self, open_stream: Opener) -> None:
        self._open = open_stream

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - there is one place that the streams lead to
        port: int,  # noqa: ARG002 - as above
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - as above
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002 - as above
    ) -> httpcore.NetworkStream:
        with _mapped(httpcore.ConnectTimeout, httpcore.ConnectError):
            return _Stream(self._open(timeout))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _mapped(httpcore.ReadTimeout, httpcore.ReadError):
            return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _mapped(httpcore.WriteTimeout, httpcore.WriteError):
            self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's own signature
        # httpcore asks this of an idle connection: what is readable then has ended.
        return self._stream.is_readable() if info == "is_readable" else None


@contextmanager
def _mapped(late: type[Exception], broken: type[Exception]) -> Iterator[None]:
    """Turn a stream's errors into httpcore's, of which httpx makes its own."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise broken(str(error)) from error
