"""The door from the command line to the engine, and to the host's own sessions.

Docker, HTTP and retry libraries take longer to load than most commands take to run, so they are
loaded here, when a command first needs the engine, and at no module's top; so are the readers of
sessions. This module must not know what a command asks.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from perry.cli.fleet import ENGINE, Fleet, running
from perry.cli.host import Host, HostReader
from perry.errors import EngineError
from perry.workspace import names

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from perry.cli.fleet import Place
    from perry.client.session_client import SessionClient
    from perry.workspace.engine import Engine
    from perry.workspace.manager import WorkspaceManager
    from perry.workspace.models import Workspace


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


def connect_fleet(only: str | None, *, watched: bool = False) -> Fleet:
    """Make the fleet of the host and all running workspaces, or of the one that is named.

    `watched` is for who wants to hear what changes on the host. Where the engine can't be reached
    the host answers alone, and the fleet says why; for the host by name no engine is asked.
    """
    reader, manager = HostReader(watched=watched), _OnceReached(connect_manager)

    def connect(place: Place) -> AbstractContextManager[SessionClient]:
        return reader.connect() if isinstance(place, Host) else manager.get().connect(place)

    if only == names.HOST:
        return Fleet([reader.host], connect)
    if only is not None:
        names.validate(only)
        return Fleet(running([manager.get().get(only)], only), connect)
    try:
        return Fleet([reader.host, *running(manager.get().list(), None)], connect)
    except EngineError as error:
        return Fleet([reader.host], connect, {ENGINE: error})


class _OnceReached:
    """The manager, made when somebody first needs it; where that fails, again for the next."""

    def __init__(self, make: Callable[[], WorkspaceManager]) -> None:
        self._make = make
        self._made: WorkspaceManager | None = None
        self._lock = threading.Lock()

    def get(self) -> WorkspaceManager:
        """Give the manager, or raise EngineUnreachable."""
        with self._lock:
            self._made = self._made or self._make()
        return self._made
