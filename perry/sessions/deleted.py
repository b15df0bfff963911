"""What was deleted, kept for a while so that it can be restored.

One file for each deletion, in a directory of its own beside what is remembered, whole on the disk
before anything goes. Its name says while a deletion or a restoration is going on: one that was
broken off is put back at the next start, as if it had never been deleted. One process at a time
changes anything. This module must not know any format, or what a file of its own looks like inside.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from perry.errors import PerryError, SessionError, SessionNotKept
from perry.sessions.kept import (
    Contents,
    Database,
    KeptFile,
    Label,
    Write,
    write_kept,
    write_settled,
)
from perry.sessions.kept_files import (
    Changed,
    Found,
    copy_files,
    find_files,
    modified_above,
    place_of,
    remove_found,
    remove_paths,
    require_unchanged,
)
from perry.sessions.kept_rows import (
    Damaged,
    changing,
    delete_rows,
    restore_rows,
    tables_of,
    write_rows,
)
from perry.sessions.models import KEPT_FOR, DeletedSession, Session
from perry.sessions.restored_files import Restoration
from perry.sessions.source import Doomed, Source, shown

_NAME = re.compile(r"(\d{1,15})-[0-9a-f]{16}(\.unfinished)?\Z")
_UNFINISHED = ".unfinished"
_PARTIAL = ".part"
_LOCK = "lock"
_ATTEMPTS = 5  # times that a session is kept anew because it changed meanwhile
_PATIENCE = 20.0  # s for another process that deletes or restores
_STEP = 0.02  # s
_FOR_GOOD = "Make room for it there, or delete the session for good, which keeps nothing of it."
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

Open = list[tuple[Database, sqlite3.Connection]]


class Restored(msgspec.Struct, frozen=True):
    """A session that is back: its coding agent, and the units to read again."""

    agent: str
    units: frozenset[str]


class Bin:
    """What was deleted of the sessions that some sources read; one thread at a time may change it.

    `directory` need not exist. What other sources' sessions left there is not shown.
    """

    def __init__(self, directory: Path, sources: Sequence[Source]) -> None:
        self._directory = directory
        self._roots: Mapping[str, Sequence[Path]] = {one.agent: one.roots for one in sources}

    def tidy(self) -> None:
        """Forget what is too old, and put back what was broken off; for the start."""
        if not self._directory.is_dir():
            return
        # Another process is at it, or the disk can't be written: then there is nothing to tidy.
        with contextlib.suppress(OSError, SessionError), self._alone(0.0):
            self._forget_old()
            for path in self._paths():
                if path.name.endswith(_UNFINISHED) and self._label(path) is not None:
                    self._put_back(path)

    def listed(self) -> tuple[DeletedSession, ...]:
        """List what can be restored, what was deleted last first."""
        if any(map(self._is_old, self._paths())):
            # Somebody else who is at it forgets it as well; where it can't be removed it stays.
            with contextlib.suppress(OSError, SessionError), self._alone(0.0):
                self._forget_old()
        return tuple(
            DeletedSession.since(label.deleted_at, label.session, size)
            for _, label, size in self._labels()
        )

    def delete(self, agent: str, session: Session, doomed: Doomed) -> None:
        """Keep what is doomed, and delete it.

        Raises SessionNotKept where it can't be kept, and is left as it is then; SessionError and
        OSError where it can't be deleted, and is put back then as far as that is possible.
        """
        with self._alone(_PATIENCE):
            self._forget_old()
            for _ in range(_ATTEMPTS):
                with contextlib.suppress(Changed):
                    self._delete(agent, session, doomed)
                    return
        raise SessionError(
            f"The files of session {session.id} keep changing", hint="Try again in a moment."
        )

    def restore(self, session_id: str, *, agent: str | None = None) -> Restored | None:
        """Put back what was deleted last under an id; None where nothing is kept.

        Raises SessionInTheWay where something else is there by now, and SessionError; all is left
        as it is then.
        """
        if not self._directory.is_dir():
            return None
        with self._alone(_PATIENCE):
            self._forget_old()
            for path, label, _ in self._labels():
                session = label.session
                if session.id == session_id and agent in (None, session.agent_type):
                    return Restored(session.agent_type, self._restore_whole(path, session_id))
        return None

    def _delete(self, agent: str, session: Session, doomed: Doomed) -> None:
        kept: Path | None = None
        try:
            with contextlib.ExitStack() as stack:
                with _keeping(session.id):
                    found = find_files(doomed.paths, self._roots[agent])
                databases = self._databases(agent, doomed, stack)
                with _keeping(session.id):
                    kept = self._keep(agent, session, doomed, databases, found)
                require_unchanged(found)
                for database, connection in databases:
                    delete_rows(connection, database.tables)
                for _, connection in databases:
                    connection.execute("COMMIT")
                remove_found(found)
        except Changed:  # before anything went
            if kept is not None:
                kept.unlink()
            raise
        except BaseException:
            if kept is not None:
                self._put_back(kept)
            raise
        self._settle(kept, found)

    def _databases(self, agent: str, doomed: Doomed, stack: contextlib.ExitStack) -> Open:
        """Hold the databases with doomed rows until these are kept and deleted."""
        opened = []
        for rows in doomed.rows:
            root, path = place_of(Path(os.path.realpath(rows.database)), self._roots[agent])
            connection = stack.enter_context(changing(rows.database))
            opened.append((Database(root, path, tables_of(connection, rows)), connection))
        return opened

    def _keep(
        self, agent: str, session: Session, doomed: Doomed, databases: Open, found: Sequence[Found]
    ) -> Path:
        """Write what is to go into a file that is whole on the disk. Raises Changed and OSError."""
        now = int(time.time() * 1000)
        label = Label(session, now, tuple(map(os.fsencode, self._roots[agent])))
        contents = Contents(
            tuple(one.item for one in found),
            tuple(database for database, _ in databases),
            tuple(map(os.fsencode, doomed.units)),
        )

        def fill(write: Write) -> None:
            for database, connection in databases:
                for table in database.tables:
                    write_rows(connection, table, write)
            copy_files(found, write)

        name = f"{now}-{secrets.token_hex(8)}"
        partial = self._directory / f"{name}{_PARTIAL}"
        try:
            with open(partial, "xb", opener=_private) as file:
                write_kept(file, label, contents, fill)
                file.flush()
                os.fsync(file.fileno())
            kept = partial.rename(self._directory / f"{name}{_UNFINISHED}")
            self._sync()
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return kept

    def _settle(self, kept: Path, found: Sequence[Found]) -> None:
        """Note that all has gone."""
        with contextlib.suppress(OSError), kept.open("ab") as file:
            # Only for the times of directories, which are not worth a failure.
            write_settled(file, modified_above(found))
        kept.rename(_finished(kept))
        self._sync()

    def _put_back(self, kept: Path) -> None:
        """Undo a deletion that was broken off, or restore to the end; else keep it for later."""
        try:
            self._restore(kept)
        except (OSError, PerryError):
            # Who asked hears of what came first; what is kept can still be restored by hand.
            kept.rename(_finished(kept))
        else:
            kept.unlink()

    def _restore_whole(self, path: Path, session_id: str) -> frozenset[str]:
        finished = _finished(path)
        kept = path.rename(finished.with_name(finished.name + _UNFINISHED))
        try:
            units = self._restore(kept)
        except OSError as error:
            kept.rename(finished)
            raise SessionError(
                f"Session {session_id} could not be restored: {error.strerror or error}",
                hint="It is kept still. See that its place can be written, and try again.",
            ) from error
        except BaseException:
            kept.rename(finished)
            raise
        kept.unlink()
        return units

    def _restore(self, kept: Path) -> frozenset[str]:
        """Put all back, or leave all as it is; gives the units to read again."""
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(KeptFile(kept))
            roots = self._roots[file.label().session.agent_type]
            contents = file.contents()
            numbers = {one.root for one in contents.items} | {d.root for d in contents.databases}
            if not numbers <= {*range(len(roots))}:
                raise Damaged("It belongs to directories that are not there")
            connections = []
            for database in contents.databases:
                at = _database_at(roots[database.root], database.path)
                connections.append(stack.enter_context(changing(at)))
                for table in database.tables:
                    restore_rows(connections[-1], table, file.read)
            restoration = Restoration(roots, contents.items, _finished(kept).name)
            try:
                restoration.stage(file.read)
                settled = file.settled()
                restoration.place()
                for connection in connections:
                    connection.execute("COMMIT")
            except BaseException:
                restoration.leave()
                raise
            restoration.finish(settled)
            restoration.sync()  # before what was kept is forgotten
        return frozenset(os.fsdecode(unit) for unit in contents.units)

    def _labels(self) -> Iterator[tuple[Path, Label, int]]:
        """Read what is kept of these sources' sessions, the last deleted first, with its size."""
        for path in sorted(self._paths(), key=lambda path: path.name, reverse=True):
            label = self._label(path)
            if label is not None and not self._is_old(path):
                yield path, label, path.lstat().st_size

    def _label(self, path: Path) -> Label | None:
        """Read whose it is; None where it is somebody else's, damaged, or gone meanwhile."""
        try:
            with KeptFile(path) as file:
                label = file.label()
        except (OSError, Damaged):
            return None
        roots = self._roots.get(label.session.agent_type)
        return label if roots and label.roots == tuple(map(os.fsencode, roots)) else None

    def _paths(self) -> list[Path]:
        try:
            return [path for path in self._directory.iterdir() if _NAME.match(path.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _forget_old(self) -> None:
        """Remove what is kept for too long, and what writers that were killed have left."""
        for path in filter(self._is_old, self._paths()):
            path.unlink(missing_ok=True)
        for path in self._directory.glob(f"*{_PARTIAL}"):
            path.unlink(missing_ok=True)

    @staticmethod
    def _is_old(path: Path) -> bool:
        return int(path.name.partition("-")[0]) < (time.time() - KEPT_FOR) * 1000

    def _sync(self) -> None:
        handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _alone(self, patience: float) -> Iterator[None]:
        """Keep other processes from changing anything meanwhile.

        Raises SessionNotKept where the directory can't be used, and SessionError after `patience`.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self._directory / _LOCK, _LOCK_FLAGS, 0o600)
        except OSError as error:
            raise SessionNotKept(
                f"Nothing can be kept in {shown(self._directory)}: {error.strerror or error}",
                hint=_FOR_GOOD,
            ) from error
        try:
            _lock(handle, patience)
            yield
        finally:
            os.close(handle)


def delete_for_good(doomed: Doomed) -> None:
    """Delete what is doomed and keep nothing of it. Raises SessionError and OSError."""
    for rows in doomed.rows:
        with changing(rows.database) as connection:
            delete_rows(connection, tables_of(connection, rows))
            connection.execute("COMMIT")
    remove_paths(doomed.paths)


def _lock(handle: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < deadline:
                time.sleep(_STEP)
                continue
            raise SessionError(
                "Another process is deleting or restoring a session", hint="Try again in a moment."
            ) from error
        else:
            return


def _finished(kept: Path) -> Path:
    return kept.with_name(kept.name.removesuffix(_UNFINISHED))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextlib.contextmanager
def _keeping(session_id: str) -> Iterator[None]:
    """Give words to what keeps a session from being kept."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror or error}"
    except SessionNotKept as error:
        reason = error.message
    else:
        return
    raise SessionNotKept(
        f"Session {session_id} is not deleted: it can't be kept for being restored: {reason}",
        hint=_FOR_GOOD,
    )


def _database_at(root: Path, path: bytes) -> Path:
    """Find a database below a root, through no link."""
    base = os.path.realpath(os.fsencode(root))
    place = os.path.join(base, path)  # noqa: PTH118  (bytes)
    inside = os.path.realpath(place) == place and place.startswith(base + b"/")
    if not inside or not os.path.isfile(place):  # noqa: PTH113  (bytes)
        raise SessionError(
            f"There is no database {shown(os.fsdecode(place))} any more",
            hint="Start its coding agent once, which makes it anew.",
        )
    return Path(os.fsdecode(place))
