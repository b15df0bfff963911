"""One look into a container: what its engine hands out is copied where it changed.

The archive API gives whole directories, and always all of them. That is still the quickest way to
find what changed: on one engine 2,000 sessions of 400 MB streamed by in 1.5 s, and asking for the
size and time of each of their files took 2 to 7 ms a file. So what is known is passed over as it
streams by. Only databases are asked for one by one, as theirs must be the files of one moment.

An archive's times are whole seconds: a file that is rewritten with the same size within a second
can't be told from before, so one that changed in the second of the last look, or later, is copied
again. It must not know when it is time to look, or what reads the copy.
"""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from perry.errors import EngineFailure, EngineUnreachable
from perry.workspace.archive import OutOfTime, members, until
from perry.workspace.engine import Engine
from perry.workspace.objects import PathStat
from perry.workspace.replica import Limits, Replica
from perry.workspace.wanted import Wanted

_ATTEMPTS = 3  # times that something is read while it changes
_GOING = ("removing", "dead")
_LOG = "-wal"
_HEAD = 32  # bytes
_BESIDE = ("", _LOG, "-journal")  # not `-shm`: a reader of the copy makes do without

Group = dict[str, PathStat | None]


@dataclass(frozen=True)
class Looked:
    """What a look came to: files and bytes that were copied, and what was left out, with why."""

    copied: int
    received: int
    seconds: float
    problems: Mapping[str, str]


def look(
    engine: Engine,
    container_id: str,
    directory: Path,
    wanted: Wanted,
    limits: Limits,
    *,
    settled: int,
) -> Looked:
    """Bring the copy in `directory` up to what the container has now.

    `settled` is the moment (seconds, the engine's clock) before which a look has seen all changes.
    Raises EngineError, and OSError where the copy can't be written.
    """
    root = directory / "root"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    replica = Replica(
        root, directory / "draft", wanted, limits, settled=(settled - 1) * 1_000_000_000
    )
    looking = _Look(engine, container_id, replica, limits)
    looking.take_all(wanted)
    return Looked(
        replica.copied, replica.received, time.monotonic() - looking.began, replica.problems
    )


class _Look:
    def __init__(self, engine: Engine, container_id: str, replica: Replica, limits: Limits) -> None:
        self.began = time.monotonic()
        self._engine = engine
        self._container = container_id
        self._replica = replica
        self._seconds = limits.seconds
        self._deadline = self.began + limits.seconds
        self._unknown: set[str] = set()

    def take_all(self, wanted: Wanted) -> None:
        """Copy all that is wanted, and drop what is there no more."""
        for tree in wanted.trees:
            self._take(tree, f"{tree.rstrip('/')}/.", tree)
        for path in sorted(wanted.lone):
            self._take(path, path, path.rpartition("/")[0])
        for path in sorted(self._replica.databases | wanted.databases):
            self._take_database(path)
        self._check_remains()
        self._replica.drop_others(self._unknown)

    def _check_remains(self) -> None:
        """Raise EngineFailure where the container is going: its files go first, without a word."""
        container = self._engine.get_container(self._container)
        if container is None or container.state in _GOING:
            raise EngineFailure("The container was removed meanwhile", status=404)

    def _take(self, path: str, asked: str, place: str) -> None:
        """Copy what is wanted at a path; what couldn't be looked at stays as it was."""
        reason = ""
        for attempt in range(_ATTEMPTS):
            try:
                missing = self._copy(asked, place)
            except EngineUnreachable:
                if attempt == _ATTEMPTS - 1 or self._is_late():
                    raise
                continue
            except EngineFailure as failure:
                reason = failure.message
                break
            if missing is None:
                return
            reason = missing
            if self._is_late():
                break
        self._give_up(path, reason)

    def _copy(self, asked: str, place: str) -> str | None:
        """Copy from one archive, and say why that wasn't all of it."""
        with self._engine.open_archive(self._container, asked) as chunks:
            if chunks is None:
                return None
            try:
                self._replica.take(place, members(until(self._deadline, chunks)))
            except OutOfTime:
                return f"looking took more than {self._seconds:g} s"
            except tarfile.TarError as error:
                # A file that shrinks while it is sent spoils the rest of the archive.
                return f"Docker: an archive that ends too early ({error})"
        return None

    def _take_database(self, path: str) -> None:
        """Copy a database and what stands beside it, as they were at one moment."""
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                if self._copy_database(path):
                    return
                reason = "it changes faster than it can be copied"
            except EngineFailure as failure:
                reason = failure.message  # of a file that goes while it is asked for
            if self._is_late():
                break
        self._give_up(path, reason)

    def _copy_database(self, path: str) -> bool:
        """Do what can be done for a database now; tell whether that is all."""
        group = self._stat(path)
        if group[""] is None:
            return True
        if not all(it.is_file for _, it in _there(group)):
            self._replica.leave_out(path, "not a regular file, or beside it is one that isn't")
            return True
        if not all(self._replica.fits(path + suffix, it.size) for suffix, it in _there(group)):
            return True
        if not self._is_known(path, group):
            if not self._fetch_all(path, group):
                return False
            self._install(path, group)
        self._keep(path, group)
        return True

    def _fetch_all(self, path: str, group: Group) -> bool:
        """Copy the files one after another, and tell whether they belong together.

        What is written to a database goes into its log first, and stays there until the log is
        begun anew, with another head. So the database as it was at any time, with the log as it was
        later, is the database as it was then, if the log has the same head before and after.
        """
        head = self._head(path)
        if not all(self._fetch(path + suffix, suffix, it) for suffix, it in _there(group)):
            return False
        if head:
            return head == self._replica.begin_of_draft(_LOG, _HEAD) == self._head(path)
        return self._stat(path) == group

    def _head(self, path: str) -> bytes:
        """Read the head of a database's log; nothing where there is none."""
        with self._engine.open_archive(self._container, path + _LOG) as chunks:
            try:
                for member in members(until(self._deadline, chunks or ())):
                    return b"".join(member.content)[:_HEAD]
            except tarfile.TarError:
                return b""
        return b""

    def _stat(self, path: str) -> Group:
        return {suffix: self._engine.stat(self._container, path + suffix) for suffix in _BESIDE}

    def _is_known(self, path: str, group: Group) -> bool:
        return all(
            self._replica.has(path + suffix, it.size, it.modified)
            if it
            else not self._replica.holds(path + suffix)
            for suffix, it in group.items()
        )

    def _keep(self, path: str, group: Group) -> None:
        for suffix, it in _there(group):
            self._replica.keep(path + suffix, it.size)

    def _fetch(self, path: str, suffix: str, known: PathStat) -> bool:
        """Copy one file to where it is unfinished; tell whether it is whole."""
        with self._engine.open_archive(self._container, path) as chunks:
            try:
                for member in members(until(self._deadline, chunks or ())):
                    if member.kind != "file" or not self._replica.fits(path, member.size):
                        return False
                    self._replica.write_draft(suffix, member.content, known.modified)
                    return True
            except tarfile.TarError:
                return False
        return False

    def _install(self, path: str, group: Group) -> None:
        for suffix, it in group.items():
            if it:
                self._replica.install(path + suffix, suffix, it.size)
            else:
                self._replica.remove(path + suffix)

    def _give_up(self, path: str, reason: str) -> None:
        self._replica.leave_out(path, reason)
        self._unknown.add(path)

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline


def _there(group: Group) -> Iterator[tuple[str, PathStat]]:
    return ((suffix, it) for suffix, it in group.items() if it)
