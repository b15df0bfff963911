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
from perry.sessions.journal import Change, Journal, Key, weight

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

CAPACITY = 20_000
"""Changes that are remembered: whoever missed more begins anew."""

VERSION = 1

CACHE = 512
"""KiB of the file that SQLite keeps in memory, instead of 2,000: it is written, and read once."""

Thing = PlacedSession | Place
"""What changes: a session, under (place, coding agent, id), or a place, under (place,)."""

_SCHEMA = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE now (key TEXT PRIMARY KEY, thing BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE change (sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL,
    thing BLOB);
"""
"""What there is, and the latest changes that led to it."""


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
        self._database.execute(f"PRAGMA cache_size = {-CACHE}")
        [version] = self._database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with self._transaction():
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {VERSION}")
                begun = [("run", secrets.token_hex(8)), ("position", "0")]
                self._database.executemany("INSERT INTO fact VALUES (?, ?)", begun)
        elif version != VERSION:
            raise ValueError(f"it is of version {version}")
        facts: dict[str, str] = dict(self._database.execute("SELECT name, value FROM fact"))
        rows = self._database.execute("SELECT key, thing FROM now")
        self._things = [(key, _thing(key, body)) for key, body in ((_key(it), b) for it, b in rows)]
        self._journal = Journal(
            CAPACITY,
            weigh=lambda thing: weight(thing) if isinstance(thing, PlacedSession) else 0,
            run=facts["run"],
            keep=self._keep,
            known=self._changes(),
            position=int(facts["position"]),
        )

    def _changes(self) -> Iterator[Change[Thing]]:
        rows = self._database.execute(
            "SELECT sequence, kind, key, thing FROM change ORDER BY sequence"
        )
        for sequence, kind, name, body in rows:
            key = _key(name)
            yield Change(sequence, kind, key, None if body is None else _thing(key, body))

    def _keep(self, fresh: Sequence[Change[Thing]]) -> None:
        rows = [
            (
                change.sequence,
                change.kind,
                msgspec.json.encode(change.key).decode(),
                None if change.now is None else msgspec.json.encode(change.now),
            )
            for change in fresh
        ]
        position = fresh[-1].sequence
        try:
            with self._lock, self._transaction():
                self._database.executemany("INSERT INTO change VALUES (?, ?, ?, ?)", rows)
                self._database.executemany(
                    "INSERT OR REPLACE INTO now VALUES (?, ?)",
                    [(name, body) for _, _, name, body in rows if body is not None],
                )
                self._database.executemany(
                    "DELETE FROM now WHERE key = ?",
                    [(name,) for _, _, name, body in rows if body is None],
                )
                oldest = position - CAPACITY
                self._database.execute("DELETE FROM change WHERE sequence <= ?", (oldest,))
                self._set("position", position)
        except sqlite3.Error as error:
            raise LedgerUnwritable(
                f"The agent daemon can't write {self._path}: {error}",
                hint="Make room on its disk; it goes on by itself then.",
            ) from error

    def _set(self, name: str, value: int) -> None:
        self._database.execute("UPDATE fact SET value = ? WHERE name = ?", (str(value), name))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            self._database.rollback()  # does nothing where SQLite has done it by itself
            raise

    def _set_aside(self) -> None:
        aside = self._path.with_name(f"{self._path.name}.broken-{int(time.time())}")
        with contextlib.suppress(FileNotFoundError):  # nothing to keep, then
            self._path.rename(aside)
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def _key(name: str) -> Key:
    return tuple(msgspec.json.decode(name, type=list[str]))


def _thing(key: Key, body: bytes) -> Thing:
    if len(key) == 1:
        return msgspec.json.decode(body, type=Place)
    return msgspec.json.decode(body, type=PlacedSession)
