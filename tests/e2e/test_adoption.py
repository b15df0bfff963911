"""Containers that perry didn't make become workspaces, and are let go of as they were."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import NotFound
from docker.models.containers import Container
from testcontainers.core.container import DockerContainer

from perry.errors import ForeignContainer, WorkspaceConflict, WorkspaceNotFound
from perry.workspace import bundle, delivery
from perry.workspace.engine import Engine
from perry.workspace.manager import WorkspaceManager
from perry.workspace.models import WorkspaceSpec
from perry.workspace.progress import finish
from tests.conftest import Workspaces
from tests.e2e.command import KILL_WORKER, PATIENCE, Perry
from tests.e2e.eventually import eventually
from tests.e2e.labels import LABEL
from tests.e2e.own_engine import OwnEngine
from tests.e2e.own_engine import build as make_image
from tests.e2e.running_agent import RunningAgent
from tests.e2e.terminal import at_a_terminal
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_session

Run = Callable[..., Container]
MOUNTED = {bundle.VOLUME: {"bind": bundle.ROOT, "mode": "ro"}}
"""Where a test isn't about the copy, there is none to wait for."""
Build = Callable[..., str]


@pytest.fixture(scope="session")
def debian_image(debian: Callable[[str], str]) -> str:
    return debian("bullseye")


@pytest.fixture
def run(client: docker.DockerClient, debian_image: str, engine: Engine) -> Iterator[Run]:
    """Run a container as `docker run` does, and remove it after the test."""
    made: list[Container] = []

    def run_container(
        *, image: str = debian_image, command: object = ("sleep", "300"), **options: Any
    ) -> Container:
        labels = {LABEL: "1", **options.pop("labels", {})}
        options.setdefault("stop_signal", "KILL")  # its own program would ignore another one
        options.setdefault("name", f"test-{secrets.token_hex(4)}")
        words = list(command) if isinstance(command, tuple) else command
        made.append(client.containers.run(image, words, detach=True, labels=labels, **options))
        return made[-1]

    yield run_container
    for container in made:
        with contextlib.suppress(NotFound):  # the test removed it
            container.remove(force=True, v=True)
    WorkspaceManager(engine).list()  # forgets what is recorded of them


@pytest.fixture
def adopted(workspaces: Workspaces, run: Run) -> Container:
    """A running container whose own label makes it a workspace of its own name, with a worker."""
    container = labelled(run, workspaces.name())
    assert finish(workspaces.manager.start(container.name)).worker is not None
    return container


def labelled(run: Run, name: str, *, called: str = "", **options: Any) -> Container:
    return run(labels={"perry.workspace": name}, name=called or name, **options)


def sh(container: Container, script: str, **options: Any) -> str:
    """Run a script as the container's own shell does, and return what it says."""
    code, output = container.exec_run(["sh", "-euc", script], **options)
    assert code == 0, output
    return str(output.decode())


def put_session(container: Container, **options: Any) -> None:
    sh(
        container,
        f"mkdir -p ~/{CLAUDE_DIRECTORY} && cat > ~/{CLAUDE_DIRECTORY}/s.jsonl <<'EOF'\n"
        f"{claude_session()}EOF",
        **options,
    )


def sessions(manager: WorkspaceManager, name: str) -> list[str]:
    with manager.connect(manager.get(name)) as worker:
        found = eventually(worker.list_sessions, lambda it: len(it) > 0)
    return [session.id for session in found]


def is_listed(manager: WorkspaceManager, name: str) -> bool:
    return name in [workspace.name for workspace in manager.list()]


def records(engine: Engine, name: str) -> list[str]:
    found = engine.list_volumes("perry.container")
    return [it.name for it in found if name in it.labels.values()]


def worker_processes(container: Container) -> list[list[str]]:
    """User, by number, and command line of each worker in a container."""
    table = container.top(ps_args="-eo pid,uid,args")["Processes"] or []
    return [row[1:] for row in table if row[-1].startswith(bundle.PROCESS_PREFIX)]


# Which containers are workspaces


def test_a_container_with_the_label_is_a_workspace_with_a_worker(
    workspaces: Workspaces, run: Run
) -> None:
    name = workspaces.name()
    container = labelled(run, name, called=f"{name}-shop-app-1")
    put_session(container)
    (workspace,) = [it for it in workspaces.manager.list() if it.name == name]
    assert (workspace.adopted, workspace.home) == (True, "/root")
    assert workspace.container_id == container.id
    assert sessions(workspaces.manager, name) == ["s"]
    assert finish(workspaces.manager.init(WorkspaceSpec(name))).worker is not None


