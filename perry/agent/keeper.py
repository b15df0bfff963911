"""Keeps one workspace: its worker alive, and its sessions in the mirror.

A thread for each workspace goes round and round: look how the container is, reach its worker,
revive it where it is dead, follow its events until they are lost, and again. Where no worker can be
asked, a snapshot is read instead. What the engine tells of the container (`poke`) wakes it, so
nothing is polled. It must not know how workers are started or reached.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING

import tenacity

from perry.agent.following import follow
from perry.agent.models import Place
from perry.client.local_client import LocalClient
from perry.errors import (
    EngineError,
    PerryError,
    WorkerCannotRun,
    WorkerError,
    WorkerUnreachable,
    WorkspaceNotFound,
    WorkspaceNotRunning,
)
from perry.workspace import revivals
from perry.workspace.snapshot import STOPPED_AGE, Snapshot, Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perry.agent.mirror import Mirror
    from perry.client.session_client import SessionClient
    from perry.client.worker_client import WorkerClient
    from perry.workspace.manager import WorkspaceManager
    from perry.workspace.models import Workspace

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Workers that are started at the same time: more would take longer, each of them."""

NEWS = 0.1
"""Seconds from the loss of the events to the engine's word of why, which is told at once."""

STALE = 5.0
"""Seconds after which what happened to a worker is no reason any more for its being dead."""

GRACE = 0.3
"""Seconds in which whoever started a container starts its worker too, as `perry workspace init`
does; then that one is waited for."""

LAUNCH = 5.0
"""Seconds that a worker is waited for which somebody else has started."""

FIRST_PAUSE = 0.5  # s after the first failure; twice as long after each further one
LONGEST_PAUSE = 60.0  # s
SNAPSHOT_AGE = STOPPED_AGE + 1.0  # s after which a snapshot is looked at again
STOP_PATIENCE = 10.0  # s that the end of the thread is waited for

RETURN = 2.0
"""Seconds that a question waits for a worker that was lost a moment ago."""

ENOUGH = 2
"""Failures in a row from which on a worker that answers, and makes no sense, is replaced."""

STARTED = "the container was started"
FOUND_DEAD = "it was found dead"
USELESS = "what it answered made no sense"


