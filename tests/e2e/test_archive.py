"""The archive beside real workspaces: what was said in them outlives them, and the daemon's death.

On an engine of the tests' own, since a daemon keeps every workspace of its engine.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.models.containers import Container

from perry.archive.archive import Archive
from perry.errors import SessionNotFound
from perry.workspace import names
from tests.e2e.eventually import eventually
from tests.e2e.faults.doing import write
from tests.e2e.faults.table import TABLE
from tests.e2e.own_engine import OwnEngine
from tests.e2e.running_agent import RunningAgent

LIVE = 30.0
KILLS = 12


@pytest.fixture(scope="module")
def engine_of_ours(second_engine: OwnEngine) -> OwnEngine:
    second_engine.reset()
    return second_engine


@pytest.fixture
def agent(engine_of_ours: OwnEngine, tmp_path: Path) -> Iterator[RunningAgent]:
    running = RunningAgent(tmp_path, engine_of_ours.address)
    running.start()
    yield running
    running.stop()
    client = engine_of_ours.client
    for place in client.containers.list(all=True, filters={"label": names.LABEL}):
        place.remove(force=True, v=True)
    for volume in client.volumes.list(filters={"label": names.LABEL}):
        volume.remove(force=True)


def made(agent: RunningAgent, engine: OwnEngine, name: str) -> Container:
    """Make a workspace that the daemon has reached."""
    agent.perry.ok("workspace", "init", name)
    agent.until_live(name)
    return engine.client.containers.get(f"workspace-{name}")


def archive_of(agent: RunningAgent) -> Path:
    return agent.directory / "home/.local/share/perry/archive.sqlite"


def kept(agent: RunningAgent, workspace: str, session: str) -> list[str]:
    """What the archive has of a session; its file is opened beside the daemon."""
    archive = Archive(archive_of(agent))
    try:
        page = archive.messages((workspace, "claude", session), limit=10**6)
    except SessionNotFound:
        return []
    finally:
        archive.close()
    return [message.content for message in page.messages]


def numbered(count: int) -> list[str]:
    return [f"message {number}" for number in range(count)]


def standings(agent: RunningAgent) -> dict[tuple[str, str], str]:
    listed = agent.get("/api/sessions", archived="1")["sessions"]
    return {(one["workspace"], one["id"]): one["standing"] for one in listed}


def test_what_was_said_in_a_workspace_outlives_it(
    agent: RunningAgent, engine_of_ours: OwnEngine
) -> None:
    for name in ("one", "two"):  # the same session id in both
        write(made(agent, engine_of_ours, name), "same", 3 if name == "one" else 5)
    eventually(lambda: kept(agent, "one", "same"), lambda it: it == numbered(3), within=LIVE)
    eventually(lambda: kept(agent, "two", "same"), lambda it: it == numbered(5), within=LIVE)
    assert standings(agent) == {("one", "same"): "live", ("two", "same"): "live"}
    assert agent.ask("POST", "/api/workspaces/two/stop").status_code == 200
    eventually(lambda: standings(agent)["two", "same"], lambda it: it == "stopped", within=LIVE)
    write(engine_of_ours.client.containers.get("workspace-one"), "same", 4, first=3)
    assert agent.ask("DELETE", "/api/workspaces/one").status_code == 200
    eventually(lambda: standings(agent)["one", "same"], lambda it: it == "archived", within=LIVE)
    page = agent.get("/api/workspaces/one/sessions/same/messages")
    assert [one["content"] for one in page["messages"]] == numbered(page["total"])
    assert page["total"] >= 3
    found = agent.get("/api/search", q='"message 2"')
    assert {(hit["workspace"], hit["position"]) for hit in found["hits"]} == {
        ("one", 2),
        ("two", 2),
    }
    assert agent.ask("DELETE", "/api/workspaces/one/sessions/same").status_code == 200
    assert standings(agent) == {("two", "same"): "stopped"}


def test_the_daemon_killed_at_any_moment_loses_nothing_of_what_is_said(
    agent: RunningAgent, engine_of_ours: OwnEngine
) -> None:
    work = made(agent, engine_of_ours, "work")
    chance = random.Random(3)  # noqa: S311 - moments
    written = 0
    for _ in range(KILLS):
        count = chance.randrange(1, 60)
        write(work, "busy", count, first=written)
        written += count
        time.sleep(chance.random())
        agent.kill()
        before = kept(agent, "work", "busy")
        assert before == numbered(len(before)), "something half-made stayed"
        agent.start()
        assert len(kept(agent, "work", "busy")) >= len(before)
    agent.until_live("work")
    began = time.monotonic()
    eventually(lambda: kept(agent, "work", "busy"), lambda it: it == numbered(written), within=LIVE)
    TABLE.add(
        f"daemon killed {KILLS} times while archiving",
        time.monotonic() - began,
        f"{written} messages in the archive, in order",
    )


def test_two_daemons_started_by_mistake_archive_everything_once(
    agent: RunningAgent, engine_of_ours: OwnEngine
) -> None:
    work = made(agent, engine_of_ours, "work")
    other = RunningAgent(agent.directory, agent.address)
    other.start()
    try:
        for first in range(0, 100, 10):
            write(work, "shared", 10, first=first)
        eventually(lambda: kept(agent, "work", "shared"), lambda it: len(it) >= 100, within=LIVE)
        time.sleep(1)  # whatever the slower of both would still add
        assert kept(agent, "work", "shared") == numbered(100)
        for one in (agent, other):
            assert len(one.get("/api/search", q="message", limit="1000")["hits"]) == 100
            assert one.get("/api/status")["archive"]["error"] is None
    finally:
        other.stop()