def test_a_container_of_testcontainers_is_read_as_its_own_user_left_it(
    workspaces: Workspaces, build: Build, debian_image: str
) -> None:
    tag = build(
        "someone",
        f"FROM {debian_image}\nRUN useradd --create-home --home-dir /srv/someone someone\n"
        "USER someone\n",
    )
    name = workspaces.name()
    made = DockerContainer(tag).with_command("sleep 300")
    with made.with_kwargs(labels={"perry.workspace": name, LABEL: "1"}) as testing:
        container = testing.get_wrapped_container()
        put_session(container)
        assert workspaces.manager.get(name).home == "/srv/someone"
        assert sessions(workspaces.manager, name) == ["s"]
        ((user, _),) = worker_processes(container)
        assert user == sh(container, "id -u").strip()


def test_a_container_without_the_label_is_adopted_and_recorded(
    workspaces: Workspaces, engine: Engine, run: Run
) -> None:
    container = run(volumes=MOUNTED, name=f"Test_{secrets.token_hex(4)}")
    name = container.name.lower().replace("_", "-")
    workspaces.names.append(name)
    ready = finish(workspaces.manager.adopt(container.name))
    assert ready.worker is not None
    assert (ready.workspace.name, ready.workspace.adopted) == (name, True)
    assert WorkspaceManager(engine).get(name) == workspaces.manager.get(name)
    (volume,) = engine.list_volumes(f"perry.container={container.id}")
    assert volume.labels["perry.workspace"] == name


def test_a_container_is_adopted_once_under_one_name(workspaces: Workspaces, run: Run) -> None:
    container, name = run(volumes=MOUNTED), workspaces.name()
    first = finish(workspaces.manager.adopt(container.id, name))
    assert finish(workspaces.manager.adopt(container.name, name)) == first
    assert finish(workspaces.manager.adopt(container.name)).workspace == first.workspace
    with pytest.raises(WorkspaceConflict, match=name):
        finish(workspaces.manager.adopt(container.name, workspaces.name()))
    with pytest.raises(WorkspaceConflict) as caught:
        finish(workspaces.manager.adopt(run(name=f"{name}-other").name, name))
    assert f"{name}-other" in str(caught.value)
    assert container.name in str(caught.value)


def test_perrys_own_workspace_is_what_it_is(workspaces: Workspaces) -> None:
    name = workspaces.init().workspace.name
    adopted = finish(workspaces.manager.adopt(f"workspace-{name}"))
    assert (adopted.workspace.name, adopted.workspace.adopted) == (name, False)
    with pytest.raises(WorkspaceConflict):
        finish(workspaces.manager.adopt(f"workspace-{name}", workspaces.name()))


def test_what_is_not_there_and_what_is_perrys_helper_is_refused(
    perry: Perry, engine: Engine, runtime_image: str
) -> None:
    assert runtime_image
    for reference in ("no-such-container", "../images/x", ""):
        done = perry.run("workspace", "adopt", reference, "x")
        assert done.returncode == 1
        assert f"no container '{reference}'" in done.stderr
    keeper = engine.list_containers(bundle.LABEL)[0].name
    done = perry.run("workspace", "adopt", keeper, "x")
    assert done.returncode == 2
    assert keeper in done.stderr


def test_a_stopped_container_is_adopted_and_said_to_be_stopped(
    workspaces: Workspaces, perry: Perry, run: Run
) -> None:
    container, name = run(volumes=MOUNTED), workspaces.name()
    container.kill()
    container.wait()
    done = perry.run("workspace", "adopt", container.name, name)
    assert done.returncode == 0
    assert f"perry workspace start {name}" in done.stderr
    assert "exited" in done.stdout
    assert perry.json("workspace", "start", name)["worker"]["sessionCount"] == 0


