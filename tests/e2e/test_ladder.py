"""A worker is reached wherever its engine is, and nobody who took its address learns anything."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import docker
import pytest

from perry.client.worker_client import WorkerClient
from perry.errors import WorkerError, WorkerUnreachable, WorkspaceNotFound, WorkspaceNotRunning
from perry.workspace.engine import Engine
from perry.workspace.manager import WorkspaceManager
from perry.workspace.models import Workspace
from tests.conftest import Workspaces
from tests.e2e.command import BUSYBOX, KILL_WORKER, Perry
from tests.e2e.conftest import Remote
from tests.e2e.eventually import eventually
from tests.e2e.neighbour import Neighbour, neighbour, network
from tests.e2e.remote_engine import RUN, forwarded
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_session

SUBNET, OLD = f"10.213.{RUN % 256}.0/29", f"10.213.{RUN % 256}.2"
OLDEST = "pgrep -o -f ^/opt/perry/layers"
"""The worker's own process: while it scans it has others, that read beside it."""
SESSION = "4b7e9b3c-5f0c-4a52-8a0e-2f1d0c9a7e11"


def rung(manager: WorkspaceManager, name: str) -> str:
    worker = manager.worker(name)
    assert worker is not None
    return worker.rung


def write_session(workspaces: Workspaces, name: str) -> None:
    path = f"{CLAUDE_DIRECTORY}/{SESSION}.jsonl"
    workspaces.run(
        name, f"mkdir -p ~/{CLAUDE_DIRECTORY}; cat > ~/{path} <<'EOF'\n{claude_session()}EOF"
    )


def ids(client: WorkerClient) -> list[str]:
    return [session.id for session in client.list_sessions()]


def netcats(workspaces: Workspaces, container_id: str) -> list[str]:
    return [it for it in workspaces.engine.list_processes(container_id) if f"{BUSYBOX} nc" in it]


# On the engine's own machine


def test_a_workspace_here_is_reached_at_its_address(workspaces: Workspaces) -> None:
    ready = workspaces.init()
    assert ready.worker is not None
    assert ready.worker.rung == "address"
    assert ready.worker.address == f"{ready.workspace.addresses[0]}:7392"
    assert ready.workspace.ports == ()


def test_without_a_network_a_stream_through_docker_leads_to_the_worker(
    workspaces: Workspaces,
) -> None:
    ready = workspaces.init(network="none")
    assert ready.warning is None
    assert ready.worker is not None
    assert (ready.worker.rung, ready.worker.address) == ("exec", "exec")
    name, container = ready.workspace.name, ready.workspace.container_id
    write_session(workspaces, name)
    with workspaces.manager.connect(ready.workspace) as client:
        assert eventually(lambda: ids(client), bool) == [SESSION]
        assert client.get_session(SESSION).message_count == 6
        assert eventually(lambda: len(netcats(workspaces, container)), lambda it: it == 1) == 1
    assert eventually(lambda: netcats(workspaces, container), lambda left: not left) == []


def test_events_come_through_a_stream_beside_other_questions(workspaces: Workspaces) -> None:
    workspace = workspaces.init(network="none").workspace
    with workspaces.manager.connect(workspace) as client:
        events = client.events()
        assert next(events).kind == "ready"
        write_session(workspaces, workspace.name)
        created = next(events)
        assert created.session is not None
        assert created.session.id == SESSION
        assert ids(client) == [SESSION]
        workspaces.run(workspace.name, f"rm ~/{CLAUDE_DIRECTORY}/{SESSION}.jsonl")
        assert eventually(lambda: next(events).kind, lambda kind: kind == "deleted")
        assert ids(client) == []
        container = workspace.container_id
        assert eventually(lambda: len(netcats(workspaces, container)), lambda it: it == 2) == 2
        events.close()
    assert eventually(lambda: netcats(workspaces, container), lambda left: not left) == []


