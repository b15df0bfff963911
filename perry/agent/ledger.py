"""The daemon's journal on the disk: what is known of all sessions, and when it last changed.

Ids of events have to mean the same after the daemon was killed and started again, so every change
is written here before anybody is told of it. One SQLite file for each port, in WAL mode: a commit
survives the death of the process without waiting for the disk. A file that can't be used is set
aside and begun anew, with another name for its run: then no old id fits, and streams say `reset`.
This module must not know how changes are noticed.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from perry.agent.models import Place, PlacedSession
from perry.errors import LedgerUnwritable
from perry.sessions.journal import Journal, Key, Last

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

CAPACITY = 100_000
"""Changes that are remembered, deleted sessions among them."""

VERSION = 1

Thing = PlacedSession | Place
"""What changes: a session, under (place, coding agent, id), or a place, under (place,)."""

_SCHEMA = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE last (
    key TEXT PRIMARY KEY, sequence INTEGER NOT NULL, first INTEGER NOT NULL, born INTEGER NOT NULL,
    now BLOB
) WITHOUT ROWID;
"""


class Ledger:
    """The journal of one daemon and the file that keeps it; may be used from any thread.

    Raises LedgerUnwritable where the file is in use or its disk refuses it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._open()
        except sqlite3.OperationalError as error:
            raise LedgerUnwritable(
                f"The agent daemon can't use {path}: {error}",
                hint="See that its disk has room and that no other daemon uses it.",
            ) from error
        except (sqlite3.DatabaseError, msgspec.DecodeError, ValueError) as error:
            log.warning("%s can't be used and is set aside: %s", path, error)
            self._set_aside()
            self._open()

    @property
    def journal(self) -> Journal[Thing]:
        """What changed, for streams."""
        return self._journal

    def things(self) -> list[tuple[Key, Thing]]:
        """Give what was there when the file was opened."""
        return self._things

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _open(self) -> None:
        self._path.touch(mode=0o600)
        self._database = sqlite3.connect(
            self._path, timeout=1.0, isolation_level=None, check_same_thread=False
        )
        try:
            self._read()
        except BaseException:
            self._database.close()
            raise

    def _read(self) -> None:
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        [version] = self._database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with self._transaction():
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {VERSION}")
                begun = [("run", secrets.token_hex(8)), ("forgotten", "0"), ("position", "0")]
                self._database.executemany("INSERT INTO fact VALUES (?, ?)", begun)
        elif version != VERSION:
            raise ValueError(f"it is of version {version}")
        with self._transaction():
            self._trim()
        facts: dict[str, str] = dict(self._database.execute("SELECT name, value FROM fact"))
        known = [*self._rows()]
        self._things = [(key, last.now) for key, last in known if last.now is not None]
        self._journal = Journal(
            CAPACITY,
            run=facts["run"],
            keep=self._keep,
            known=known,
            position=int(facts["position"]),
            forgotten=int(facts["forgotten"]),
        )

    def _rows(self) -> Iterator[tuple[Key, Last[Thing]]]:
        rows = self._database.execute(
            "SELECT key, sequence, first, born, now FROM last ORDER BY sequence"
        )
        for name, sequence, first, born, body in rows:
            key = tuple(msgspec.json.decode(name, type=list[str]))
            yield key, Last(sequence, first, born, None if body is None else _thing(key, body))

    def _keep(self, fresh: Sequence[tuple[Key, Last[Thing]]]) -> None:
        position = fresh[-1][1].sequence
        rows = [
            (
                msgspec.json.encode(key).decode(),
                last.sequence,
                last.first,
                last.born,
                None if last.now is None else msgspec.json.encode(last.now),
            )
            for key, last in fresh
        ]
        insert = "INSERT OR REPLACE INTO last VALUES (?, ?, ?, ?, ?)"
        try:
            with self._lock, self._transaction():
                self._database.executemany(insert, rows)
                self._set("position", position)
        except sqlite3.Error as error:
            raise LedgerUnwritable(
                f"The agent daemon can't write {self._path}: {error}",
                hint="Make room on its disk; it goes on by itself then.",
            ) from error

    def _trim(self) -> None:
        """Forget the oldest deletions, of which there would be more and more."""
        [count] = self._database.execute("SELECT count(*) FROM last WHERE now IS NULL").fetchone()
        if count <= CAPACITY // 2:
            return
        oldest = "SELECT sequence FROM last WHERE now IS NULL ORDER BY sequence LIMIT ?"
        doomed = [row[0] for row in self._database.execute(oldest, (CAPACITY // 4,))]
        self._database.execute("DELETE FROM last WHERE now IS NULL AND sequence <= ?", doomed[-1:])
        self._set("forgotten", doomed[-1])

    def _set(self, name: str, value: int) -> None:
        self._database.execute("UPDATE fact SET value = ? WHERE name = ?", (str(value), name))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _set_aside(self) -> None:
        aside = self._path.with_name(f"{self._path.name}.broken-{int(time.time())}")
        with contextlib.suppress(FileNotFoundError):  # nothing to keep, then
            self._path.rename(aside)
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def _thing(key: Key, body: bytes) -> Thing:
    if len(key) == 1:
        return msgspec.json.decode(body, type=Place)
    return msgspec.json.decode(body, type=PlacedSession)