def test_a_label_of_the_image_makes_no_workspace(
    workspaces: Workspaces, run: Run, build: Build, debian_image: str
) -> None:
    name = workspaces.name()
    tag = build(f"labelled-{name}", f"FROM {debian_image}\nLABEL perry.workspace={name}\n")
    inherited = run(image=tag, volumes=MOUNTED)
    run(image=tag, labels={"perry.workspace": name})  # the same again can't be told from it
    assert not is_listed(workspaces.manager, name)
    other = workspaces.name()
    container = run(image=tag, labels={"perry.workspace": other})
    assert workspaces.manager.get(other).container_id == container.id
    assert finish(workspaces.manager.adopt(inherited.name, name)).worker is not None
    assert inherited.client.images.remove(tag, force=True) is None


def test_a_commit_of_a_workspace_is_only_a_container_and_can_be_adopted(
    workspaces: Workspaces, run: Run, client: docker.DockerClient
) -> None:
    """Even where it is called as perry would call its own: letting go never removes it."""
    ready = workspaces.init()
    committed = client.containers.get(f"workspace-{ready.workspace.name}").commit()
    workspaces.manager.remove(ready.workspace.name)
    name = ready.workspace.name
    copy = run(
        image=committed.id,
        name=f"workspace-{name}",
        entrypoint=["sleep"],
        volumes=MOUNTED,
        command=("300",),
    )
    try:
        assert not is_listed(workspaces.manager, name)
        with pytest.raises(ForeignContainer, match=name):
            workspaces.manager.get(name)
        adopted = finish(workspaces.manager.adopt(copy.name, name))
        assert (adopted.workspace.adopted, adopted.worker is not None) == (True, True)
        assert workspaces.manager.remove(name).let_go == copy.name
        copy.reload()
        assert copy.status == "running"
    finally:
        copy.remove(force=True)
        client.images.remove(committed.id, force=True)
        workspaces.names.remove(name)


def test_a_label_that_is_no_name_is_told_and_makes_no_workspace(
    workspaces: Workspaces, perry: Perry, run: Run
) -> None:
    container = labelled(run, "My App", volumes=MOUNTED, called=f"test-{secrets.token_hex(4)}")
    done = perry.run("workspace", "list")
    assert container.name in done.stderr
    assert "My App" in done.stderr
    assert container.name not in done.stdout
    name = workspaces.name()
    assert finish(workspaces.manager.adopt(container.name, name)).worker is not None
    assert container.name not in perry.run("workspace", "list").stderr


def test_of_two_that_claim_a_name_the_oldest_has_it_and_the_other_is_told(
    workspaces: Workspaces, perry: Perry, run: Run
) -> None:
    name = workspaces.name()
    older = labelled(run, name)
    newer = labelled(run, name, volumes=MOUNTED, called=f"a-{name}")
    assert workspaces.manager.get(name).container_id == older.id
    done = perry.run("workspace", "list", "--json")
    assert newer.name in done.stderr
    assert older.name in done.stderr
    with pytest.raises(WorkspaceConflict) as caught:
        finish(workspaces.manager.adopt(newer.name))
    assert older.name in str(caught.value)
    assert newer.name in str(caught.value)
    other = workspaces.name()
    assert finish(workspaces.manager.adopt(newer.name, other)).worker is not None
    assert newer.name not in perry.run("workspace", "list").stderr
    assert workspaces.manager.get(name).container_id == older.id


def test_perrys_own_has_its_name_before_any_other(
    workspaces: Workspaces, client: docker.DockerClient, run: Run
) -> None:
    name = workspaces.name()
    older = labelled(run, name)
    own = f"workspace-{name}"
    made = client.containers.create(
        older.image.id, ["true"], name=own, labels={"perry.workspace": name, LABEL: "1"}
    )
    workspace = workspaces.manager.get(name)
    assert (workspace.container_id, workspace.adopted) == (made.id, False)
    (overlooked,) = [
        it for it in workspaces.manager.survey().overlooked if it.container == older.name
    ]
    assert own in overlooked.reason
    assert workspaces.manager.remove(name).containers == (own,)
    assert workspaces.manager.get(name).container_id == older.id


# The bundle in a container that doesn't mount it


