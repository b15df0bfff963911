"""A program's two ways in a container, as one connection."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perry.workspace.attachment import Attachment
from perry.workspace.exec_stream import ExecStream, opener
from tests.workspace.engine_answers import engine_of
from tests.workspace.framed import framed


class Program:
    """The engine's end of a program's streams, played by the test."""

    def __init__(self, early: bytes = b"") -> None:
        ours, self.engine = socket.socketpair()
        self.released = 0
        self.stream = ExecStream(Attachment(ours, early, self))

    def close(self) -> None:
        """Count how often the engine's answer was let go of."""
        self.released += 1

    def says(self, *frames: bytes) -> None:
        self.engine.sendall(b"".join(frames))

    def ends(self) -> None:
        self.engine.shutdown(socket.SHUT_WR)


@pytest.fixture
def program() -> Iterator[Program]:
    made = Program()
    yield made
    made.stream.close()
    made.engine.close()


def test_output_comes_without_its_frames_and_ends_with_nothing(program: Program) -> None:
    program.says(framed(1, b"HTTP"), framed(1, b""), framed(1, b"/1.1"))
    program.ends()
    assert program.stream.read(3, 1) == b"HTT"
    assert program.stream.read(100, 1) + program.stream.read(100, 1) == b"P/1.1"
    assert program.stream.read(100, 1) == b""
    assert program.stream.read(100, 1) == b""


@given(st.binary(max_size=200), st.integers(1, 30), st.integers(0, 50))
def test_nothing_is_lost_wherever_the_bytes_are_cut(content: bytes, cut: int, early: int) -> None:
    sent = b"".join(framed(1, content[at : at + 7]) for at in range(0, len(content), 7))
    program = Program(sent[:early])
    for at in range(early, len(sent), cut):
        program.says(sent[at : at + cut])
    program.ends()
    got = bytearray()
    while piece := program.stream.read(5, 1):
        got += piece
    assert bytes(got) == content
    program.stream.close()
    program.engine.close()


def test_what_the_program_complains_of_is_why_it_ended(program: Program) -> None:
    program.says(framed(1, b"half"), framed(2, b"nc: can't connect: "), framed(2, b"refused\n"))
    program.ends()
    assert program.stream.read(100, 1) == b"half"
    with pytest.raises(ConnectionError, match=r"nc: can't connect: refused$"):
        program.stream.read(100, 1)


def test_an_endless_complaint_is_cut(program: Program) -> None:
    for _ in range(100):
        program.says(framed(2, b"x" * 1000))
        with pytest.raises(TimeoutError):
            program.stream.read(1, 0.01)
    program.ends()
    with pytest.raises(ConnectionError) as caught:
        program.stream.read(1, 1)
    assert len(str(caught.value)) < 1000


def test_silence_ends_a_read_in_time_even_where_headers_trickle(program: Program) -> None:
    began = time.monotonic()
    program.says(framed(1, b"never whole")[:9])
    with pytest.raises(TimeoutError):
        program.stream.read(1, 0.2)
    assert 0.2 <= time.monotonic() - began < 2


def test_what_nobody_takes_ends_a_write_in_time(program: Program) -> None:
    with pytest.raises(TimeoutError):
        program.stream.write(b"x" * 50_000_000, 0.2)


def test_what_is_written_arrives_as_it_is(program: Program) -> None:
    program.stream.write(b"GET / HTTP/1.1\r\n\r\n", 1)
    assert program.engine.recv(100) == b"GET / HTTP/1.1\r\n\r\n"


def test_a_stream_is_readable_with_something_in_it_and_at_its_end(program: Program) -> None:
    assert not program.stream.is_readable()
    program.says(framed(1, b"ab"))
    assert program.stream.is_readable()
    assert program.stream.read(1, 1) == b"a"
    assert program.stream.is_readable()
    assert program.stream.read(1, 1) == b"b"
    assert not program.stream.is_readable()
    program.ends()
    assert program.stream.is_readable()


def test_closing_ends_the_programs_input_and_lets_go_of_the_engine(program: Program) -> None:
    program.stream.close()
    program.engine.settimeout(1)
    assert program.engine.recv(1) == b""
    assert program.released
    assert program.stream.is_readable()
    assert program.stream.read(1, 1) == b""
    program.stream.close()


def test_an_engine_that_can_not_is_a_connection_that_can_not_be_made() -> None:
    refusal = {"/containers/c1/exec": lambda: (409, {"message": "the container is paused"})}
    with engine_of(refusal) as engine, pytest.raises(ConnectionError, match="is paused"):
        opener(engine, "c1")(1.0)
