"""Where Gemini CLI keeps its sessions, and how they are read, paged and deleted.

One log (or one document, before 0.61) is one unit and one session; subagents have logs in a folder
named after the session that started them. Files that tell a project's directory are units without
sessions. How a log is replayed stands in `gemini_log.py`, what a record means in
`gemini_content.py`; this module must not know.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from perry.sessions.gemini_content import Record, messages_of
from perry.sessions.gemini_log import BARE, GeminiLog, Turn, View, listed
from perry.sessions.gemini_projects import (
    LIST_FILE,
    ROOT_FILE,
    Projects,
    ProjectsReading,
    project_of,
    read_projects,
)
from perry.sessions.jsonl import LogReading, Notes, fingerprint, opened, read_log, unreadable
from perry.sessions.models import Message, Session
from perry.sessions.packed import pack, unpack
from perry.sessions.records import Undecodable, decode, title_of
from perry.sessions.source import (
    Doomed,
    Entry,
    Files,
    Reading,
    Scan,
    Stale,
    Unit,
    entries_of,
    shown,
)
from perry.sessions.tree import directories_in, files_below, placed

_MAIN = ""
_PROJECT_FILES = (f"/{ROOT_FILE}", f"/{LIST_FILE}")
_SAFE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)


class GeminiSource:
    """Reads `tmp/<project>/chats/session-*` and the folders of subagents beside them."""

    agent = "gemini"
    remembered = (Reading, LogReading, ProjectsReading)

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        configured = env.get("GEMINI_CLI_HOME")
        base = placed(home, configured) if configured else home
        self._known = (str(base), env.get("HOME") or str(home))
        self._list = base / ".gemini" / LIST_FILE
        self._tmp = base / ".gemini" / "tmp"
        self._inside = f"{self._tmp}/"
        self._noted: dict[Unit, str] = {}
        self._projects = Projects({}, self._known)
        self._last = (b"", View())

    @property
    def roots(self) -> tuple[Path, ...]:
        """The directory with one directory a project."""
        return (self._tmp,)

    @property
    def files(self) -> tuple[Files, ...]:
        """The sessions, and the files that name directories."""
        return (
            Files(self._tmp, ("*.json", "*.jsonl", ROOT_FILE)),
            Files(self._list.parent, (LIST_FILE,), below=False),
        )

    def scan(self) -> Scan:
        """Find every session, and the files that name directories."""
        problems: dict[str, str] = {}
        found = {str(u) for u in self._units_below(directories_in(self._tmp, problems), problems)}
        if self._list.is_file():
            found.add(str(self._list))
        return Scan(frozenset(found), problems)

    def units_of(self, path: str) -> frozenset[Unit]:
        """Name the file itself, or all sessions of a directory."""
        if self._inside.startswith(f"{path}/"):
            return self.scan().units
        if not path.startswith(self._inside):
            return frozenset({path}) if path == str(self._list) else frozenset()
        parts = path[len(self._inside) :].split("/")
        if _is_unit(parts):
            return frozenset({path})
        if len(parts) > 3 or parts[1:2] not in ([], ["chats"]) or not os.path.isdir(path):  # noqa: PLR2004, PTH112  (project, chats, parent; a string)
            return frozenset()
        below = map(str, self._units_below([self._tmp / parts[0]], {}))
        return frozenset(unit for unit in below if unit.startswith(f"{path}/"))

    def read(self, unit: Unit, before: Reading | None) -> Reading | None:
        """Replay what was added to a log since the last reading, or read a whole document."""
        if unit.endswith(_PROJECT_FILES):
            return read_projects(unit, before)
        if unit.endswith(".json"):
            return _read_document(unit, before)
        return read_log(unit, before, lambda _: GeminiLog(), _described)

    def resolve(
        self, readings: Mapping[Unit, Reading], changed: Collection[Unit]
    ) -> Mapping[Unit, Sequence[Entry]]:
        """Give sessions the directories of their projects.

        A document that was carried on as a log stays beside it, and the log has all of it.
        """
        if True in {self._tells_of_projects(unit, readings.get(unit)) for unit in changed}:
            self._projects = Projects(readings, [*self._known, *self._noted.values()])
            changed = readings.keys() | changed
        documents = {unit[:-1] for unit in changed if unit.endswith(".jsonl")}
        found: dict[Unit, list[Entry]] = {}
        for unit, entries in entries_of(readings, {*changed, *documents}).items():
            notes = _notes_of(readings.get(unit))
            carried_on = _is_carried_on(unit, notes, readings)
            found[unit] = [] if carried_on else [self._placed(e, notes) for e in entries]
        return found

    def messages(self, entry: Entry, reading: Reading, start: int, stop: int) -> Sequence[Message]:
        """Read the records that hold these messages; of a document, all of it."""
        if not isinstance(reading, LogReading):
            raise Stale
        view = self._view(reading)
        if view.total != entry.session.message_count:
            raise Stale
        try:
            with opened(entry.unit, reading.identity) as file:
                records = _Records(file, is_document=entry.unit.endswith(".json"))
                return list(_page(records, view, start, stop))
        except OSError as error:
            raise Stale from error

    def doomed(self, entries: Sequence[Entry]) -> Doomed:
        """Name sessions and the folders that the client made for them."""
        paths: list[Path] = []
        units: set[Unit] = set()
        for entry in reversed(entries):
            log = Path(entry.unit)
            both = (log.with_suffix(".json"), log)
            units.update(map(str, both))
            project = self._tmp / log.relative_to(self._tmp).parts[0]
            paths += [*_side_files(project, entry.session.id), *both]
        return Doomed(tuple(paths), frozenset(units))

    def _view(self, reading: LogReading) -> View:
        """Replay a log for its pages; the last one is kept, as who reads one page reads more."""
        state, view = self._last
        if state is not reading.visible:
            state, view = reading.visible, unpack(reading.visible, GeminiLog).view()
            self._last = state, view
        return view

    def _tells_of_projects(self, unit: Unit, reading: Reading | None) -> bool:
        """Tell whether a changed unit may change the directory of any session."""
        before = self._noted.pop(unit, "")
        noted = "".join(s.directory for s in reading.sessions.values()) if reading else ""
        if noted:
            self._noted[unit] = noted
        return noted != before or unit.endswith(_PROJECT_FILES)

    def _placed(self, entry: Entry, notes: Mapping[str, str]) -> Entry:
        project = project_of(Path(entry.unit), self._tmp)
        known = entry.session.directory
        directory = self._projects.directory(project, notes.get("project"), known)
        if directory == known:
            return entry
        session = msgspec.structs.replace(entry.session, directory=directory)
        return Entry(session, entry.unit, entry.key)

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


def _notes_of(reading: Reading | None) -> dict[str, str]:
    return dict(reading.notes) if isinstance(reading, LogReading) else {}


def _is_carried_on(unit: Unit, notes: Mapping[str, str], readings: Mapping[Unit, Reading]) -> bool:
    if not unit.endswith(".json"):
        return False
    log = readings.get(f"{unit}l")
    if log is None or _notes_of(log).get("id") != notes.get("id"):
        return False
    return any(session.message_count for session in log.sessions.values())


def _read_document(unit: Unit, before: Reading | None) -> Reading | None:
    """Read a whole document; one that isn't whole counts as one skipped line."""
    path = Path(unit)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return unreadable(unit, "not a regular file", before)
        old = before if isinstance(before, LogReading) else None
        if old and old.log and old.stamp == fingerprint(status):
            return old
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return unreadable(unit, "a broken link", before) if path.is_symlink() else None
    except OSError as error:
        return unreadable(unit, error.strerror or str(error), before)
    log = GeminiLog()
    if data.strip() and not log.take_document(data):
        log.skipped += 1
    sessions, notes = _described(unit, log, status.st_mtime_ns // 1_000_000)
    return LogReading(
        sessions=sessions,
        notes=notes,
        skipped_lines=log.skipped,
        log=pack(log),
        stamp=fingerprint(status),
    )


def _described(unit: Unit, log: GeminiLog, modified: int) -> tuple[dict[str, Session], Notes]:
    view = log.view()
    path = Path(unit)
    identifier = log.id or shown(path.stem)
    prompt = view.prompt()
    parent = shown(path.parent.name) if path.parent.name != "chats" else None
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
    return {_MAIN: session}, (("id", log.id or ""), ("project", log.project or ""))


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