def test_a_scratch_container_has_the_home_that_the_engine_gives_its_programs(
    workspaces: Workspaces, run: Run, build: Build, runtime_image: str
) -> None:
    tag = build("scratch", f"FROM scratch\nCOPY --from={runtime_image} /runtime/busybox /busybox\n")
    container, name = run(image=tag, command=("/busybox", "sleep", "300")), workspaces.name()
    ready = finish(workspaces.manager.adopt(container.name, name))
    assert ready.worker is not None
    code, home = container.exec_run(["/busybox", "sh", "-c", "echo -n $HOME"])
    assert (code, home.decode()) == (0, ready.workspace.home)
    workspaces.run(
        name,
        f"mkdir -p ~/{CLAUDE_DIRECTORY}; echo '{claude_session()}' > ~/{CLAUDE_DIRECTORY}/s.jsonl",
    )
    assert sessions(workspaces.manager, name) == ["s"]
    assert workspaces.manager.remove(name).warning is None
    code, left = container.exec_run(["/busybox", "sh", "-c", "ls -A /opt"])
    assert (code, left) == (0, b"")


@pytest.mark.parametrize("user", ["1234:4321", "games"])
def test_the_worker_runs_as_the_containers_user(
    workspaces: Workspaces, run: Run, user: str
) -> None:
    container, name = run(user=user, environment={"HOME": "/tmp"}), workspaces.name()  # noqa: S108 - a home that any user may write to
    assert finish(workspaces.manager.adopt(container.name, name)).workspace.home == "/tmp"  # noqa: S108 - as above
    put_session(container)
    assert sessions(workspaces.manager, name) == ["s"]
    ((found, _),) = worker_processes(container)
    assert found == sh(container, "id -u").strip()


def test_a_read_only_container_is_adopted_and_has_a_worker_only_if_it_mounts_the_bundle(
    workspaces: Workspaces, run: Run
) -> None:
    container, name = run(read_only=True), workspaces.name()
    ready = finish(workspaces.manager.adopt(container.name, name))
    assert ready.worker is None
    assert "read-only" in str(ready.warning)
    assert bundle.VOLUME in str(ready.warning)
    assert is_listed(workspaces.manager, name)
    assert workspaces.manager.shell_argv(name)[0] == "/bin/bash"
    assert workspaces.manager.remove(name).warning is None

    mounting, other = run(read_only=True, volumes=MOUNTED), workspaces.name()
    assert finish(workspaces.manager.adopt(mounting.name, other)).worker is not None
    assert workspaces.manager.remove(other).warning is None
    assert "runtime" in sh(mounting, "ls /opt/perry/layers")


@pytest.mark.parametrize("place", ["/opt", "/opt/perry"])
def test_nothing_is_copied_below_a_tmpfs(workspaces: Workspaces, run: Run, place: str) -> None:
    container, name = run(tmpfs={place: "exec"}), workspaces.name()
    ready = finish(workspaces.manager.adopt(container.name, name))
    assert ready.worker is None
    assert f"{place} is a tmpfs" in str(ready.warning)
    assert workspaces.manager.worker(name) is None
    with pytest.raises(NotFound):
        container.get_archive("/opt/perry/layers")


def test_what_is_hidden_from_inside_is_never_believed_to_be_there(
    workspaces: Workspaces, run: Run
) -> None:
    """A tmpfs that a program mounted later: no inspection tells of it."""
    container = run(
        cap_add=["SYS_ADMIN"], security_opt=["apparmor=unconfined", "seccomp=unconfined"]
    )
    sh(container, "mount -t tmpfs none /opt")
    name = workspaces.name()
    ready = finish(workspaces.manager.adopt(container.name, name))
    assert ready.worker is None
    assert "/opt/perry" in str(ready.warning)


def test_a_full_disk_leaves_nothing_half_made(
    workspaces: Workspaces, client: docker.DockerClient, run: Run
) -> None:
    small = client.volumes.create(
        f"test-{secrets.token_hex(4)}",
        driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=8m"},
    )
    container = run(volumes={small.name: {"bind": "/opt/perry", "mode": "rw"}})
    name = workspaces.name()
    try:
        ready = finish(workspaces.manager.adopt(container.name, name))
        assert ready.worker is None
        assert "can't be brought into" in str(ready.warning)
        assert sh(container, "ls /opt/perry/complete /opt/perry/layers").split() == [
            "/opt/perry/complete:", "/opt/perry/layers:",
        ]  # fmt: skip
        assert "draft" not in sh(container, "ls /opt/perry")
    finally:
        container.remove(force=True)
        small.remove()


