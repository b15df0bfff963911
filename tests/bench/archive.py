"""Everything promised of the archive: taking in, finding nothing new, finding words, its size.

The daemon reads the host's own sessions, in its own process, which is where taking in could slow it
most. Beside what it takes stand the seconds in which the same files are read through once as bytes.
This module must not know how the archive keeps anything.
"""

from __future__ import annotations

import functools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

from perry.archive.archive import Archive
from perry.sessions.index import SessionIndex
from tests.bench.connection import Connection
from tests.bench.fleet import AgentProcess
from tests.bench.homes import Home, Live, home_of
from tests.bench.table import Row, median, megabytes, milliseconds, percentile, seconds, stopwatch
from tests.e2e.running_agent import RunningAgent

PATIENCE = 600.0  # s
POLL = 0.01  # s
PAUSE = 0.05  # s between the questions that are asked while sessions are taken in
NO_ENGINE = "unix:///nonexistent/docker.sock"


@dataclass(frozen=True)
class Plan:
    """How large and how long."""

    taken_in: int = 2_000
    searched: int = 10_000
    searches: int = 300
    appends: int = 50


SMALL = Plan(taken_in=200, searched=200, searches=60, appends=10)


def measure_archive(plan: Plan) -> Iterator[Row]:
    """Measure everything."""
    with home_of(plan.taken_in) as home:
        with agent_of(home) as agent:
            yield from _taking_in(agent, home)
            yield from _appends(agent, home, plan)
        yield _nothing_new(home)
    with home_of(plan.searched) as home, agent_of(home) as agent:
        until_taken_in(agent, home)
        yield from _searches(agent, home, plan)
        yield _size(home)


@contextmanager
def agent_of(home: Home) -> Iterator[AgentProcess]:
    """Run a daemon over the host's sessions alone; its archive lies in the home."""
    with tempfile.TemporaryDirectory() as directory:
        running = RunningAgent(Path(directory), NO_ENGINE, {"HOME": str(home.path)})
        running.start()
        try:
            yield AgentProcess(running)
        finally:
            running.stop()


def until_taken_in(agent: AgentProcess, home: Home) -> None:
    """Wait until the archive has all sessions of a home."""
    archive = Archive(archive_of(home))
    with agent.connect() as connection:

        def is_whole() -> bool:
            total = listed(connection)
            return bool(total) and archive.statistics().sessions >= total

        _until(is_whole)
    archive.close()


def ask(connection: Connection, path: str) -> Any:
    """Ask, and decode the answer."""
    status, body = connection.get(path)
    assert status == 200, f"{path}: {status} {body[:200]!r}"
    return json.loads(body)


def listed(connection: Connection) -> int:
    """Count the sessions, those that others started too, once the host's are all there; else 0."""
    if ask(connection, "/api/status")["watch"] is None:
        return 0
    return int(ask(connection, "/api/sessions?limit=0&children=1")["total"])


def archive_of(home: Home) -> Path:
    """Name the archive's file of a daemon that has this home."""
    return home.path / ".local/share/perry/archive.sqlite"


def _taking_in(agent: AgentProcess, home: Home) -> Iterator[Row]:
    floor: list[float] = []
    with stopwatch(floor):
        for path in home.projects.rglob("*.jsonl"):
            path.read_bytes()
    with agent.connect() as connection:
        _until(lambda: listed(connection))
    ended = threading.Event()
    busy: dict[str, list[float]] = {}
    asking = threading.Thread(target=_ask_all, args=(agent, ended, busy))
    asking.start()
    took: list[float] = []
    with stopwatch(took):
        until_taken_in(agent, home)
    ended.set()
    asking.join()
    yield Row(
        f"archive: taking in {home.sessions:,} sessions of {megabytes(home.size)}",
        seconds(took[0]),
        seconds(floor[0]),
        "the files' bytes read once",
        "25 s",
        {"took": took[0], "floor": floor[0]},
    )
    ended = threading.Event()
    calm: dict[str, list[float]] = {}
    threading.Timer(max(2.0, took[0]), ended.set).start()
    _ask_all(agent, ended, calm)
    for what, during in busy.items():
        ratio = median(during) / median(calm[what])
        yield Row(
            f"archive: {what} meanwhile",
            milliseconds(median(during)),
            milliseconds(median(calm[what])),
            f"{ratio:.2f} times that without; p99 {milliseconds(percentile(during, 0.99))}"
            f" beside {milliseconds(percentile(calm[what], 0.99))}",
            "1.5 times",
            {"busy": median(during), "calm": median(calm[what])},
        )


