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
from perry.workspace.engine import CONFLICT, Container, Engine

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
    container = engine.create_container(name, image, labels=labels(name, workspace), **config)
    try:
        yield container
    finally:
        engine.remove_container(container)


def list_helpers(engine: Engine, workspace: str | None = None) -> list[Container]:
    """List the helpers that are on the engine, all of them or one workspace's."""
    label = LABEL if workspace is None else f"{OWNER_LABEL}={workspace}"
    found = engine.list_containers(label)
    return [container for container in found if container.labels.get(LABEL) == container.name]


def remove_abandoned(engine: Engine, *, older_than: timedelta = ABANDONED_AFTER) -> None:
    """Remove the helpers whose perry was killed: neither running nor new."""
    for container in list_helpers(engine):
        if not container.is_running and age(container) > older_than:
            remove(engine, container)


def remove(engine: Engine, container: Container) -> None:
    """Remove a helper, as another perry may do at the same moment."""
    try:
        engine.remove_container(container.id)
    except EngineFailure as failure:
        if failure.status != CONFLICT:  # then another perry is removing it
            raise


def age(container: Container) -> timedelta:
    """Tell how long ago a container was created."""
    created = datetime.fromisoformat(container.created_at[:19]).replace(tzinfo=UTC)
    return datetime.now(UTC) - created