def test_a_link_on_the_way_to_the_bundle_is_followed_and_kept(
    workspaces: Workspaces, run: Run
) -> None:
    container, name = run(), workspaces.name()
    sh(container, "rmdir /opt && mkdir /srv/opt && ln -s srv/opt /opt")
    assert finish(workspaces.manager.adopt(container.name, name)).worker is not None
    assert sh(container, "readlink /opt; ls /srv/opt") == "srv/opt\nperry\n"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_copy_is_never_used_and_the_next_one_is_whole(
    workspaces: Workspaces,
    perry: Perry,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    how: signal.Signals,
) -> None:
    container, name = run(), workspaces.name()
    process = perry.start("workspace", "adopt", container.name, name)
    try:
        draft = ["sh", "-c", "ls -d /opt/perry/draft-*/runtime-*/lib"]
        eventually(lambda: container.exec_run(draft)[0], lambda code: code == 0, within=PATIENCE)
        process.send_signal(how)
        process.wait(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert sh(container, "ls /opt/perry/complete /opt/perry/layers").split() == [
        "/opt/perry/complete:", "/opt/perry/layers:",
    ]  # fmt: skip
    if how == signal.SIGINT:
        assert "draft" not in sh(container, "ls /opt/perry")
    monkeypatch.setattr(delivery, "ABANDONED_AFTER", timedelta(0))
    assert finish(workspaces.manager.adopt(container.name, name)).worker is not None
    assert sh(container, "ls /opt/perry").split() == ["busybox", "complete", "layers"]


def test_a_torn_layer_is_copied_again_and_a_complete_one_never(
    workspaces: Workspaces, adopted: Container
) -> None:
    look = "stat -c '%n %i' /opt/perry/layers/*/* | sort"
    before = sh(adopted, look)
    adopted.exec_run(list(KILL_WORKER))
    with workspaces.manager.connect(workspaces.manager.get(adopted.name)):
        assert sh(adopted, look) == before
    adopted.exec_run(list(KILL_WORKER))
    sh(adopted, "rm -r /opt/perry/complete/code-* /opt/perry/layers/code-*/perry/worker")
    with workspaces.manager.connect(workspaces.manager.get(adopted.name)):
        runtime = [it for it in before.splitlines() if "runtime-" in it]
        assert [it for it in sh(adopted, look).splitlines() if "runtime-" in it] == runtime
    assert sh(adopted, "ls /opt/perry/layers/code-*/perry/worker/__main__.py")


def test_old_layers_go_once_their_worker_was_replaced(
    workspaces: Workspaces,
    adopted: Container,
    another_version: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bundle, "UNUSED_FOR", timedelta(0))
    before = set(sh(adopted, "ls /opt/perry/layers").split())
    another_version()
    ready = finish(WorkspaceManager(workspaces.engine).sync(adopted.name))
    assert ready.worker is not None
    after = set(sh(adopted, "ls /opt/perry/layers").split())
    assert len(before) == len(after) == 2
    (runtime,) = before & after
    assert runtime.startswith("runtime-")
    assert set(sh(adopted, "ls /opt/perry/complete").split()) == after
    assert len(worker_processes(adopted)) == 1


def test_a_layer_that_a_process_runs_stays(
    workspaces: Workspaces, adopted: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "UNUSED_FOR", timedelta(0))
    (code,) = [it for it in sh(adopted, "ls /opt/perry/layers").split() if it.startswith("code")]
    (runtime,) = set(sh(adopted, "ls /opt/perry/layers").split()) - {code}
    container = workspaces.engine.get_container(adopted.id)
    assert container is not None
    delivery.sweep(workspaces.engine, container, bundle.Bundle(runtime, "code-0123456789ab"))
    assert code in sh(adopted, "ls /opt/perry/layers /opt/perry/complete")


def test_two_perrys_adopt_a_container_at_once(workspaces: Workspaces, run: Run) -> None:
    container, name = run(), workspaces.name()
    managers = [WorkspaceManager(Engine.connect()) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        ready = list(pool.map(lambda it: finish(it.adopt(container.name, name)), managers))
    assert len({it.worker.digest for it in ready if it.worker}) == 1
    assert None not in [it.worker for it in ready]
    eventually(lambda: len(worker_processes(container)), lambda it: it == 1, within=PATIENCE)
    assert sh(container, "ls /opt/perry").split() == ["busybox", "complete", "layers"]


def test_the_layers_are_copied_without_being_held_in_memory(
    workspaces: Workspaces, run: Run
) -> None:
    container, name = run(), workspaces.name()
    manager = WorkspaceManager(Engine.connect())
    tracemalloc.start()
    try:
        assert finish(manager.adopt(container.name, name)).worker is not None
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = int(sh(container, "du -sm /opt/perry/layers").split()[0])
    assert size > 30
    assert most < 16 * 1024 * 1024


def test_a_worker_that_ends_leaves_no_zombie_where_nobody_reaps(
    workspaces: Workspaces, adopted: Container
) -> None:
    for _ in range(3):
        adopted.exec_run(list(KILL_WORKER))
        with workspaces.manager.connect(workspaces.manager.get(adopted.name)):
            pass
    states = "grep -h '^State:' /proc/[0-9]*/status"
    assert "Z" not in sh(adopted, states)
    assert len(worker_processes(adopted)) == 1


def test_only_the_containers_own_worker_is_ended_where_it_sees_those_of_others(
    workspaces: Workspaces, client: docker.DockerClient, run: Run
) -> None:
    neighbour = workspaces.init().workspace
    others = worker_processes(client.containers.get(neighbour.container_id))
    container, name = run(pid_mode="host"), workspaces.name()
    assert finish(workspaces.manager.adopt(container.name, name)).worker is not None
    workspaces.manager.remove(name)
    assert worker_processes(container) == []
    assert worker_processes(client.containers.get(neighbour.container_id)) == others


# What can be done with them


def test_the_verbs_work_on_an_adopted_workspace(
    workspaces: Workspaces, perry: Perry, adopted: Container
) -> None:
    name = adopted.name
    assert perry.ok("workspace", "stop", name) == f"stopped {name}\n"
    adopted.reload()
    assert adopted.status == "exited"
    for verb in ("start", "sync", "restart", "init"):
        answer = perry.json("workspace", verb, name)
        assert answer["worker"] is not None
        assert answer["workspace"]["adopted"] is True
    assert perry.ok("workspace", "exec", name, "echo", "hi") == "hi\n"
    assert workspaces.manager.shell_argv(name) == ("/bin/bash", "-l")
    assert perry.run("workspace", "logs", name).returncode == 0
    refused = perry.run("workspace", "init", name, "--memory", "1g")
    assert refused.returncode == 1
    assert "remove" not in refused.stderr
    (line,) = [it for it in perry.ok("workspace", "list").splitlines() if it.startswith(name)]
    assert "running, adopted" in line
    assert "adopted" in perry.ok("workspace", "show", name)


def test_remove_only_lets_go_and_that_lasts(
    workspaces: Workspaces, client: docker.DockerClient, run: Run, perry: Perry
) -> None:
    name = workspaces.name()
    volume = client.volumes.create(f"test-{name}", labels={"perry.workspace": name})
    container = labelled(run, name, volumes={volume.name: {"bind": "/root", "mode": "rw"}})
    put_session(container)
    assert sessions(workspaces.manager, name) == ["s"]
    assert workspaces.manager.get(name).home_volume == volume.name
    said = perry.ok("workspace", "remove", name, "--yes")
    assert said == f"let go of {name}: the container {name} stays as it is\n"
    assert worker_processes(container) == []
    assert sh(container, "ls /opt; ls /root/.claude") == "projects\n"
    for _ in range(2):  # what isn't perry's stays, however often it is asked to
        assert not is_listed(WorkspaceManager(Engine.connect()), name)
        with pytest.raises(WorkspaceNotFound):
            workspaces.manager.get(name)
        assert workspaces.manager.remove(name).volumes == ()
    container.restart(timeout=0)
    assert not is_listed(workspaces.manager, name)
    finish(workspaces.manager.adopt(container.name))
    assert sessions(workspaces.manager, name) == ["s"]
    assert workspaces.manager.remove(name).let_go == container.name
    container.remove(force=True)
    volume.remove()


def test_a_record_goes_with_its_container(
    workspaces: Workspaces, engine: Engine, run: Run, client: docker.DockerClient
) -> None:
    recorded, name = run(volumes=MOUNTED), workspaces.name()
    finish(workspaces.manager.adopt(recorded.name, name))
    released = labelled(run, workspaces.name())
    workspaces.manager.remove(released.name)
    assert len(records(engine, name)) == len(records(engine, released.name)) == 1
    for container in (recorded, released):
        client.api.remove_container(container.id, force=True)
    assert not is_listed(workspaces.manager, name)
    assert records(engine, name) == records(engine, released.name) == []


def test_the_name_of_one_that_is_gone_is_free(
    workspaces: Workspaces, engine: Engine, run: Run
) -> None:
    gone, name = run(volumes=MOUNTED), workspaces.name()
    finish(workspaces.manager.adopt(gone.name, name))
    gone.remove(force=True)
    ready = workspaces.init(name)
    assert (ready.workspace.adopted, records(engine, name)) == (False, [])


def test_a_stopped_one_is_let_go_and_what_stays_in_it_is_told(
    workspaces: Workspaces, adopted: Container
) -> None:
    workspaces.manager.stop(adopted.name)
    removed = workspaces.manager.remove(adopted.name)
    assert removed.let_go == adopted.name
    assert "/opt/perry" in str(removed.warning)


def test_uninstall_counts_adopted_ones_and_takes_the_records_along(
    bare_engine: OwnEngine, perry: Perry
) -> None:
    there = Perry(
        perry.directory,
        {
            "DOCKER_HOST": bare_engine.address,
            "XDG_CACHE_HOME": str(perry.directory / "cache"),
        },
    )
    dockerfile = f"FROM {bare_engine.runtime} AS runtime\nFROM scratch\n"
    dockerfile += "COPY --from=runtime /runtime/busybox /busybox\n"
    make_image(bare_engine.client, "theirs:1", {"Dockerfile": dockerfile})
    bare_engine.client.containers.run(
        "theirs:1",
        ["/busybox", "sleep", "300"],
        detach=True,
        name="theirs",
        labels={"perry.workspace": "theirs"},
    )
    assert there.json("workspace", "sync", "theirs")["worker"] is not None
    refused = there.run("uninstall", "--yes")
    assert refused.returncode == 1
    assert "perry workspace remove theirs" in refused.stderr
    assert "lets go" in refused.stderr
    there.ok("workspace", "remove", "theirs", "--yes")
    there.ok("uninstall", "--yes")
    assert bare_engine.volumes() == []
    assert bare_engine.containers() == ["theirs"]


def test_the_question_says_what_would_be_lost_and_what_would_stay(
    workspaces: Workspaces, perry: Perry, adopted: Container
) -> None:
    own = workspaces.init().workspace.name
    command = perry.argv("workspace", "remove", own, adopted.name)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "300"}
    code, screen = at_a_terminal(command, environment, ("[y/N]", "n\r"))
    assert code == 1
    assert f"Remove {own} (all that is in the home) and let go of {adopted.name} (" in screen
    assert "sessions stay" in screen


# The agent daemon


def start_on(engine: OwnEngine, image: str, name: str, **labels: str) -> None:
    command = ["/busybox", "sleep", "300"]
    engine.client.containers.run(image, command, detach=True, name=name, labels=labels)


def test_the_daemon_takes_in_what_is_adopted_and_forgets_what_is_let_go(
    bare_engine: OwnEngine, tmp_path: Path
) -> None:
    dockerfile = f"FROM {bare_engine.runtime} AS runtime\nFROM scratch\n"
    dockerfile += "COPY --from=runtime /runtime/busybox /busybox\n"
    make_image(bare_engine.client, "theirs:1", {"Dockerfile": dockerfile})
    start_on(bare_engine, "theirs:1", "shop-app-1")
    agent = RunningAgent(tmp_path, bare_engine.address)
    agent.start()
    try:
        start_on(bare_engine, "theirs:1", "labelled", **{"perry.workspace": "theirs"})
        start_on(bare_engine, "theirs:1", "nameless", **{"perry.workspace": "My App"})
        agent.until_live("theirs", within=90)  # the engine is bare
        agent.perry.ok("workspace", "adopt", "shop-app-1", "shop")
        agent.until_live("shop", within=10)  # no full check comes to its help so soon
        assert agent.place("My App") is None
        agent.perry.ok("workspace", "remove", "theirs", "shop", "--yes")
        for name in ("theirs", "shop"):
            eventually(partial(agent.place, name), lambda it: it is None, within=PATIENCE)
        for name in ("labelled", "shop-app-1"):
            assert worker_processes(bare_engine.client.containers.get(name)) == []
    finally:
        agent.stop()
        print(agent.log)  # noqa: T201 - shown where the test fails
