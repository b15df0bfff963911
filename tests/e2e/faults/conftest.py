"""An agent daemon on an engine of the tests' own: a daemon keeps every workspace of its engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.models.containers import Container

from perry.workspace import names
from tests.e2e.faults.doing import workspaces_of
from tests.e2e.own_engine import OwnEngine
from tests.e2e.running_agent import RunningAgent


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
    for place in workspaces_of(engine_of_ours.client):
        place.remove(force=True, v=True)
    for volume in engine_of_ours.client.volumes.list(filters={"label": names.LABEL}):
        volume.remove(force=True)


@pytest.fixture
def workspace(agent: RunningAgent, engine_of_ours: OwnEngine) -> Container:
    """A workspace named `work`, which the daemon has reached."""
    agent.perry.ok("workspace", "init", "work")
    agent.until_live("work")
    return engine_of_ours.client.containers.get("workspace-work")
