"""Docker's framed streams: a program's output and errors in one connection.

Without a terminal, Docker sends both in frames of an 8-byte header (the stream, three empty bytes,
the length; Docker Engine API, container attach). It must not know where the bytes come from.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER = struct.Struct(">BxxxL")

STDERR = 2


class Frames:
    """Takes Docker's framed stream apart, wherever the network happens to cut it."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the number of the stream (1 output, 2 errors) and the bytes of each whole frame."""
        self._pending += data
        while len(self._pending) >= HEADER.size:
            stream, length = HEADER.unpack_from(self._pending)
            end = HEADER.size + length
            if len(self._pending) < end:
                return
            yield stream, bytes(self._pending[HEADER.size : end])
            del self._pending[:end]
