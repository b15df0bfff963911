"""Starting a container, and what its published ports may make of that.

The engine chooses a port for the worker by itself, and tries a few where others have them; on a
machine with many of those it may give up, and be luckier the next time. A port that a person chose
is theirs to free. It must not know workers.
"""

from __future__ import annotations

import tenacity

from perry.errors import EngineFailure, PortTaken
from perry.workspace.engine import Engine
from perry.workspace.objects import Container

PORT_TAKEN = ("port is already allocated", "address already in use")
"""The engine's words where a published port can't be had; its status is a plain 500."""

ATTEMPTS = 10
"""Starts, in each of which the engine tries ten ports."""


def start(engine: Engine, name: str, container: Container) -> None:
    """Start a workspace's container, or let it go on where it is paused.

    Raises PortTaken where a port that it publishes is in use.
    """
    if container.state == "paused":
        engine.unpause_container(container.id)
        return
    starting = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: _may_be_lucky(error, container)),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        reraise=True,
    )
    try:
        starting(engine.start_container, container.id)
    except EngineFailure as failure:
        if _is_taken(failure):
            raise PortTaken(
                f"A port that '{name}' publishes is already in use: {failure.message}",
                hint="Publish another one (--publish HOST:CONTAINER), or free it.",
                workspace=name,
            ) from failure
        raise


def _may_be_lucky(error: BaseException, container: Container) -> bool:
    """Tell whether the port that was taken is one that the engine chose."""
    if not isinstance(error, EngineFailure) or not _is_taken(error):
        return False
    bindings = container.raw["HostConfig"].get("PortBindings") or {}
    chosen = {it["HostPort"] for asked in bindings.values() for it in asked or ()} - {""}
    return not any(f":{port}" in error.message for port in chosen)


def _is_taken(failure: EngineFailure) -> bool:
    return any(words in failure.message for words in PORT_TAKEN)
