"""Start, stop, restart, sync, remove, uninstall: what is left, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from perry.errors import WorkspaceNotFound, WorkspaceNotRunning
from perry.workspace import bundle
from perry.workspace.engine import Engine
from perry.workspace.manager import WorkspaceManager
from perry.workspace.models import WorkspaceSpec
from perry.workspace.progress import finish
from tests.conftest import Workspaces


def test_stop_start_and_restart(workspaces: Workspaces) -> None:
    name = workspaces.init().workspace.name
    workspaces.manager.stop(name)
    assert workspaces.manager.get(name).state == "exited"
    assert workspaces.manager.worker(name) is None
    assert finish(workspaces.manager.start(name)).worker is not None
    assert finish(workspaces.manager.restart(name)).worker is not None


def test_remove_leaves_nothing(workspaces: Workspaces, engine: Engine) -> None:
    name = workspaces.init().workspace.name
    removed = workspaces.manager.remove(name)
    assert removed.containers == (f"workspace-{name}",)
    assert removed.volumes == (f"workspace-{name}-home",)
    assert engine.list_containers(f"perry.workspace={name}") == []
    assert engine.list_volumes(f"perry.workspace={name}") == []
    with pytest.raises(WorkspaceNotFound):
        workspaces.manager.get(name)
    assert workspaces.manager.remove(name).containers == ()


def test_a_kept_home_is_there_again_after_the_next_init(workspaces: Workspaces) -> None:
    name = workspaces.init().workspace.name
    workspaces.run(name, "echo kept > ~/file")
    assert workspaces.manager.remove(name, keep_volume=True).volumes == ()
    workspaces.init(name)
    assert workspaces.run(name, "cat ~/file") == "kept\n"


def test_a_container_removed_behind_perrys_back_is_made_anew(workspaces: Workspaces) -> None:
    ready = workspaces.init()
    workspaces.engine.remove_container(ready.workspace.container_id)
    with pytest.raises(WorkspaceNotFound):
        workspaces.manager.connect(ready.workspace)
    assert workspaces.init(ready.workspace.name).worker is not None


def test_what_needs_a_running_workspace_says_so(workspaces: Workspaces) -> None:
    name = workspaces.init().workspace.name
    workspaces.manager.stop(name)
    stopped = workspaces.manager.get(name)
    with pytest.raises(WorkspaceNotRunning, match="exited"):
        workspaces.manager.connect(stopped)
    with pytest.raises(WorkspaceNotRunning):
        finish(workspaces.manager.sync(name))


def test_a_workspace_is_read_from_docker_alone(workspaces: Workspaces, engine: Engine) -> None:
    """Another perry, that knows nothing but the engine, sees the same."""
    ready = workspaces.init(env={"A": "1"})
    other = WorkspaceManager(Engine.connect())
    assert other.get(ready.workspace.name) == ready.workspace
    assert ready.workspace in other.list()
    assert engine.id


def layers(workspaces: Workspaces, name: str) -> set[str]:
    return set(workspaces.run(name, "ls /opt/perry/layers").split())


def test_whatever_replaces_the_worker_of_another_version_drops_the_layers_nobody_runs(
    workspaces: Workspaces,
    another_version: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bundle, "UNUSED_FOR", timedelta(0))
    another_version()
    first = workspaces.init()
    other = workspaces.init().workspace.name
    name = first.workspace.name
    assert first.worker is not None
    old_layer = f"code-{first.worker.digest.partition('-')[2]}"
    another_version()
    newer = WorkspaceManager(Engine.connect())
    synced = finish(newer.sync(name))
    assert synced.worker is not None
    assert synced.worker.digest != first.worker.digest
    # the other workspace still runs the old layer, so it stays
    assert old_layer in layers(workspaces, name)
    finish(newer.init(WorkspaceSpec(other)))
    assert old_layer not in layers(workspaces, name)
    processes = workspaces.run(name, "pgrep -f ^/opt/perry/layers").split()
    assert len(processes) == 1


def test_a_half_written_layer_is_never_run_and_a_killed_fill_is_completed(
    workspaces: Workspaces, engine: Engine, another_version: Callable[[], None]
) -> None:
    """What a fill killed in the middle leaves: a draft, and no marker and no keeper."""
    another_version()
    ready = workspaces.init()
    assert ready.worker is not None
    runtime, code = ready.worker.digest.split("-")
    keeper = engine.get_container(f"perry-bundle-{ready.worker.digest}")
    assert keeper is not None
    image = keeper.image_id
    engine.remove_container(keeper.id)
    breaker = engine.create_container(
        "perry-test-breaker",
        image,
        command=[
            "/runtime/busybox", "sh", "-c",
            (f"cd /opt/perry && B=/runtime/busybox && $B rm -f complete/code-{code} && "
            f"$B rm -rf layers/code-{code}/perry/worker && $B mkdir -p layers/.code-{code}/perry"),
        ],
        host_config={"mounts": [{**bundle.mount(), "ReadOnly": False}]},
    )  # fmt: skip
    try:
        engine.start_container(breaker)
        assert engine.wait_container(breaker) == 0
    finally:
        engine.remove_container(breaker)
    again = WorkspaceManager(Engine.connect())
    workspaces.run(ready.workspace.name, "pkill -KILL -f ^/opt/perry/layers")
    with again.connect(ready.workspace) as worker:
        assert worker.health().digest == ready.worker.digest
    present = workspaces.run(
        ready.workspace.name, f"ls /opt/perry/layers/code-{code}/perry/worker /opt/perry/layers -A"
    )
    assert "__main__.py" in present
    assert ".code" not in present
    assert f"runtime-{runtime}" in present
