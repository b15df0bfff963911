"""Names of workspaces, and of what Docker holds of each.

The one place that knows how a workspace's name becomes the name of a container or a volume, and
which labels mark them. It must not know Docker.
"""

from __future__ import annotations

import re
from pathlib import Path

from perry.errors import UsageError

HOST = "host"
"""The reserved name of the machine itself."""

LABEL = "perry.workspace"
"""Marks a workspace's container and volumes; its value is the workspace's name."""

CONTAINER_LABEL = "perry.container"
"""Marks the small volumes that record an adoption or its end; its value is a container's id."""

RELEASED_LABEL = "perry.released"
"""Marks the record of a container that was let go of; its value is the workspace's name."""

MAX_LENGTH = 63

_VALID = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def validate(name: str) -> str:
    """Return a workspace's name if it is one.

    Lower-case letters, digits and inner dashes, up to 63 characters (so that it can be a host
    name, RFC 1123), and not `host`. Raises UsageError.
    """
    if name == HOST:
        raise UsageError(
            "'host' is the name of this machine itself and can't be a workspace's",
            hint="Choose another name.",
        )
    if len(name) > MAX_LENGTH:
        raise UsageError(
            f"The name '{name}' has {len(name)} characters",
            hint=f"A workspace's name has at most {MAX_LENGTH}.",
        )
    if not _VALID.fullmatch(name):
        suggestion = _made_valid(name)
        raise UsageError(
            f"'{name}' can't be a workspace's name",
            hint="Use lower-case letters, digits and dashes"
            + (f", such as '{suggestion}'." if suggestion else "."),
        )
    return name


def is_valid(name: str) -> bool:
    """Tell whether a text can be a workspace's name."""
    return name != HOST and len(name) <= MAX_LENGTH and _VALID.fullmatch(name) is not None


def from_directory(path: Path) -> str:
    """Make a workspace's name of a directory's; UsageError where nothing of it can be used."""
    name = _made_valid(path.resolve().name)
    if not name or name == HOST:
        raise UsageError(
            f"No workspace name can be made of the directory {path.resolve()}",
            hint="Give one: perry workspace init NAME",
        )
    return name


def from_container(container_name: str) -> str:
    """Make a workspace's name of a container's; UsageError where nothing of it can be used."""
    name = _made_valid(container_name)
    if not name or name == HOST:
        raise UsageError(
            f"No workspace name can be made of the container's, '{container_name}'",
            hint=f"Give one: perry workspace adopt {container_name} NAME",
        )
    return name


def container(name: str) -> str:
    """Return the name of the container that perry makes for a workspace."""
    return f"workspace-{name}"


def home_volume(name: str) -> str:
    """Return the name of a workspace's home volume."""
    return f"workspace-{name}-home"


def adoption_volume(name: str) -> str:
    """Return the name of the volume that records which container a workspace is."""
    return f"perry-adopted-{name}"


def release_volume(container_id: str) -> str:
    """Return the name of the volume that records that a container was let go of."""
    return f"perry-released-{container_id[:12]}"


def _made_valid(text: str) -> str:
    dashed = re.sub(r"[^a-z0-9]+", "-", text.lower())
    return dashed[:MAX_LENGTH].strip("-")
