"""What lies on a Docker engine, in shapes of perry's own.

The engine answers with deep and loosely described JSON (Docker Engine API); what perry reads of it
is picked out here, once. It must not know docker-py, how an engine is asked, or workspaces.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self


@dataclass(frozen=True)
class Image:
    """What the engine knows of an image; `id` is the digest of its content."""

    id: str
    architecture: str
    os: str
    user: str
    env: tuple[str, ...]
    labels: Mapping[str, str]

    @classmethod
    def from_inspection(cls, found: Mapping[str, Any]) -> Self:
        """Read the engine's inspection of an image."""
        config = found.get("Config") or {}
        return cls(
            id=found["Id"],
            architecture=found.get("Architecture", ""),
            os=found.get("Os", ""),
            user=config.get("User") or "",
            env=tuple(config.get("Env") or ()),
            labels=config.get("Labels") or {},
        )


@dataclass(frozen=True)
class Container:
    """What the engine knows of a container; `raw` is its whole inspection.

    `exit_code` counts only when it doesn't run; `addresses` are the IPs of all its networks.
    """

    id: str
    name: str
    image: str
    image_id: str
    state: str
    exit_code: int
    created_at: str
    started_at: str
    labels: Mapping[str, str]
    addresses: tuple[str, ...]
    raw: Mapping[str, Any]

    @classmethod
    def from_inspection(cls, found: Mapping[str, Any]) -> Self:
        """Read the engine's inspection of a container."""
        networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
        endpoints = [endpoint or {} for endpoint in networks.values()]
        addresses = [endpoint.get("IPAddress") for endpoint in endpoints]
        addresses += [endpoint.get("GlobalIPv6Address") for endpoint in endpoints]
        state, config = found["State"], found["Config"]
        return cls(
            id=found["Id"],
            name=found["Name"].lstrip("/"),
            image=config["Image"],
            image_id=found["Image"],
            state=state["Status"],
            exit_code=state["ExitCode"],
            created_at=found["Created"],
            started_at=state["StartedAt"],
            labels=config.get("Labels") or {},
            addresses=tuple(address for address in addresses if address),
            raw=found,
        )

    @property
    def is_running(self) -> bool:
        """Whether programs can be started in it."""
        return self.state == "running"


@dataclass(frozen=True)
class ListedContainer:
    """What one listing tells of each container, without a question about every one of them."""

    id: str
    name: str
    state: str
    labels: Mapping[str, str]
    created: datetime

    @classmethod
    def from_listing(cls, found: Mapping[str, Any]) -> Self:
        """Read one entry of the engine's list of containers."""
        names = [name.lstrip("/") for name in found.get("Names") or ()]
        return cls(
            id=found["Id"],
            # Other containers' links to it are listed too, as `other/alias`.
            name=next((name for name in names if "/" not in name), ""),
            state=found["State"],
            labels=found.get("Labels") or {},
            created=datetime.fromtimestamp(found["Created"], UTC),
        )

    @property
    def is_running(self) -> bool:
        """Whether programs can be started in it."""
        return self.state == "running"

    @property
    def has_processes(self) -> bool:
        """Whether programs are in it, be they paused."""
        return self.state in ("running", "paused")


@dataclass(frozen=True)
class Volume:
    """What the engine knows of a volume."""

    name: str
    labels: Mapping[str, str]
    created_at: str

    @classmethod
    def from_inspection(cls, found: Mapping[str, Any]) -> Self:
        """Read the engine's inspection of a volume."""
        return cls(found["Name"], found.get("Labels") or {}, found.get("CreatedAt") or "")


_KINDS = 0x8F280000
"""The bits of Go's os.FileMode that a regular file has none of."""


@dataclass(frozen=True)
class PathStat:
    """What the engine knows of a path in a container: bytes, and ns since the epoch."""

    is_file: bool
    size: int
    modified: int

    @classmethod
    def from_header(cls, encoded: str) -> Self:
        """Read the header with which the archive API describes a path."""
        found = json.loads(base64.b64decode(encoded))
        is_file = not found["mode"] & _KINDS
        return cls(is_file, int(found["size"]), _nanoseconds(found["mtime"]))


def _nanoseconds(moment: str) -> int:
    """Read an RFC 3339 time, which has up to nine digits of a second."""
    whole, digits, zone = re.fullmatch(r"(.{19})(?:\.(\d{1,9}))?(.+)", moment).groups()  # type: ignore[union-attr]  # Go always writes it so
    seconds = int(datetime.fromisoformat(whole + zone).timestamp())
    return seconds * 1_000_000_000 + int((digits or "0").ljust(9, "0"))


@dataclass(frozen=True)
class Execution:
    """What a program run in a container came to."""

    exit_code: int
    output: str


@dataclass(frozen=True)
class EngineEvent:
    """Something that happened to a container, or to its place in a network.

    `action` is Docker's word (`start`, `die`, `exec_die`…), `command` what an `exec_start` started;
    `labels` are the container's own and its image's, for a network's event what is told of that;
    `at` is in seconds since the epoch.
    """

    action: str
    command: str
    container_id: str
    labels: Mapping[str, str]
    at: float

    @classmethod
    def from_message(cls, found: Mapping[str, Any]) -> Self:
        """Read one message of the engine's stream of events."""
        action, _, command = str(found.get("Action", "")).partition(": ")
        actor = found.get("Actor") or {}
        labels = actor.get("Attributes") or {}
        is_network = found.get("Type") == "network"
        return cls(
            action=action,
            command=command,
            container_id=str(labels.get("container", "") if is_network else actor.get("ID", "")),
            labels=labels,
            at=int(found.get("timeNano", 0)) / 1e9,
        )

    @property
    def exec_id(self) -> str:
        """The exec that an `exec_start` or `exec_die` is about."""
        return self.labels.get("execID", "")

    @property
    def exit_code(self) -> int | None:
        """How what died has ended."""
        code = self.labels.get("exitCode", "")
        return int(code) if code.isdigit() else None
