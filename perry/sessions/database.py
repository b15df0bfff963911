"""Other programs' SQLite databases, read without changing a byte of them.

They are in WAL mode and may belong to a running client, or to one that is gone and left everything
in the WAL; SQLite's ordinary ways of opening one would create, checkpoint or delete files beside
it. This module must not know what any table holds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

BUSY_SECONDS = 5.0
_COPIES = 3  # times that a copy is tried while its files keep changing

Stamp = tuple[tuple[int, int, int] | None, ...]


def stamp_of(path: Path) -> Stamp:
    """Tell the database's and its WAL's identity, size and time of change; None where missing."""
    return tuple(_stat(file) for file in (path, _beside(path, "-wal"), _beside(path, "-journal")))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for reading, leaving it and everything beside it as they are.

    Raises sqlite3.Error or OSError where it can't be read.
    """
    with contextlib.ExitStack() as stack:
        yield _connection(path, stack)


def _connection(path: Path, stack: contextlib.ExitStack) -> sqlite3.Connection:
    wal, memory = _beside(path, "-wal"), _beside(path, "-shm")
    journal = _stat(_beside(path, "-journal"))
    if memory.exists() and wal.exists():
        # Without readonly_shm even a reader writes its marks into the file.
        with contextlib.suppress(sqlite3.OperationalError):  # no usable marks: copy, below
            return _connected(f"{uri_of(path)}?mode=ro&readonly_shm=1", stack)
    elif not (_stat(wal) or (0, 0, 0))[1] and not (journal and journal[1]):
        return _connected(f"{uri_of(path)}?mode=ro&immutable=1", stack)
    return _connected(uri_of(_copied(path, stack)), stack)


def _connected(uri: str, stack: contextlib.ExitStack) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    stack.callback(connection.close)
    return connection


def _copied(path: Path, stack: contextlib.ExitStack) -> Path:
    """Copy a database with its WAL into a directory that goes away with the stack."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perry-")))
    copy = directory / "copy.db"
    for _ in range(_COPIES):
        before = stamp_of(path)
        for suffix in ("", "-wal", "-journal"):
            target = _beside(copy, suffix)
            target.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):  # not every database has them all
                shutil.copyfile(_beside(path, suffix), target)
        if stamp_of(path) == before:
            break
    return copy


def uri_of(path: Path) -> str:
    """Spell a path as SQLite's URIs have it, whatever its name holds."""
    return f"file:{quote(os.fsencode(path.absolute()))}"


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # missing, or as good as missing: opening it will tell
    return status.st_ino, status.st_size, status.st_mtime_ns


def columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    """Ask the schema which columns a table has; none where there is no such table."""
    return {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')}
