"""The sessions of a container in which no worker can be asked, read through Docker's archive API.

A copy of what the readers read is kept in perry's own cache directory, one for each container, and
the same `perry/sessions` code reads it: slower than a worker, never blind. Each process has its own
index, and all of them share the copies; whoever finds one too old looks again, for all. A snapshot
is only ever read. It must not know how a look is done, or who asks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from perry.errors import SessionError, SessionNotFound, SnapshotFailed, WorkspaceNotFound
from perry.sessions.index import SessionIndex
from perry.sessions.memory import Memory
from perry.sessions.models import DeletedSession
from perry.workspace import cache
from perry.workspace.account import find_home
from perry.workspace.engine import Engine
from perry.workspace.look import look
from perry.workspace.models import Workspace
from perry.workspace.objects import Container
from perry.workspace.replica import Limits
from perry.workspace.wanted import Wanted, readers

RUNNING_AGE = 2.0
"""Seconds after a look before another one is worth it, where programs may write."""

STOPPED_AGE = 60.0
"""The same where none run: only another container with the same volume could have written."""

_GRACE = 10.0  # seconds that another process's look may take beyond its own deadline


@dataclass(frozen=True)
class Snapshot:
    """A container's sessions as they were found at a moment.

    `taken_at` is when the look began, in seconds since the epoch by this machine's clock. `copied`
    and `received` are the files and bytes that this look had to copy, 0 where none was due.
    `problems` maps what was left out to the reasons, a hundred at most.
    """

    index: SessionIndex
    taken_at: float
    problems: Mapping[str, str]
    copied: int = 0
    received: int = 0

    @property
    def age(self) -> float:
        """How many seconds ago it was taken."""
        return max(0.0, time.time() - self.taken_at)


class SnapshotIndex(SessionIndex):
    """An index of files that are only a copy of a workspace's."""

    workspace = ""
    is_running = False

    def delete(self, session_id: str, *, agent: str | None = None, for_good: bool = False) -> None:
        """Refuse: raises SessionError, or SessionNotFound where there is nothing to delete."""
        del for_good
        self.get(session_id, agent=agent)
        raise self._refusal(
            f"Session {session_id} of '{self.workspace}' is read from a snapshot and can't be "
            "deleted there",
            "delete it",
        )

    def deleted(self) -> tuple[DeletedSession, ...]:
        """Refuse: raises SessionError."""
        raise self._refusal(
            f"What was deleted in '{self.workspace}' is not in the snapshot that it is read from",
            "tell",
        )

    def restore(self, session_id: str, *, agent: str | None = None) -> None:
        """Refuse: raises SessionError, unless the session is there."""
        try:
            self.get(session_id, agent=agent)
        except SessionNotFound as error:
            raise self._refusal(
                f"'{self.workspace}' is read from a snapshot, and nothing can be restored there",
                "restore it",
            ) from error

    def _refusal(self, message: str, what: str) -> SessionError:
        start = f"Start the workspace, so that its worker can {what}: perry workspace start"
        sync = f"Only a worker can {what}; why none can run there says: perry workspace sync"
        return SessionError(
            message,
            hint=f"{sync if self.is_running else start} {self.workspace}",
            workspace=self.workspace,
        )


class Snapshots:
    """The snapshots of one engine's containers; every method may be called from any thread.

    They are kept in `directory`, which must be this engine's alone, else in perry's cache, in a
    directory for each container's id. What takes them waits for the engine: seconds, at worst the
    limit's.
    """

    def __init__(
        self, engine: Engine, directory: Path | None = None, *, limits: Limits | None = None
    ) -> None:
        self._engine = engine
        self._chosen = None if directory is None else directory.resolve()
        self._limits = limits or Limits()
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()

    def take(self, workspace: Workspace, *, afresh: bool = False) -> Snapshot:
        """Return the workspace's sessions, after a look where something may have changed.

        `afresh` looks in any case. Raises WorkspaceNotFound, SnapshotFailed and EngineError.
        """
        container = self._engine.get_container(workspace.container_id)
        if container is None:
            self.forget(workspace.container_id)
            raise WorkspaceNotFound(
                f"The container of '{workspace.name}' was removed meanwhile",
                hint=f"perry workspace init {workspace.name} makes it anew.",
                workspace=workspace.name,
            )
        try:
            return self._hold(container).take(container, workspace, afresh=afresh)
        except OSError as error:
            raise SnapshotFailed(
                f"The sessions of '{workspace.name}' can't be copied to {self._directory}: {error}",
                hint="Make room there, or let XDG_CACHE_HOME name a directory that can be written.",
                workspace=workspace.name,
            ) from error

    def forget(self, container_id: str) -> None:
        """Remove what is kept of a container."""
        with self._lock:
            self._held.pop(container_id, None)
        shutil.rmtree(self._directory / container_id, ignore_errors=True)

    def forget_gone(self) -> None:
        """Remove what is kept of containers that are gone."""
        with contextlib.suppress(FileNotFoundError):
            for kept in list(self._directory.iterdir()):
                if self._engine.get_container(kept.name) is None:
                    self.forget(kept.name)

    @property
    def _directory(self) -> Path:
        return self._chosen or cache.directory("snapshots", self._engine.id)

    def _hold(self, container: Container) -> _Held:
        with self._lock:
            held = self._held.get(container.id)
        if held is not None:
            return held
        directory = self._directory / container.id
        if not directory.exists():
            self.forget_gone()
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        home = find_home(self._engine, container)
        made = _Held(self._engine, directory, home, _environment(container), self._limits)
        with self._lock:
            return self._held.setdefault(container.id, made)


