"""Where OpenCode keeps its sessions: a database since 1.2, JSON files before, often both.

Some versions import the JSON files and leave them in place, others start an empty database beside
them, so both are read and the database wins for each id. A database is one unit, and a session in
JSON files is one. How either is read stands in `opencode_database.py` and `opencode_files.py`;
this module must not know.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from perry.sessions.models import Message
from perry.sessions.opencode_database import (
    KEYED,
    DatabaseReading,
    database_page,
    read_database,
)
from perry.sessions.opencode_files import (
    FilesReading,
    doomed_files,
    files_page,
    read_files,
)
from perry.sessions.source import (
    Doomed,
    Entry,
    Files,
    Reading,
    Rows,
    Scan,
    Stale,
    Unit,
    entries_of,
    shown,
)

_IN_MEMORY = ":memory:"


class OpenCodeSource:
    """Reads OpenCode's databases and its JSON layouts."""

    agent = "opencode"
    remembered = (Reading, DatabaseReading, FilesReading)

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        configured = env.get("XDG_DATA_HOME")
        base = home / configured if configured else home / ".local" / "share"
        self._data = base / "opencode"
        self._inside = f"{self._data}/"
        named = env.get("OPENCODE_DB")
        self._stored: frozenset[str] = frozenset()
        self._named = self._data / named if named and named != _IN_MEMORY else None

    @property
    def roots(self) -> tuple[Path, ...]:
        """The data directory, and the directory of a database that lies elsewhere."""
        if self._named is None or self._named.is_relative_to(self._data):
            return (self._data,)
        return (self._data, self._named.parent)

    @property
    def files(self) -> tuple[Files, ...]:
        """Both JSON layouts, the databases, and a database that lies elsewhere."""
        found = [Files(self._data / place, ("*.json",)) for place in ("storage", "project")]
        databases = [(self._data, name) for name in ("opencode.db", "opencode-*.db")]
        if self._named is not None:
            databases.append((self._named.parent, glob.escape(self._named.name)))
        found += [Files(place, (n,), below=False, databases=True) for place, n in databases]
        return tuple(found)

    def scan(self) -> Scan:
        """Find the databases and the info file of every session."""
        unreadable: dict[str, str] = {}
        units = set(self._databases(unreadable))
        for directory in self._session_directories(unreadable):
            units.update(_infos(directory, unreadable))
        return Scan(frozenset(map(str, units)), unreadable)

    def units_of(self, path: str) -> frozenset[Unit]:
        """Name the database or the session that a file belongs to; everything for a directory."""
        database = path.removesuffix("-wal").removesuffix("-journal")
        if self._is_database(database):
            return frozenset({database})
        if not path.startswith(self._inside):
            return self.scan().units if self._inside.startswith(f"{path}/") else frozenset()
        parts = path[len(self._inside) :].split("/")
        for depth in (1, 4):  # storage/<kind>/…, project/<slug>/storage/session/<kind>/…
            if len(parts) > depth + 1 and parts[depth - 1] in ("storage", "session"):
                base = self._data.joinpath(*parts[:depth])
                owners = _owners(base, parts[depth], Path(parts[depth + 1]).stem, Path(path))
                return frozenset(map(str, owners))
        return self.scan().units if parts[0] in ("storage", "project") else frozenset()

    def read(self, unit: Unit, before: Reading | None) -> Reading | None:
        """Read what changed in a database, or in the files of a session."""
        path = Path(unit)
        return read_database(path, before) if self._is_database(path) else read_files(path, before)

    def resolve(
        self, readings: Mapping[Unit, Reading], changed: Collection[Unit]
    ) -> Mapping[Unit, Sequence[Entry]]:
        """Drop the JSON copies of sessions that a database has."""
        if any(self._is_database(unit) for unit in changed):
            stored = (r.sessions for unit, r in readings.items() if self._is_database(unit))
            before, self._stored = self._stored, frozenset(key for keys in stored for key in keys)
            if before != self._stored:
                changed = readings.keys() | changed
        found = entries_of(readings, changed)
        for unit, entries in found.items():
            if not self._is_database(unit):
                found[unit] = [e for e in entries if e.session.id not in self._stored]
        return found

    def messages(self, entry: Entry, reading: Reading, start: int, stop: int) -> Sequence[Message]:
        """Read the stored messages that hold these messages, and no others."""
        if isinstance(reading, DatabaseReading):
            return database_page(Path(entry.unit), reading.turns[entry.key], start, stop)
        if isinstance(reading, FilesReading):
            return files_page(Path(entry.unit), reading.turns(), start, stop)
        raise Stale

    def doomed(self, entries: Sequence[Entry]) -> Doomed:
        """Name sessions in the database and their JSON copies, or they would come back."""
        keys = {entry.key for entry in entries}
        units = {entry.unit for entry in entries}
        units |= {unit for unit in self.scan().units if Path(unit).stem in keys}
        paths: list[Path] = []
        rows: list[Rows] = []
        for unit in sorted(units):
            if self._is_database(unit):
                ids = tuple(entry.key for entry in entries if entry.unit == unit)
                rows.append(Rows(Path(unit), KEYED, ids))
            else:
                paths += doomed_files(Path(unit))
        return Doomed(tuple(paths), frozenset(units), tuple(rows))

    def _is_database(self, unit: Unit | Path) -> bool:
        path = str(unit)
        if self._named is not None and path == str(self._named):
            return True
        name = path.removeprefix(self._inside)
        named = name == "opencode.db" or (name.startswith("opencode-") and name.endswith(".db"))
        return named and name != path and "/" not in name

    def _databases(self, unreadable: dict[str, str]) -> Iterator[Path]:
        if self._named is not None and self._named.is_file():
            yield self._named
        for path in _listing(self._data, unreadable):
            if self._is_database(path) and path != self._named:
                yield path

    def _session_directories(self, unreadable: dict[str, str]) -> Iterator[Path]:
        yield from _listing(self._data / "storage" / "session", unreadable)
        for project in _listing(self._data / "project", unreadable):
            yield project / "storage" / "session" / "info"


def _infos(directory: Path, unreadable: dict[str, str]) -> list[Path]:
    return [path for path in _listing(directory, unreadable) if path.suffix == ".json"]


def _owners(base: Path, kind: str, name: str, path: Path) -> Iterator[Path]:
    """Name the info files of the sessions that a path below `session`, `message`… belongs to."""
    old = base.name == "session"
    if kind in ("session", "info"):
        yield from [path] if path.suffix == ".json" else _infos(path, {})
        return
    if kind not in ("message", "part"):
        return
    if kind == "part" and not old:
        holders = (d for d in _listing(base / "message", {}) if (d / f"{name}.json").exists())
        names = [holder.name for holder in holders]
    else:
        names = [name]
    places = [base / "info"] if old else _listing(base / "session", {})
    for place in places:
        yield from (p for s in names if (p := place / f"{s}.json").exists())


def _listing(directory: Path, unreadable: dict[str, str]) -> list[Path]:
    try:
        return [directory / name for name in os.listdir(directory)]  # noqa: PTH208  (says errors at once)
    except (FileNotFoundError, NotADirectoryError):
        return []  # this layout was never used here
    except OSError as error:
        unreadable[shown(directory)] = error.strerror or str(error)
        return []