def test_a_large_answer_comes_whole_through_a_stream(workspaces: Workspaces) -> None:
    workspace = workspaces.init(network="none").workspace
    line = claude_session().splitlines()[0]
    big = line.replace("Why is the cart empty?", "x" * 3_000_000)
    path = f"{CLAUDE_DIRECTORY}/{SESSION}.jsonl"
    before, _, after = big.partition("x" * 3_000_000)
    workspaces.run(
        workspace.name,
        f"mkdir -p ~/{CLAUDE_DIRECTORY}; {{ printf %s '{before}'; "
        f"head -c 3000000 /dev/zero | tr '\\0' x; echo '{after}'; }} > ~/{path}",
    )
    with workspaces.manager.connect(workspace) as client:
        eventually(lambda: ids(client), bool)
        [message] = client.list_messages(SESSION).messages
        assert message.content == "x" * 3_000_000


@pytest.mark.parametrize("mode", ["host", "container"])
def test_a_workspace_in_a_network_of_others_is_reached_through_docker(
    workspaces: Workspaces, client: docker.DockerClient, runtime_image: str, mode: str
) -> None:
    with idle(client, runtime_image) as other:
        chosen = mode if mode == "host" else f"container:{other}"
        ready = workspaces.init(network=chosen)
        assert ready.worker is not None, ready.warning
        assert ready.worker.rung == "exec"
        again = workspaces.init(ready.workspace.name, network=chosen)
        assert again.worker == ready.worker


@contextmanager
def idle(client: docker.DockerClient, image: str) -> Iterator[str]:
    name = f"perry-test-{secrets.token_hex(4)}"
    command = ["/runtime/busybox", "sleep", "infinity"]
    container = client.containers.run(image, command, name=name, detach=True, init=True)
    try:
        yield name
    finally:
        container.remove(force=True, v=True)


def test_the_port_that_a_person_publishes_is_theirs(workspaces: Workspaces) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    asked = (f"127.0.0.1:{port}:7392",)
    ready = workspaces.init(publish=asked)
    assert ready.workspace.ports == (f"127.0.0.1:{port}->7392/tcp",)
    token = workspaces.manager.token(ready.workspace)
    with WorkerClient(f"http://127.0.0.1:{port}", token, workspace="here") as client:
        assert client.authenticate().status == "ok"
    assert workspaces.init(ready.workspace.name, publish=asked).worker


# Nobody who has a worker's address gets anything


@pytest.fixture
def taken(
    workspaces: Workspaces, client: docker.DockerClient, runtime_image: str
) -> Iterator[Taken]:
    with network(client, SUBNET) as where:
        workspace = workspaces.init(network=where.name).workspace
        assert workspace.addresses == (OLD,)
        write_session(workspaces, workspace.name)
        with workspaces.manager.connect(workspace) as held:
            assert eventually(lambda: ids(held), bool) == [SESSION]
            yield Taken(workspaces, client, runtime_image, where, workspace, held)


class Taken:
    """A workspace whose address somebody else is about to have, and a client that knows it."""

    def __init__(
        self,
        workspaces: Workspaces,
        client: docker.DockerClient,
        image: str,
        where: docker.models.networks.Network,
        workspace: Workspace,
        held: WorkerClient,
    ) -> None:
        self.manager = workspaces.manager
        self.workspaces = workspaces
        self.client = client
        self.image = image
        self.where = where
        self.workspace = workspace
        self.held = held

    def neighbour(self) -> AbstractContextManager[Neighbour]:
        return neighbour(self.client, self.image, self.where, OLD)

    def heard_nothing(self, record: str) -> None:
        """See that a record of all that was sent holds no token."""
        token = self.manager.token(self.workspace)
        assert token not in record
        assert "authorization" not in record.lower()


