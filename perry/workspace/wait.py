"""Waiting until a worker is healthy, with a deadline, and an explanation when it never is.

A wait is an object: it looks again and again, gives up early when the worker's process has ended,
and its failure says what was awaited, for how long, how the container stands and what the worker
logged last. It must not start or stop anything.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from perry.client.worker_client import WorkerClient
from perry.errors import WorkerCannotRun, WorkerError, WorkerFailure
from perry.protocol import Health
from perry.workspace.address import Way
from perry.workspace.engine import Engine
from perry.workspace.objects import Container

TIMEOUT = 20.0
"""Seconds a worker may take from its start until its first scan is whole."""

_INTERVAL = 0.01
_HEAD_START = 0.5
"""Seconds that each way is looked at before the next one is too; what fails there costs more."""
_COST = 3
_LONGEST_PAUSE = 0.5
"""A way is left alone for so many times as long as looking at it took, up to that many seconds, so
that none delays the others, or takes the processor that the worker needs to start."""
_LIVENESS_INTERVAL = 0.25
_GRACE = 1.0
"""Seconds to go on looking once the worker's process has ended: where two perrys start one at once,
the second finds the port taken, and the first one's worker is the one to wait for."""


def wait_for_container(engine: Engine, name: str, timeout: float = 10.0) -> Container | None:
    """Return a container that another process is creating, once it can be inspected.

    Its name is taken from the first moment on. None where it never comes to be.
    """
    looking = Retrying(
        stop=stop_after_delay(timeout),
        wait=wait_fixed(_INTERVAL),
        retry=retry_if_result(lambda found: found is None),
        retry_error_callback=lambda _: None,
    )
    return looking(engine.get_container, name)


def wait_for_first_scan(client: WorkerClient, health: Health, timeout: float = TIMEOUT) -> Health:
    """Return the health of a worker once it knows its sessions; until then it tells nothing else.

    `health` is what it said last. Raises WorkerFailure where that takes too long, and what the
    client raises.
    """
    looking = Retrying(
        stop=stop_after_delay(timeout),
        wait=wait_fixed(_INTERVAL),
        retry=retry_if_result(lambda found: found.status != "ok"),
        retry_error_callback=lambda _: None,
    )
    found = health if health.status == "ok" else looking(client.authenticate)
    if found is not None:
        return found
    raise WorkerFailure(
        f"The worker of '{client.workspace}' is still on its first scan after {timeout:g} s",
        status=503,
        hint="Its sessions are there once that is done; nothing has to be started again.",
        workspace=client.workspace,
    )


@dataclass
class HealthyWorker:
    """Waits for a worker of one digest to answer `ok` to one of the clients.

    `clients` are keyed by the way each one goes, the likeliest first; `exec_id` is the worker's
    own, so that its end is noticed; `explain` finds out, once, why the worker failed.
    """

    engine: Engine
    workspace: str
    container_id: str
    exec_id: str
    digest: str
    clients: Mapping[Way, WorkerClient]
    explain: Callable[[], str]
    timeout: float = TIMEOUT
    _last_seen: str = field(default="nothing answered", init=False)
    _next_look: dict[Way, float] = field(default_factory=dict, init=False)
    _next_liveness: float = field(default=0.0, init=False)
    _give_up: float | None = field(default=None, init=False)

    def wait(self) -> tuple[Way, Health]:
        """Return the way on which the worker is healthy, and its health.

        Raises WorkerCannotRun.
        """
        now = time.monotonic()
        self._next_look = {way: now + _HEAD_START * nth for nth, way in enumerate(self.clients)}
        self._next_liveness = now + _LIVENESS_INTERVAL
        looking = Retrying(
            stop=stop_after_delay(self.timeout),
            wait=wait_fixed(_INTERVAL),
            retry=retry_if_result(lambda found: found is None),
        )
        try:
            found = looking(self._look)
        except RetryError as error:
            raise self._failure(f"was not healthy within {self.timeout:g} s") from error
        if found is None:
            raise self._failure(f"was not healthy within {self.timeout:g} s")
        return found

    def _look(self) -> tuple[Way, Health] | None:
        for way, client in self.clients.items():
            began = time.monotonic()
            if began < self._next_look[way]:
                continue
            try:
                health = client.authenticate()
                if self._is_it(health):
                    return self._better_than(way) or (way, health)
            except WorkerError as error:
                self._last_seen = error.message
            else:
                self._last_seen = f"'{health.status}' of a worker with digest '{health.digest}'"
            now = time.monotonic()
            self._next_look[way] = now + min(_COST * (now - began), _LONGEST_PAUSE)
        if time.monotonic() >= self._next_liveness:
            self._next_liveness = time.monotonic() + _LIVENESS_INTERVAL
            self._check_alive()
        return None

    def _is_it(self, health: Health) -> bool:
        return health.status == "ok" and health.digest == self.digest

    def _better_than(self, way: Way) -> tuple[Way, Health] | None:
        """Look once more at the ways before this one: it may have answered first by its slowness.

        A way that takes long to look at sees a worker that became healthy meanwhile.
        """
        for better in itertools.takewhile(lambda it: it != way, self.clients):
            with contextlib.suppress(WorkerError):  # then it leads nowhere, as before
                health = self.clients[better].authenticate()
                if self._is_it(health):
                    return better, health
        return None

    def _check_alive(self) -> None:
        code = self.engine.exec_exit_code(self.exec_id)
        if code is None:
            return
        if self._give_up is None:
            self._give_up = time.monotonic() + _GRACE
        elif time.monotonic() > self._give_up:
            raise self._failure(f"ended with exit code {code} before it was healthy")

    def _failure(self, what: str) -> WorkerCannotRun:
        container = self.engine.get_container(self.container_id)
        state = container.state if container else "gone"
        why = self.explain() or "it logged nothing"
        return WorkerCannotRun(
            f"The worker of '{self.workspace}' {what} (container: {state}; last: {self._last_seen})"
            f":\n{why}",
            hint=f"See all of it with: perry workspace logs {self.workspace} --worker",
            workspace=self.workspace,
        )
