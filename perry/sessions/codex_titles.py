"""The names that users gave to Codex sessions, which stand apart from the logs.

Newer clients keep them in a database, others in a log to which each new name is appended. Both
belong to the client and are only read. This module must not know the logs of the sessions.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from perry.sessions.database import Stamp, columns_of, opened, stamp_of
from perry.sessions.records import Undecodable, decode, text_or_none
from perry.sessions.source import Reading, shown

NAMES_LOG = "session_index.jsonl"

_DATABASE = re.compile(r"state_(\d+)\.sqlite\Z")
_SETTLED_NS = 50_000_000  # what changed within this time may change again with the same times


class TitlesReading(Reading, frozen=True, array_like=True, gc=False):
    """The names in one file, by session id."""

    titles: dict[str, str] = msgspec.field(default_factory=dict)
    stamp: Stamp = ()


class _Named(msgspec.Struct):
    id: Any = None
    thread_name: Any = None


def database_of(path: str) -> str:
    """Name the database that a file would stand beside; any other path stays as it is."""
    return re.sub(r"-(wal|journal|shm)\Z", "", path)


def is_database(name: str) -> bool:
    """Tell whether a file of this name is a database with names."""
    return _DATABASE.match(name) is not None


def read_titles(unit: Path, before: Reading | None) -> Reading | None:
    """Read the names in a database or in the log of names; None where it is gone."""
    stamp = stamp_of(unit)
    if stamp[0] is None:
        return None
    old = before if isinstance(before, TitlesReading) else None
    if old and old.stamp == stamp:
        return old
    newest = max(status[2] for status in stamp if status)
    kept = stamp if abs(time.time_ns() - newest) > _SETTLED_NS else ()
    try:
        if unit.name == NAMES_LOG:
            titles, skipped = _logged(unit)
        else:
            titles, skipped = _stored(unit), 0
    except (sqlite3.Error, OSError) as error:
        failed = TitlesReading(unreadable={shown(unit): str(error)}, stamp=kept)
        return old if old == failed else failed
    reading = TitlesReading(titles=titles, skipped_lines=skipped, stamp=kept)
    return old if old and old.titles == titles and old.skipped_lines == skipped else reading


def titles_of(readings: Mapping[str, Reading]) -> dict[str, str]:
    """Settle each session's name: the newest database first, then older ones, then the log."""
    found = [(unit, r) for unit, r in readings.items() if isinstance(r, TitlesReading)]
    titles: dict[str, str] = {}
    for _, reading in sorted(found, key=lambda pair: _age(Path(pair[0]))):
        titles.update(reading.titles)
    return titles


def _age(unit: Path) -> int:
    number = _DATABASE.match(unit.name)
    return int(number.group(1)) if number else -1


def _stored(unit: Path) -> dict[str, str]:
    with opened(unit) as connection:
        if not {"id", "name"} <= columns_of(connection, "threads"):
            return {}
        rows = connection.execute("SELECT id, name FROM threads WHERE name IS NOT NULL").fetchall()
    return {str(key): title for key, name in rows if (title := text_or_none(name))}


def _logged(unit: Path) -> tuple[dict[str, str], int]:
    titles: dict[str, str] = {}
    skipped = 0
    with unit.open("rb") as file:
        for line in file:
            try:
                named = decode(line, _Named)
            except Undecodable:
                # Half a last line is still being written.
                skipped += bool(line.strip()) and line.endswith(b"\n")
                continue
            title = text_or_none(named.thread_name)
            if isinstance(named.id, str) and title:
                titles[named.id] = title
    return titles, skipped
