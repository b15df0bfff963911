"""Which way is taken to a worker: the first one where it proves itself, and nobody else's."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from perry.errors import WorkerUnreachable
from perry.protocol import WORKER_PORT
from perry.workspace.engine import Engine
from perry.workspace.ladder import Ladder
from perry.workspace.objects import Container
from tests.client.answering import Answering, http, proving
from tests.workspace.engine_answers import container, engine_of

TOKEN = "right"
HERE = "127.0.0.1"
NOWHERE = "127.0.0.9"
"""An address of this machine where nobody listens on the worker's port unless a test does."""


def worker(target: str, _: int) -> bytes:
    return proving(TOKEN, target)


def stranger(*_: object) -> bytes:
    return http(200, {"status": "ok", "digest": "x", "sessionCount": 0})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def engine() -> Iterator[Engine]:
    """An engine where no exec can be started, so that the last rung leads nowhere."""
    with engine_of({"/info": lambda: (200, {"ID": "e"})}) as connected:
        yield connected


def running(*ports: int, address: str = "", **changes: Any) -> Container:
    """A container with an address and, published on loopback, the ports of a test's servers."""
    published = [{"HostIp": HERE, "HostPort": str(port)} for port in ports]
    settings = {"Networks": {"n": {"IPAddress": address}}, "Ports": {"7392/tcp": published}}
    return Container.from_inspection(container(NetworkSettings=settings, **changes))


class Keys:
    """The token of a key that may be out of date until it is forgotten."""

    def __init__(self, cached: str = TOKEN, held: str = TOKEN) -> None:
        self.token = cached
        self.held = held
        self.forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1
        self.token = self.held


def ladder(engine: Engine, keys: Keys | None = None) -> Ladder:
    known = keys or Keys()
    return Ladder(engine, lambda _: known.token, known.forget)


def test_the_first_way_where_the_worker_proves_itself_is_taken(engine: Engine) -> None:
    with Answering(worker) as one, Answering(worker) as two:
        reached = ladder(engine).reach(running(one.port, two.port, address=NOWHERE), "a")
        with reached.client:
            assert reached.way.address == f"{HERE}:{one.port}"
            assert reached.worker.rung == "published"
        assert two.connections == 0


def test_a_stranger_on_one_way_is_passed_by_and_gets_no_token(engine: Engine) -> None:
    with Answering(stranger) as neighbour, Answering(worker) as ours:
        keys = Keys()
        reached = ladder(engine, keys).reach(running(neighbour.port, ours.port), "a")
        with reached.client:
            assert reached.way.address == f"{HERE}:{ours.port}"
        assert neighbour.requests
        assert TOKEN.encode() not in neighbour.received
        assert b"authorization" not in neighbour.received.lower()
        assert keys.forgotten == 0


def test_where_nobody_proves_himself_the_key_is_read_once_more(engine: Engine) -> None:
    with Answering(worker) as ours:
        keys = Keys(cached="old")
        with ladder(engine, keys).reach(running(ours.port), "a").client:
            assert keys.forgotten == 1


def test_strangers_alone_are_nobody(engine: Engine) -> None:
    with Answering(stranger) as neighbour:
        keys = Keys()
        with pytest.raises(WorkerUnreachable, match="can't prove"):
            ladder(engine, keys).reach(running(neighbour.port), "a")
        assert keys.forgotten == 1
        assert TOKEN.encode() not in neighbour.received


def test_who_does_not_answer_is_no_reason_to_doubt_the_key(engine: Engine) -> None:
    keys = Keys()
    with pytest.raises(WorkerUnreachable, match="Connection refused"):
        ladder(engine, keys).reach(running(1), "a")
    assert keys.forgotten == 0


def test_nothing_is_asked_of_a_container_that_does_not_run(engine: Engine) -> None:
    with Answering(worker) as ours, pytest.raises(WorkerUnreachable, match="it is exited"):
        ladder(engine).reach(
            running(ours.port, State={**container()["State"], "Status": "exited"}), "a"
        )
    assert ours.connections == 0


def test_the_way_that_worked_is_where_the_next_climb_begins(engine: Engine) -> None:
    with Answering(stranger) as neighbour, Answering(worker) as ours:
        climbing, found = ladder(engine), running(neighbour.port, ours.port)
        climbing.reach(found, "a").client.close()
        climbing.reach(found, "a").client.close()
        assert (neighbour.connections, ours.connections) == (1, 2)