def test_a_neighbour_that_took_the_address_of_a_running_workspace_hears_no_token(
    taken: Taken,
) -> None:
    container = taken.client.containers.get(taken.workspace.container_id)
    taken.where.disconnect(container)
    with taken.neighbour() as hostile:
        taken.where.connect(container)
        moved = taken.manager.get(taken.workspace.name)
        assert moved.addresses != (OLD,)
        with taken.manager.connect(moved) as client:
            assert ids(client) == [SESSION]
        with pytest.raises(WorkerError):
            taken.held.list_sessions()
        assert "/health" in hostile.heard()
        taken.heard_nothing(hostile.heard())


def test_a_workspace_without_its_network_is_reached_past_the_neighbour(taken: Taken) -> None:
    container = taken.client.containers.get(taken.workspace.container_id)
    taken.where.disconnect(container)
    with taken.neighbour() as hostile:
        with taken.manager.reach(taken.workspace) as client:
            assert ids(client) == [SESSION]
        assert rung(taken.manager, taken.workspace.name) == "exec"
        taken.heard_nothing(hostile.heard())


def test_after_a_stop_and_a_start_the_new_address_is_asked(taken: Taken) -> None:
    taken.manager.stop(taken.workspace.name)
    with taken.neighbour() as hostile:
        with pytest.raises(WorkspaceNotRunning):
            taken.manager.reach(taken.workspace)
        ready = taken.workspaces.init(taken.workspace.name)
        assert ready.worker is not None
        assert ready.worker.rung == "address"
        assert ready.workspace.addresses != (OLD,)
        with taken.manager.reach(ready.workspace) as client:
            assert ids(client) == [SESSION]
        with pytest.raises(WorkerError):
            taken.held.list_sessions()
        taken.heard_nothing(hostile.heard())


def test_a_workspace_of_the_same_name_is_another_one(taken: Taken) -> None:
    taken.manager.remove(taken.workspace.name)
    with taken.neighbour() as hostile:
        made = taken.workspaces.init(taken.workspace.name, network=taken.where.name)
        assert made.worker is not None
        with pytest.raises(WorkspaceNotFound):
            taken.manager.reach(taken.workspace)
        with taken.manager.reach(made.workspace) as client:
            assert ids(client) == []
        with pytest.raises(WorkerError):
            taken.held.list_sessions()
        taken.heard_nothing(hostile.heard())


def test_reaching_starts_nothing(workspaces: Workspaces) -> None:
    workspace = workspaces.init().workspace
    workspaces.engine.run(workspace.container_id, KILL_WORKER, user="0:0")
    with pytest.raises(WorkerUnreachable, match=workspace.name):
        workspaces.manager.reach(workspace)
    assert workspaces.manager.worker(workspace.name) is None
    with workspaces.manager.connect(workspace) as client:
        assert ids(client) == []
    workspaces.manager.reach(workspace).close()


def test_a_worker_on_its_first_scan_is_waited_for_and_not_started_again(
    workspaces: Workspaces,
) -> None:
    workspace = workspaces.init().workspace
    line = claude_session().splitlines()[0]
    path = f"~/{CLAUDE_DIRECTORY}/{SESSION}.jsonl"
    workspaces.run(
        workspace.name, f"mkdir -p ~/{CLAUDE_DIRECTORY}; yes '{line}' | head -n 400000 > {path}"
    )
    workspaces.engine.run(workspace.container_id, KILL_WORKER, user="0:0")
    workspaces.run(workspace.name, "rm -rf ~/.cache/perry")
    with ThreadPoolExecutor() as beside:
        reviving = beside.submit(workspaces.manager.connect, workspace)
        scanning = eventually(lambda: reached(workspaces.manager, workspace), bool)
        assert scanning is not None
        with scanning:
            assert scanning.health().status == "starting"
        process = workspaces.run(workspace.name, OLDEST)
        again = workspaces.init(workspace.name)
        reviving.result().close()
    assert again.worker is not None, again.warning
    assert again.worker.session_count == 1
    assert workspaces.run(workspace.name, OLDEST) == process