class Keeper:
    """The keeper of the workspace of one name; `starting` lets few workers start at once.

    `found` is told the ids of the execs that are workers, so that their end is noticed; `ended` is
    called when there is no such workspace any more.
    """

    def __init__(
        self,
        name: str,
        manager: WorkspaceManager,
        mirror: Mirror,
        snapshots: Snapshots,
        starting: threading.Semaphore,
        found: Callable[[Iterable[str]], None],
        ended: Callable[[Keeper], None],
    ) -> None:
        self.name = name
        self._manager = manager
        self._mirror = mirror
        self._snapshots = snapshots
        self._starting = starting
        self._found = found
        self._ended = ended
        self._poked = threading.Event()
        self._stopped = threading.Event()
        self._launched = threading.Event()
        self._reason: str | None = None
        self._reason_at = 0.0
        self._failures = 0
        self._lock = threading.Condition()
        self._client: SessionClient | None = None
        self._followed: WorkerClient | None = None
        self._container_id: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"keeper-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it is in the middle of a wait, and dies with the process."""
        self._stopped.set()
        self._poked.set()
        with self._lock:
            self._lock.notify_all()

    def poke(self) -> None:
        """Have it look again now."""
        self._poked.set()

    def started(self) -> None:
        """Take in that the container was started, and has no worker yet."""
        self._launched.clear()
        self._failures = 0
        self._happened(STARTED)

    def died(self, exit_code: int | None) -> None:
        """Take in that a worker's process has ended.

        While workers keep dying before they are healthy, that is no news: what started one sees it.
        """
        self._launched.clear()
        if not self._failures:
            self._happened(f"its process ended with exit code {exit_code}")

    def launched(self) -> None:
        """Take in that somebody has started a worker in the container."""
        self._launched.set()

    def paused(self) -> None:
        """Take in that the container was paused: its worker is there, and can't answer."""
        self._remember("paused", "it is paused")

    def resumed(self) -> None:
        """Take in that the container goes on: the events go on too, unless they were given up."""
        with self._lock:
            is_following = self._client is not None
        if is_following:
            self._mirror.put_place(Place(self.name, "running", "worker"))
        self._happened("the container was unpaused")

    def moved(self) -> None:
        """Take in that the container's addresses have changed: the old one may be somebody else's.

        What is asked there is broken off, and the way to the worker is looked for anew.
        """
        with self._lock:
            if self._followed is not None and self._followed.cut():
                self._client = self._followed = None
                self._poked.set()

    def client(self) -> SessionClient:
        """Return what the place's sessions can be asked through now.

        One that was lost a moment ago is waited for. Raises WorkspaceNotRunning or WorkerError, the
        place's error, where there is nothing.
        """
        with self._lock:
            self._lock.wait_for(self._is_settled, RETURN)
            client = self._client
        place = self._mirror.place(self.name)
        if client is not None and (place is None or place.state != "paused"):
            return client
        if place is not None and place.state != "running":
            raise WorkspaceNotRunning(
                f"The workspace '{self.name}' doesn't run ({place.state})",
                hint=f"Start it: perry workspace start {self.name}",
                workspace=self.name,
            )
        raise WorkerError(
            (place.error if place else None) or f"The worker of '{self.name}' isn't reached yet",
            hint="Try again in a moment.",
            workspace=self.name,
        )

    def refresh(self) -> None:
        """Have all files looked at again, now. Raises what `client` raises."""
        client = self.client()
        if not isinstance(client, LocalClient):
            client.refresh()
            return
        workspace = self._manager.get(self.name)
        place = self._mirror.place(self.name)
        error = None if place is None else place.error
        self._show(workspace, self._snapshots.take(workspace, afresh=True), error)

    def asking(self) -> SessionClient:
        """Return a client of its own for a long question; raises what `client` raises."""
        client = self.client()
        if isinstance(client, LocalClient):
            return client
        return self._manager.reach(self._manager.get(self.name))

    def _is_settled(self) -> bool:
        """Tell whether waiting changes nothing: it is reached, or fails, doesn't run or is gone."""
        place = self._mirror.place(self.name)
        stands = place is not None and place.state != "running"
        fails = self._failures > 0 or self._stopped.is_set()
        return self._client is not None or fails or stands

    def _happened(self, reason: str) -> None:
        self._reason, self._reason_at = reason, time.monotonic()
        self._poked.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._poked.clear()
            try:
                pause = self._turn()
            except WorkspaceNotFound:
                self._mirror.forget(self.name)
                self._forget_copy(None)
                self.stop()
                break
            except PerryError as error:
                if self._stopped.is_set():
                    return
                log.warning("%s: %s", self.name, error)
                pause = self._failed(error)
            except Exception as error:
                # A keeper that has died would leave its workspace without a word.
                log.exception("keeping %s failed", self.name)
                pause = self._failed(PerryError(f"{type(error).__name__}: {error}"))
            self._poked.wait(pause)
        self._ended(self)

    def _turn(self) -> float | None:
        """Do what there is to do; returns the seconds until the next look, None for no time set."""
        workspace = self._manager.get(self.name)
        self._forget_copy(workspace.container_id)
        if workspace.state == "paused":
            self.paused()
            return SNAPSHOT_AGE
        if not workspace.is_running:
            return self._read_snapshot(workspace, None)
        try:
            client = self._reached(workspace)
        except WorkerCannotRun as error:
            self._read_snapshot(workspace, error)
            return self._backed_off()
        try:
            with client:
                with self._lock:
                    self._followed = client
                live = Place(self.name, "running", "worker")
                follow(client, self._mirror, live, begun=lambda: self._begin(client))
        except WorkerError as error:
            log.info("lost the worker of %s: %s", self.name, error.message)
            if self._client is None and self._followed:  # it was reached, and made no sense
                if self._failures >= ENOUGH:
                    self._read_snapshot(workspace, error)
                    return self._backed_off()
                return self._failed(error)
        finally:
            with self._lock:
                self._client = self._followed = None
        self._shown_from_memory("the connection to its worker was lost")
        return NEWS

    def _begin(self, client: WorkerClient) -> None:
        self._failures = 0
        self._launched.clear()
        with self._lock:
            self._client = client
            self._lock.notify_all()

    def _reached(self, workspace: Workspace) -> WorkerClient:
        """Reach the worker; one that is dead is revived, and why is kept."""
        reason = self._reason if time.monotonic() - self._reason_at < STALE else None
        self._reason = None
        if self._failures >= ENOUGH:
            return self._revived(workspace, USELESS)
        if reason is None:
            with contextlib.suppress(WorkerError):  # it is dead, then
                client = self._manager.reach(workspace)
                self._found(self._manager.worker_execs(workspace))
                return client
        if reason in {None, STARTED} and self._launched.wait(GRACE):
            with contextlib.suppress(WorkerError):  # it has died, or hangs
                return self._awaited(workspace)
        return self._revived(workspace, reason or FOUND_DEAD)

    def _awaited(self, workspace: Workspace) -> WorkerClient:
        """Wait for a worker that somebody else has started."""
        reaching = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(WorkerUnreachable),
            stop=tenacity.stop_after_delay(LAUNCH),
            wait=tenacity.wait_fixed(0.05),
            reraise=True,
        )
        return reaching(self._manager.reach, workspace)

    def _revived(self, workspace: Workspace, reason: str) -> WorkerClient:
        if not self._failures:
            self._remember("running", f"its worker is started again: {reason}")
        began = time.monotonic()
        with self._starting:
            client = self._manager.revive(workspace, gently=reason != USELESS)
        revival = revivals.record(workspace.container_id, reason, time.monotonic() - began)
        log.info("started the worker of %s in %.2f s: %s", self.name, revival.seconds, reason)
        return client

    def _read_snapshot(self, workspace: Workspace, error: PerryError | None) -> float:
        snapshot = self._snapshots.take(workspace)
        self._show(workspace, snapshot, None if error is None else error.message)
        return SNAPSHOT_AGE

    def _forget_copy(self, container_id: str | None) -> None:
        """Drop the copy of the container that was this workspace before, if it was another."""
        before, self._container_id = self._container_id, container_id
        if before is not None and before != container_id:
            with contextlib.suppress(EngineError):  # which one it is was never asked: no copies
                self._snapshots.forget(before)

    def _show(self, workspace: Workspace, snapshot: Snapshot, error: str | None) -> None:
        client = LocalClient(snapshot.index, workspace=self.name)
        taken = int(snapshot.taken_at * 1000)
        place = Place(self.name, workspace.state, "snapshot", taken, error)
        with self._lock:
            self._client = client
            self._lock.notify_all()
        self._mirror.replace(place, client.list_sessions(children=True))

    def _remember(self, state: str, error: str) -> None:
        """Say that what is shown is what was read last."""
        before = self._mirror.place(self.name)
        since = int(time.time() * 1000)
        if before is None:
            since = 0
        elif before.as_of is not None:
            since = before.as_of
        self._mirror.put_place(Place(self.name, state, "memory", since, error))

    def _failed(self, error: PerryError) -> float:
        """Say so, and how long to wait."""
        self._shown_from_memory(error.message)
        return self._backed_off()

    def _shown_from_memory(self, error: str) -> None:
        place = self._mirror.place(self.name)
        self._remember("unknown" if place is None else place.state, error)

    def _backed_off(self) -> float:
        """Return how long to wait: longer, the more often it has failed in a row."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**self._failures)
        with self._lock:
            self._failures += 1
            self._lock.notify_all()
        return pause
