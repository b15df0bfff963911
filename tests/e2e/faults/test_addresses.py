"""A workspace's address changes, or passes to a neighbour: the next question is answered right.

Everything is asked through the daemon, which knows the old address and has a connection to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from docker.errors import APIError
from docker.models.containers import Container
from docker.models.networks import Network

from tests.e2e.command import BUSYBOX
from tests.e2e.eventually import eventually
from tests.e2e.faults.doing import LIVE, asked, manager_of, until_recovered, write
from tests.e2e.faults.table import TABLE
from tests.e2e.neighbour import Neighbour, neighbour, network
from tests.e2e.own_engine import OwnEngine
from tests.e2e.remote_engine import RUN
from tests.e2e.running_agent import RunningAgent

PREFIX = f"10.214.{RUN % 256}"
SUBNET, OLD, NEW = f"{PREFIX}.0/28", f"{PREFIX}.2", f"{PREFIX}.12"
MESSAGES = "/api/workspaces/work/sessions/s/messages"


@pytest.fixture
def where(agent: RunningAgent, engine_of_ours: OwnEngine) -> Iterator[Network]:
    """The network that the workspace is in; the workspace goes before it."""
    with network(engine_of_ours.client, SUBNET) as made:
        yield made
        agent.perry.run("workspace", "remove", "work", "--yes")


@pytest.fixture
def workspace(agent: RunningAgent, engine_of_ours: OwnEngine, where: Network) -> Container:
    """A workspace at the old address, with a session that the daemon has read."""
    agent.perry.ok("workspace", "init", "work", "--network", str(where.name))
    agent.until_live("work")
    container = engine_of_ours.client.containers.get("workspace-work")
    assert addresses(agent) == [OLD]
    write(container, "s", 3)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 3})
    assert agent.get(MESSAGES)["total"] == 3
    programs = [row[-1] for row in container.top()["Processes"]]
    assert not [it for it in programs if f"{BUSYBOX} nc" in it], "not reached at its address"
    return container


def addresses(agent: RunningAgent) -> list[str]:
    found: list[str] = agent.get("/api/workspaces/work")["workspace"]["addresses"]
    return found


def heard_no_token(hostile: Neighbour, token: str) -> None:
    """See that what is known of the workspace hasn't reached who has its address now."""
    assert token not in hostile.heard()
    assert "authorization" not in hostile.heard().lower()


def token_of(agent: RunningAgent) -> str:
    manager = manager_of(agent)
    return manager.token(manager.get("work"))


def connect(where: Network, container: Container, **options: str) -> None:
    """Connect a container, once its published port isn't another program's by chance."""

    def is_connected() -> bool:
        try:
            where.connect(container, **options)
        except APIError as error:
            if "address already in use" not in str(error):
                raise
            return False
        return True

    eventually(is_connected, bool, within=LIVE)


def goes_on(agent: RunningAgent, container: Container, *, total: int) -> float:
    """See that the next question is right, and that appends are told of; returns the seconds."""
    began = time.monotonic()
    assert agent.get(MESSAGES)["total"] == total
    took = time.monotonic() - began
    write(container, "s", 1, first=total)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": total + 1}, within=LIVE)
    return took


def test_a_workspace_that_is_moved_to_another_address_is_asked_there(
    agent: RunningAgent, workspace: Container, where: Network
) -> None:
    took = []
    for round_, address in enumerate([NEW, OLD, NEW]):
        where.disconnect(workspace)
        connect(where, workspace, ipv4_address=address)
        took.append(goes_on(agent, workspace, total=3 + round_))
        assert addresses(agent) == [address]
    TABLE.add("address changed under a running workspace", took, "the next question was right")


def test_a_workspace_without_any_network_is_asked_all_the_same(
    agent: RunningAgent, workspace: Container, where: Network
) -> None:
    where.disconnect(workspace)
    took = [goes_on(agent, workspace, total=3)]
    connect(where, workspace)
    took.append(goes_on(agent, workspace, total=4))
    TABLE.add("network disconnected, connected", took, "asked through Docker, then as before")


def test_a_neighbour_that_takes_the_address_of_a_running_workspace_hears_no_token(
    agent: RunningAgent, workspace: Container, where: Network, engine_of_ours: OwnEngine
) -> None:
    token = token_of(agent)
    where.disconnect(workspace)
    with neighbour(engine_of_ours.client, engine_of_ours.runtime, where, OLD) as hostile:
        connect(where, workspace)
        took = goes_on(agent, workspace, total=3)
        assert addresses(agent) != [OLD]
        heard_no_token(hostile, token)
    TABLE.add("address passed to a neighbour", took, "the next question was right, no token sent")


def test_a_workspace_that_is_stopped_and_started_is_asked_at_its_new_address(
    agent: RunningAgent, workspace: Container, where: Network, engine_of_ours: OwnEngine
) -> None:
    token = token_of(agent)
    with asked(agent, MESSAGES) as answers:
        workspace.stop(timeout=1)
        with neighbour(engine_of_ours.client, engine_of_ours.runtime, where, OLD) as hostile:
            took = until_recovered(agent, workspace.start)
            answers.until_last(200)
            assert addresses(agent) != [OLD]
            goes_on(agent, workspace, total=3)
            heard_no_token(hostile, token)
    assert set(answers.statuses) <= {200, 409, 503}, sorted(set(answers.statuses))
    TABLE.add("stopped, started at another address", took, f"no token sent; {answers}")


def test_a_workspace_made_again_under_its_name_is_another_one(
    agent: RunningAgent, workspace: Container, where: Network, engine_of_ours: OwnEngine
) -> None:
    token = token_of(agent)
    assert workspace.id
    agent.perry.ok("workspace", "remove", "work", "--yes")
    removed = time.monotonic()
    with neighbour(engine_of_ours.client, engine_of_ours.runtime, where, OLD) as hostile:
        agent.perry.ok("workspace", "init", "work", "--network", str(where.name))
        agent.until_live("work")
        took = time.monotonic() - removed
        eventually(lambda: agent.counts("work"), lambda it: it == {}, within=LIVE)
        made = engine_of_ours.client.containers.get("workspace-work")
        write(made, "s", 1)
        eventually(lambda: agent.counts("work"), lambda it: it == {"s": 1}, within=LIVE)
        assert agent.get(MESSAGES)["total"] == 1
        for secret in (token, token_of(agent)):
            heard_no_token(hostile, secret)
    TABLE.add("removed, made again under its name", took, "its own sessions alone; no token sent")
