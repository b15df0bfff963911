"""What is measured while sessions grow: how soon it is seen, and what it costs the worker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from threading import Event, Thread

from tests.bench.connection import Connection
from tests.bench.homes import Live
from tests.bench.worker_process import WorkerProcess

PATIENCE = 30.0  # s
POLL = 0.0003  # s between two questions: the answers must not keep the worker from looking
TOO_LATE = 1.0  # s without an event


@dataclass(frozen=True)
class Effort:
    """What a growing session cost: a share of one core, and how far answers were behind."""

    share: float
    most_behind: int
    appended: int


def appended_to_visible(worker: WorkerProcess, live: Live, times: int) -> list[float]:
    """Append lines at odd moments: the seconds until each is counted in `GET /sessions/{id}`."""
    rng = Random(1)  # noqa: S311 - moments, no secrets
    with worker.connect() as connection:
        wait_for_count(connection, live)
        result = []
        for _ in range(times):
            time.sleep(rng.uniform(0.005, 0.040))
            began = time.perf_counter()
            live.append()
            wait_for_count(connection, live)
            result.append(time.perf_counter() - began)
        return result


def appended_to_event(worker: WorkerProcess, live: Live, times: int) -> list[float] | None:
    """Append lines at odd moments: the seconds until each was an event; None without events."""
    rng = Random(2)  # noqa: S311 - as above
    result = []
    with worker.connect() as asking, worker.connect() as stream:
        wait_for_count(asking, live)
        stream.send(stream.request("/events"))
        if stream.head()[0] != 200:
            return None
        words = live.id.encode()
        stream.wait_for(words, 0.5)
        for _ in range(times):
            while stream.wait_for(b"\n\n", rng.uniform(0.015, 0.050)):
                pass  # what else was said
            began = time.perf_counter()
            live.append()
            heard = stream.wait_for(words, TOO_LATE)
            result.append(time.perf_counter() - began if heard else TOO_LATE)
    return result


def growing(worker: WorkerProcess, live: Live, interval: float, duration: float) -> Effort:
    """Let a session grow: first unasked, for the cost, then asked before each line, for the lag."""
    with worker.connect() as connection:
        wait_for_count(connection, live)
        began, used = time.perf_counter(), worker.processor_time()
        for _ in _ticks(interval, duration):
            live.append()
        share = (worker.processor_time() - used) / (time.perf_counter() - began)
        wait_for_count(connection, live)
        behind = []
        for _ in _ticks(interval, duration):
            behind.append(live.messages - count(connection, live.id))
            live.append()
    return Effort(share, max(behind), len(behind))


@contextmanager
def changing(live: Live, interval: float) -> Iterator[None]:
    """Append a line now and then while the block runs."""
    done = Event()

    def run() -> None:
        while not done.wait(interval):
            live.append()

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def idle(worker: WorkerProcess, duration: float) -> float:
    """Tell which share of a core the worker takes while nothing happens."""
    used = worker.processor_time()
    time.sleep(duration)
    return (worker.processor_time() - used) / duration


def wait_for_count(connection: Connection, live: Live) -> None:
    """Wait until as many messages are counted as the session has."""
    deadline = time.perf_counter() + PATIENCE
    while (found := count(connection, live.id)) < live.messages:
        if time.perf_counter() > deadline:
            raise SystemExit(f"{found} of {live.messages} messages after {PATIENCE} s")
        time.sleep(POLL)


def count(connection: Connection, session: str) -> int:
    """Ask how many messages a session has; 0 while it isn't known."""
    status, body = connection.get(f"/sessions/{session}")
    number: int = json.loads(body)["session"]["messageCount"] if status == 200 else 0
    return number


def _ticks(interval: float, duration: float) -> Iterator[int]:
    began = time.perf_counter()
    for number in range(int(duration / interval)):
        time.sleep(max(0.0, began + number * interval - time.perf_counter()))
        yield number
