"""The door from the command line to the engine.

Docker, HTTP and retry libraries take longer to load than most commands take to run, so they are
loaded here, when a command first needs the engine, and at no module's top. This module must not
know what a command asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perry.cli.fleet import Fleet, running
from perry.workspace import names

if TYPE_CHECKING:
    from perry.workspace.engine import Engine
    from perry.workspace.manager import WorkspaceManager


def connect_engine() -> Engine:
    """Reach the engine that DOCKER_HOST or the Docker context names, or raise EngineUnreachable."""
    from perry.workspace.engine import Engine  # noqa: PLC0415  # see the module's docstring

    return Engine.connect()


def connect_manager() -> WorkspaceManager:
    """Make the manager of the engine's workspaces, or raise EngineUnreachable."""
    from perry.workspace.manager import WorkspaceManager  # noqa: PLC0415  # as above

    return WorkspaceManager(connect_engine())


def connect_fleet(only: str | None) -> Fleet:
    """Make the fleet of all running workspaces, or of the one that is named."""
    if only is not None:
        names.validate(only)
    manager = connect_manager()
    workspaces = manager.list() if only is None else [manager.get(only)]
    return Fleet(running(workspaces, only), manager.connect)
