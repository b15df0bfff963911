"""The connection that carries the streams of a program in a container.

The engine answers over HTTP and then hands the connection over, and what the program says at once
may have been read along with that answer. It must not know what the bytes mean.
"""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Attachment:
    """A connection that the engine handed over; `early` are the bytes that came before that."""

    socket: socket.socket
    early: bytes
    _response: Any

    @classmethod
    def taken_over(cls, attached: Any) -> Self:  # noqa: ANN401 - a socket or a file around one, by the kind of connection
        """Take what docker-py returns for an exec that it attached to."""
        response = attached._response  # noqa: SLF001 - docker-py's own way to keep it alive
        # Over TLS it is the connection itself, else a file around it.
        connection: socket.socket = getattr(attached, "_sock", attached)
        return cls(connection, _early(connection, response.raw._fp.fp), response)  # noqa: SLF001 - as docker-py finds it

    def close(self) -> None:
        """End the connection, and with it what the program reads; closing twice does no harm."""
        with contextlib.suppress(OSError):  # the other side was quicker
            self.socket.shutdown(socket.SHUT_RDWR)
        self._response.close()
        self.socket.close()


def _early(connection: socket.socket, buffered: io.BufferedReader) -> bytes:
    before = connection.gettimeout()
    connection.settimeout(0)
    try:
        return buffered.peek()
    except ssl.SSLWantReadError:
        return b""  # nothing yet
    finally:
        connection.settimeout(before)
