"""A workspace's worker: asked, started, replaced, revived.

Only perry starts workers. A worker that answers with this perry's digest is left alone; any other,
or none, is replaced. It must not know how a workspace is made.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Generator
from contextlib import ExitStack
from time import monotonic

from perry.client.worker_client import WorkerClient
from perry.errors import EngineFailure, WorkerCannotRun, WorkerUnreachable, WorkerUntrusted
from perry.workspace import bundle, delivery, key
from perry.workspace.bundle import Bundle
from perry.workspace.engine import Engine
from perry.workspace.ladder import Ladder, Reached
from perry.workspace.log_stream import LogStream, follow_file
from perry.workspace.models import Step, Worker, Workspace
from perry.workspace.objects import Container
from perry.workspace.progress import at_once, finish, timed
from perry.workspace.wait import HealthyWorker, wait_for_first_scan
from perry.workspace.worker_process import WorkerProcess


class Supervisor:
    """The workers of one engine's workspaces; may be used from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._bundle: Bundle | None = None
        self._key: bytes | None = None
        self._lock = threading.RLock()
        self._ladder = Ladder(engine, self.token, self.forget_key)

    def ensure_bundle(self) -> Generator[Step, None, Bundle]:
        """Make sure, once in this supervisor's life, that the engine holds the bundle."""
        if self._bundle is None:
            self._bundle = yield from bundle.ensure_bundle(self._engine)
        return self._bundle

    def ask(self, container: Container, workspace: str) -> Worker | None:
        """Return the healthy worker of a running container, None where none answers."""
        try:
            reached = self._ladder.reach(container, workspace)
        except WorkerUnreachable:
            return None
        reached.client.close()
        return reached.worker

    def ensure(
        self, container: Container, workspace: Workspace, *, fresh: bool
    ) -> Generator[Step, None, Worker]:
        """Make sure that a running container has a healthy worker of this perry's bundle.

        A `fresh` container was started just now, so nothing runs in it yet. Where another bundle's
        worker was replaced, its layers go unless somebody else runs them. One on its first scan is
        waited for. Raises WorkerCannotRun, and WorkerFailure where that scan takes too long.
        """
        wanted = yield from self.ensure_bundle()
        began = monotonic()
        present = None if fresh else self._settled(container, workspace.name)
        if present is not None and present.digest == wanted.digest:
            yield Step("worker", "done", "runs already", monotonic() - began)
            return present
        nobody = present is None
        revived = yield from self._revive(
            container, workspace, gently=nobody, insist=nobody and not fresh
        )
        revived.client.close()
        if present is not None:
            self.prune()
        return revived.worker

    def reach(self, container: Container, workspace: str) -> WorkerClient:
        """Return a client that has reached the container's worker, whichever runs there.

        Starts nothing. Raises WorkerUnreachable.
        """
        return self._ladder.reach(container, workspace).client

    def connect(self, container: Container, workspace: Workspace) -> WorkerClient:
        """Return a client that has reached the container's worker, revived first if it is dead.

        A healthy worker of another digest will do. Raises WorkerCannotRun.
        """
        try:
            return self._ladder.reach(container, workspace.name).client
        except WorkerUnreachable:
            return self.revive(container, workspace)

    def revive(
        self, container: Container, workspace: Workspace, *, gently: bool = True
    ) -> WorkerClient:
        """Start the worker of a container that is known to have none, and return a client of it.

        `gently`, one that another perry has started meanwhile will do; else whatever runs there is
        ended first. Raises WorkerCannotRun.
        """
        return finish(self._revive(container, workspace, gently=gently, insist=gently)).client

    def log(self, workspace: Workspace) -> str:
        """Return what the workspace's worker logged last; empty where it never ran."""
        content = self._engine.read_file(workspace.container_id, _log_path(workspace))
        return (content or b"").decode(errors="replace")

    def follow_log(self, workspace: Workspace, *, tail: int) -> LogStream:
        """Open the log of a running workspace's worker, from its last lines on."""
        path = _log_path(workspace)
        return follow_file(self._engine, workspace.container_id, path, tail=tail)

    def prune(self) -> None:
        """Remove the layers that no worker runs any more."""
        bundle.prune(self._engine, finish(self.ensure_bundle()))

    def token(self, container_id: str) -> str:
        """Return the token of a container's worker."""
        with self._lock:
            if self._key is None:
                self._key = key.cached(self._engine) or self._read_key()
            return key.token(self._key, container_id)

    def forget_key(self) -> None:
        """Drop what this user's cache knows of the engine's key."""
        key.forget(self._engine)
        self._key = None

    def _settled(self, container: Container, workspace: str) -> Worker | None:
        """Return the worker that runs in a container once it can be told which one it is.

        Raises WorkerFailure where its first scan takes too long.
        """
        try:
            reached = self._ladder.reach(container, workspace)
            with reached.client as client:
                health = wait_for_first_scan(client, reached.health)
        except (WorkerUnreachable, WorkerUntrusted):
            return None  # nobody there, or dead before it came to that
        return dataclasses.replace(reached, health=health).worker

    def _revive(
        self, container: Container, workspace: Workspace, *, gently: bool, insist: bool
    ) -> Generator[Step, None, Reached]:
        """Start the worker and wait for it.

        `gently` leaves alone what runs there: another perry may have started a worker a moment ago,
        which is then the one to wait for. `insist` tries once more where that fails, ending what
        runs there first. Another perry may also drop layers that nobody ran, in the moment before
        they are: then they are filled again.
        """
        with self._lock:
            wanted = yield from self.ensure_bundle()
        try:
            return (yield from self._start(container, workspace, wanted, gently=gently))
        except WorkerCannotRun:
            is_complete = bundle.is_complete(self._engine, wanted)
            if is_complete and not insist:
                raise
        if not is_complete:
            with self._lock:
                self._bundle = None
                wanted = yield from self.ensure_bundle()
        return (yield from self._start(container, workspace, wanted, gently=False))

    def _start(
        self, container: Container, workspace: Workspace, wanted: Bundle, *, gently: bool
    ) -> Generator[Step, None, Reached]:
        launched = at_once(lambda: self._launch(container, workspace, wanted, gently=gently))
        exec_id = yield from timed("worker", launched, lambda _: wanted.digest)
        healthy = at_once(lambda: self._await(container, workspace, wanted, exec_id))
        return (yield from timed("health", healthy, lambda found: found.way.address))

    def _launch(
        self, container: Container, workspace: Workspace, wanted: Bundle, *, gently: bool
    ) -> str:
        """Start a worker, unless gently after ending what runs there; return its exec's id."""
        if not container.is_running:
            raise WorkerCannotRun(
                f"No worker can run in '{workspace.name}': its container is {container.state}, "
                "since its own command keeps ending",
                hint=f"perry workspace logs {workspace.name} shows what the command says.",
                workspace=workspace.name,
            )
        process = WorkerProcess(self._engine, container.id, wanted)
        token = self.token(container.id)
        try:
            former = delivery.ensure_present(self._engine, container, workspace.name, wanted)
            if not gently:
                process.stop()
            if former:
                delivery.sweep(self._engine, container, wanted)
            return process.start(token=token, home=workspace.home)
        except EngineFailure as failure:
            raise WorkerCannotRun(
                f"The worker of '{workspace.name}' could not be started: {failure.message}",
                hint=f"perry workspace logs {workspace.name} shows what the container says.",
                workspace=workspace.name,
            ) from failure

    def _await(
        self, container: Container, workspace: Workspace, wanted: Bundle, exec_id: str
    ) -> Reached:
        with ExitStack() as unused:
            clients = self._ladder.clients(container, workspace.name)
            for client in clients.values():
                unused.callback(client.close)
            wait = HealthyWorker(
                self._engine,
                workspace.name,
                container.id,
                exec_id,
                wanted.digest,
                clients,
                explain=lambda: self._explanation(container, workspace, wanted),
            )
            way, health = wait.wait()
            unused.pop_all()
            for other in clients.keys() - {way}:
                clients[other].close()
        self._ladder.keep(container, way)
        return Reached(way, clients[way], health)

    def _explanation(self, container: Container, workspace: Workspace, wanted: Bundle) -> str:
        """Say why a worker isn't healthy: what its Python says, else how its log ends."""
        try:
            return (
                WorkerProcess(self._engine, container.id, wanted).why_not()
                or self.log(workspace)[-600:].strip()
            )
        except EngineFailure as failure:
            return failure.message

    def _read_key(self) -> bytes:
        wanted = finish(self.ensure_bundle())
        return key.read(self._engine, bundle.keeper_for_key(self._engine, wanted).id)


def _log_path(workspace: Workspace) -> str:
    return f"{workspace.home}/.cache/perry/worker.log"
