"""HTTP over streams that somebody opens: as good as TCP, and trusted no further."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator

import pytest

from perry.client.transport import StreamTransport
from perry.client.worker_client import WorkerClient
from perry.errors import WorkerUnreachable, WorkerUntrusted
from tests.client.answering import Answering, http, proving
from tests.worker.running import TOKEN

SESSIONS: dict[str, list[object]] = {"sessions": []}


class SocketStream:
    """A stream of a socket's bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.closed = 0

    def read(self, most: int, timeout: float | None, /) -> bytes:
        self.connection.settimeout(timeout)
        return self.connection.recv(most)

    def write(self, data: bytes, timeout: float | None, /) -> None:
        self.connection.settimeout(timeout)
        self.connection.sendall(data)

    def is_readable(self) -> bool:
        return bool(select.select([self.connection], [], [], 0)[0])

    def close(self) -> None:
        self.closed += 1
        self.connection.close()


class Streams:
    """Opens streams to the servers of a test, one after the other, the last one for ever."""

    def __init__(self, *servers: Answering) -> None:
        self.servers = list(servers)
        self.opened: list[SocketStream] = []
        self.timeouts: list[float | None] = []

    def __call__(self, timeout: float | None) -> SocketStream:
        server = self.servers[min(len(self.opened), len(self.servers) - 1)]
        self.opened.append(SocketStream(socket.create_connection(("127.0.0.1", server.port))))
        self.timeouts.append(timeout)
        return self.opened[-1]

    def client(self, *, timeout: float = 5.0) -> WorkerClient:
        return WorkerClient(
            "http://exec",
            TOKEN,
            workspace="ws",
            transport=lambda: StreamTransport(self),
            timeout=timeout,
            connect_timeout=0.7,
        )


def honest(target: str, _: int) -> bytes:
    return proving(TOKEN, target) if target.startswith("/health") else http(200, SESSIONS)


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering(honest) as listening:
        yield listening


def test_one_stream_and_one_proof_serve_all_questions(server: Answering) -> None:
    streams = Streams(server)
    with streams.client() as client:
        for _ in range(3):
            assert client.list_sessions() == ()
    assert len(streams.opened) == 1
    assert len(server.requests) == 4
    assert streams.timeouts == [0.7]


def test_closing_the_client_closes_its_stream(server: Answering) -> None:
    streams = Streams(server)
    with streams.client() as client:
        client.list_sessions()
    assert streams.opened[0].closed == 1


def test_a_stream_that_leads_to_somebody_else_gets_no_token(server: Answering) -> None:
    with Answering(lambda *_: http(200, SESSIONS)) as stranger:
        streams = Streams(server, stranger)
        with streams.client() as client:
            client.list_sessions()
            streams.opened[0].connection.shutdown(socket.SHUT_RDWR)
            with pytest.raises(WorkerUntrusted):
                client.list_sessions()
        assert stranger.requests
        assert TOKEN.encode() not in stranger.received


def test_a_new_stream_is_proved_before_the_token_goes_over_it(server: Answering) -> None:
    streams = Streams(server)
    with streams.client() as client:
        client.list_sessions()
        streams.opened[0].connection.shutdown(socket.SHUT_RDWR)
        assert client.list_sessions() == ()
    assert len(streams.opened) == 2
    assert [line.split("?")[0] for line in server.requests] == [
        "GET /health", "GET /sessions HTTP/1.1", "GET /health", "GET /sessions HTTP/1.1",
    ]  # fmt: skip


def test_events_have_a_stream_of_their_own_beside_the_questions() -> None:
    head = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
    ready = b"id: 1\nevent: ready\ndata: {}\n\n"

    def reply(target: str, number: int) -> bytes:
        if not target.startswith("/events"):
            return honest(target, number)
        return head + b"%x\r\n%s\r\n" % (len(ready), ready)

    with Answering(reply) as server:
        streams = Streams(server)
        with streams.client() as client:
            assert client.list_sessions() == ()
            events = client.events()
            assert next(events).kind == "ready"
            assert client.list_sessions() == ()
            assert len(streams.opened) == 2
            events.close()
            assert streams.opened[1].closed
            assert client.list_sessions() == ()
        assert len(streams.opened) == 2


@pytest.mark.parametrize(
    ("error", "words"),
    [(ConnectionError("no such container"), "no such container"), (TimeoutError("x"), "in time")],
)
def test_what_can_not_be_opened_is_unreachable_and_says_why(error: OSError, words: str) -> None:
    def fail(_: float | None) -> SocketStream:
        raise error

    with (
        WorkerClient(
            "http://exec", TOKEN, workspace="ws", transport=lambda: StreamTransport(fail)
        ) as client,
        pytest.raises(WorkerUnreachable, match=words),
    ):
        client.health()


def test_a_stream_that_breaks_is_unreachable() -> None:
    with (
        Answering(lambda *_: None) as server,
        Streams(server).client() as client,
        pytest.raises(WorkerUnreachable),
    ):
        client.health()


def test_silence_on_a_stream_is_unreachable_in_bounded_time() -> None:
    with Answering(lambda *_: b"") as server, Streams(server).client(timeout=0.2) as client:
        began = time.monotonic()
        with pytest.raises(WorkerUnreachable, match="in time"):
            client.health()
        assert time.monotonic() - began < 2