class _Record(msgspec.Struct):
    """What the last look left: when and at what it looked, and what it left out.

    `began` is by the engine's clock; `number` tells one look from the next.
    """

    number: str
    key: list[str]
    wanted: str
    taken_at: float
    ended_at: float
    began: int
    problems: dict[str, str]


class _Held:
    """One container's copy, and this process's index of it."""

    def __init__(
        self,
        engine: Engine,
        directory: Path,
        home: str,
        environment: Mapping[str, str],
        limits: Limits,
    ) -> None:
        root = directory / "root"
        sources, self._outside = readers(root, home, environment)
        self._engine = engine
        self._directory = directory
        self._limits = limits
        self._wanted = Wanted(root, sources)
        self._index = SnapshotIndex(sources, Memory(directory / "readings"), root=str(root))
        self._shown: str | None = None
        self._lock = threading.Lock()

    def take(self, container: Container, workspace: Workspace, *, afresh: bool) -> Snapshot:
        with self._lock, self._alone(workspace):
            self._index.workspace = workspace.name
            self._index.is_running = container.is_running
            record, copied, received = self._read_record(), 0, 0
            if record is None or afresh or self._is_old(record, container):
                record, copied, received = self._look(container, record)
            if self._shown != record.number:
                self._index.refresh()
                self._index.save()
                self._shown = record.number
        problems = {**self._outside, **record.problems}
        return Snapshot(self._index, record.taken_at, problems, copied, received)

    def _look(self, container: Container, last: _Record | None) -> tuple[_Record, int, int]:
        taken_at, began = time.time(), self._engine.now()
        found = look(
            self._engine,
            container.id,
            self._directory,
            self._wanted,
            self._limits,
            settled=last.began if last else 0,
        )
        record = _Record(
            secrets.token_hex(8), _key(container), self._wanted.fingerprint,
            taken_at, time.time(), began, dict(found.problems),
        )  # fmt: skip
        self._write_record(record)
        return record, found.copied, found.received

    def _is_old(self, record: _Record, container: Container) -> bool:
        if (record.key, record.wanted) != (_key(container), self._wanted.fingerprint):
            return True
        writes = container.state in ("running", "paused", "restarting")
        age = time.time() - record.ended_at
        return not 0 <= age <= (RUNNING_AGE if writes else STOPPED_AGE)

    def _read_record(self) -> _Record | None:
        try:
            return msgspec.json.decode((self._directory / "look.json").read_bytes(), type=_Record)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None  # never looked at, or by another version: it is looked at again

    def _write_record(self, record: _Record) -> None:
        draft = self._directory / "look.draft"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with open(os.open(draft, flags, 0o600), "wb") as file:  # noqa: PTH123  (of a handle)
            file.write(msgspec.json.encode(record))
        draft.replace(self._directory / "look.json")

    @contextlib.contextmanager
    def _alone(self, workspace: Workspace) -> Iterator[None]:
        """Keep other processes from this copy. Raises SnapshotFailed where one doesn't let go."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            seconds = self._limits.seconds + _GRACE
            locking = Retrying(
                stop=stop_after_delay(seconds),
                wait=wait_fixed(0.02),
                retry=retry_if_result(lambda is_locked: not is_locked),
            )
            try:
                locking(_lock, handle)
            except RetryError as error:
                raise SnapshotFailed(
                    f"Another perry has been copying the sessions of '{workspace.name}' for more "
                    f"than {seconds:g} s",
                    hint=f"End it, or remove {self._directory}.",
                    workspace=workspace.name,
                ) from error
            yield
        finally:
            os.close(handle)


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _key(container: Container) -> list[str]:
    """Tell one span of a container's life from the next."""
    state = container.raw["State"]
    return [container.state, container.started_at, state.get("FinishedAt") or ""]


def _environment(container: Container) -> dict[str, str]:
    return dict(item.partition("=")[::2] for item in container.raw["Config"].get("Env") or ())
