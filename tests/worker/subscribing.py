"""A subscriber to a worker's events that speaks HTTP by hand, so that it can also not read."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.worker.running import PATIENCE, TOKEN

if TYPE_CHECKING:
    from collections.abc import Generator


class Told(NamedTuple):
    """One event as it came."""

    id: str
    kind: str
    data: Any


class Subscriber:
    """One connection with `GET` sent on it for events; nothing is read until asked for."""

    def __init__(
        self,
        port: int,
        *,
        since: str | None = None,
        last_event_id: str | None = None,
        token: str = TOKEN,
        receive_buffer: int | None = None,
        path: str = "/events",
    ) -> None:
        self.comments = 0
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(("127.0.0.1", port))
        query = "" if since is None else f"?since={since}"
        last = "" if last_event_id is None else f"Last-Event-ID: {last_event_id}\r\n"
        self._socket.sendall(
            f"GET {path}{query} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {token}\r\n{last}\r\n".encode()
        )
        self._events = self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._events.close()
        self._socket.close()

    def next(self) -> Told:
        """Wait for the next event; fails where the stream ends or is silent for too long."""
        return next(self._events)

    def until_end(self) -> list[Told]:
        """All events up to the end that the worker gives the stream."""
        return list(self._events)

    def _read(self) -> Generator[Told, None, None]:
        with self._socket.makefile("rb") as file:
            assert file.readline().startswith(b"HTTP/1.1 200")
            while file.readline().strip():
                pass
            pending = b""
            while size := int(file.readline(), 16):
                pending += file.read(size)
                assert file.readline() == b"\r\n"
                *blocks, pending = pending.split(b"\n\n")
                for block in blocks:
                    if block.startswith(b":"):
                        self.comments += 1
                    else:
                        yield told(block.decode())
            assert pending == b""


def told(block: str) -> Told:
    lines = dict(line.split(": ", 1) for line in block.split("\n"))
    assert list(lines) == ["id", "event", "data"]
    return Told(lines["id"], lines["event"], json.loads(lines["data"]))
