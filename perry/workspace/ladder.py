"""The ladder: which way leads to a container's worker from here.

Each rung is tried until a worker proves itself on one; who answers and doesn't is somebody else,
who has the container's address here, and gets nothing. A rung that worked is kept for this start of
this container and its addresses alone, and only says where to begin: every connection is proved
anyway. It must not start or stop anything.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from perry.client.transport import StreamTransport, over_tcp
from perry.client.worker_client import WorkerClient
from perry.errors import WorkerError, WorkerUnreachable, WorkerUntrusted
from perry.protocol import Health
from perry.workspace import cache
from perry.workspace.address import Way, ways
from perry.workspace.engine import Engine
from perry.workspace.exec_stream import opener
from perry.workspace.models import Rung, Worker
from perry.workspace.objects import Container

SILENCE = 2.0
"""Seconds a worker may be silent before it counts as dead."""

SILENCE_OF_STREAM = 5.0
"""The same for a stream, which the engine has to start a program for."""

CONNECT_TIMEOUT = 0.5
"""Seconds for a connection to an address that is on this machine, or else leads nowhere."""

SLOW = 0.1
"""Seconds of failing from which on it is worth remembering what worked instead."""

PREFERRED_FOR = 3600.0
"""Seconds that counts; then the better ways are tried first again."""


@dataclass(frozen=True)
class Reached:
    """A worker that has proved itself, and how it was."""

    way: Way
    client: WorkerClient
    health: Health

    @property
    def worker(self) -> Worker:
        """What there is to say of it."""
        health, way = self.health, self.way
        return Worker(
            way.address, way.rung, health.version, health.digest, health.session_count or 0
        )


class Ladder:
    """The ways to the workers of one engine's workspaces; may be used from several threads.

    `token` makes the token of a container's worker, and `forget_key` has it made of the key that
    the engine holds by now.
    """

    def __init__(
        self, engine: Engine, token: Callable[[str], str], forget_key: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._token = token
        self._forget_key = forget_key
        self._kept: dict[str, tuple[str, tuple[str, ...], Way]] = {}

    def reach(self, container: Container, workspace: str) -> Reached:
        """Find where the worker of a workspace's container answers and proves itself.

        Where all that answered failed the proof, the key may be another by now. Raises
        WorkerUnreachable, which says of every way why not.
        """
        reached, failures = self._climb(container, workspace)
        if any(isinstance(error, WorkerUntrusted) for error in failures) and reached is None:
            self._forget_key()
            reached, failures = self._climb(container, workspace)
        if reached is not None:
            return reached
        raise WorkerUnreachable(
            f"The worker of '{workspace}' can't be reached: "
            + (" ".join(error.message for error in failures) or f"it is {container.state}."),
            hint=f"perry workspace sync {workspace} starts it again.",
            workspace=workspace,
        )

    def clients(self, container: Container, workspace: str) -> dict[Way, WorkerClient]:
        """Return a client for every way to the container's worker, the likeliest first."""
        return {way: self._client(container, workspace, way) for way in self._in_order(container)}

    def keep(self, container: Container, way: Way) -> None:
        """Begin there the next time, as long as the container runs on at the same addresses."""
        self._kept[container.id] = (container.started_at, container.addresses, way)

    def _climb(
        self, container: Container, workspace: str
    ) -> tuple[Reached | None, list[WorkerError]]:
        failures: dict[Way, WorkerError] = {}
        began = time.monotonic()
        for way in self._in_order(container):
            spent = time.monotonic() - began
            try:
                reached = self._tried(container, workspace, way)
            except WorkerError as error:
                failures[way] = error
                self._kept.pop(container.id, None)
            else:
                reached = self._come_up(container, workspace, failures, reached)
                if reached.way == way and spent > SLOW:
                    self._prefer(way.rung)
                self.keep(container, reached.way)
                return reached, [*failures.values()]
        return None, [*failures.values()]

    def _tried(self, container: Container, workspace: str, way: Way) -> Reached:
        client = self._client(container, workspace, way)
        try:
            return Reached(way, client, client.authenticate())
        except WorkerError:
            client.close()
            raise

    def _come_up(
        self,
        container: Container,
        workspace: str,
        failures: Mapping[Way, WorkerError],
        reached: Reached,
    ) -> Reached:
        """Look once more at better ways where nobody answered: the worker may be up only now.

        A stream takes a while to be opened, and then finds one that wasn't there before.
        """
        for way, failure in failures.items():
            if isinstance(failure, WorkerUntrusted):
                continue
            with contextlib.suppress(WorkerError):  # it leads nowhere, as before
                found = self._tried(container, workspace, way)
                reached.client.close()
                return found
        return reached

    def _in_order(self, container: Container) -> list[Way]:
        kept = self._kept.get(container.id)
        preferred = self._preferred()
        return sorted(
            ways(container),
            key=lambda way: (
                (container.started_at, container.addresses, way) != kept,
                way.rung != preferred,
            ),
        )

    def _preferred(self) -> Rung | None:
        """Return the kind of way that worked last on this engine, where better ones cost time."""
        rung, _, since = (cache.read("rungs", self._engine.id) or b"").partition(b" ")
        is_fresh = since.isdigit() and 0 <= time.time() - int(since) < PREFERRED_FOR
        found: dict[bytes, Rung] = {b"published": "published", b"exec": "exec"}
        return found.get(rung) if is_fresh else None

    def _prefer(self, rung: Rung) -> None:
        cache.write("rungs", self._engine.id, f"{rung} {int(time.time())}".encode())

    def _client(self, container: Container, workspace: str, way: Way) -> WorkerClient:
        open_stream = opener(self._engine, container.id)
        is_stream = way.rung == "exec"
        return WorkerClient(
            f"http://{way.address}",
            self._token(container.id),
            workspace=workspace,
            transport=(lambda: StreamTransport(open_stream)) if is_stream else over_tcp,
            timeout=SILENCE_OF_STREAM if is_stream else SILENCE,
            connect_timeout=CONNECT_TIMEOUT,
        )