def reached(manager: WorkspaceManager, workspace: Workspace) -> WorkerClient | None:
    try:
        return manager.reach(workspace)
    except WorkerUnreachable:
        return None


# On another machine


@pytest.fixture
def far(remote: Remote) -> Iterator[Workspaces]:  # noqa: ARG001 - it sets the environment
    """Workspaces on the other machine's engine, over TCP and over ssh."""
    engine = Engine.connect()
    made = Workspaces(WorkspaceManager(engine), engine)
    yield made
    made.clean()
    engine.close()


def test_a_workspace_of_another_machine_is_reached_through_its_engine(far: Workspaces) -> None:
    ready = far.init()
    assert ready.worker is not None, ready.warning
    assert ready.worker.rung == "exec"
    assert ready.workspace.addresses == ("172.17.0.2",)
    write_session(far, ready.workspace.name)
    with WorkspaceManager(far.engine).connect(ready.workspace) as client:
        events = client.events()
        assert next(events).kind == "ready"
        assert eventually(lambda: ids(client), bool) == [SESSION]
        events.close()
    left = eventually(lambda: netcats(far, ready.workspace.container_id), lambda it: not it)
    assert left == []


@pytest.mark.parametrize("remote", ["tcp"], indirect=True)
def test_a_port_that_is_forwarded_from_there_is_the_second_rung(far: Workspaces) -> None:
    ready = far.init()
    container = far.engine.get_container(ready.workspace.container_id)
    assert container is not None
    [binding] = container.raw["NetworkSettings"]["Ports"]["7392/tcp"]
    with forwarded(int(binding["HostPort"])):
        manager = WorkspaceManager(far.engine)
        worker = manager.worker(ready.workspace.name)
        assert worker is not None
        assert worker.rung == "published"
        assert worker.address == f"127.0.0.1:{binding['HostPort']}"
        with manager.reach(ready.workspace) as client:
            assert ids(client) == []
    assert rung(manager, ready.workspace.name) == "exec"


@pytest.mark.parametrize("remote", ["tcp"], indirect=True)
def test_a_neighbour_here_with_the_address_of_a_workspace_there_hears_no_token(
    far: Workspaces, remote: Remote, client: docker.DockerClient, runtime_image: str
) -> None:
    with (
        network(client, SUBNET) as here,
        network(remote.engine.client, SUBNET) as there,
        neighbour(client, runtime_image, here, OLD) as hostile,
    ):
        ready = far.init(network=there.name)
        assert ready.workspace.addresses == (OLD,)
        assert ready.worker is not None
        assert ready.worker.rung == "exec"
        with far.manager.reach(ready.workspace) as reached:
            assert ids(reached) == []
        far.manager.remove(ready.workspace.name)
        assert "/health" in hostile.heard()
        assert far.manager.token(ready.workspace) not in hostile.heard()
        assert "authorization" not in hostile.heard().lower()


def test_a_person_works_with_an_engine_on_another_machine(perry: Perry, far: Workspaces) -> None:
    name = far.name()
    made = perry.ok("workspace", "init", name)
    assert "worker reached through docker exec, 0 sessions" in made
    write_session(far, name)
    assert "reached via  exec" in perry.ok("workspace", "show", name)
    [listed] = perry.json("workspace", "list")["workspaces"]
    assert (listed["name"], listed["health"]) == (name, "healthy")
    assert listed["worker"]["via"] == "exec"
    [session] = eventually(lambda: perry.json("session", "list")["sessions"], bool, within=15)
    assert (session["id"], session["workspace"]) == (SESSION, name)
    assert "It is never filled." in perry.ok("session", "show", SESSION)
    assert perry.ok("workspace", "exec", name, "--", "sh", "-c", "cat", stdin="hi") == "hi"
    assert "runs already" in perry.ok("workspace", "init", name)
    perry.ok("workspace", "remove", name, "--yes")
    assert perry.json("workspace", "list") == {"workspaces": []}
