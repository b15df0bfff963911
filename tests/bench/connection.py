"""An HTTP client that costs next to nothing, so that what is measured is the server.

One kept connection, requests as ready bytes, answers as bytes. It knows just what a worker and
uvicorn send: a Content-Length, or an endless stream. It must not know what is asked for.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Self

PATIENCE = 60.0  # s


class Connection:
    """A kept connection to a server, on this machine by default."""

    def __init__(self, port: int, token: str = "", host: str = "127.0.0.1") -> None:
        self._token = token
        self._socket = socket.create_connection((host, port), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 18)
        self.said = b""
        """The head of the answer that came last, in lower case."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def fileno(self) -> int:
        """Name the socket for `select`."""
        return self._socket.fileno()

    def request(self, path: str, headers: str = "") -> bytes:
        """Make the bytes of a GET request; `headers` are whole lines."""
        authorization = f"Authorization: Bearer {self._token}\r\n" if self._token else ""
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}{headers}\r\n"
        return head.encode()

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask, and wait for the whole answer: its status and its body."""
        self.send(self.request(path))
        return self.receive()

    def send(self, request: bytes) -> None:
        """Send a request."""
        self._socket.sendall(request)

    def receive(self) -> tuple[int, bytes]:
        """Wait for the whole answer: its status and its body."""
        status, rest, length = self.head()
        body = bytearray(length)
        body[: len(rest)] = rest
        view = memoryview(body)[len(rest) :]
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise ConnectionError("the server closed the connection within an answer")
            view = view[count:]
        return status, bytes(body)

    def skip(self) -> int:
        """Wait for the whole answer, and keep nothing of it: its status."""
        status, rest, length = self.head()
        left = length - len(rest)
        while left:
            count = self._socket.recv_into(self._buffer, min(left, len(self._buffer)))
            if not count:
                raise ConnectionError("the server closed the connection within an answer")
            left -= count
        return status

    def head(self) -> tuple[int, bytes, int]:
        """Wait for an answer's head: its status, what came of the body, the length (0: unsaid)."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.hear()
        head, _, rest = data.partition(b"\r\n\r\n")
        self.said = head.lower()
        _, found, length = self.said.partition(b"content-length:")
        return int(head[9:12]), rest, int(length.split(b"\r\n", 1)[0]) if found else 0

    def wait_for(self, words: bytes, within: float) -> bool:
        """Read a stream until it has said something; says whether it did in that many seconds."""
        deadline = time.perf_counter() + within
        said = b""
        while words not in said:
            remaining = deadline - time.perf_counter()
            if remaining <= 0 or not select.select([self], [], [], remaining)[0]:
                return False
            said += self.hear()
        return True

    def hear(self) -> bytes:
        """Read what has come of a stream, at least a byte."""
        count = self._socket.recv_into(self._buffer)
        if not count:
            raise ConnectionError("the server closed the connection")
        return bytes(memoryview(self._buffer)[:count])


def rate(connect: Callable[[], Connection], path: str, number: int, duration: float) -> float:
    """Count answers a second over a number of kept connections that are never idle."""
    connections: Sequence[Connection] = [connect() for _ in range(number)]
    request = connections[0].request(path)
    answers = 0
    began = time.perf_counter()
    for each in connections:
        each.send(request)
    while (took := time.perf_counter() - began) < duration:
        for each in select.select(connections, [], [], PATIENCE)[0]:
            status = each.skip()
            assert status == 200, f"{path} was answered with {status}"
            answers += 1
            each.send(request)
    for each in connections:
        each.skip()
        each.close()
    return answers / took


def latency(connection: Connection, path: str, times: int) -> list[float]:
    """Ask a number of times, one after the other: the seconds of each answer."""
    request = connection.request(path)
    result = []
    for _ in range(times):
        began = time.perf_counter()
        connection.send(request)
        status = connection.skip()
        result.append(time.perf_counter() - began)
        assert status == 200, f"{path} was answered with {status}"
    return result
