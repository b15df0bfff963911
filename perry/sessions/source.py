"""What the index asks of each coding agent's reader, and the words both sides use.

A reader splits what its coding agent leaves on disk into units (one log file, one database, one
session made of many small files): the smallest thing that is read again when a file changes. The
index keeps one `Reading` a unit and hands it back at the next read, so a reader can go on where it
stopped. This module must not know any format, and readers must not know the index.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from perry.sessions.models import Message, Session

Unit = str
"""A unit's path, as a string: thousands are looked up at every sweep, too many for a Path."""


class Stale(Exception):
    """What is on disk no longer fits the reading: read the unit again, from the start."""


class Reading(msgspec.Struct, frozen=True, tag=True, kw_only=True, array_like=True, gc=False):
    """What one unit held when it was read.

    `sessions` has each session of the unit under a key that is stable within the unit; readers
    add what they need to go on from here. `unreadable` maps a path to the reason. A reading is
    kept on disk as it stands, so it holds nothing but data.
    """

    sessions: dict[str, Session] = {}
    skipped_lines: int = 0
    unreadable: dict[str, str] = {}

    @property
    def fingerprint(self) -> bytes:
        """That of the unit's file, where nothing is read again while it is the same."""
        return b""


class Scan(msgspec.Struct, frozen=True):
    """The units that were found, and the directories that could not be looked into."""

    units: frozenset[Unit]
    unreadable: Mapping[str, str] = {}


class Files(msgspec.Struct, frozen=True):
    """Files that a reader reads: those in a directory whose names fit one of the patterns.

    Patterns are those of `fnmatch`. `below` adds the directories below it; `databases` says that
    they are SQLite's, each with a log beside it that must be of the same moment.
    """

    directory: Path
    names: tuple[str, ...]
    below: bool = True
    databases: bool = False


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One session as the index shows it, and where it was read: its unit and the key in it."""

    session: Session
    unit: Unit
    key: str


class Rows(msgspec.Struct, frozen=True):
    """The rows of sessions in one SQLite database: in each (table, column), where it is an id."""

    database: Path
    tables: tuple[tuple[str, str], ...]
    ids: tuple[str, ...]


class Doomed(msgspec.Struct, frozen=True):
    """What goes when sessions are deleted.

    `paths` are files, and directories with all that they hold, in the order in which they go; some
    may not exist. `rows` go before them. `units` are to be read again.
    """

    paths: tuple[Path, ...]
    units: frozenset[Unit]
    rows: tuple[Rows, ...] = ()


class Source(Protocol):
    """The reader of one coding agent's sessions."""

    @property
    def agent(self) -> str:
        """The coding agent's id, as in `Session.agent_type`."""

    @property
    def roots(self) -> tuple[Path, ...]:
        """Directories to watch; they may not exist yet."""

    @property
    def files(self) -> tuple[Files, ...]:
        """All that is ever read, for copying that and nothing else: secrets lie beside it."""

    def scan(self) -> Scan:
        """Find every unit there is."""

    def units_of(self, path: str) -> frozenset[Unit]:
        """Name the units that a changed path belongs to, or that a changed directory holds.

        The path may be gone by now. Paths outside the roots belong to no unit.
        """

    def read(self, unit: Unit, before: Reading | None) -> Reading | None:
        """Read a unit, going on from an earlier reading of it.

        Returns `before` itself where nothing changed, and None where the unit is gone.
        """

    @property
    def remembered(self) -> tuple[type[Reading], ...]:
        """The kinds of readings that `read` gives."""

    def resolve(
        self, readings: Mapping[Unit, Reading], changed: Collection[Unit]
    ) -> Mapping[Unit, Sequence[Entry]]:
        """Settle what only all units together can tell, after some of them changed or went.

        Gives the sessions of each unit for which they may have changed: none for one that went.
        Two sessions may have the same id. One thread at a time calls this, and each change once.
        """

    def messages(self, entry: Entry, reading: Reading, start: int, stop: int) -> Sequence[Message]:
        """Read the messages from `start` up to `stop`, counted from the oldest.

        Raises Stale where the files have changed since the reading.
        """

    def doomed(self, entries: Sequence[Entry]) -> Doomed:
        """Tell what goes with a session (the first entry) and its descendants (the others).

        Raises SessionNotFound where it can't be deleted alone.
        """


def entries_of(readings: Mapping[Unit, Reading], units: Iterable[Unit]) -> dict[Unit, list[Entry]]:
    """List the sessions of units as they were read."""
    found: dict[Unit, list[Entry]] = {}
    for unit in units:
        reading = readings.get(unit)
        sessions = reading.sessions if reading is not None else {}
        found[unit] = [Entry(session, unit, key) for key, session in sessions.items()]
    return found


def distinct(entries: Iterable[Entry], root: str = "") -> list[Entry]:
    """Give every entry an id of its own.

    The same id can stand in two places (a copied project folder; two halves of one subagent).
    The one with most messages keeps it, and the others get a suffix made from their place, which
    is the same wherever the `root` of the file system that they were written in lies.
    """
    ordered = sorted(
        entries, key=lambda entry: (-entry.session.message_count, entry.unit, entry.key)
    )
    taken: set[str] = set()
    result = []
    for entry in ordered:
        unique = entry
        if entry.session.id in taken:
            unique = _renamed(entry, root)
        taken.add(unique.session.id)
        result.append(unique)
    return result


def _renamed(entry: Entry, root: str) -> Entry:
    unit = entry.unit.removeprefix(root)
    place = f"{unit}\0{entry.key}".encode("utf-8", "surrogateescape")
    suffix = hashlib.sha256(place).hexdigest()[:8]
    session = msgspec.structs.replace(entry.session, id=f"{entry.session.id}~{suffix}")
    return Entry(session, entry.unit, entry.key)


def shown(path: Path | str) -> str:
    """Spell a path so that it can be sent as JSON, whatever bytes its name holds."""
    text = str(path)
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