@pytest.mark.parametrize(
    "changes",
    [{"Id": "c2"}, {"State": {**container()["State"], "StartedAt": "2026-11-24T09:00:00Z"}}],
)
def test_another_container_or_another_start_begins_anew(
    engine: Engine, changes: dict[str, Any]
) -> None:
    with Answering(stranger) as neighbour, Answering(worker) as ours:
        climbing = ladder(engine)
        climbing.reach(running(neighbour.port, ours.port), "a").client.close()
        climbing.reach(running(neighbour.port, ours.port, **changes), "a").client.close()
        assert neighbour.connections == 2


def test_a_way_that_fails_is_dropped_at_once(engine: Engine) -> None:
    """It comes back into use later: the climb begins at the top again, as if it had never been."""
    honest = True

    def sometimes(target: str, number: int) -> bytes:
        return worker(target, number) if honest else stranger()

    with Answering(stranger) as first, Answering(sometimes) as second, Answering(worker) as third:
        climbing, found = ladder(engine), running(first.port, second.port, third.port)
        climbing.reach(found, "a").client.close()
        honest = False
        climbing.reach(found, "a").client.close()
        assert [it.connections for it in (first, second, third)] == [2, 2, 1]
        assert TOKEN.encode() not in first.received + second.received


def test_a_kept_way_that_the_engine_no_longer_names_is_not_asked(engine: Engine) -> None:
    with Answering(worker) as old, Answering(worker) as new:
        climbing = ladder(engine)
        climbing.reach(running(old.port), "a").client.close()
        climbing.reach(running(new.port), "a").client.close()
        assert (old.connections, new.connections) == (1, 1)


@contextmanager
def black_hole(address: str) -> Iterator[None]:
    """Have connections to the worker's port wait for ever: the listener's queue is full."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, WORKER_PORT))
        listener.listen(0)
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, WORKER_PORT))
        yield


def seconds(engine: Engine, found: Container) -> float:
    """Measure a climb of a perry that was started just now."""
    began = time.monotonic()
    ladder(engine).reach(found, "a").client.close()
    return time.monotonic() - began


def likeliest(engine: Engine, found: Container) -> str:
    return next(way.rung for way in ladder(engine).clients(found, "a"))


def test_an_address_that_leads_nowhere_costs_no_seconds_and_only_once(engine: Engine) -> None:
    with Answering(worker) as ours, black_hole(NOWHERE):
        found = running(ours.port, address=NOWHERE)
        assert 0.4 < seconds(engine, found) < 1.5
        assert seconds(engine, found) < 0.4
        assert seconds(engine, running(ours.port, address=NOWHERE, Id="c2")) < 0.4


def test_what_was_slow_once_is_tried_again_some_day(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Answering(worker) as ours, black_hole(NOWHERE):
        found = running(ours.port, address=NOWHERE)
        ladder(engine).reach(found, "a").client.close()
        assert likeliest(engine, found) == "published"
        later = time.time() + 7200
        monkeypatch.setattr(time, "time", lambda: later)
        assert likeliest(engine, found) == "address"


def test_a_quick_failure_says_nothing_of_the_engine(engine: Engine) -> None:
    """A workspace without an address must not have all others asked by streams."""
    with Answering(worker) as ours:
        ladder(engine).reach(running(1, ours.port), "a").client.close()
        ways = ladder(engine).clients(running(ours.port, address=NOWHERE), "a")
        assert [way.rung for way in ways] == ["address", "published", "exec"]


def test_a_worker_that_comes_up_while_a_slow_way_is_tried_is_asked_on_the_better_one(
    engine: Engine,
) -> None:
    """Else all would be asked by streams for as long as this container runs."""
    with ExitStack() as opened, socket.create_server((HERE, 0)) as free:
        port = free.getsockname()[1]
        free.close()
        better: list[Answering] = []

        def slow(target: str, _: int) -> bytes:
            if not better:
                better.append(opened.enter_context(Answering(worker, port=port)))
            return proving(TOKEN, target)

        ours = opened.enter_context(Answering(slow))
        reached = ladder(engine).reach(running(port, ours.port), "a")
        reached.client.close()
        assert reached.way.address == f"{HERE}:{port}"


def test_another_address_begins_anew(engine: Engine) -> None:
    with Answering(worker) as ours:
        climbing = ladder(engine)
        climbing.reach(running(ours.port), "a").client.close()
        ways = [*climbing.clients(running(ours.port, address=NOWHERE), "a")]
        assert [way.rung for way in ways] == ["address", "published", "exec"]
