"""Everything promised of sessions: one worker over a home, and homes of other sizes beside it.

What is compared is measured in turn within the same run, by the same client. This module must not
know how sessions are made up, or what a process is.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import living, scales
from tests.bench.connection import Connection, latency, rate
from tests.bench.homes import Home, Live, Made, big_session, home_of
from tests.bench.table import Row, median, megabytes, milliseconds, percentile
from tests.bench.worker_process import WorkerProcess, free_port, worker_over

MESSAGES = 50  # a page
SOON = "p50 10 ms, p99 25 ms at most"


@dataclass(frozen=True)
class Plan:
    """How large and how long; sizes in sessions and bytes, durations in seconds."""

    base: int = 2_000
    sizes: tuple[int, ...] = (500, 2_000, 5_000, 10_000)
    growth: tuple[int, int] = (500, 5_000)
    rounds: int = 3
    appends: int = 200
    pages: tuple[int, int] = (5_000_000, 100_000_000)
    growing: int = 20_000_000
    grow_for: float = 5.0
    idle_for: float = 31.0  # the worker looks at all files every 30 s
    rate_for: float = 1.0


SMALL = Plan(
    base=200, sizes=(100, 200, 1_000), growth=(100, 1_000), rounds=1, appends=30,
    pages=(1_000_000, 10_000_000), growing=2_000_000, grow_for=1.0, idle_for=2.0, rate_for=0.3,
)  # fmt: skip


def measure_sessions(plan: Plan) -> Iterator[Row]:
    """Measure everything."""
    measured = [
        scales.measure(size, rounds=plan.rounds, appends=plan.appends // 4) for size in plan.sizes
    ]
    yield from scales.rows_of(measured)
    with home_of(plan.base) as home, worker_over(home) as worker:
        yield from _idle(worker, plan)
        yield from _listing(home, worker, plan)
        yield from _live(home, worker, plan)
        yield from _pages(home, worker, plan)
    by_size = {scale.home.sessions: scale for scale in measured}
    yield from scales.growth(*(by_size[size] for size in plan.growth))


def _idle(worker: WorkerProcess, plan: Plan) -> Iterator[Row]:
    share = living.idle(worker, plan.idle_for)
    yield Row(
        f"idle, {plan.base:,} sessions, {plan.idle_for:.0f} s",
        f"{share:.2%} of a core",
        promise="1 % at most",
        numbers={"share": share},
    )


def _listing(home: Home, worker: WorkerProcess, plan: Plan) -> Iterator[Row]:
    live = Live(home, "listed")
    with worker.connect() as connection:
        living.wait_for_count(connection, live)
        body = connection.get("/sessions")[1]
    with _ready_bytes(body) as port:
        for connections in (1, 4):
            ready, unchanged, changed = [], [], []
            for _ in range(plan.rounds):
                ready.append(rate(lambda: Connection(port), "/", connections, plan.rate_for))
                unchanged.append(rate(worker.connect, "/sessions", connections, plan.rate_for))
                with living.changing(live, 1.0):
                    long = max(2.5, plan.rate_for)
                    changed.append(rate(worker.connect, "/sessions", connections, long))
            floor = median(ready)
            for how, rates in (("unchanged", unchanged), ("one changes a second", changed)):
                figure = median(rates)
                yield Row(
                    f"GET /sessions, {len(body) / 1e6:.2f} MB, {connections} at a time, {how}",
                    f"{figure:.0f}/s",
                    f"{floor:.0f}/s uvicorn, ready bytes",
                    f"{figure / floor:.2f} of its rate",
                    "0.8 at least",
                    {"rate": figure, "floor": floor, "ratio": figure / floor, "size": len(body)},
                )
    with worker.connect() as connection:
        listing = median(latency(connection, "/sessions", 30))
    replaced = scales.fresh("list", home, home.projects)["seconds"]
    yield _replaced("GET /sessions", listing, replaced)


def _live(home: Home, worker: WorkerProcess, plan: Plan) -> Iterator[Row]:
    live = Live(home, "visible")
    visible = living.appended_to_visible(worker, live, plan.appends)
    yield _soon("append to visible in GET /sessions/{id}", visible)
    events = living.appended_to_event(worker, live, plan.appends)
    if events is None:
        yield Row("append to event received", "not there yet", promise=SOON)
    else:
        yield _soon("append to event received", events)
    live.close()
    made = big_session(plan.growing)
    grown = Live(home, "grown", made.copy_into(home), made.messages)
    effort = living.growing(worker, grown, 0.05, plan.grow_for)
    yield Row(
        f"a session of {megabytes(plan.growing)} grows 20 times a second",
        f"{effort.share:.1%} of a core",
        relation=f"at most {effort.most_behind} of {effort.appended} lines behind",
        promise="2 %, 2 lines at most",
        numbers={"share": effort.share, "behind": effort.most_behind},
    )
    time.sleep(3.0 if plan.appends > SMALL.appends else 0)  # the sweeps after it are not the pages'


def _pages(home: Home, worker: WorkerProcess, plan: Plan) -> Iterator[Row]:
    with home_of(0) as alone:
        made = [big_session(size) for size in plan.pages]
        for each in made:
            each.link_into(alone)
        inside = scales.fresh("pages", alone, alone.path)
    times: dict[str, list[float]] = {each.id: [] for each in made}
    with worker.connect() as connection:
        for each in made:
            each.link_into(home)
            _wait_for(connection, each)
        for _ in range(50):
            for session, took in times.items():
                took.extend(
                    latency(connection, f"/sessions/{session}/messages?limit={MESSAGES}", 1)
                )
    small = median(times[made[0].id])
    for each, size in zip(made, plan.pages, strict=True):
        over_http = median(times[each.id])
        yield Row(
            f"last {MESSAGES} messages of {megabytes(size)}",
            milliseconds(over_http),
            f"{milliseconds(inside[each.id])} in the index",
            f"{over_http / small:.2f} times the small one",
            "1.5 times, 0.8 ms in the handler at most",
            {"seconds": over_http, "handler": inside[each.id], "ratio": over_http / small},
        )
        replaced = median(
            [scales.fresh("messages", home, each.path)["seconds"] for _ in range(plan.rounds)]
        )
        yield _replaced(f"last {MESSAGES} messages of {megabytes(size)}", over_http, replaced)


def _wait_for(connection: Connection, made: Made) -> None:
    deadline = time.perf_counter() + living.PATIENCE
    while living.count(connection, made.id) < made.messages:
        if time.perf_counter() > deadline:
            raise SystemExit(f"{made.path} was not seen whole after {living.PATIENCE} s")
        time.sleep(0.01)


def _soon(what: str, values: list[float]) -> Row:
    middle, late = median(values), percentile(values, 0.99)
    return Row(
        what,
        f"p50 {milliseconds(middle)}",
        relation=f"p99 {milliseconds(late)} of {len(values)}",
        promise=SOON,
        numbers={"p50": middle, "p99": late},
    )


def _replaced(what: str, figure: float, replaced: float) -> Row:
    return Row(
        f"{what}, beside the replaced design",
        milliseconds(figure),
        f"{milliseconds(replaced)} all parsed anew",
        f"{replaced / figure:.0f} times as fast",
        numbers={"seconds": figure, "replaced": replaced, "ratio": replaced / figure},
    )


@contextmanager
def _ready_bytes(body: bytes) -> Iterator[int]:
    """Run uvicorn with ready bytes, and give its port."""
    port = free_port()
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(body)
        server = subprocess.Popen([sys.executable, "-m", "tests.bench.ready", str(port), file.name])
        try:
            _until_listening(port)
            yield port
        finally:
            server.terminate()
            server.wait()


def _until_listening(port: int) -> None:
    deadline = time.perf_counter() + living.PATIENCE
    while True:
        try:
            Connection(port).close()
        except ConnectionRefusedError:
            if time.perf_counter() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
