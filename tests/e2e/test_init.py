"""The main job: one command, and a workspace whose sessions can be seen."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest

from perry.errors import (
    CloneFailed,
    ForeignContainer,
    ImageUnusable,
    PortTaken,
    UsageError,
    WorkspaceConflict,
)
from perry.workspace.engine import Engine
from perry.workspace.manager import WorkspaceManager
from perry.workspace.models import Step, WorkspaceSpec
from perry.workspace.progress import finish
from tests.conftest import Workspaces


def steps_of(workspaces: Workspaces, name: str) -> list[Step]:
    return list(workspaces.manager.init(WorkspaceSpec(name)))


def test_init_ends_with_a_healthy_worker_and_shows_every_step(workspaces: Workspaces) -> None:
    steps = steps_of(workspaces, workspaces.name())
    done = [step for step in steps if step.state == "done"]
    assert [step.name for step in done] == [
        "image", "bundle", "volume", "container", "start", "worker", "health",
    ]  # fmt: skip
    assert all(step.seconds is not None for step in done)
    assert workspaces.manager.worker(workspaces.names[0]) is not None


def test_a_second_init_starts_and_copies_nothing(workspaces: Workspaces) -> None:
    first = workspaces.init()
    name = first.workspace.name
    processes = workspaces.run(name, "pgrep -f ^/opt/perry/layers")
    second = workspaces.init(name)
    assert second == first
    assert workspaces.run(name, "pgrep -f ^/opt/perry/layers") == processes


def test_init_starts_what_is_stopped_and_revives_what_is_dead(workspaces: Workspaces) -> None:
    name = workspaces.init().workspace.name
    workspaces.manager.stop(name)
    assert workspaces.init(name).worker is not None
    workspaces.run(name, "pkill -KILL -f ^/opt/perry/layers", user="0")
    assert workspaces.manager.worker(name) is None
    assert workspaces.init(name).worker is not None


def test_init_resumes_a_paused_workspace(workspaces: Workspaces) -> None:
    name = workspaces.init().workspace.name
    docker.from_env().containers.get(f"workspace-{name}").pause()
    assert workspaces.init(name).worker is not None


def test_the_worker_runs_as_the_images_user_in_its_home(workspaces: Workspaces) -> None:
    ready = workspaces.init()
    owner = workspaces.run(
        ready.workspace.name, "stat -c %u:%n /proc/$(pgrep -o -f ^/opt/perry/layers)"
    )
    assert owner.startswith("1000:")
    assert ready.workspace.home == "/home/workspace"
    assert workspaces.run(ready.workspace.name, "touch ~/mine && stat -c %u ~/mine") == "1000\n"


def test_options_reach_the_container(workspaces: Workspaces, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("hello")
    tmp_path.chmod(0o755)
    ready = workspaces.init(
        env={"COLOUR": "green"},
        volumes=(f"{tmp_path}:/data:ro",),
        publish=("0:8000",),
        memory="256m",
        cpus=0.5,
    )
    name = ready.workspace.name
    assert workspaces.run(name, "echo $COLOUR; cat /data/note") == "green\nhello"
    host = docker.from_env().containers.get(f"workspace-{name}").attrs["HostConfig"]
    assert (host["Memory"], host["NanoCpus"]) == (256 * 1024**2, 500_000_000)
    assert any("8000/tcp" in port for port in ready.workspace.ports)


def test_a_command_of_its_own_runs_in_place_of_the_idle_one(workspaces: Workspaces) -> None:
    ready = workspaces.init(command=("sh", "-c", "echo started; exec sleep 1000"))
    assert ready.worker is not None
    assert b"started" in b"".join(workspaces.manager.logs(ready.workspace.name))


def test_options_that_contradict_what_exists_are_named(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    name = workspaces.init(env={"A": "1"}).workspace.name
    with pytest.raises(WorkspaceConflict) as caught:
        workspaces.init(
            name,
            image="busybox:latest",
            env={"A": "secret", "B": "2"},
            volumes=(f"{tmp_path}:/x",),
            publish=("1234:80",),
            memory="64m",
            cpus=1,
            command=("true",),
            network="other",
            read_only=True,
        )
    for option in ("image", "env A", "env B", "volume", "publish", "memory", "cpus", "command",
                   "network", "read-only"):  # fmt: skip
        assert f"--{option}" in caught.value.message
    assert "secret" not in str(caught.value)
    assert workspaces.init(name, env={"A": "1"}).worker is not None


def test_two_inits_at_once_make_one_workspace(workspaces: Workspaces, engine: Engine) -> None:
    name = workspaces.name()
    barrier = threading.Barrier(2)

    def init() -> str:
        manager = WorkspaceManager(Engine.connect())
        barrier.wait(timeout=10)
        ready = finish(manager.init(WorkspaceSpec(name)))
        assert ready.worker is not None, ready.warning
        return ready.workspace.container_id

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: init(), range(2))
    assert first == second
    assert engine.get_container(f"workspace-{name}") is not None


def test_an_image_that_does_not_exist_leaves_nothing(
    workspaces: Workspaces, engine: Engine
) -> None:
    name = workspaces.name()
    with pytest.raises(ImageUnusable, match="no-such-image"):
        workspaces.init(name, image="no-such-image:ever")
    assert engine.get_container(f"workspace-{name}") is None
    assert engine.list_volumes(f"perry.workspace={name}") == []


def test_a_taken_port_leaves_nothing_and_says_which(workspaces: Workspaces, engine: Engine) -> None:
    first = workspaces.init(publish=("127.0.0.1:0:80",))
    port = first.workspace.ports[0].split("->")[0].rsplit(":", 1)[1]
    name = workspaces.name()
    with pytest.raises(PortTaken, match=port):
        workspaces.init(name, publish=(f"127.0.0.1:{port}:80",))
    assert engine.get_container(f"workspace-{name}") is None
    assert engine.list_volumes(f"perry.workspace={name}") == []


def test_a_failing_init_keeps_the_home_that_was_there(workspaces: Workspaces) -> None:
    taken = workspaces.init(publish=("127.0.0.1:0:80",))
    port = taken.workspace.ports[0].split("->")[0].rsplit(":", 1)[1]
    name = workspaces.init().workspace.name
    workspaces.run(name, "echo precious > ~/file")
    workspaces.manager.remove(name, keep_volume=True)
    with pytest.raises(PortTaken):
        workspaces.init(name, publish=(f"127.0.0.1:{port}:80",))
    workspaces.init(name)
    assert workspaces.run(name, "cat ~/file") == "precious\n"


def test_a_foreign_container_of_that_name_is_never_touched(
    workspaces: Workspaces, engine: Engine
) -> None:
    name = workspaces.name()
    image = engine.get_image("perry-workspace:latest")
    assert image is not None
    foreign = engine.create_container(f"workspace-{name}", image.id, command=["sleep", "100"])
    try:
        for verb in (workspaces.init, workspaces.manager.stop, workspaces.manager.remove):
            with pytest.raises(ForeignContainer):
                verb(name)
        found = engine.get_container(foreign)
        assert found is not None
        assert found.state == "created"
    finally:
        engine.remove_container(foreign)
        workspaces.names.remove(name)


def test_a_label_that_comes_from_the_image_makes_no_workspace(workspaces: Workspaces) -> None:
    ready = workspaces.init()
    client = docker.from_env()
    original = client.containers.get(f"workspace-{ready.workspace.name}")
    committed = original.commit(repository=f"committed-{ready.workspace.name}")
    copy = client.containers.create(committed.id, ["true"])
    try:
        listed = [workspace.container_id for workspace in workspaces.manager.list()]
        assert ready.workspace.container_id in listed
        assert copy.id not in listed
    finally:
        copy.remove()
        client.images.remove(committed.id)


def test_a_repository_is_cloned_into_the_home_once(workspaces: Workspaces) -> None:
    name = workspaces.init().workspace.name
    workspaces.run(
        name,
        "git init -q -b main ~/origin/tool.git && cd ~/origin/tool.git && echo hi > readme && "
        "git add . && git -c user.name=t -c user.email=t@t commit -qm one",
    )
    url = "file:///home/workspace/origin/tool.git"
    workspaces.init(name, clone=url)
    workspaces.run(name, "echo changed > ~/tool/readme")
    workspaces.init(name, clone=url)
    assert workspaces.run(name, "cat ~/tool/readme") == "changed\n"


def test_a_failing_clone_keeps_the_workspace_and_no_credentials(workspaces: Workspaces) -> None:
    name = workspaces.name()
    with pytest.raises(CloneFailed) as caught:
        workspaces.init(name, clone="https://user:hunter2@127.0.0.1:1/shop.git")
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert workspaces.manager.worker(name) is not None
    assert "shop" not in workspaces.run(name, "ls ~")


@pytest.mark.parametrize(
    "url", ["--upload-pack=x", "http://h/x", "ext::sh -c x", "/etc", "ftp://h/x"]
)
def test_a_url_of_another_protocol_is_refused_before_anything_is_made(
    workspaces: Workspaces, engine: Engine, url: str
) -> None:
    name = workspaces.name()
    with pytest.raises(UsageError):
        workspaces.init(name, clone=url)
    assert engine.get_container(f"workspace-{name}") is None
