"""Everything promised of the agent daemon: lists, events and rest, over many workspaces.

The first generation asked every worker for every list. So the merged list stands beside the
answers of the workers themselves, over the same sessions: that of the slowest one, and that of all
of them asked at once, which is what such a daemon would wait for. This module must not know how
workspaces are made.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from selectors import EVENT_READ, BaseSelector, DefaultSelector

from tests.bench.connection import Connection
from tests.bench.fleet import AgentProcess, Berth, Fleet, agent_over, fleet_of
from tests.bench.homes import home_of
from tests.bench.table import Row, median, megabytes, milliseconds, percentile

TOO_LATE = 5.0  # s without an event
PAGE = 200


@dataclass(frozen=True)
class Plan:
    """How large and how long; durations in seconds."""

    workspaces: int = 50
    sessions: int = 200
    rounds: int = 3
    appends: int = 200
    subscribers: int = 200
    idle_for: float = 61.0  # the daemon checks its workspaces every 60 s
    host_sessions: int = 2_000


SMALL = Plan(workspaces=6, sessions=100, rounds=1, appends=30, idle_for=5.0, host_sessions=200)


def measure_agent(plan: Plan) -> Iterator[Row]:
    """Measure everything."""
    with fleet_of(plan.workspaces, plan.sessions) as fleet:
        yield from measure(fleet, plan)


def measure(fleet: Fleet, plan: Plan) -> Iterator[Row]:
    """Measure the daemon over workspaces that are there."""
    with agent_over(fleet) as agent:
        yield from _idle(agent, plan, "an empty home")
        yield from _lists(fleet, agent, plan)
        yield from _unchanged(agent, plan)
        yield from _paused(fleet, agent, plan)
        yield from _events(fleet, agent, plan)
        yield _memory(agent, "after all this")
    with home_of(plan.host_sessions) as home, agent_over(fleet, home) as agent:
        yield from _idle(agent, plan, f"{plan.host_sessions:,} sessions of the host's own")


def _idle(agent: AgentProcess, plan: Plan, home: str) -> Iterator[Row]:
    used = agent.processor_time()
    time.sleep(plan.idle_for)
    share = (agent.processor_time() - used) / plan.idle_for
    yield Row(
        f"the daemon idle, {plan.workspaces} workspaces, {home}, {plan.idle_for:.0f} s",
        f"{share:.2%} of a core",
        promise="0.5 % at most",
        numbers={"share": share},
    )
    yield _memory(agent, home)


def _memory(agent: AgentProcess, when: str) -> Row:
    resident, share = agent.memory()
    return Row(
        f"the daemon's memory, {when}",
        f"{megabytes(resident)} resident",
        relation=f"{megabytes(share)} its share (PSS)",
        promise="80 MB at most",
        numbers={"resident": resident, "share": share},
    )


def _lists(fleet: Fleet, agent: AgentProcess, plan: Plan) -> Iterator[Row]:
    """Change each workspace in turn; ask its worker, and then the daemon, for what is new."""
    with ExitStack() as stack:
        probe = stack.enter_context(agent.subscribe())
        asking = stack.enter_context(agent.connect())
        workers = [stack.enter_context(berth.connect()) for berth in fleet.berths]
        page, everything, own = [], [], []
        for _ in range(plan.rounds):
            for berth, worker in zip(fleet.berths, workers, strict=True):
                _append(berth, probe)
                page.append(_timed(asking, f"/api/sessions?limit={PAGE}"))
                own.append(_timed(worker, "/sessions"))
                _append(berth, probe)
                everything.append(_timed(asking, "/api/sessions"))
        together = median([_asked_at_once(workers) for _ in range(10 * plan.rounds)])
        size = len(asking.get("/api/sessions")[1])
    slowest = max(median(own[number :: len(workers)]) for number in range(len(workers)))
    whole = f"all {len(workers) * fleet.sessions:,} sessions, {size / 1e6:.1f} MB"
    beside = f"the slowest worker's {fleet.sessions}"
    yield _after_a_change(f"a page of {PAGE}", page, slowest, beside)
    yield _after_a_change(whole, everything, slowest, beside)
    yield _after_a_change(whole, everything, together, "all workers asked at once")


def _after_a_change(what: str, took: list[float], floor: float, beside: str) -> Row:
    figure = median(took)
    return Row(
        f"GET /api/sessions after a change, {what}",
        milliseconds(figure),
        f"{milliseconds(floor)} {beside}",
        f"{figure / floor:.2f} times",
        "1.3 times at most",
        {"seconds": figure, "floor": floor, "ratio": figure / floor},
    )


def _asked_at_once(workers: Sequence[Connection]) -> float:
    """Ask all workers for their sessions: the seconds until the last has answered."""
    began = time.perf_counter()
    for worker in workers:
        worker.send(worker.request("/sessions"))
    waiting = set(workers)
    while waiting:
        for worker in select.select(waiting, [], [], TOO_LATE)[0]:
            worker.skip()
            waiting.discard(worker)
    return time.perf_counter() - began


def _unchanged(agent: AgentProcess, plan: Plan) -> Iterator[Row]:
    with agent.connect() as asking:
        asking.get("/api/sessions")
        tag = asking.said.partition(b"etag: ")[2].split(b"\r\n")[0].decode()
        for what, headers in (("a 304", f"If-None-Match: {tag}\r\n"), ("the whole body", "")):
            request = asking.request("/api/sessions", headers)
            took = [
                _timed_as(asking, request, 304 if headers else 200) for _ in range(20 * plan.rounds)
            ]
            yield Row(
                f"GET /api/sessions, nothing changed, {what}",
                milliseconds(median(took)),
                relation=f"p99 {milliseconds(percentile(took, 0.99))}",
                promise="50 ms at most",
                numbers={"seconds": median(took), "p99": percentile(took, 0.99)},
            )


def _paused(fleet: Fleet, agent: AgentProcess, plan: Plan) -> Iterator[Row]:
    """Ask for the list after changes, with one workspace paused and without."""
    first, *others = fleet.berths
    with agent.subscribe() as probe, agent.connect() as asking:
        before = _list_after_changes(others, probe, asking, 10 * plan.rounds)
        with fleet.paused(first.name):
            assert probe.wait_for(b'"state":"paused"', TOO_LATE)
            during = _list_after_changes(others, probe, asking, 10 * plan.rounds)
        assert probe.wait_for(b'"state":"running"', TOO_LATE)
    yield Row(
        "GET /api/sessions after a change, one workspace paused",
        milliseconds(during),
        f"{milliseconds(before)} with none paused",
        f"{during / before:.2f} times",
        "the same",
        {"seconds": during, "before": before, "ratio": during / before},
    )


def _list_after_changes(
    berths: Sequence[Berth], probe: Connection, asking: Connection, times: int
) -> float:
    took = []
    for number in range(times):
        _append(berths[number % len(berths)], probe)
        took.append(_timed(asking, "/api/sessions"))
    return median(took)


def _events(fleet: Fleet, agent: AgentProcess, plan: Plan) -> Iterator[Row]:
    """Append at odd moments in one workspace after the other, and wait until it is told."""
    rng = Random(3)  # noqa: S311 - moments, no secrets
    with agent.subscribe() as probe:
        alone = _told(fleet.berths, probe, [], plan.appends, rng)[0]
        yield Row(
            "append in a workspace to /api/events",
            f"p50 {milliseconds(median(alone))}",
            relation=f"p99 {milliseconds(percentile(alone, 0.99))} of {len(alone)}",
            promise="p50 50 ms, p99 100 ms at most",
            numbers={"p50": median(alone), "p99": percentile(alone, 0.99)},
        )
        with ExitStack() as stack:
            crowd = [stack.enter_context(agent.subscribe()) for _ in range(plan.subscribers)]
            one, last = _told(fleet.berths, probe, crowd, plan.appends, rng)
    for who, took in (("one of them", one), ("the last of them", last)):
        ratio = median(took) / median(alone)
        yield Row(
            f"the same with {plan.subscribers} subscribers more, to {who}",
            f"p50 {milliseconds(median(took))}",
            relation=f"{ratio:.2f} times; p99 {milliseconds(percentile(took, 0.99))}",
            promise="2 times at most",
            numbers={"p50": median(took), "p99": percentile(took, 0.99), "ratio": ratio},
        )


def _told(
    berths: Sequence[Berth],
    probe: Connection,
    crowd: Sequence[Connection],
    times: int,
    rng: Random,
) -> tuple[list[float], list[float]]:
    """Append: the seconds until the probe has heard of each, and until all others have."""
    one, last = [], []
    with DefaultSelector() as streams:
        for each in (probe, *crowd):
            streams.register(each, EVENT_READ, each)
        for number in range(times):
            _listen_until(time.perf_counter() + rng.uniform(0.015, 0.050), streams)
            live = berths[number % len(berths)].live
            words = live.id.encode()
            left = {probe, *crowd}
            began = time.perf_counter()
            live.append()
            while left:
                ready = [key.data for key, _ in streams.select(TOO_LATE)]
                assert ready, f"{len(left)} heard nothing in {TOO_LATE} s"
                ready.sort(key=lambda each: each is not probe)  # its own time comes first
                for each in ready:
                    if words in each.hear():
                        left.discard(each)
                        if each is probe:
                            one.append(time.perf_counter() - began)
            last.append(time.perf_counter() - began)
    return one, last


def _listen_until(deadline: float, streams: BaseSelector) -> None:
    """Let go by whatever else is said."""
    while (left := deadline - time.perf_counter()) > 0:
        for key, _ in streams.select(left):
            key.data.hear()


def _append(berth: Berth, probe: Connection) -> None:
    """Append a line, and wait until the daemon has told of it."""
    berth.live.append()
    assert probe.wait_for(berth.live.id.encode(), TOO_LATE), f"{berth.name}: never told"


def _timed(connection: Connection, path: str) -> float:
    return _timed_as(connection, connection.request(path), 200)


def _timed_as(connection: Connection, request: bytes, expected: int) -> float:
    began = time.perf_counter()
    connection.send(request)
    status = connection.skip()
    took = time.perf_counter() - began
    assert status == expected, f"answered with {status}"
    return took
