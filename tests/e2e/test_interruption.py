"""`perry workspace init` killed or interrupted at any step, and run again."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import docker
import pytest

from perry.workspace import helper
from perry.workspace.engine import Engine
from tests.e2e.command import PATIENCE, Perry
from tests.e2e.own_engine import OwnEngine

Moment = tuple[str, str]

MOMENTS: tuple[Moment, ...] = (
    ("create", "perry-bundle"),
    ("create", "perry-fill-"),
    ("start", "perry-fill-"),
    ("die", "perry-fill-"),
    ("rename", "perry-bundle-"),
    ("create", "perry-probe-"),
    ("create", "workspace-one-home"),
    ("create", "perry-home-"),
    ("create", "workspace-one"),
    ("start", "workspace-one"),
    ("exec_create", "workspace-one"),
    ("exec_start", "workspace-one"),
)
"""What the engine tells of an init, in order: an action and how the name of its object begins."""


@pytest.fixture
def perry(bare_engine: OwnEngine, tmp_path: Path) -> Perry:
    cache = str(tmp_path / "cache")
    return Perry(tmp_path, {"DOCKER_HOST": bare_engine.address, "XDG_CACHE_HOME": cache})


@pytest.fixture
def stop_at(
    bare_engine: OwnEngine, perry: Perry
) -> Callable[[Moment, signal.Signals], subprocess.Popen[str]]:
    """Run `init one`, signal it at the moment that the engine tells of, and let it end."""

    def run(moment: Moment, how: signal.Signals) -> subprocess.Popen[str]:
        events = bare_engine.client.events(decode=True)
        process = perry.start("workspace", "init", "one")
        try:
            for event in events:
                if happened(event, moment):
                    process.send_signal(how)
                    break
            process.wait(timeout=PATIENCE)
        finally:
            process.kill()
            events.close()
        return process

    return run


def happened(event: dict[str, object], moment: Moment) -> bool:
    actor = event.get("Actor")
    assert isinstance(actor, dict)
    name = actor["Attributes"].get("name") or actor["ID"]
    action = str(event.get("Action")).partition(":")[0]
    return action == moment[0] and name.lstrip("/").startswith(moment[1])


def assert_whole(engine: OwnEngine, perry: Perry) -> None:
    """One container, one home, a healthy worker, the bundle, and nothing that stays for good."""
    (view,) = perry.json("workspace", "list")["workspaces"]
    assert (view["name"], view["health"]) == ("one", "healthy")
    assert engine.volumes() == ["perry-bundle", "perry-key", "workspace-one-home"]
    left = set(engine.containers("perry-")) - set(engine.containers("perry-bundle-"))
    assert len(left) <= 1, "only what the killed perry was busy with"
    connected = Engine(docker.APIClient(base_url=engine.address))
    helper.remove_abandoned(connected)
    assert left <= set(engine.containers()), "what is new may be in use"
    helper.remove_abandoned(connected, older_than=timedelta(0))
    connected.close()
    keeper, workspace = engine.containers()
    assert keeper.startswith("perry-bundle-")
    assert workspace == "workspace-one"


@pytest.mark.parametrize("moment", MOMENTS, ids=" ".join)
def test_killed_at_any_moment_it_completes_when_run_again(
    bare_engine: OwnEngine,
    perry: Perry,
    stop_at: Callable[[Moment, signal.Signals], subprocess.Popen[str]],
    moment: Moment,
) -> None:
    killed = stop_at(moment, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL, "it ended before it could be killed"
    assert "is ready: worker at" in perry.ok("workspace", "init", "one")
    assert_whole(bare_engine, perry)


def test_remove_takes_along_what_a_killed_perry_did_to_the_home(
    bare_engine: OwnEngine,
    perry: Perry,
    stop_at: Callable[[Moment, signal.Signals], subprocess.Popen[str]],
) -> None:
    """A helper that still has the volume would keep it from being removed."""
    stop_at(("create", "perry-home-"), signal.SIGKILL)
    assert bare_engine.containers("perry-home-")
    perry.ok("workspace", "remove", "one", "--yes")
    assert bare_engine.volumes() == ["perry-bundle", "perry-key"]
    assert bare_engine.containers("perry-home-") == []


@pytest.mark.parametrize(
    "moment",
    [("start", "perry-fill-"), ("create", "perry-probe-"), ("start", "workspace-one")],
    ids=" ".join,
)
def test_ctrl_c_says_what_is_left_and_how_to_go_on(
    bare_engine: OwnEngine,
    perry: Perry,
    stop_at: Callable[[Moment, signal.Signals], subprocess.Popen[str]],
    moment: Moment,
) -> None:
    interrupted = stop_at(moment, signal.SIGINT)
    assert interrupted.returncode == 130
    assert interrupted.stderr is not None
    said = interrupted.stderr.read()
    assert "Interrupted: " in said
    assert "workspace one" in said
    assert "perry workspace init one" in said
    assert "perry workspace remove one" in said
    assert "Traceback" not in said
    assert bare_engine.containers("perry-fill-") == bare_engine.containers("perry-probe-") == []
    assert "is ready: worker at" in perry.ok("workspace", "init", "one")
    assert_whole(bare_engine, perry)
