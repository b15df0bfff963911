"""How the archive is kept from growing without an end: by age, by size, and after deletions.

Sessions are removed one by one, so that nothing waits for long. What was removed stays removed:
sessions as old are not taken in again. This module must not know what the bounds are.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from perry.archive.shelf import Shelf

if TYPE_CHECKING:
    import sqlite3

    from perry.archive.database import Database

MERGED = 2000  # pages of the index of words that are put together at a time


def remove(connection: sqlite3.Connection, number: int) -> None:
    """Remove one session with all that it is found by."""
    shelf = Shelf.numbered(connection, number)
    if shelf is None:
        return  # another process was quicker
    shelf.cut_from(0)
    shelf.drop_title()
    connection.execute("DELETE FROM session WHERE number = ?", (number,))


def purge(database: Database, before: int) -> int:
    """Remove what was deleted before a moment (ms since the epoch); returns how many sessions."""
    with database.reading() as connection:
        query = "SELECT number FROM session WHERE deleted_at < ?"
        numbers = [number for [number] in connection.execute(query, (before,))]
    for number in numbers:
        with database.writing() as connection:
            remove(connection, number)
    if numbers:
        put_together(database)
    return len(numbers)


def prune(database: Database, *, oldest: int | None, largest: int | None) -> int:
    """Remove the oldest sessions until the bounds hold; returns how many.

    `oldest` is in ms since the epoch, `largest` in bytes.
    """
    removed = 0
    if oldest is not None:
        query = "SELECT number, last_activity FROM session WHERE last_activity < ?"
        removed += _remove_all(database, query, oldest)
    while largest is not None and (size := _size(database)) > largest:
        share = 1 - largest / size
        gone = _remove_all(database, _OLDEST, share)
        if not gone:
            break
        removed += gone
    return removed


_OLDEST = """
    SELECT number, last_activity FROM (
        SELECT number, last_activity, content, sum(content) OVER (ORDER BY last_activity) AS older
        FROM session
    ) WHERE older - content < ? * (SELECT sum(content) FROM session) ORDER BY last_activity
"""
"""The oldest sessions that have such a share of all that is kept."""


def _remove_all(database: Database, query: str, bound: float) -> int:
    with database.reading() as connection:
        doomed = connection.execute(query, (bound,)).fetchall()
    still = "SELECT 1 FROM session WHERE number = ? AND last_activity = ?"
    for number, last_activity in doomed:
        with database.writing() as connection:
            if not connection.execute(still, (number, last_activity)).fetchone():
                continue  # it was removed, or said something, meanwhile
            remove(connection, number)
            floor = min(last_activity, int(time.time() * 1000)) + 1  # a clock may be ahead
            connection.execute(
                "INSERT INTO fact VALUES ('floor', ?1) ON CONFLICT (name) DO UPDATE"
                " SET value = max(CAST(value AS INTEGER), ?1)",
                (floor,),
            )
    if doomed:
        put_together(database)
    return len(doomed)


def _size(database: Database) -> int:
    """Return the bytes that are used of the file."""
    with database.reading() as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    return int((pages - free) * size)


def put_together(database: Database) -> None:
    """Have the index of words forget for good what was removed, and give the disk what is free.

    Step by step, so that nobody who writes waits for long.
    """
    pages = -MERGED  # a negative number begins to put all of it together
    while True:
        with database.writing() as connection:
            before = connection.total_changes
            connection.execute("INSERT INTO word (word, rank) VALUES ('merge', ?)", (pages,))
            if connection.total_changes - before < 2:  # noqa: PLR2004 - as FTS5 says it: all is done
                break
        pages = MERGED
    database.give_back()
