"""Rows of other programs' SQLite databases: taken out to be kept, and put back as they were.

A row is put back with the types of its values and its place in the table; nothing that is there is
written over. Which rows are a session's is the reader's to know, and where they are kept this
module must not know either.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from perry.errors import SessionError, SessionInTheWay
from perry.sessions.database import BUSY_SECONDS, columns_of, uri_of
from perry.sessions.source import Rows, shown

_NOT_TEXT = 1  # the code of text that isn't UTF-8, which SQLite takes as it comes
_LENGTH = 4  # bytes before each row; a length of 0 ends a table

Read = Callable[[int], bytes]
Write = Callable[[bytes], object]


class Damaged(SessionError):
    """What was kept is not what was written."""


class Table(msgspec.Struct, frozen=True, array_like=True):
    """Where kept rows of one table belong: which columns they have, the first being its rowid."""

    name: str
    key: str
    ids: tuple[str, ...]
    columns: tuple[str, ...]
    has_rowid: bool


@contextlib.contextmanager
def changing(database: Path) -> Iterator[sqlite3.Connection]:
    """Hold a database for a change, which is taken back unless it is committed.

    Raises SessionError where it can't be changed.
    """
    try:
        with contextlib.closing(_connected(database)) as connection:
            try:
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise SessionError(
            f"{shown(database)} could not be changed: {error}",
            hint="Close the client that uses it, or free the disk, and try again.",
        ) from error


def tables_of(connection: sqlite3.Connection, rows: Rows) -> tuple[Table, ...]:
    """Tell which of the tables there are, and their columns."""
    found = []
    for name, key in rows.tables:
        columns = columns_of(connection, name)
        if key in columns:
            has_rowid = _has_rowid(connection, name)
            found.append(Table(name, key, rows.ids, tuple(sorted(columns)), has_rowid))
    return tuple(found)


def write_rows(connection: sqlite3.Connection, table: Table, write: Write) -> None:
    """Write all rows of a table that are to be kept."""
    for row in _selected(connection, table):
        data = msgspec.msgpack.encode(row)
        write(len(data).to_bytes(_LENGTH, "big") + data)
    write(bytes(_LENGTH))


def delete_rows(connection: sqlite3.Connection, tables: Iterable[Table]) -> None:
    """Delete the rows of tables; for good once that is committed."""
    for table in tables:
        for one in table.ids:
            connection.execute(
                f"DELETE FROM {_quoted(table.name)} WHERE {_quoted(table.key)} = ?",  # noqa: S608  (quoted)
                (one,),
            )


def restore_rows(connection: sqlite3.Connection, table: Table, read: Read) -> None:
    """Insert the kept rows of a table, unless just these are there.

    Raises SessionInTheWay where others are, Damaged where they are not what was written, and
    SessionError where they don't fit the table.
    """
    present = columns_of(connection, table.name)
    is_there = any(True for _ in _selected(connection, table, present))
    for row in read_rows(read, len(_columns(table))):
        named = dict(zip(_columns(table), row, strict=True))
        lost = [c for c in table.columns if c not in present and named.pop(c) is not None]
        if lost:
            raise SessionError(
                f"The table {table.name} has no column {lost[0]} any more",
                hint="Its coding agent was changed since; an older version of it could take it.",
            )
        if is_there:
            _require(connection, table, named)
        else:
            _insert(connection, table, named)


def read_rows(read: Read, width: int) -> Iterator[list[Any]]:
    """Give the kept rows of a table, each of so many values. Raises Damaged."""
    while length := int.from_bytes(read(_LENGTH), "big"):
        try:
            row = msgspec.msgpack.decode(read(length), type=list[Any])
        except msgspec.DecodeError as error:
            raise Damaged(f"A row of what was kept can't be read: {error}") from error
        if len(row) != width or not all(map(_is_value, row)):
            raise Damaged("A row of what was kept doesn't fit its table")
        yield row


def _is_value(value: object) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or isinstance(value, float | str | bytes | msgspec.msgpack.Ext)


def _connected(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{uri_of(database)}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )
    connection.text_factory = _text
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _text(data: bytes) -> str | msgspec.msgpack.Ext:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return msgspec.msgpack.Ext(_NOT_TEXT, data)


def _has_rowid(connection: sqlite3.Connection, name: str) -> bool:
    try:
        connection.execute(f"SELECT rowid FROM {_quoted(name)} LIMIT 0")  # noqa: S608  (quoted)
    except sqlite3.OperationalError:
        return False  # it was made WITHOUT ROWID, or is a view
    return True


def _columns(table: Table) -> tuple[str, ...]:
    return ("rowid", *table.columns) if table.has_rowid else table.columns


def _selected(
    connection: sqlite3.Connection, table: Table, present: set[str] | None = None
) -> Iterator[Sequence[Any]]:
    if present is not None and table.key not in present:
        raise SessionError(
            f"There is no table {table.name} any more, or it is another one",
            hint="Its coding agent was changed since; an older version of it could take it.",
        )
    columns = [c for c in _columns(table) if present is None or c in present or c == "rowid"]
    names = ", ".join(map(_quoted, columns))
    order = " ORDER BY rowid" if table.has_rowid else ""
    sql = f"SELECT {names} FROM {_quoted(table.name)} WHERE {_quoted(table.key)} = ?{order}"  # noqa: S608  (quoted)
    for one in table.ids:
        yield from connection.execute(sql, (one,))


def _insert(connection: sqlite3.Connection, table: Table, named: dict[str, Any]) -> None:
    rowid = named.get("rowid")
    if table.has_rowid and _is_taken(connection, table, rowid):
        del named["rowid"]  # somebody else's row has that place by now; its columns tell them apart
    names = ", ".join(map(_quoted, named))
    places = ", ".join(_place(value) for value in named.values())
    try:
        connection.execute(
            f"INSERT INTO {_quoted(table.name)} ({names}) VALUES ({places})",  # noqa: S608  (quoted)
            [_bound(value) for value in named.values()],
        )
    except sqlite3.IntegrityError as error:
        raise SessionInTheWay(
            f"What was deleted can't go back into the table {table.name}: {error}",
            hint="Nothing was restored: what is there now is in its way.",
        ) from error


def _is_taken(connection: sqlite3.Connection, table: Table, rowid: object) -> bool:
    sql = f"SELECT 1 FROM {_quoted(table.name)} WHERE rowid = ?"  # noqa: S608  (quoted)
    return connection.execute(sql, (rowid,)).fetchone() is not None


def _require(connection: sqlite3.Connection, table: Table, named: dict[str, Any]) -> None:
    """See that a row is there as it was kept, wherever in the table."""
    fits = [f"{_quoted(name)} IS {_place(value)}" for name, value in named.items()]
    values = [_bound(value) for name, value in named.items()]
    if table.has_rowid:
        del fits[0], values[0]
    sql = f"SELECT 1 FROM {_quoted(table.name)} WHERE {' AND '.join(fits)}"  # noqa: S608  (quoted)
    if connection.execute(sql, values).fetchone() is None:
        raise SessionInTheWay(
            f"The table {table.name} has other rows of the session than those that were deleted",
            hint="Nothing was restored. Delete what is there now, or keep it.",
        )


def _place(value: object) -> str:
    return "CAST(? AS TEXT)" if isinstance(value, msgspec.msgpack.Ext) else "?"


def _bound(value: object) -> Any:  # noqa: ANN401  (whatever SQLite holds)
    return bytes(value.data) if isinstance(value, msgspec.msgpack.Ext) else value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
