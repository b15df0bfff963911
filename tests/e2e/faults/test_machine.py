"""What happens to the machine: the daemon is killed, the engine restarted, the clock stepped."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docker.models.containers import Container

from perry.client.worker_client import WorkerClient
from tests.e2e.command import Perry
from tests.e2e.eventually import eventually
from tests.e2e.faults.clock import Clock
from tests.e2e.faults.doing import LIVE, kill_worker, until_recovered, write
from tests.e2e.faults.table import TABLE
from tests.e2e.own_engine import OwnEngine
from tests.e2e.running_agent import RunningAgent
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_line


def test_a_daemon_that_is_killed_tells_what_it_missed_and_nothing_twice(
    agent: RunningAgent, workspace: Container
) -> None:
    write(workspace, "old", 2)
    eventually(lambda: agent.counts("work"), lambda it: it == {"old": 2})
    with agent.listening() as listener:
        write(workspace, "old", 1, first=2)
        eventually(listener.sessions, lambda it: ("updated", "old", 3) in it)
        last = listener.last_id
    agent.kill()
    write(workspace, "old", 2, first=3)
    write(workspace, "new", 1)
    began = time.monotonic()
    agent.start()
    with agent.listening(since=last) as listener:
        eventually(listener.sessions, lambda it: len(it) >= 2, within=LIVE)
        took = time.monotonic() - began
        time.sleep(0.5)
        assert sorted(listener.sessions()) == [("created", "new", 1), ("updated", "old", 5)]
        assert listener.kinds()[0] == "ready"
    TABLE.add("daemon killed and started again", took, "missed events told once")


def test_an_engine_that_is_restarted_brings_its_workers_back(
    agent: RunningAgent, workspace: Container, engine_of_ours: OwnEngine
) -> None:
    write(workspace, "s", 3)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 3})
    engine_of_ours.process.stop()
    problem = eventually(
        lambda: agent.get("/api/status")["engine"], lambda it: not it["reachable"], within=LIVE
    )
    assert "Docker" in problem["error"]
    assert agent.counts("work") == {"s": 3}
    engine_of_ours.process.start()
    started = time.monotonic()
    agent.until_live("work", within=30)
    took = time.monotonic() - started
    write(workspace, "s", 1, first=3)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 4}, within=LIVE)
    assert agent.get("/api/status")["engine"]["reachable"]
    TABLE.add("engine restarted", took, "listed meanwhile; appended afterwards")


YEAR = 365 * 24 * 3600


def test_a_clock_that_is_stepped_under_the_daemon_loses_nothing_and_delays_nothing(
    agent: RunningAgent, workspace: Container, tmp_path: Path
) -> None:
    clock = Clock.made(tmp_path / "clock")
    agent.stop()
    agent.environment.update(clock.environment)
    agent.start()
    agent.until_live("work")
    on_the_host = agent.directory / "home" / CLAUDE_DIRECTORY / "h.jsonl"
    on_the_host.parent.mkdir(parents=True)
    took = []
    with agent.listening() as listener:
        for count, seconds in enumerate([YEAR, -YEAR, -3600, 3600, 0], start=1):
            clock.step(seconds)
            write(workspace, "w", 1, first=count - 1)
            append(on_the_host, count, clock.now())
            for place, session in (("work", "w"), ("host", "h")):
                eventually(
                    lambda place=place: agent.counts(place),  # type: ignore[misc]
                    lambda it, session=session, count=count: it == {session: count},  # type: ignore[misc]
                    within=LIVE,
                )
            took.append(until_recovered(agent, lambda: kill_worker(workspace)))
            revival = agent.get("/api/workspaces/work")["workspace"]["revival"]
            assert abs(revival["at"] / 1000 - clock.now()) < 60, "its clock wasn't stepped"
        heard = eventually(
            listener.sessions,
            lambda it: {("updated", "w", 5), ("updated", "h", 5)} <= {*it},
            within=LIVE,
        )
    for session in ("w", "h"):
        told = [count for _, name, count in heard if name == session]
        assert told == sorted(told), "an event went back in time"
    TABLE.add(
        "clock stepped, worker killed", took, "5 steps of an hour and a year; events in order"
    )


def append(path: Path, count: int, now: float) -> None:
    """Append a session's next message, at a time of day that may be before the last one's."""
    with path.open("a") as file:
        file.write(claude_line("user", f"message {count}", uuid=f"u-{count}", session="h"))
    os.utime(path, (now, now))


def test_what_was_read_before_a_clock_was_stepped_is_not_older_than_nothing(
    agent: RunningAgent, workspace: Container, tmp_path: Path
) -> None:
    """A snapshot's age is taken by the clock; after a step back it comes out of the future."""
    clock = Clock.made(tmp_path / "clock")
    agent.stop()
    agent.environment.update(clock.environment)
    agent.start()
    agent.until_live("work")
    write(workspace, "s", 2)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 2}, within=LIVE)
    clock.step(YEAR)
    workspace.kill()
    eventually(
        lambda: agent.place("work"), lambda it: bool(it and it["via"] == "snapshot"), within=LIVE
    )
    clock.step(-YEAR)
    listed = agent.perry.ok("agent", "status", "--port", str(agent.port))
    assert re.search(r"^work +exited +snapshot +just now$", listed, re.MULTILINE), listed
    assert agent.ask("POST", "/api/workspaces/work/refresh").status_code == 200
    place = agent.place("work")
    assert place is not None
    assert abs(place["asOf"] / 1000 - clock.now()) < 60
    [listing] = [agent.perry.json("session", "list", "--workspace", "work")["sessions"]]
    assert [one["messageCount"] for one in listing] == [2]
    workspace.start()
    started = time.monotonic()
    agent.until_live("work", within=LIVE)
    took = time.monotonic() - started
    assert agent.counts("work") == {"s": 2}
    TABLE.add("clock stepped under a snapshot", took, "no age below nothing; then live again")


def test_a_clock_that_is_stepped_under_a_worker_loses_nothing(tmp_path: Path) -> None:
    """A container has its machine's clock, so this worker is one of the host's."""
    clock = Clock.made(tmp_path / "clock")
    perry = Perry(tmp_path, {"HOME": str(tmp_path), **clock.environment})
    log = tmp_path / CLAUDE_DIRECTORY / "h.jsonl"
    log.parent.mkdir(parents=True)
    took = []
    with serving(perry) as address, WorkerClient(address, workspace="host") as client:
        events = client.events()
        assert next(events).kind == "ready"
        for count, seconds in enumerate([0, YEAR, -YEAR, -3600, 3600, 0], start=1):
            clock.step(seconds)
            append(log, count, clock.now())
            appended = time.monotonic()
            told = next(events).session
            took.append(time.monotonic() - appended)
            assert told is not None
            assert (told.id, told.message_count) == ("h", count)
            client.refresh()
            page = client.list_messages("h")
            assert [one.content for one in page.messages] == [
                f"message {number}" for number in range(1, count + 1)
            ]
        events.close()
    TABLE.add("clock stepped under a worker", took, "each append told of, and read")


@contextmanager
def serving(perry: Perry) -> Iterator[str]:
    """Run a worker of this machine for a block; gives its address."""
    process = perry.start("worker", "serve", "--port", "0")
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        [address] = re.findall(r"http://127.0.0.1:\d+", first)
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)
