"""The host's own sessions, which go the same way as every workspace's, in this process.

It must not know Docker.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from perry.agent.following import follow
from perry.agent.models import Place
from perry.client.local_client import LocalClient
from perry.errors import PerryError
from perry.sessions.index import SessionIndex
from perry.worker.watcher import Watcher
from perry.workspace.names import HOST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from perry.agent.mirror import Mirror

log = logging.getLogger(__name__)

PAUSE = 2.0  # s before the events are asked for again, where they failed


class Host:
    """Keeps the host's sessions in the mirror, by watching the files of a home directory."""

    def __init__(self, home: Path, env: Mapping[str, str], mirror: Mirror) -> None:
        self._index = SessionIndex.of_home(home, env, remember=True)
        self._watcher = Watcher(self._index)
        self._mirror = mirror
        self._stopped = threading.Event()

    @property
    def watch(self) -> str:
        """How changes are noticed: `native` or `polling`."""
        return self._watcher.mode

    @property
    def is_ready(self) -> bool:
        """Whether all files were looked at once."""
        return self._watcher.ready.is_set()

    def client(self) -> LocalClient:
        """Return what the host's sessions can be asked through."""
        return LocalClient(self._index, workspace=HOST)

    def start(self) -> None:
        """Begin to watch."""
        self._watcher.start()
        threading.Thread(target=self._run, name="host", daemon=True).start()

    def stop(self) -> None:
        """End watching, and keep what was read for the next start."""
        self._stopped.set()
        self._watcher.stop()
        if self.is_ready:
            self._index.save()

    def _run(self) -> None:
        self._watcher.ready.wait()
        while not self._stopped.is_set():
            try:
                with self.client() as client:
                    follow(client, self._mirror, Place(HOST, "running", "host"), begun=_nothing)
            except PerryError as error:
                log.warning("the host's sessions: %s", error)
            self._stopped.wait(PAUSE)


def _nothing() -> None:
    return
