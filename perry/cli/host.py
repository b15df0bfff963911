"""The host beside the workspaces: its sessions are read by the command that asks for them.

What a worker is to a workspace, an index in this process is to the host. What was read is kept in
the user's cache directory, so the next command reads only what changed since. Reading costs time,
so it is done once, when somebody first asks. This module must not know what a command asks.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perry.errors import WorkerCannotRun, WorkerFailure
from perry.workspace import names

if TYPE_CHECKING:
    from perry.client.local_client import LocalClient
    from perry.sessions.index import SessionIndex

LONGEST_SCAN = 120.0  # s


@dataclass(frozen=True)
class Host:
    """The machine itself, as a place where sessions are."""

    home: str
    name: str = names.HOST


class HostReader:
    """Reads the sessions of this user's home; any thread may ask.

    `watched` keeps what was read fresh, for as long as the process lives.
    """

    def __init__(self, *, watched: bool) -> None:
        self._read = _watched if watched else _read_once
        self._index: SessionIndex | None = None
        self._lock = threading.Lock()

    @property
    def host(self) -> Host:
        """The place that is read."""
        return Host(os.environ.get("HOME", ""))

    def connect(self) -> LocalClient:
        """Give a client of the host's sessions, which are read first if they weren't yet.

        Raises WorkerCannotRun where there is no home directory.
        """
        from perry.client.local_client import LocalClient  # noqa: PLC0415  # loads all readers

        with self._lock:
            if self._index is None:
                self._index = self._read(_index_of(_home()))
        return LocalClient(self._index, workspace=names.HOST)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        raise WorkerCannotRun(
            "The host's sessions can't be read: this user has no home directory.",
            hint="Set HOME to the directory that the coding agents use.",
            workspace=names.HOST,
        ) from error


def _index_of(home: Path) -> SessionIndex:
    from perry.sessions.index import SessionIndex  # noqa: PLC0415  # as above

    return SessionIndex.of_home(home, os.environ, remember=True)


def _read_once(index: SessionIndex) -> SessionIndex:
    index.refresh()
    index.save()
    return index


def _watched(index: SessionIndex) -> SessionIndex:
    from perry.worker.watcher import Watcher  # noqa: PLC0415  # for those who wait for changes

    watcher = Watcher(index)
    watcher.start()
    if not watcher.ready.wait(LONGEST_SCAN):
        watcher.stop()
        raise WorkerFailure(
            f"The host's sessions are still being read after {LONGEST_SCAN:g} s.",
            status=503,
            hint="`perry session list --workspace host` may say why.",
            workspace=names.HOST,
        )
    index.save()
    return index
