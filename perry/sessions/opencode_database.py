"""OpenCode's database, read without changing a byte of it.

The database is in WAL mode and may belong to a running client, or to one that is gone and left
everything in the WAL; SQLite's ordinary ways of opening it would create, checkpoint or delete
files beside it. Which columns exist is asked of the schema. This module must not know the JSON
layouts, or what a message's data mean.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from perry.sessions.database import Stamp, columns_of, opened, stamp_of
from perry.sessions.models import Message, Session
from perry.sessions.opencode_parts import Info, Turn, messages_of, session_of, span, turn_of
from perry.sessions.records import Undecodable, decode, epoch, text_or_none, token_count
from perry.sessions.source import Reading, Stale, shown

_SETTLED_NS = 50_000_000  # what changed within this time may change again with the same times
KEYED = (
    ("part", "session_id"),
    ("message", "session_id"),
    ("session_message", "session_id"),
    ("session_input", "session_id"),
    ("session_context_epoch", "session_id"),
    ("todo", "session_id"),
    ("session_share", "session_id"),
    ("event", "aggregate_id"),
    ("event_sequence", "aggregate_id"),
    ("session", "id"),
)
"""The columns that hold a session's id: its rows in all tables, whichever of them there are."""


class DatabaseReading(Reading, frozen=True, array_like=True, gc=False):
    """A reading of one database: each session's packed turns, and a mark that tells its changes."""

    turns: dict[str, bytes] = msgspec.field(default_factory=dict)
    marks: dict[str, bytes] = msgspec.field(default_factory=dict)
    skipped: dict[str, int] = msgspec.field(default_factory=dict)
    stamp: Stamp = ()


def read_database(path: Path, before: Reading | None) -> DatabaseReading | None:
    """Read the sessions whose rows changed since the last reading; None where it is gone."""
    stamp = stamp_of(path)
    if stamp[0] is None:
        return None
    newest = max(status[2] for status in stamp if status)
    settled = abs(time.time_ns() - newest) > _SETTLED_NS
    old = before if isinstance(before, DatabaseReading) else None
    if old and old.stamp == stamp:
        return old
    try:
        with opened(path) as connection:
            return _read(connection, path, old, stamp if settled else ())
    except (sqlite3.Error, OSError) as error:
        failed = DatabaseReading(unreadable={shown(path): str(error)}, stamp=stamp)
        return old if old == failed else failed


def database_page(path: Path, packed: bytes, start: int, stop: int) -> list[Message]:
    """Read the messages from `start` up to `stop`. Raises Stale where the rows have changed."""
    found: list[Message] = []
    try:
        with opened(path) as connection:
            parts = _Table(connection, "part")
            for turn, first in span(_turns_in(packed), start, stop):
                row = connection.execute(
                    "SELECT data FROM message WHERE id = ?", (turn.id,)
                ).fetchone()
                data = _decoded(row[0]) if row else None
                made = messages_of(data or {}, parts.of_message(turn.id)[0])
                if len(made) != turn.count:
                    raise Stale
                found += made[max(0, start - first) : stop - first]
    except (sqlite3.Error, OSError) as error:
        raise Stale from error
    return found


_turns_in = msgspec.msgpack.Decoder(list[Turn]).decode


def _decoded(data: object) -> dict[str, Any] | None:
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    try:
        return decode(raw, dict) if isinstance(raw, bytes) else None
    except Undecodable:
        return None  # the caller counts it as skipped


