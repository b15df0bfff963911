"""OpenCode's JSON layouts: one small file a session, a message and a part.

Version 1.1 keeps them under `storage/`, 0.5 under `project/<slug>/storage/session/`. A session is
one unit, named by its info file, and only the messages whose files changed are read again. This
module must not know the database, or what a message's data mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from perry.sessions.models import Message
from perry.sessions.opencode_parts import (
    Turn,
    created_of,
    info_of,
    messages_of,
    session_of,
    span,
    turn_of,
)
from perry.sessions.records import Undecodable, decode
from perry.sessions.source import Reading, Stale, shown

Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Place:
    """Where the files of one session are, in either layout."""

    info: Path
    messages: Path
    parts: Path

    @classmethod
    def of(cls, info: Path) -> Place:
        """Tell from the info file: it is in `session/info/` in 0.5, `session/<project>/` in 1.1."""
        session, base = info.stem, info.parent.parent
        if info.parent.name == "info":
            return cls(info, base / "message" / session, base / "part" / session)
        return cls(info, base.parent / "message" / session, base.parent / "part")

    def message(self, identifier: str) -> Path:
        """Name the file of a message."""
        return self.messages / f"{identifier}.json"

    def parts_of(self, identifier: str) -> Path:
        """Name the directory with the parts of a message."""
        return self.parts / identifier


class FilesReading(Reading, frozen=True, array_like=True, gc=False):
    """A reading of one session's files; `files` has each message's stamp, turn and losses."""

    files: dict[str, tuple[Stamp, Turn | None, int]] = msgspec.field(default_factory=dict)
    info_stamp: Stamp = ()

    def turns(self) -> list[Turn]:
        """List the messages in their order."""
        known = (turn for _, turn, _ in self.files.values() if turn)
        return sorted(known, key=lambda turn: (turn.created, turn.id))


def read_files(unit: Path, before: Reading | None) -> FilesReading | None:
    """Read the messages of a session whose files changed; None where the session is gone."""
    place = Place.of(unit)
    old = before if isinstance(before, FilesReading) else None
    info_stamp = _stamp([unit])
    if not info_stamp:
        return None
    unreadable: dict[str, str] = {}
    files = {}
    for path in _json_files(place.messages, unreadable):
        parts = _json_files(place.parts_of(path.stem), unreadable)
        stamp = _stamp([path, *parts])
        known = old.files.get(path.stem) if old else None
        same = known is not None and known[0] == stamp
        files[path.stem] = known if known and same else (stamp, *_turn(path, parts, unreadable))
    if old and (old.info_stamp, old.files, old.unreadable) == (info_stamp, files, unreadable):
        return old
    data = _load(unit, unreadable)
    turns = FilesReading(files=files).turns()
    skipped = sum(lost for _, _, lost in files.values()) + (data is None)
    session = session_of(info_of(shown(unit.stem), data or {}), turns, shown(unit), skipped)
    return FilesReading(
        sessions={unit.stem: session},
        skipped_lines=skipped,
        unreadable=unreadable,
        files=files,
        info_stamp=info_stamp,
    )


def files_page(unit: Path, turns: list[Turn], start: int, stop: int) -> list[Message]:
    """Read the messages from `start` up to `stop`. Raises Stale where the files have changed."""
    place = Place.of(unit)
    found: list[Message] = []
    for turn, first in span(turns, start, stop):
        unreadable: dict[str, str] = {}
        data = _load(place.message(turn.id), unreadable)
        parts = _parts(_json_files(place.parts_of(turn.id), unreadable), unreadable)[0]
        made = messages_of(data or {}, parts)
        if len(made) != turn.count:
            raise Stale
        found += made[max(0, start - first) : stop - first]
    return found


def doomed_files(unit: Path) -> list[Path]:
    """Name the files and directories of one session, the info file last."""
    place = Place.of(unit)
    found = [place.parts_of(path.stem) for path in _json_files(place.messages, {})]
    found.append(place.messages)
    if place.parts.name == unit.stem:
        found.append(place.parts)
    return [*(path for path in found if path.is_dir() and not path.is_symlink()), unit]


def _turn(path: Path, parts: list[Path], unreadable: dict[str, str]) -> tuple[Turn | None, int]:
    data = _load(path, unreadable)
    decoded, lost = _parts(parts, unreadable)
    if data is None and not decoded:
        return None, lost + 1
    turn = turn_of(path.stem, created_of(data or {}), data or {}, decoded)
    return turn, lost + (data is None)


def _parts(paths: list[Path], unreadable: dict[str, str]) -> tuple[list[dict[str, Any]], int]:
    loaded = [_load(path, unreadable) for path in paths]
    parts = [part for part in loaded if part is not None]
    return parts, len(loaded) - len(parts)


def _load(path: Path, unreadable: dict[str, str]) -> dict[str, Any] | None:
    try:
        if not path.is_file():
            return None
        return decode(path.read_bytes(), dict)
    except Undecodable:
        return None  # half-written or broken: the caller counts it as skipped
    except OSError as error:
        unreadable[shown(path)] = error.strerror or str(error)
        return None


def _json_files(directory: Path, unreadable: dict[str, str]) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in _entries(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []  # a session without messages, a message without parts
    except OSError as error:
        unreadable[shown(directory)] = error.strerror or str(error)
        return []


def _entries(directory: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as listing:
        yield from (entry for entry in listing if entry.name.endswith(".json"))


def _stamp(paths: list[Path]) -> Stamp:
    found = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue  # gone since it was listed: the missing stamp is the change
        found.append((path.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
