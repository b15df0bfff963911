"""Where Gemini CLI keeps its sessions, and how they are read, paged and deleted.

One log (or one document, before 0.61) is one unit and one session; subagents have logs in a folder
named after the session that started them. Files that tell a project's directory are units without
sessions. How a log is replayed stands in `gemini_log.py`, what a record means in
`gemini_content.py`; this module must not know.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import msgspec

from perry.sessions.gemini_content import Record, messages_of
from perry.sessions.gemini_log import BARE, GeminiLog, Turn, View, listed
from perry.sessions.gemini_projects import (
    LIST_FILE,
    ROOT_FILE,
    Projects,
    project_of,
    read_projects,
)
from perry.sessions.jsonl import LogReading, fingerprint, opened, read_log, unreadable
from perry.sessions.models import Message, Session
from perry.sessions.records import Undecodable, decode, title_of
from perry.sessions.source import Entry, Reading, Scan, Stale, distinct, shown
from perry.sessions.tree import directories_in, files_below, placed

_MAIN = ""
_SAFE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)


class GeminiSource:
    """Reads `tmp/<project>/chats/session-*` and the folders of subagents beside them."""

    agent = "gemini"

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        configured = env.get("GEMINI_CLI_HOME")
        base = placed(home, configured) if configured else home
        self._home = base
        self._list = base / ".gemini" / LIST_FILE
        self._tmp = base / ".gemini" / "tmp"

    @property
    def roots(self) -> tuple[Path, ...]:
        """The directory with one directory a project."""
        return (self._tmp,)

    def scan(self) -> Scan:
        """Find every session, and the files that name directories."""
        problems: dict[str, str] = {}
        found = set(self._units_below(directories_in(self._tmp, problems), problems))
        if self._list.is_file():
            found.add(self._list)
        return Scan(frozenset(found), problems)

    def units_of(self, path: Path) -> frozenset[Path]:
        """Name the file itself, or all sessions of a directory."""
        if path == self._list:
            return frozenset({path})
        if self._tmp.is_relative_to(path):
            return self.scan().units
        if not path.is_relative_to(self._tmp):
            return frozenset()
        parts = path.relative_to(self._tmp).parts
        if _is_unit(parts):
            return frozenset({path})
        if len(parts) > 3 or parts[1:2] not in ((), ("chats",)) or not path.is_dir():  # noqa: PLR2004  (project, chats, parent)
            return frozenset()
        below = self._units_below([self._tmp / parts[0]], {})
        return frozenset(unit for unit in below if unit.is_relative_to(path))

    def read(self, unit: Path, before: Reading | None) -> Reading | None:
        """Replay what was added to a log since the last reading, or read a whole document."""
        if unit.name in (ROOT_FILE, LIST_FILE):
            return read_projects(unit, before)
        if unit.suffix == ".json":
            return _read_document(unit, before)
        return read_log(
            unit, before, GeminiLog, lambda log, modified: _sessions(unit, log, modified)
        )

    def resolve(self, readings: Mapping[Path, Reading]) -> Iterable[Entry]:
        """Give sessions the directories of their projects, and every session its own id.

        A document that was carried on as a log stays beside it, and the log has all of it.
        """
        noted = (s.directory for r in readings.values() for s in r.sessions.values())
        projects = Projects(readings, [str(self._home), *noted])
        entries = []
        for unit, reading in readings.items():
            log = _log_of(reading)
            if log is None or _is_carried_on(unit, log, readings):
                continue
            for key, session in reading.sessions.items():
                directory = projects.directory(
                    project_of(unit, self._tmp), log.project, session.directory
                )
                placed_session = msgspec.structs.replace(session, directory=directory)
                entries.append(Entry(placed_session, unit, key))
        return distinct(entries)

    def messages(self, entry: Entry, reading: Reading, start: int, stop: int) -> Sequence[Message]:
        """Read the records that hold these messages; of a document, all of it."""
        log = _log_of(reading)
        if log is None or not isinstance(reading, LogReading):
            raise Stale
        view = log.view
        if view.total != entry.session.message_count:
            raise Stale
        try:
            with opened(entry.unit, reading.identity) as file:
                records = _Records(file, is_document=entry.unit.suffix == ".json")
                return list(_page(records, view, start, stop))
        except OSError as error:
            raise Stale from error

    def delete(self, doomed: Sequence[Entry]) -> frozenset[Path]:
        """Delete sessions with the folders that the client made for them."""
        units = set()
        for entry in doomed:
            for unit in (entry.unit, entry.unit.with_suffix(".json")):
                unit.unlink(missing_ok=True)
                units.add(unit)
            project = self._tmp / entry.unit.relative_to(self._tmp).parts[0]
            for side in _side_files(project, entry.session.id):
                if side.is_dir() and not side.is_symlink():
                    shutil.rmtree(side)
                else:
                    side.unlink(missing_ok=True)
        return frozenset(units)

    def _units_below(self, projects: Iterable[Path], problems: dict[str, str]) -> Iterator[Path]:
        for project in projects:
            if (project / ROOT_FILE).is_file():
                yield project / ROOT_FILE
            for path in files_below(project / "chats", 1, problems):
                if _is_unit(path.relative_to(self._tmp).parts):
                    yield path


def _is_unit(parts: Sequence[str]) -> bool:
    match parts:
        case (_, name) if name == ROOT_FILE:
            return True
        case (_, "chats", name) | (_, "chats", _, name):
            return name.endswith((".json", ".jsonl"))
    return False


def _side_files(project: Path, session: str) -> list[Path]:
    """Name what the client keeps for one session beside its log."""
    if not _SAFE_ID.match(session):
        return []
    return [
        project / "chats" / session,
        project / "tool-outputs" / f"session-{session}",
        project / "logs" / f"session-{session}.jsonl",
        project / session,
    ]


def _log_of(reading: Reading) -> GeminiLog | None:
    visible = reading.visible if isinstance(reading, LogReading) else None
    return visible if isinstance(visible, GeminiLog) else None


def _is_carried_on(unit: Path, log: GeminiLog, readings: Mapping[Path, Reading]) -> bool:
    if unit.suffix != ".json":
        return False
    other = readings.get(unit.with_suffix(".jsonl"))
    follower = _log_of(other) if other else None
    return follower is not None and follower.id == log.id and follower.view.total > 0


def _read_document(unit: Path, before: Reading | None) -> Reading | None:
    """Read a whole document; one that isn't whole counts as one skipped line."""
    try:
        status = unit.stat()
        if not stat.S_ISREG(status.st_mode):
            return unreadable(unit, "not a regular file", before)
        old = before if isinstance(before, LogReading) else None
        if old and old.log and (old.identity, old.stamp) == fingerprint(status):
            return old
        with unit.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return unreadable(unit, "a broken link", before) if unit.is_symlink() else None
    except OSError as error:
        return unreadable(unit, error.strerror or str(error), before)
    log = GeminiLog()
    if data.strip() and not log.take_document(data):
        log.skipped += 1
    identity, stamp = fingerprint(status)
    reading = LogReading(
        skipped_lines=log.skipped, log=log, visible=log, identity=identity, stamp=stamp
    )
    return replace(reading, sessions=_sessions(unit, log, status.st_mtime_ns // 1_000_000))


def _sessions(unit: Path, log: GeminiLog, modified: int) -> dict[str, Session]:
    view = log.settle()
    identifier = log.id or shown(unit.stem)
    prompt = view.prompt()
    parent = shown(unit.parent.name) if unit.parent.name != "chats" else None
    activity = log.times.last_activity
    usage = log.usage.values()
    session = Session(
        id=identifier,
        agent_type="gemini",
        title=title_of(log.summary or prompt or identifier),
        directory=log.directory or "",
        file_path=shown(unit),
        message_count=view.total,
        first_prompt=prompt,
        last_activity=modified if activity is None else activity,
        model=log.model,
        started_at=log.times.started_at,
        parent_id=parent if parent != identifier else None,
        input_tokens=sum(sent for sent, _ in usage) if usage else None,
        output_tokens=sum(received for _, received in usage) if usage else None,
        skipped_lines=log.skipped,
    )
    return {_MAIN: session}


def _page(records: _Records, view: View, start: int, stop: int) -> Iterator[Message]:
    for turn, first, count in view.between(start, stop):
        record = records.of(turn)
        messages = messages_of(record, view.answered) if record else []
        if len(messages) != count:
            raise Stale
        yield from messages[max(0, start - first) : stop - first]


class _Records:
    """Reads records again by their places; the last one is kept, as it may hold many messages."""

    def __init__(self, file: BinaryIO, *, is_document: bool) -> None:
        self._file = file
        self._is_document = is_document
        self._offset: int | None = None
        self._record = Record()
        self._listed: list[object] = []

    def of(self, turn: Turn) -> Record | None:
        """Read a turn's record; None where it is no longer there. Raises Stale."""
        if turn.offset != self._offset:
            self._file.seek(turn.offset)
            data = self._file.read() if self._is_document else self._file.readline()
            try:
                self._record = decode(data, Record)
            except Undecodable as error:
                raise Stale from error
            self._offset = turn.offset
            change = self._record.change
            holder = change if isinstance(change, dict) else {"messages": self._record.messages}
            within = holder.get("messages")
            self._listed = within if isinstance(within, list) else []
        if turn.index == BARE:
            return self._record
        return listed(self._listed[turn.index]) if turn.index < len(self._listed) else None