class _Table:
    """A table whose columns may differ by version: missing ones read as NULL."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._columns = columns_of(connection, name)
        known = [c for c in ("time_created", "id") if c in self._columns]
        self._order = ", ".join(known) or "rowid"

    def rows(self, columns: Iterable[str], where: str = "", value: object = None) -> sqlite3.Cursor:
        """Select columns, in the order of creation, optionally where one column has a value."""
        names = ", ".join(f'"{c}"' if c in self._columns else "NULL" for c in columns)
        sql = f'SELECT {names} FROM "{self._name}"'  # noqa: S608  (names are constants of ours)
        if where:
            return self._connection.execute(
                f'{sql} WHERE "{where}" = ? ORDER BY {self._order}', (value,)
            )
        return self._connection.execute(f"{sql} ORDER BY {self._order}")

    def of_message(self, message: str) -> tuple[list[dict[str, Any]], int]:
        """List the parts of a message, and count those that can't be read."""
        decoded = [_decoded(row[0]) for row in self.rows(["data"], "message_id", message)]
        parts = [part for part in decoded if part is not None]
        return parts, len(decoded) - len(parts)

    def marks(self) -> dict[str, tuple[Any, ...]]:
        """Tell per session how many rows there are and when the last one changed."""
        if "session_id" not in self._columns:
            return {}
        newest = "max(time_updated)" if "time_updated" in self._columns else "max(rowid)"
        sql = f'SELECT session_id, count(*), {newest} FROM "{self._name}" GROUP BY session_id'  # noqa: S608  (ours)
        return {row[0]: row[1:] for row in self._connection.execute(sql)}


_SESSION_COLUMNS = (
    "id",
    "title",
    "directory",
    "parent_id",
    "time_created",
    "time_updated",
    "model",
    "tokens_input",
    "tokens_output",
)


def _read(
    connection: sqlite3.Connection, path: Path, old: DatabaseReading | None, stamp: Stamp
) -> DatabaseReading:
    reading = DatabaseReading(stamp=stamp)
    sessions: dict[str, Session] = {}
    if not columns_of(connection, "session"):
        return reading
    messages, parts = _Table(connection, "message"), _Table(connection, "part")
    message_marks, part_marks = messages.marks(), parts.marks()
    for row in _Table(connection, "session").rows(_SESSION_COLUMNS):
        key = str(row[0])
        mark = msgspec.msgpack.encode((row, message_marks.get(key), part_marks.get(key)))
        reading.marks[key] = mark
        if old and old.marks.get(key) == mark:
            reading.turns[key], reading.skipped[key] = old.turns[key], old.skipped[key]
            sessions[key] = old.sessions[key]
            continue
        turns, skipped = _turns(messages, parts, key)
        reading.turns[key], reading.skipped[key] = msgspec.msgpack.encode(turns), skipped
        sessions[key] = session_of(_info(row), turns, shown(path), skipped)
    if old and not old.unreadable and old.marks == reading.marks:
        return old
    return DatabaseReading(
        sessions=sessions,
        skipped_lines=sum(reading.skipped.values()),
        turns=reading.turns,
        marks=reading.marks,
        skipped=reading.skipped,
        stamp=stamp,
    )


def _turns(messages: _Table, parts: _Table, session: str) -> tuple[list[Turn], int]:
    turns, skipped = [], 0
    rows = messages.rows(["id", "time_created", "data"], "session_id", session).fetchall()
    for identifier, created, raw in rows:
        if not isinstance(identifier, str):
            skipped += 1  # a key that SQLite lets be anything, and that no part can name
            continue
        data = _decoded(raw)
        if data is None:
            skipped += 1
        own, lost = parts.of_message(identifier)
        skipped += lost
        turns.append(turn_of(identifier, epoch(created) or 0, data or {}, own))
    return turns, skipped


def _info(row: tuple[Any, ...]) -> Info:
    identifier, title, directory, parent, created, updated, model, sent, received = row
    named = _decoded(model) if isinstance(model, str) else None
    return Info(
        id=str(identifier),
        title=text_or_none(title),
        directory=text_or_none(directory),
        parent=text_or_none(parent),
        created=epoch(created),
        updated=epoch(updated),
        model=text_or_none(named.get("id")) if named else None,
        tokens=(token_count(sent), token_count(received)) if sent is not None else None,
    )
