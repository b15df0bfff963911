"""The door from the command line to the engine, to the host's own sessions, and to the archive.

Docker, HTTP and retry libraries take longer to load than most commands take to run, so they are
loaded here, when a command first needs the engine, and at no module's top; so are the readers of
sessions. This module must not know what a command asks.
"""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING

from perry.cli.fleet import ENGINE, Fleet, running
from perry.cli.host import Host, HostReader
from perry.cli.snapshots import WorkspaceReader
from perry.errors import EngineError
from perry.workspace import names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from perry.archive.archive import Archive
    from perry.cli.fleet import Place
    from perry.client.session_client import SessionClient
    from perry.workspace.engine import Engine
    from perry.workspace.manager import WorkspaceManager
    from perry.workspace.models import Workspace
    from perry.workspace.snapshot import Snapshots


def connect_engine() -> Engine:
    """Reach the engine that DOCKER_HOST or the Docker context names, or raise EngineUnreachable."""
    from perry.workspace.engine import Engine  # noqa: PLC0415  # see the module's docstring

    return Engine.connect()


def connect_manager() -> WorkspaceManager:
    """Make the manager of the engine's workspaces, or raise EngineUnreachable."""
    from perry.workspace.manager import WorkspaceManager  # noqa: PLC0415  # as above

    return WorkspaceManager(connect_engine())


def running_workspaces() -> list[Workspace]:
    """List the workspaces that run now, or raise EngineUnreachable."""
    return running(connect_manager().list(), None)


@contextlib.contextmanager
def open_archive() -> Iterator[Archive | None]:
    """Open the user's archive if there is one; none is made. Raises ArchiveError."""
    from perry.archive.archive import Archive, archive_path  # noqa: PLC0415  # as above

    path = archive_path()
    if not path.exists():
        yield None
        return
    with contextlib.closing(Archive(path)) as archive:
        yield archive


def connect_fleet(only: str | None, *, watched: bool = False) -> Fleet:
    """Make the fleet of the host and all workspaces, or of the one that is named.

    `watched` is for who wants to hear what changes, on the host as well; it leaves out workspaces
    that don't run, and raises WorkspaceNotRunning for one by name. Where the engine can't be
    reached the host answers alone, and the fleet says why; for the host by name no engine is asked.
    """
    host, engine = HostReader(watched=watched), _OnceReached()
    reader = WorkspaceReader(engine.manager, engine.snapshots)

    def connect(place: Place) -> AbstractContextManager[SessionClient]:
        if isinstance(place, Host):
            return host.connect()
        return engine.manager().connect(place) if watched else reader.connect(place)

    def asked(workspaces: list[Workspace]) -> list[Workspace]:
        return running(workspaces, only) if watched else workspaces

    fleet = partial(Fleet, connect=connect, taken=reader.taken)
    if only == names.HOST:
        return fleet([host.host])
    if only is not None:
        names.validate(only)
        return fleet(asked([engine.manager().get(only)]))
    try:
        return fleet([host.host, *asked(engine.manager().list())])
    except EngineError as error:
        return fleet([host.host], missing={ENGINE: error})


class _OnceReached:
    """The engine, reached when somebody first needs it; where that fails, again for the next."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._manager: WorkspaceManager | None = None
        self._snapshots: Snapshots | None = None
        self._lock = threading.Lock()

    def manager(self) -> WorkspaceManager:
        """Give the manager of its workspaces, or raise EngineUnreachable."""
        from perry.workspace.manager import WorkspaceManager  # noqa: PLC0415  # as above

        with self._lock:
            self._manager = self._manager or WorkspaceManager(self._reached())
            return self._manager

    def snapshots(self) -> Snapshots:
        """Give the snapshots of its containers, or raise EngineUnreachable."""
        from perry.workspace.snapshot import Snapshots  # noqa: PLC0415  # as above

        with self._lock:
            self._snapshots = self._snapshots or Snapshots(self._reached())
            return self._snapshots

    def _reached(self) -> Engine:
        self._engine = self._engine or connect_engine()
        return self._engine