def _ask_all(agent: AgentProcess, ended: threading.Event, took: dict[str, list[float]]) -> None:
    """Ask for a page of messages and of the list, every now and then, until it has ended."""
    with agent.connect() as connection:
        listed = ask(connection, "/api/sessions?limit=200")["sessions"]
        largest = max(listed, key=lambda session: session["messageCount"])
        paths = {
            "the list's first 200": "/api/sessions?limit=200",
            "a page of 100 messages": f"/api/workspaces/host/sessions/{largest['id']}/messages",
        }
        while not ended.wait(PAUSE):
            for what, path in paths.items():
                with stopwatch(took.setdefault(what, [])):
                    connection.get(path)


def _appends(agent: AgentProcess, home: Home, plan: Plan) -> Iterator[Row]:
    live = Live(home, "archive")
    took: list[float] = []
    with agent.connect() as connection:
        for number in range(plan.appends):
            word = f"needle{number:05d}"
            record = {
                "type": "user",
                "sessionId": live.id,
                "timestamp": "2026-09-21T14:13:20.000Z",
                "message": {"role": "user", "content": f"where is {word}"},
            }
            with stopwatch(took):
                with live.path.open("a") as log:
                    log.write(json.dumps(record) + "\n")
                _until(functools.partial(_is_found, connection, word))
            time.sleep(PAUSE)
    live.close()
    yield Row(
        "archive: append to found, p50 / p99",
        f"{milliseconds(median(took))} / {milliseconds(percentile(took, 0.99))}",
        "",
        f"{plan.appends} appends",
        "1 s",
        {"p50": median(took), "p99": percentile(took, 0.99)},
    )


def _is_found(connection: Connection, word: str) -> bool:
    return bool(ask(connection, f"/api/search?q={word}")["hits"])


def _nothing_new(home: Home) -> Row:
    index = SessionIndex.of_home(home.path, {})
    index.refresh()
    sessions = index.list(children=True)
    opened = Archive(archive_of(home))
    known = {kept.session.id: kept.session for kept in opened.sessions("host")}
    opened.close()
    as_known = [known[session.id] for session in sessions if session.id in known]
    took: list[float] = []
    for _ in range(5):
        with stopwatch(took):
            archive = Archive(archive_of(home))
            archive.stale("host", as_known)
            archive.close()
    return Row(
        f"archive: finding nothing new of {len(as_known):,} sessions after a restart",
        milliseconds(median(took)),
        "",
        "opened and compared",
        "200 ms",
        {"took": median(took)},
    )


def _searches(agent: AgentProcess, home: Home, plan: Plan) -> Iterator[Row]:
    rng = Random(3)  # noqa: S311 - the same questions each time
    words = _words_of(home, rng)
    alone: list[float] = []
    narrowed: list[float] = []
    with agent.connect() as connection:
        for number in range(plan.searches):
            picked = [rng.choice(words) for _ in range(rng.randint(1, 3))]
            asked = " ".join(picked)
            if number % 5 == 0:
                asked = asked[: max(3, len(asked) - 2)] + "*"
            path = f"/api/search?limit=20&q={quote(asked)}"
            with stopwatch(alone):
                connection.get(path)
            narrow = rng.choice(["&role=user", "&role=tool_result", "&agent=claude", "&since=1"])
            with stopwatch(narrowed):
                connection.get(path + narrow)
        everywhere = ask(connection, f"/api/search?limit=20&q={quote(words[0])}")
        by_workers: list[float] = []
        with stopwatch(by_workers):
            connection.get(f"/api/search?limit=20&by=workers&q={quote(words[0])}")
    assert everywhere["hits"]
    for what, took in (("words", alone), ("words and a filter", narrowed)):
        yield Row(
            f"archive: search in {home.sessions:,} sessions, {what}, p50 / p99",
            f"{milliseconds(median(took))} / {milliseconds(percentile(took, 0.99))}",
            milliseconds(by_workers[0]),
            "the workers' own search, once",
            "20 / 100 ms",
            {"p50": median(took), "p99": percentile(took, 0.99), "workers": by_workers[0]},
        )


def _words_of(home: Home, rng: Random) -> list[str]:
    """Pick words that are said: common ones and rare ones."""
    found: set[str] = set()
    paths = sorted(home.projects.rglob("*.jsonl"))
    for path in rng.sample(paths, min(60, len(paths))):
        text = path.read_text(errors="replace")[:20_000]
        found.update(word for word in text.split() if word.isalnum() and len(word) > 2)
    return sorted(found)


def _size(home: Home) -> Row:
    archive = Archive(archive_of(home))
    size = archive.statistics().size
    archive.close()
    return Row(
        f"archive: its size, {home.sessions:,} sessions",
        megabytes(size),
        megabytes(home.size),
        f"{size / home.size:.2f} of the sessions' bytes",
        "0.5",
        {"size": size, "sessions": home.size},
    )


def _until(wanted: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(POLL)
