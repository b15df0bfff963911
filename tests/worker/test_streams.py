"""Event streams with their clocks set fast: heartbeats, and the end of a stuck subscriber."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvicorn

from perry.sessions.index import SessionIndex
from perry.sessions.journal import changes_between
from perry.sessions.models import Session
from perry.sessions.source import Entry
from perry.worker.app import create_app, told
from perry.worker.config import WorkerConfig
from perry.worker.events import Streams
from perry.worker.serve import listen
from perry.worker.watcher import Watcher
from tests.worker.running import TOKEN, eventually
from tests.worker.subscribing import Subscriber

if TYPE_CHECKING:
    from collections.abc import Iterator

BIG = "x" * 1_000_000
"""Ten events with it are more than the kernel keeps for a peer that doesn't read."""


class Served:
    """An index without files behind a real server, whose journal the test writes."""

    def __init__(self, home: Path) -> None:
        self.index = SessionIndex([])
        self.shown: dict[str, Entry] = {}
        watcher = Watcher(self.index)
        watcher.ready.set()
        config = WorkerConfig("127.0.0.1", 0, TOKEN, "digest", home, {})
        streams = Streams(self.index.journal, told, heartbeat=0.05, patience=0.3)
        app = create_app(config, self.index, watcher, streams)
        self.server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))

    def change(self, name: str, prompt: str = "") -> None:
        count = len(self.shown) + 1
        session = Session(name, "claude", name, "/", "/f", count, prompt, 0)
        after = {**self.shown, name: Entry(session, "/f", name)}
        self.index.journal.add(changes_between("claude", self.shown, after))
        self.shown = after


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Served, int]]:
    made = Served(tmp_path)
    with listen("127.0.0.1", 0) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
        thread = threading.Thread(target=made.server.run, args=([listener],))
        thread.start()
        try:
            yield made, listener.getsockname()[1]
        finally:
            made.server.should_exit = True
            thread.join(10)
    assert not thread.is_alive()


def test_a_silent_stream_has_heartbeats(served: tuple[Served, int]) -> None:
    index, port = served
    with Subscriber(port) as subscriber:
        subscriber.next()
        threading.Timer(0.5, index.change, ["late"]).start()
        assert subscriber.next().data["session"]["id"] == "late"
        assert 3 <= subscriber.comments <= 11


def test_a_subscriber_that_never_reads_loses_its_connection(
    served: tuple[Served, int], caplog: pytest.LogCaptureFixture
) -> None:
    index, port = served
    with Subscriber(port, receive_buffer=4096) as stuck, Subscriber(port) as reading:
        reading.next()
        for number in range(20):
            index.change(f"s{number}", BIG)
            assert reading.next().data["session"]["firstPrompt"] == BIG
        eventually(lambda: "dropped a subscriber" in caplog.text, "the stuck one is dropped")
        eventually(lambda: len(index.server.server_state.connections) == 1, "its connection too")
        index.change("more")
        assert reading.next().data["session"]["id"] == "more"
        with contextlib.suppress(ConnectionResetError):
            assert len(stuck.until_end()) < 20


def test_a_subscriber_that_was_slow_gets_the_last_of_each(served: tuple[Served, int]) -> None:
    index, port = served
    with Subscriber(port) as slow:
        slow.next()
        for number in range(300):
            index.change(f"s{number % 3}", str(number))
        last = dict[str, str]()
        while set(last.values()) != {"297", "298", "299"}:
            session = slow.next().data["session"]
            last[session["id"]] = session["firstPrompt"]
