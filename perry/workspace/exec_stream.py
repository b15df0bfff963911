"""A connection to a worker through a program in its container: the rung that needs no network.

The bundle's netcat carries bytes between the container's own loopback and Docker's exec, so it
works wherever the engine does: without a network, and on an engine whose containers' addresses
mean nothing here. It must not know what the bytes say.
"""

from __future__ import annotations

import select
import ssl
from time import monotonic

from perry.client.transport import Opener
from perry.errors import EngineError
from perry.protocol import WORKER_PORT
from perry.workspace.attachment import Attachment
from perry.workspace.bundle import BUSYBOX
from perry.workspace.engine import Engine
from perry.workspace.frames import STDERR, Frames

CHUNK = 65536
LONGEST_COMPLAINT = 400  # bytes of what the program says of itself

NETCAT = (BUSYBOX, "nc", "-w", "2", "127.0.0.1", str(WORKER_PORT))
"""Gives up on a connection after two seconds."""


class ExecStream:
    """The two ways of a program in a container, as one connection (a ByteStream of the client).

    What the program writes to its standard error tells why it ended.
    """

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._socket = attachment.socket
        self._frames = Frames()
        self._ready = bytearray()
        self._complaint = b""
        self._ended = False
        self._take(attachment.early)

    def read(self, most: int, timeout: float | None, /) -> bytes:
        """Return up to `most` bytes; none where the program has ended.

        Raises TimeoutError, and ConnectionError where the program complained or the connection
        broke.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while not self._ready and not self._ended:
            self._receive(deadline)
        if not self._ready and self._complaint:
            raise ConnectionResetError(self._complaint.decode(errors="replace").strip())
        taken = bytes(self._ready[:most])
        del self._ready[:most]
        return taken

    def write(self, data: bytes, timeout: float | None, /) -> None:
        """Send all of the bytes to the program. Raises TimeoutError and ConnectionError."""
        self._socket.settimeout(timeout)
        self._socket.sendall(data)

    def is_readable(self) -> bool:
        """Tell whether there is something to read, be it the end."""
        if self._ready or self._ended or self._socket.fileno() < 0:
            return True
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        looking = select.poll()  # select itself knows no descriptors above 1023
        looking.register(self._socket, select.POLLIN)
        return bool(looking.poll(0))

    def close(self) -> None:
        """End the program: its input is at an end, so it ends its connection to the worker."""
        self._ended = True
        self._attachment.close()

    def _receive(self, deadline: float | None) -> None:
        left = None if deadline is None else deadline - monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("the program in the container says nothing")
        self._socket.settimeout(left)
        data = self._socket.recv(CHUNK)
        self._ended = not data
        self._take(data)

    def _take(self, data: bytes) -> None:
        for stream, content in self._frames.feed(data):
            if stream == STDERR:
                self._complaint = (self._complaint + content)[:LONGEST_COMPLAINT]
            else:
                self._ready += content


def opener(engine: Engine, container_id: str) -> Opener:
    """Return what opens connections to the worker of a container through its engine.

    An engine that can't is a ConnectionError; how long it may take is its own to know.
    """

    def open_stream(_timeout: float | None) -> ExecStream:
        try:
            exec_id = engine.prepare_exec(container_id, NETCAT, stdin=True)
            return ExecStream(engine.attach_exec(exec_id, tty=False))
        except EngineError as error:
            raise ConnectionError(error.message) from error

    return open_stream
