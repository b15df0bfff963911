"""Listens to the engine, and has a keeper for every workspace that there is.

What happens to containers is told by the engine's events, so a worker that died is started again
within a second, whoever started its container. A slow full check finds what no event told: an
engine that was restarted, events that were missed, workspaces that came while nobody listened.
It must not know what a keeper does.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from perry.agent.keeper import AT_ONCE, Keeper
from perry.errors import EngineError, EngineUnreachable, PerryError
from perry.workspace import names
from perry.workspace.bundle import PROCESS_PREFIX
from perry.workspace.manager import WorkspaceManager
from perry.workspace.snapshot import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable

    from perry.agent.mirror import Mirror
    from perry.workspace.engine import Engine
    from perry.workspace.objects import EngineEvent

log = logging.getLogger(__name__)

FULL_CHECK = 60.0  # s
RETRY = (0.1, 2.0)  # s: first and longest pause before an engine that is away is asked again


class Reconciler:
    """The keepers of all workspaces of one engine; `connect` reaches that engine."""

    def __init__(self, connect: Callable[[], Engine], mirror: Mirror) -> None:
        self._connect = connect
        self._mirror = mirror
        self._lock = threading.Lock()
        self._keepers: dict[str, Keeper] = {}
        self._names: dict[str, str] = {}
        self._workers: set[str] = set()
        self._starting = threading.Semaphore(AT_ONCE)
        self._stopped = threading.Event()
        self._manager: WorkspaceManager | None = None
        self._snapshots: Snapshots | None = None
        self._problem: EngineError | None = None

    @property
    def problem(self) -> EngineError | None:
        """Why the engine can't be used now, None while it can."""
        return self._problem

    @property
    def manager(self) -> WorkspaceManager:
        """What does things to workspaces. Raises EngineUnreachable."""
        if self._manager is None:
            problem = self._problem
            raise EngineUnreachable(
                problem.message if problem else "The Docker engine wasn't reached yet",
                hint=problem.hint if problem else "Try again in a moment.",
            )
        return self._manager

    def keeper(self, name: str) -> Keeper | None:
        """Return the keeper of a workspace, None where there is none."""
        with self._lock:
            return self._keepers.get(name)

    def start(self) -> None:
        """Begin to listen."""
        threading.Thread(target=self._run, name="reconciler", daemon=True).start()
        threading.Thread(target=self._check_now_and_then, name="check", daemon=True).start()

    def stop(self) -> None:
        """End: the workers go on without it."""
        self._stopped.set()
        with self._lock:
            keepers = list(self._keepers.values())
        for keeper in keepers:
            keeper.stop()

    def check(self) -> None:
        """Bring the keepers in line with the workspaces that there are. Raises EngineError."""
        manager = self.manager
        present = {workspace.name: workspace for workspace in manager.list()}
        with self._lock:
            self._names = {one.container_id: name for name, one in present.items()}
            kept = set(self._keepers)
        for name in present:
            self._ensure(name).poke()
        gone = {place.name for place in self._mirror.places()} - present.keys() - {names.HOST}
        for name in kept - present.keys():
            self._poke(name)
        for name in gone - kept:
            self._mirror.forget(name)

    def _run(self) -> None:
        """Connect, check everything, listen; when the engine is lost, begin again."""
        pause = RETRY[0]
        while not self._stopped.is_set():
            try:
                engine = self._connected()
                began = engine.now()
                self.check()
                self._problem, pause = None, RETRY[0]
                for event in engine.events(since=began):
                    self._take(event)
            except EngineError as error:
                if self._problem is None:
                    log.warning("the engine is away: %s", error.message)
                self._problem = error
            except Exception:
                # A reconciler that has died would leave every dead worker dead.
                log.exception("listening to the engine failed")
            self._stopped.wait(pause)
            pause = min(RETRY[1], 2 * pause)

    def _connected(self) -> Engine:
        if self._manager is None:
            self._engine = self._connect()
            self._snapshots = Snapshots(self._engine)
            self._manager = WorkspaceManager(self._engine)
        return self._engine

    def _check_now_and_then(self) -> None:
        while not self._stopped.wait(FULL_CHECK):
            try:
                self.check()
            except EngineError:
                continue  # the listening thread says so
            except PerryError as error:
                log.warning("the full check failed: %s", error.message)

    def _take(self, event: EngineEvent) -> None:
        if event.container_id not in self._names and _may_be_new(event):
            self.check()
        name = self._names.get(event.container_id)
        if event.action == "start" and name is not None:
            self._ensure(name).started()
            return
        if event.action == "destroy":
            self._names.pop(event.container_id, None)
        keeper = self.keeper(name or "")
        if keeper is not None:
            self._tell(keeper, event)

    def _tell(self, keeper: Keeper, event: EngineEvent) -> None:
        match event.action:
            case "exec_start":
                if event.command.startswith(PROCESS_PREFIX):
                    self._workers.add(event.exec_id)
                    keeper.launched()
            case "exec_die":
                if event.exec_id in self._workers:
                    self._workers.discard(event.exec_id)
                    keeper.died(event.exit_code)
            case "pause":
                keeper.paused()
            case "unpause":
                keeper.resumed()
            case "connect" | "disconnect":
                keeper.moved()
            case _:
                keeper.poke()

    def _poke(self, name: str | None) -> None:
        keeper = self.keeper(name or "")
        if keeper is not None:
            keeper.poke()

    def _ensure(self, name: str) -> Keeper:
        with self._lock:
            keeper = self._keepers.get(name)
            if keeper is None:
                assert self._snapshots is not None  # noqa: S101 - made with the manager
                keeper = Keeper(
                    name,
                    self.manager,
                    self._mirror,
                    self._snapshots,
                    self._starting,
                    self._workers.update,
                    self._forget,
                )
                self._keepers[name] = keeper
                keeper.start()
            return keeper

    def _forget(self, keeper: Keeper) -> None:
        with self._lock:
            if self._keepers.get(keeper.name) is keeper:
                del self._keepers[keeper.name]


def _may_be_new(event: EngineEvent) -> bool:
    """Tell whether a container that nobody knew of may be a workspace; its label alone isn't one.

    One without a label was adopted if a worker is started in it.
    """
    if event.action == "start":
        return names.LABEL in event.labels
    return event.action == "exec_start" and event.command.startswith(PROCESS_PREFIX)
