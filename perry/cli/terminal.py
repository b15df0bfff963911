"""A command in a workspace, joined to this terminal or to these pipes.

With a terminal the command gets a terminal of its own: ours goes raw, every key goes through, and
its size follows ours. Without one, Docker sends output and errors in one framed stream that is
taken apart here, and what is piped in is passed on. One loop serves both directions and never
waits on a side that isn't ready, so a command that writes before it has read everything can't
lock up. This module must not know which command runs or what a workspace is.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import ssl
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from typing import IO, Protocol

from perry.errors import PerryError
from perry.workspace.frames import STDERR, Frames

CHUNK = 65536
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Running(Protocol):
    """A command that runs in a workspace: all of its exec that this module uses."""

    @property
    def socket(self) -> socket.socket:
        """The connected stream of its input and output."""

    @property
    def early(self) -> bytes:
        """What came before there was anything to read from it."""

    def resize(self, rows: int, columns: int, /) -> None:
        """Tell its terminal the new size."""

    def exit_code(self) -> int:
        """Tell how it ended."""


def join(command: Running, *, tty_wanted: bool, stdin: int | None) -> int:
    """Carry bytes between this process and the command until it ends; returns its exit code.

    `stdin` is the file descriptor whose bytes the command reads, None for none. With `tty_wanted`
    it must be a terminal; it is raw meanwhile and restored whatever happens.
    """
    if not tty_wanted:
        return _Joint(command, stdin, _demultiplexer()).run()
    if stdin is None:
        raise ValueError("a terminal is joined to a command through its stdin")
    with _raw(stdin), _size_followed(command, stdin) as size_due:
        return _Joint(command, stdin, _to(sys.stdout.buffer), size_due).run()


class _Joint:
    """The loop between a command's socket and our descriptors."""

    def __init__(
        self,
        command: Running,
        stdin: int | None,
        deliver: Callable[[bytes], None],
        size_due: _SizeDue | None = None,
    ) -> None:
        self._command = command
        self._socket = command.socket
        self._stdin = stdin
        self._deliver = deliver
        self._size_due = size_due
        self._unsent = b""

    def run(self) -> int:
        self._socket.setblocking(False)
        if self._command.early:
            self._deliver(self._command.early)
        while self._turn():
            pass
        return self._command.exit_code()

    def _turn(self) -> bool:
        """Move what is ready; False once the command's side has ended."""
        reading: list[int] = [self._socket.fileno()]
        if self._stdin is not None and not self._unsent:
            reading.append(self._stdin)
        if self._size_due is not None:
            reading.append(self._size_due.fileno())
        writing = [self._socket.fileno()] if self._unsent else []
        readable, writable, _ = select.select(reading, writing, [])
        if self._size_due is not None and self._size_due.fileno() in readable:
            self._size_due.settle()
        if self._stdin is not None and self._stdin in readable:
            self._take(self._stdin)
        if writable or self._unsent:
            self._send()
        return self._receive() if self._socket.fileno() in readable else True

    def _take(self, stdin: int) -> None:
        self._unsent = os.read(stdin, CHUNK)
        if not self._unsent:
            self._stdin = None
            # The command may have ended and closed its side already: then nobody needs the news.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def _send(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except NOT_NOW:
            return
        except (BrokenPipeError, ConnectionResetError):
            # The command reads no more, as `head` does; what it still writes is still wanted.
            self._unsent, self._stdin = b"", None

    def _receive(self) -> bool:
        """Deliver one chunk, so that a flood of output never keeps Ctrl-C waiting."""
        try:
            data = self._socket.recv(CHUNK)
            # What TLS has decrypted already, select can't see.
            while isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
                data += self._socket.recv(CHUNK)
        except NOT_NOW:
            return True
        except ConnectionResetError:
            return False
        if data:
            self._deliver(data)
        return bool(data)


class _SizeDue:
    """Wakes the loop when our terminal has another size, and passes that on to the command's."""

    def __init__(self, command: Running, terminal: int) -> None:
        self._command = command
        self._terminal = terminal
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self.note()

    def fileno(self) -> int:
        return self._read

    def note(self, *_: object) -> None:
        # A full pipe wakes the loop as well as one byte more would.
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def settle(self) -> None:
        os.read(self._read, CHUNK)
        size = os.get_terminal_size(self._terminal)
        # A command that has just ended has no terminal any more; its output is still to come.
        with contextlib.suppress(PerryError):
            self._command.resize(size.lines, size.columns)

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


@contextlib.contextmanager
def _size_followed(command: Running, terminal: int) -> Iterator[_SizeDue]:
    due = _SizeDue(command, terminal)
    before = signal.signal(signal.SIGWINCH, due.note)
    try:
        yield due
    finally:
        signal.signal(signal.SIGWINCH, before)
        due.close()


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Let every key through, Ctrl-C included, and restore the terminal at any end."""

    def leave(number: int, _: object) -> None:
        sys.exit(128 + number)

    attributes = termios.tcgetattr(terminal)
    before = signal.signal(signal.SIGTERM, leave)
    try:
        tty.setraw(terminal, termios.TCSADRAIN)  # what was typed ahead is kept
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, attributes)
        signal.signal(signal.SIGTERM, before)


def _to(stream: IO[bytes]) -> Callable[[bytes], None]:
    def deliver(data: bytes) -> None:
        stream.write(data)
        stream.flush()

    return deliver


def _demultiplexer() -> Callable[[bytes], None]:
    frames = Frames()
    out, errors = _to(sys.stdout.buffer), _to(sys.stderr.buffer)

    def deliver(data: bytes) -> None:
        for stream, content in frames.feed(data):
            (errors if stream == STDERR else out)(content)

    return deliver
