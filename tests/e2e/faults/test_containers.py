"""What happens to a workspace's container: nothing is lost, and the table says how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from docker.models.containers import Container

from perry.workspace.models import WorkspaceSpec
from perry.workspace.progress import finish
from tests.e2e.eventually import eventually
from tests.e2e.faults.doing import (
    LIVE,
    asked,
    manager_of,
    until_archived,
    until_recovered,
    workspaces_of,
    write,
)
from tests.e2e.faults.table import TABLE
from tests.e2e.own_engine import OwnEngine
from tests.e2e.running_agent import RunningAgent

MESSAGES = "/api/workspaces/work/sessions/s/messages"


def test_a_container_restarted_while_it_is_asked_answers_again(
    agent: RunningAgent, workspace: Container
) -> None:
    write(workspace, "s", 5)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 5})
    with asked(agent, MESSAGES) as answers:
        took = until_recovered(agent, lambda: workspace.restart(timeout=1))
        answers.until_last(200)
    assert set(answers.statuses) <= {200, 409, 503}, sorted(set(answers.statuses))
    assert agent.counts("work") == {"s": 5}
    TABLE.add("container restarted while asked", took, str(answers))


def test_a_paused_container_is_said_to_be_paused_and_goes_on(
    agent: RunningAgent, workspace: Container
) -> None:
    write(workspace, "s", 2)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 2})
    until_archived(agent, 2)
    with asked(agent, MESSAGES) as answers:
        workspace.pause()
        place = eventually(lambda: agent.place("work"), lambda it: bool(it and it["error"]))
        answers.until_last(200)
    assert set(answers.statuses) == {200}
    assert place is not None
    assert (place["state"], place["via"], place["error"]) == ("paused", "memory", "it is paused")
    assert place["asOf"] > 0
    assert agent.counts("work") == {"s": 2}
    began = time.monotonic()
    answer = agent.ask("GET", "/api/workspaces/work/sessions/s/messages")
    assert (answer.status_code, time.monotonic() - began < 1) == (200, True), answer.text
    assert (answer.json()["total"], answer.json()["place"]["state"]) == (2, "paused")
    workspace.unpause()
    resumed = time.monotonic()
    agent.until_live("work", within=LIVE)
    took = time.monotonic() - resumed
    write(workspace, "s", 1, first=2)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 3})
    TABLE.add("container paused while asked, unpaused", took, f"listed with its age; {answers}")


def test_a_container_killed_while_it_is_asked_is_read_by_snapshot(
    agent: RunningAgent, workspace: Container
) -> None:
    write(workspace, "s", 7)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 7})
    with asked(agent, MESSAGES) as answers:
        workspace.kill()
        killed = time.monotonic()
        eventually(
            lambda: agent.place("work"),
            lambda it: bool(it and it["via"] == "snapshot"),
            within=LIVE,
        )
        took = time.monotonic() - killed
        answers.until_last(200)
    assert set(answers.statuses) <= {200, 409, 503}, sorted(set(answers.statuses))
    page = agent.get(MESSAGES)
    assert (page["total"], page["place"]["state"]) == (7, "exited")
    assert agent.counts("work") == {"s": 7}
    TABLE.add("container killed while asked", took, f"read by snapshot; {answers}")


def test_of_a_container_that_was_killed_and_removed_no_copy_is_kept(
    agent: RunningAgent, workspace: Container
) -> None:
    write(workspace, "s", 1)
    workspace.kill()
    eventually(
        lambda: agent.place("work"), lambda it: bool(it and it["via"] == "snapshot"), within=LIVE
    )
    cache = agent.directory / "home/.cache/perry/snapshots"
    assert [*cache.rglob(str(workspace.id))]
    workspace.remove()
    eventually(lambda: [*cache.rglob(str(workspace.id))], lambda it: not it, within=LIVE)
    eventually(lambda: agent.place("work"), lambda it: it is None, within=LIVE)


def test_a_container_removed_while_it_is_asked_is_gone_with_its_sessions(
    agent: RunningAgent, workspace: Container
) -> None:
    write(workspace, "s", 1)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 1})
    until_archived(agent, 1)
    with agent.listening() as listener, asked(agent, MESSAGES) as answers:
        workspace.remove(force=True)
        removed = time.monotonic()
        eventually(lambda: agent.place("work"), lambda it: it is None, within=LIVE)
        took = time.monotonic() - removed
        eventually(listener.sessions, lambda it: ("deleted", "s", 0) in it, within=LIVE)
        answers.until_last(200)
    assert set(answers.statuses) <= {200, 503}, sorted(set(answers.statuses))
    assert agent.get(MESSAGES)["place"] is None
    TABLE.add("container removed while asked", took, f"told, kept in the archive; {answers}")


def test_a_session_that_grows_while_its_workspace_is_stopped_is_read(
    agent: RunningAgent, workspace: Container, engine_of_ours: OwnEngine
) -> None:
    write(workspace, "s", 2)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 2})
    other = engine_of_ours.client.containers.create(
        engine_of_ours.runtime,
        ["/runtime/busybox", "sleep", "600"],
        volumes={
            "workspace-work-home": {"bind": "/home/workspace"},
            "perry-bundle": {"bind": "/opt/perry", "mode": "ro"},
        },
        environment={"HOME": "/home/workspace"},
    )
    other.start()
    try:
        workspace.stop(timeout=1)
        eventually(
            lambda: agent.place("work"),
            lambda it: bool(it and it["via"] == "snapshot"),
            within=LIVE,
        )
        write(other, "s", 3, first=2)
        grown = time.monotonic()
        assert agent.ask("POST", "/api/workspaces/work/refresh").status_code == 200
        assert agent.counts("work") == {"s": 5}
        took = time.monotonic() - grown
        page = agent.get("/api/workspaces/work/sessions/s/messages")
        assert [one["content"] for one in page["messages"]] == [f"message {n}" for n in range(5)]
    finally:
        other.remove(force=True)
    workspace.start()
    agent.until_live("work", within=LIVE)
    assert agent.counts("work") == {"s": 5}
    TABLE.add("a session grows in a stopped workspace", took, "5 messages, in order")


def test_thirty_workspaces_started_at_once_all_get_their_workers(
    agent: RunningAgent, engine_of_ours: OwnEngine
) -> None:
    manager = manager_of(agent)
    names_of_all = [f"many-{number:02d}" for number in range(30)]
    with ThreadPoolExecutor(4) as making:
        list(making.map(lambda name: finish(manager.init(WorkspaceSpec(name))), names_of_all))
    containers = workspaces_of(engine_of_ours.client)
    _at_once(lambda container: container.kill(), containers)
    eventually(
        lambda: [
            place["name"]
            for place in agent.get("/api/status")["places"]
            if place["via"] == "snapshot"
        ],
        lambda it: len(it) == 30,
        within=60,
    )
    began = time.monotonic()
    _at_once(lambda container: container.start(), containers)
    started = time.monotonic()
    agent.until_live(*names_of_all, within=90)
    took = time.monotonic() - began
    TABLE.add(
        "30 workspaces started at once",
        took,
        f"all of them live; the engine needed {started - began:.1f} s of that",
    )


def _at_once(do: Callable[[Container], object], containers: list[Container]) -> None:
    with ThreadPoolExecutor(len(containers)) as doing:
        list(doing.map(do, containers))
