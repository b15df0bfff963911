"""The archive's SQLite file: its schema, its connections, and what becomes of a broken one.

One writer and a few readers, in WAL mode, so that reading waits for nobody; any process of the user
may open it, a command beside a daemon. Every commit is on the disk before it counts. This module
must not know what the rows mean, and is the only one that turns SQLite's errors into perry's.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

from perry.errors import ArchiveBroken, ArchiveUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

BUSY = 10.0  # s that another process's change is waited for
CACHE = 4096  # KiB of pages that a connection keeps
MOST_IDLE = 4  # connections that are kept for the next readers

MIGRATIONS: Sequence[str] = (
    """
    CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE session (
        number INTEGER PRIMARY KEY,
        workspace TEXT NOT NULL, agent TEXT NOT NULL, id TEXT NOT NULL,
        directory TEXT NOT NULL, parent TEXT,
        last_activity INTEGER NOT NULL,
        messages INTEGER NOT NULL DEFAULT 0,
        content INTEGER NOT NULL DEFAULT 0,
        deleted_at INTEGER,
        body BLOB,
        shown BLOB NOT NULL,
        UNIQUE (workspace, agent, id)
    );
    CREATE INDEX session_by_age ON session (last_activity);
    CREATE INDEX session_by_parent ON session (workspace, agent, parent) WHERE parent IS NOT NULL;
    CREATE TABLE block (
        number INTEGER PRIMARY KEY,
        session INTEGER NOT NULL, start INTEGER NOT NULL, count INTEGER NOT NULL,
        size INTEGER NOT NULL, body BLOB NOT NULL
    );
    CREATE UNIQUE INDEX block_of_session ON block (session, start);
    CREATE VIRTUAL TABLE word USING fts5 (
        text, mark, content='', tokenize="unicode61 remove_diacritics 2"
    );
    """,
)
"""What leads from each version of the file to the next, the first from an empty one.

`session.body` is the session as JSON once all of its messages are kept, NULL before; `shown` as it
was seen last. `directory` is the one it is found under. A block holds messages `start` to
`start + count` of a session, packed; its title has a block of its own, at -1. `word` indexes them:
the row of a message is SLOTS times its block's number, and its place in the block.
"""

BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


class Database:
    """The file at `path`, made where there is none; may be used from any thread.

    Raises ArchiveBroken where it is no database or a damaged one, ArchiveUnusable where it can't be
    used otherwise: of a newer perry, not writable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.RLock()
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        with self._errors():
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.touch(mode=0o600)
                path.chmod(0o600)
            except OSError as error:
                raise ArchiveUnusable(
                    f"The archive can't be kept at {path}: {error.strerror}",
                    hint="See that the directory can be written.",
                ) from error
            self._inode = path.stat().st_ino
            self._writer = self._connect()
            try:
                self._migrate()
            except BaseException:
                self._writer.close()
                raise

    def close(self) -> None:
        """Close all connections."""
        with self._writing:
            self._writer.close()
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def set_aside(self) -> Path | None:
        """Close the file and rename it, so that a new one can be begun; returns its new name.

        None where another process has done so: what lies there now is not this file.
        """
        self.close()
        return set_aside(self.path, self._inode)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Change something, whole or not at all.

        Raises ArchiveUnusable (a full disk, another process that writes for too long) and
        ArchiveBroken.
        """
        with self._errors(), self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                self._writer.rollback()  # does nothing where SQLite has done it by itself
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read everything as it is at one moment. Raises what `writing` raises."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        with self._errors():
            connection = connection or self._connect()
            try:
                connection.execute("BEGIN")
                yield connection
            except BaseException:
                connection.close()
                raise
            connection.rollback()
        with self._lock:
            keep = len(self._idle) < MOST_IDLE
            if keep:
                self._idle.append(connection)
        if not keep:
            connection.close()

    def give_back(self) -> None:
        """Give the disk what deletions have freed, and fold the log into the file."""
        with self._errors(), self._writing:
            # A script, since of anything else only the first step is taken, which frees one page.
            self._writer.executescript("PRAGMA incremental_vacuum")
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=BUSY, isolation_level=None, check_same_thread=False
        )
        connection.execute(f"PRAGMA cache_size = -{CACHE}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        return connection

    def _migrate(self) -> None:
        [version] = self._writer.execute("PRAGMA user_version").fetchone()
        if version == len(MIGRATIONS):
            return
        if version > len(MIGRATIONS):
            raise ArchiveUnusable(
                f"{self.path} was written by a newer perry",
                hint="Use that perry, or move the file away to begin a new archive.",
            )
        if version == 0:  # both have to be said before there is anything
            self._writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._writer.execute("PRAGMA journal_mode = WAL")
        with self.writing() as connection:
            [version] = connection.execute("PRAGMA user_version").fetchone()  # another may be done
            for migration in MIGRATIONS[version:]:
                for statement in filter(str.strip, migration.split(";\n")):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in BROKEN:
                raise ArchiveBroken(
                    f"The archive {self.path} is damaged: {error}",
                    hint="The agent daemon sets it aside and begins a new one: perry agent serve.",
                ) from error
            hint = (
                "Make room on its disk; it goes on by itself then."
                if code in FULL
                else "See that it can be written, and that no other program holds it; try again."
            )
            raise ArchiveUnusable(
                f"The archive {self.path} can't be used: {error}", hint=hint
            ) from error


def set_aside(path: Path, inode: int | None = None) -> Path | None:
    """Rename a broken file to a name of its own, if it still is the one with this inode."""
    aside = path.with_name(f"{path.name}.broken-{time.time_ns()}")
    if inode is not None and (not path.exists() or path.stat().st_ino != inode):
        return None
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside
