"""Workspaces that no worker can answer for, read by the command that asks.

A stopped workspace, and a running one in which no worker can run, is read from a snapshot of its
files. Whoever asks gets a client like any other; that it was read so, when, and what was left out
is kept beside it, for people and for JSON. What a command has read once is what the rest of it
speaks of. This module must not print, or know how a snapshot is taken.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perry.cli.text import ago, counted, one_line, shortened
from perry.errors import PerryError, WorkerCannotRun, WorkspaceNotRunning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from perry.client.session_client import SessionClient
    from perry.workspace.manager import WorkspaceManager
    from perry.workspace.models import Workspace
    from perry.workspace.snapshot import Snapshots

LONGEST_REASON = 200
"""Characters of a reason; what an engine or a worker's log says may be long."""

TOLD = 3
"""Files that a snapshot left out which are told of by name."""


@dataclass(frozen=True)
class Taken:
    """The snapshot that a workspace's sessions were read from.

    `state` is Docker's word for the workspace; `at` is when it was taken (ms since the epoch);
    `problems` maps what was left out to the reasons; `error` is why no worker can run, where the
    workspace runs.
    """

    state: str
    at: int
    problems: Mapping[str, str] = field(default_factory=dict)
    error: PerryError | None = None


def view(taken: Taken | None) -> dict[str, Any]:
    """Give the keys that tell of a snapshot in JSON, as the agent daemon does; none without one."""
    return {} if taken is None else {"via": "snapshot", "asOf": taken.at}


def notes(name: str, taken: Taken, now: float) -> Iterator[str]:
    """Say that a workspace was read from a snapshot, and what of it was left out.

    `now` is in seconds since the epoch.
    """
    how = f"{name} is {taken.state}"
    if taken.error is not None:
        message = _bounded(taken.error.message)
        how = message if name in message else f"{name}: {message}"
    yield f"{how}; read from a snapshot taken {ago(taken.at, now)}"
    for path, reason in [*taken.problems.items()][:TOLD]:
        yield f"{name}: the snapshot leaves out {one_line(path)}: {_bounded(reason)}"
    if len(taken.problems) > TOLD:
        yield f"{name}: the snapshot leaves out {counted(len(taken.problems) - TOLD, 'more file')}"


def _bounded(text: str) -> str:
    return shortened(one_line(text), LONGEST_REASON)


class WorkspaceReader:
    """Reaches who answers for a workspace: its worker, else a snapshot; any thread may ask.

    `manager` and `snapshots` reach the engine when they are first called. What was read from a
    snapshot is in `taken`, by the workspace's name, and is read so from then on.
    """

    def __init__(
        self, manager: Callable[[], WorkspaceManager], snapshots: Callable[[], Snapshots]
    ) -> None:
        self.taken: dict[str, Taken] = {}
        self._manager = manager
        self._snapshots = snapshots
        self._clients: dict[str, SessionClient] = {}
        self._lock = threading.Lock()

    def connect(self, workspace: Workspace) -> SessionClient:
        """Give a client of the workspace's sessions, reviving its worker where needed.

        Raises WorkspaceNotFound, WorkerError, SnapshotFailed and EngineError.
        """
        with self._lock:
            client = self._clients.get(workspace.name)
        if client is not None:
            return client
        if not workspace.is_running:
            return self._read(workspace, None)
        manager = self._manager()
        try:
            return manager.connect(workspace)
        except WorkspaceNotRunning:  # it was stopped a moment ago
            return self._read(manager.get(workspace.name), None)
        except WorkerCannotRun as error:
            return self._read(workspace, error)

    def _read(self, workspace: Workspace, error: WorkerCannotRun | None) -> SessionClient:
        from perry.client.local_client import LocalClient  # noqa: PLC0415  # loads all readers

        try:
            snapshot = self._snapshots().take(workspace)
        except PerryError as failure:
            if error is None:
                raise
            raise error from failure
        client = LocalClient(snapshot.index, workspace=workspace.name)
        taken = Taken(workspace.state, int(snapshot.taken_at * 1000), snapshot.problems, error)
        with self._lock:
            self.taken[workspace.name] = taken
            self._clients[workspace.name] = client
        return client
