from __future__ import annotations

import os
import pty
import socket
import sys
import termios
import threading
from collections.abc import Iterator

import pytest

from perry.cli.terminal import join
from tests.workspace.framed import framed


class Command:
    """A command at the other end of a socket; the test plays it there."""

    def __init__(self) -> None:
        self.socket, self.other = socket.socketpair()
        self.early = b""
        self.sizes: list[tuple[int, int]] = []
        self.sized = threading.Event()

    def resize(self, rows: int, columns: int, /) -> None:
        self.sizes.append((rows, columns))
        self.sized.set()

    def exit_code(self) -> int:
        return 7


@pytest.fixture
def command() -> Iterator[Command]:
    made = Command()
    for end in (made.socket, made.other):
        end.settimeout(20)
    yield made
    made.socket.close()
    made.other.close()


def test_output_and_errors_are_told_apart_and_the_exit_code_comes_through(
    command: Command, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    command.other.sendall(framed(1, b"out\xff") + framed(2, b"err") + framed(1, b" more"))
    command.other.shutdown(socket.SHUT_WR)
    assert join(command, tty_wanted=False, stdin=None) == 7
    sys.stdout.flush()
    assert capfdbinary.readouterr() == (b"out\xff more", b"err")


def test_what_a_command_said_before_it_was_joined_comes_first(
    command: Command, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    whole = framed(1, b"early") + framed(1, b" and late")
    command.early = whole[:6]
    command.other.sendall(whole[6:])
    command.other.shutdown(socket.SHUT_WR)
    assert join(command, tty_wanted=False, stdin=None) == 7
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"early and late"


def test_more_than_any_buffer_goes_through_in_both_directions_at_once(
    command: Command, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    sent = os.urandom(1 << 16) * 48

    def cat() -> None:
        while data := command.other.recv(1 << 15):
            command.other.sendall(framed(1, data))
        command.other.shutdown(socket.SHUT_WR)

    read, write = os.pipe()

    def feed() -> None:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(sent)

    threads = [threading.Thread(target=cat), threading.Thread(target=feed)]
    for thread in threads:
        thread.start()
    join(command, tty_wanted=False, stdin=read)
    for thread in threads:
        thread.join(20)
    os.close(read)
    assert capfdbinary.readouterr().out == sent


def test_a_command_that_reads_nothing_still_ends(command: Command) -> None:
    read, write = os.pipe()
    os.write(write, b"nobody reads this")
    command.other.close()
    try:
        assert join(command, tty_wanted=False, stdin=read) == 7
    finally:
        os.close(read)
        os.close(write)


def test_a_terminal_is_raw_meanwhile_sized_and_restored(
    command: Command, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    ours, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (33, 77))
    before = termios.tcgetattr(terminal)
    seen: list[bytes] = []

    def play() -> None:
        assert command.sized.wait(20)
        os.write(ours, b"\x03")
        seen.append(command.other.recv(10))
        seen.append(b"raw" if not termios.tcgetattr(terminal)[3] & termios.ECHO else b"cooked")
        command.other.sendall(b"\x1b[1mbold")
        command.other.shutdown(socket.SHUT_WR)

    player = threading.Thread(target=play)
    player.start()
    assert join(command, tty_wanted=True, stdin=terminal) == 7
    player.join(20)
    assert seen == [b"\x03", b"raw"]
    assert command.sizes == [(33, 77)]
    assert termios.tcgetattr(terminal) == before
    assert capfdbinary.readouterr().out == b"\x1b[1mbold"
    os.close(ours)
    os.close(terminal)
