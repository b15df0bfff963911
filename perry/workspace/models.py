"""The nouns of a workspace, as the manager hands them to the command line and the daemon.

Frozen, JSON-ready, and free of Docker's own shapes: the manager makes them of what the engine says.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

StepName = Literal[
    "adopt", "image", "bundle", "volume", "container", "start", "clone", "worker", "health"
]
StepState = Literal["begun", "progress", "note", "done"]

Rung = Literal["address", "published", "exec"]
"""A kind of way to a worker: the container's IP, the port published for it, or a stream through
Docker's exec."""


@dataclass(frozen=True)
class WorkspaceSpec:
    """What a person asks a workspace to be; None and empty mean "as it is, or the default".

    `volumes` are `SRC:DST[:ro]` and `publish` are `HOST:CONTAINER`, as `docker run` takes them;
    `memory` is bytes with a unit (`512m`, `4g`); `network` names an existing network of the engine.
    """

    name: str
    image: str | None = None
    clone: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    memory: str | None = None
    cpus: float | None = None
    command: tuple[str, ...] = ()
    network: str | None = None
    read_only: bool = False


class Workspace(msgspec.Struct, frozen=True, rename="camel"):
    """One workspace, as Docker alone tells it.

    `state` is Docker's word (`running`, `exited`, `paused`, `created`, `restarting`, `dead`);
    `created_at` and `started_at` are ISO 8601; `addresses` are the container's IPs, empty unless
    it runs; `user` is the container's user as `docker run --user` takes it, and may be empty.
    `adopted` says that perry didn't make its container.
    """

    name: str
    container_id: str
    image: str
    state: str
    created_at: str
    started_at: str
    user: str
    home: str
    home_volume: str | None
    addresses: tuple[str, ...]
    ports: tuple[str, ...]
    adopted: bool = False

    @property
    def is_running(self) -> bool:
        """Whether a worker can be asked or started in it."""
        return self.state == "running"


class Overlooked(msgspec.Struct, frozen=True):
    """A container, by name, that says it is a workspace and isn't: `reason` says why not."""

    container: str
    reason: str
    hint: str


@dataclass(frozen=True)
class Survey:
    """The workspaces by name, and the containers that were passed over."""

    workspaces: tuple[Workspace, ...]
    overlooked: tuple[Overlooked, ...]


class Worker(msgspec.Struct, frozen=True, rename="camel"):
    """A healthy worker: where it answers, what it runs, how many sessions it has.

    `address` is `host:port`, and `exec` where it is reached by a stream; `rung` (in JSON `via`) is
    the kind of way that leads there.
    """

    address: str
    rung: Rung = msgspec.field(name="via")
    version: str
    digest: str
    session_count: int


class Ready(msgspec.Struct, frozen=True, rename="camel"):
    """What `init`, `adopt`, `start`, `restart` and `sync` end with.

    `worker` is None, and `warning` says why, where the workspace runs but no worker can, or an
    adopted one doesn't run.
    """

    workspace: Workspace
    worker: Worker | None
    warning: str | None = None


class Removed(msgspec.Struct, frozen=True, rename="camel"):
    """What `remove` took away, by name.

    `let_go` is the container of an adopted workspace, which stays; `warning` says what of perry's
    could not be taken out of it.
    """

    name: str
    containers: tuple[str, ...]
    volumes: tuple[str, ...]
    let_go: str | None = None
    warning: str | None = None


class Installed(msgspec.Struct, frozen=True):
    """What perry put on an engine besides workspaces, by name."""

    containers: tuple[str, ...]
    volumes: tuple[str, ...]
    images: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One line of progress: a step begins, tells how far it is, and is done after `seconds`.

    A `note` is to be read in any case, as where something long begins; `progress` need not be.
    """

    name: StepName
    state: StepState
    detail: str = ""
    seconds: float | None = None


Steps = Generator[Step, None, Ready]
"""Yields steps as they happen and returns what they led to."""
