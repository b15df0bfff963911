"""Containers that perry makes for a moment, and what becomes of those that a killed perry left.

A helper is made to look into an image or to reach a volume, never runs for long, and is removed at
once. Its label holds the name it was made with: one that still has that name long after can only
be abandoned (a filler that was kept has another by then), and whatever inherits the label has not.
It must not know what a helper is for.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from perry.errors import EngineFailure
from perry.workspace.engine import CONFLICT, Engine
from perry.workspace.objects import ListedContainer

LABEL = "perry.helper"
"""Marks a helper; its value is the name that it was made with."""

OWNER_LABEL = "perry.helper.workspace"
"""Names the workspace whose volume a helper has."""

ABANDONED_AFTER = timedelta(minutes=10)


def labels(name: str, workspace: str | None = None) -> dict[str, str]:
    """Return what marks a helper of that name, and the workspace whose volume it has."""
    return {LABEL: name, **({OWNER_LABEL: workspace} if workspace else {})}


def new_name(purpose: str) -> str:
    """Return a name that no other helper has."""
    return f"perry-{purpose}-{secrets.token_hex(6)}"


@contextmanager
def helper(
    engine: Engine,
    purpose: str,
    image: str,
    *,
    workspace: str | None = None,
    config: Mapping[str, Any],
) -> Iterator[str]:
    """Make a container that is never started, yield its id, and remove it.

    `config` is what `Engine.create_container` takes besides.
    """
    name = new_name(purpose)
    try:
        yield engine.create_container(name, image, labels=labels(name, workspace), **config)
    finally:
        engine.remove_container(name)  # by name: an interrupt may come before its id does


def list_helpers(engine: Engine, workspace: str | None = None) -> list[ListedContainer]:
    """List the helpers that are on the engine, all of them or one workspace's."""
    label = LABEL if workspace is None else f"{OWNER_LABEL}={workspace}"
    found = engine.list_containers(label)
    return [container for container in found if container.labels.get(LABEL) == container.name]


def remove_abandoned(engine: Engine, *, older_than: timedelta = ABANDONED_AFTER) -> None:
    """Remove the helpers whose perry was killed: neither running nor new."""
    for container in list_helpers(engine):
        if not container.is_running and age(container) > older_than:
            remove(engine, container)


def remove(engine: Engine, container: ListedContainer) -> None:
    """Remove a helper, or what it has become, as another perry may do at the same moment."""
    try:
        engine.remove_container(container.id)
    except EngineFailure as failure:
        if failure.status != CONFLICT:  # then another perry is removing it
            raise


def age(container: ListedContainer) -> timedelta:
    """Tell how long ago a container was created."""
    return datetime.now(UTC) - container.created
