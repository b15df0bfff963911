"""A log that goes on: what a workspace's command prints, or its worker writes.

Whoever reads waits for more in a thread, and whoever ends that does so from another. It must not
know who reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from perry.workspace.attachment import Attachment
from perry.workspace.bundle import BUSYBOX
from perry.workspace.engine import Engine
from perry.workspace.frames import STDERR, Frames

CHUNK = 65536
MOST_LINES = 1_000_000  # of a file; busybox refuses numbers that are too large for it

FOLLOW = '"$0" tail -n "$2" -F "$1" & "$0" cat > /dev/null; kill $!'
"""Busybox's shell follows a file, which may be moved aside, until its own input ends."""


@dataclass(frozen=True)
class LogStream:
    """An open log; `end` ends the waiting of who reads `chunks` in another thread."""

    chunks: Iterator[bytes]
    end: Callable[[], None]

    def read(self) -> bytes:
        """Wait for more and return it; nothing where the log has ended, or was closed."""
        return next(self.chunks, b"")

    def close(self) -> None:
        """End it, from any thread; closing twice does no harm."""
        self.end()


def follow_command(engine: Engine, container_id: str, *, tail: int) -> LogStream:
    """Open what a container prints, from its last lines on; it ends when the container stops."""
    return LogStream(*engine.follow_logs(container_id, tail=tail))


def follow_file(engine: Engine, container_id: str, path: str, *, tail: int) -> LogStream:
    """Open a file in a running container, from its last lines on; it ends with the container.

    What is written is there within a second.
    """
    argv = (BUSYBOX, "sh", "-c", FOLLOW, BUSYBOX, path, str(min(tail, MOST_LINES)))
    attachment = engine.attach_exec(engine.prepare_exec(container_id, argv, stdin=True), tty=False)
    return LogStream(_output(attachment), attachment.close)


def _output(attachment: Attachment) -> Iterator[bytes]:
    frames, data = Frames(), attachment.early
    attachment.socket.settimeout(None)  # a log may be silent for days
    while True:
        yield from (content for stream, content in frames.feed(data) if stream != STDERR)
        try:
            data = attachment.socket.recv(CHUNK)
        except OSError:
            return  # closed, or the engine is gone and the container's programs with it
        if not data:
            return
