"""The daemon's parts, put together: ledger, mirror, host, the workspaces' keepers, archive.

It must not know HTTP.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING, TypeVar

from perry.agent.host import Host
from perry.agent.intake import Intake
from perry.agent.ledger import Ledger
from perry.agent.mirror import Mirror
from perry.agent.reconciler import Reconciler
from perry.errors import WorkerUnreachable, WorkerUntrusted, WorkspaceNotFound
from perry.workspace.names import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from perry.agent.keeper import Keeper
    from perry.archive.redaction import Redactor
    from perry.client.session_client import SessionClient
    from perry.config import ArchiveConfig
    from perry.workspace.engine import Engine

T = TypeVar("T")

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of glibc's malloc.h


class Daemon:
    """Everything that runs beside the HTTP server; `connect` reaches the engine.

    `directory` is where the daemon of `port` keeps its ledger, `archive` the file of the archive,
    and `config` how much that keeps. Raises LedgerUnwritable.
    """

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        archive: Path,
        config: ArchiveConfig,
        home: Path,
        env: Mapping[str, str],
        connect: Callable[[], Engine],
    ) -> None:
        self._kept_in = directory / f"ledger-{port}.sqlite"
        self.ledger = Ledger(self._kept_in)
        self.mirror = Mirror(self.ledger)
        self.host = Host(home, env, self.mirror)
        self.reconciler = Reconciler(connect, self.mirror)
        self.intake = Intake(
            archive,
            self.mirror,
            self.ledger.journal,
            self.asking,
            config=config,
            redactor=_redactor() if config.redact else None,
        )

    def start(self) -> None:
        """Begin to watch, to listen and to keep."""
        _have_memory_returned()
        self.host.start()
        self.reconciler.start()
        self.intake.start()

    def stop(self) -> None:
        """End; the workers go on."""
        self.intake.stop()
        self.reconciler.stop()
        self.host.stop()
        self.ledger.close()

    def forget(self) -> None:
        """Remove, after `stop`, what was kept for the next daemon on this port: there is none."""
        for file in self._kept_in.parent.glob(f"{self._kept_in.name}*"):
            file.unlink(missing_ok=True)

    def client(self, place: str) -> SessionClient:
        """Return what a place's sessions can be asked through; it is the daemon's to close.

        Raises WorkspaceNotFound, WorkspaceNotRunning and WorkerError.
        """
        return self.host.client() if place == HOST else self._keeper(place).client()

    def asking(self, place: str) -> SessionClient:
        """Return a client of its own for a long question, which the caller closes.

        Raises what `client` raises.
        """
        return self.host.client() if place == HOST else self._keeper(place).asking()

    def ask(self, place: str, question: Callable[[SessionClient], T]) -> T:
        """Answer a question that changes nothing; where the way to the worker is lost, once more.

        Raises what `client` raises, and what the question does.
        """
        try:
            return question(self.client(place))
        except (WorkerUnreachable, WorkerUntrusted):
            with self.asking(place) as client:
                return question(client)

    def refresh(self, place: str) -> None:
        """Have all files of a place looked at again, now. Raises what `client` raises."""
        if place == HOST:
            self.host.client().refresh()
        else:
            self._keeper(place).refresh()

    def _keeper(self, place: str) -> Keeper:
        keeper = self.reconciler.keeper(place)
        if keeper is None:
            raise WorkspaceNotFound(
                f"There is no workspace '{place}'",
                hint=f"perry workspace list shows them; perry workspace init {place} makes it.",
                workspace=place,
            )
        return keeper


def _redactor() -> Redactor:
    from perry.archive.redaction import redactor  # noqa: PLC0415 - a third of a second and 10 MB

    return redactor()


def _have_memory_returned() -> None:
    """Keep what threads need for a moment from making holes in the heap, where glibc knows how.

    By itself it gives threads heaps of their own, and each read of an event, for which httpcore
    asks 64 KB, leaves a hole that something small and lasting ends up in: 20 MB after a while.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library, with ways of its own
        library = ctypes.CDLL(None)
        library.mallopt(M_ARENA_MAX, 1)
        library.mallopt(M_MMAP_THRESHOLD, 64 * 1024)
