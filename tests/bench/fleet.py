"""Many workspaces on an engine of the bench's own, and the agent daemon that keeps them.

The daemon keeps every workspace of its engine, so no engine that anybody else uses will do. Each
home volume is a directory of this machine, with the same sessions in each: what is appended to a
file there costs nothing but the write. This module must not know what is measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from perry.workspace import bundle, image, names
from perry.workspace.engine import Engine
from perry.workspace.manager import WorkspaceManager
from perry.workspace.models import WorkspaceSpec
from perry.workspace.progress import finish
from tests.bench.connection import Connection
from tests.bench.homes import Home, Live, home_of
from tests.bench.worker_process import memory_share, processor_time, status
from tests.e2e.own_engine import OwnEngine, own_engine
from tests.e2e.running_agent import RunningAgent

AT_ONCE = 4  # workspaces that are made at the same time
PATIENCE = 120.0  # s until the daemon has read all workspaces


@dataclass(frozen=True)
class Berth:
    """One workspace: a session in it that grows, and where its worker answers."""

    name: str
    live: Live
    address: str
    token: str

    def connect(self) -> Connection:
        """Open a connection straight to the worker."""
        host, _, port = self.address.rpartition(":")
        return Connection(int(port), self.token, host)


@dataclass(frozen=True)
class Fleet:
    """The workspaces, each with `sessions` sessions, and their engine."""

    engine: docker.DockerClient
    address: str
    sessions: int
    berths: tuple[Berth, ...]

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Have a workspace paused for a block."""
        container = self.engine.containers.get(f"workspace-{name}")
        container.pause()
        try:
            yield
        finally:
            container.unpause()


class AgentProcess:
    """A running agent daemon whose time, memory and answers can be measured."""

    def __init__(self, running: RunningAgent) -> None:
        self.running = running
        assert running.process is not None
        self._pid = running.process.pid

    def connect(self) -> Connection:
        """Open a connection that carries the token."""
        return Connection(self.running.port, self.running.token)

    def subscribe(self) -> Connection:
        """Open a stream of events that has begun."""
        connection = self.connect()
        connection.send(connection.request("/api/events"))
        assert connection.wait_for(b"event: ready", PATIENCE)
        return connection

    def memory(self) -> tuple[int, int]:
        """Tell resident memory and its proportional share, in bytes."""
        return status(self._pid)["VmRSS"], memory_share(self._pid)

    def processor_time(self) -> float:
        """Tell the seconds of processor time it has used so far."""
        return processor_time(self._pid)


@contextmanager
def fleet_of(workspaces: int, sessions: int) -> Iterator[Fleet]:
    """Make that many workspaces with that many sessions each (a multiple of 100)."""
    with ExitStack() as stack:
        first = docker.from_env()
        stack.callback(first.close)
        finish(bundle.ensure_bundle(Engine.connect()))
        process = stack.enter_context(own_engine(first))
        client = docker.DockerClient(base_url=process.address)
        stack.callback(client.close)
        runtime = f"{image.RUNTIME_REPOSITORY}:{image.recipe_digest()}"
        OwnEngine(process, process.address, first, client, runtime).fill()
        homes = [stack.enter_context(home_of(sessions)) for _ in range(workspaces)]
        stack.callback(lambda: _remove_all(client))
        manager = WorkspaceManager(Engine(docker.APIClient(base_url=process.address)))
        with ThreadPoolExecutor(AT_ONCE) as making:
            berths = making.map(
                lambda numbered: _make(manager, client, f"w{numbered[0]:02d}", numbered[1]),
                enumerate(homes),
            )
        yield Fleet(client, process.address, sessions, tuple(berths))


@contextmanager
def agent_over(fleet: Fleet, home: Home | None = None) -> Iterator[AgentProcess]:
    """Run a daemon that has read all workspaces; `home` is the host's, by default an empty one."""
    with tempfile.TemporaryDirectory() as directory:
        environment = {} if home is None else {"HOME": str(home.path)}
        running = RunningAgent(Path(directory), fleet.address, environment)
        running.start()
        try:
            running.until_live("host", *(berth.name for berth in fleet.berths), within=PATIENCE)
            yield AgentProcess(running)
        finally:
            running.stop()


def _make(manager: WorkspaceManager, client: docker.DockerClient, name: str, home: Home) -> Berth:
    live = Live(home, name)
    client.volumes.create(
        names.home_volume(name),
        labels={names.LABEL: name},
        driver_opts={"type": "none", "o": "bind", "device": str(home.path)},
    )
    ready = finish(manager.init(WorkspaceSpec(name)))
    assert ready.worker is not None, ready.warning
    return Berth(name, live, ready.worker.address, manager.token(ready.workspace))


def _remove_all(client: docker.DockerClient) -> None:
    """Remove the containers, which have the homes mounted; the rest goes with the engine."""
    for container in client.containers.list(all=True):
        container.remove(force=True)
