"""A socket that answers as a test says, and remembers all that it was sent."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from perry.protocol import proof

if TYPE_CHECKING:
    from collections.abc import Callable

Reply = bytes | None
"""What goes back; None closes the connection without a word."""


def http(status: int, body: Any = b"", *headers: str) -> bytes:
    """An HTTP answer; a body that isn't bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = "".join(f"{each}\r\n" for each in (f"Content-Length: {len(content)}", *headers))
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + content


def proving(token: str, target: str, *headers: str) -> bytes:
    """The health answer of a worker that has the token."""
    nonce = parse_qs(urlsplit(target).query)["challenge"][0]
    return http(200, {"status": "ok", "proof": proof(token, nonce)}, *headers)


class Answering:
    """Listens on loopback; `reply(target, number)` makes the answer to each request.

    `number` counts the requests from 0. An answer with `Connection: close` ends its connection.
    """

    def __init__(self, reply: Callable[[str, int], Reply], *, port: int = 0) -> None:
        self.received = b""
        self.requests: list[str] = []
        self.connections = 0
        self._reply = reply
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._open):
            each.close()

    @property
    def targets(self) -> list[str]:
        """Method and target of the requests, without those for `/health`."""
        lines = [each.rpartition(" ")[0] for each in self.requests]
        return [each for each in lines if "/health" not in each]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # the test is over
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        pending = b""
        while True:
            try:
                got = connection.recv(65536)
            except OSError:
                return  # the client or the test closed it
            if not got:
                return
            self.received += got
            pending += got
            while b"\r\n\r\n" in pending:
                head, _, pending = pending.partition(b"\r\n\r\n")
                line = head.split(b"\r\n")[0].decode()
                self.requests.append(line)
                reply = self._reply(line.split(" ")[1], len(self.requests) - 1)
                if reply is not None:
                    connection.sendall(reply)
                if reply is None or b"Connection: close" in reply:
                    connection.shutdown(socket.SHUT_RDWR)
                    return
