"""Where Claude Code keeps its sessions, and how they are read, paged and deleted.

One log file is one unit. What a record means stands in `claude_content.py`, what a log amounts
to in `claude_log.py`; this module must not know either.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from perry.errors import SessionNotFound
from perry.sessions.claude_log import MAIN, Log, Places, Thread
from perry.sessions.claude_page import messages_in
from perry.sessions.claude_summaries import Summaries, notes_of
from perry.sessions.jsonl import LogReading, Notes, read_log, read_page
from perry.sessions.models import Message, Session
from perry.sessions.packed import unpack
from perry.sessions.records import Undecodable, title_of
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
from perry.sessions.tree import is_directory

_FILE_NAME = re.compile(r"tool-results[/\\]+([A-Za-z0-9_-][A-Za-z0-9_.-]*\.txt)")
_SESSION = 2  # levels below the projects: the side files of a session
_SAFE_ID = re.compile(r"[A-Za-z0-9_-]+\Z")


class ClaudeSource:
    """Reads `projects/<directory>/<uuid>.jsonl` and the subagents beside them."""

    agent = "claude"
    remembered = (Reading, LogReading)

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        configured = env.get("CLAUDE_CONFIG_DIR")
        base = home / configured if configured else home / ".claude"
        self._projects = base / "projects"
        self._inside = f"{self._projects}/"
        self._summaries = Summaries()

    @property
    def roots(self) -> tuple[Path, ...]:
        """The directory with one directory a project."""
        return (self._projects,)

    @property
    def files(self) -> tuple[Files, ...]:
        """The logs, and the texts of results that were stored beside them."""
        return (Files(self._projects, ("*.jsonl", "*.txt")),)

    def scan(self) -> Scan:
        """Find every log, two levels down and in the `subagents` of each session."""
        unreadable: dict[str, str] = {}
        found = frozenset(self._logs(str(self._projects), unreadable))
        return Scan(found, unreadable)

    def units_of(self, path: str) -> frozenset[Unit]:
        """Name the log itself, the log whose result was stored, or the logs of a directory."""
        if not path.startswith(self._inside):
            return self.scan().units if self._inside.startswith(f"{path}/") else frozenset()
        parts = self._parts(path)
        if self._is_log(parts):
            return frozenset({path})
        match parts:
            case (project, session, "tool-results", *_):
                return frozenset({f"{self._inside}{project}/{session}.jsonl"})
        return frozenset(self._logs(path, {}))

    def read(self, unit: Unit, before: Reading | None) -> Reading | None:
        """Read what was added to a log since the last reading."""
        return read_log(unit, before, self._begin, _described)

    def resolve(
        self, readings: Mapping[Unit, Reading], changed: Collection[Unit]
    ) -> Mapping[Unit, Sequence[Entry]]:
        """Give sessions the summaries that stand in other logs."""
        retitled = self._summaries.settle(readings, changed)
        found = entries_of(readings, {*changed, *retitled} if retitled else changed)
        for unit in self._summaries.titles.keys() & found.keys():
            title = self._summaries.titles[unit]
            found[unit] = [_titled(entry, title) for entry in found[unit]]
        return found

    def messages(self, entry: Entry, reading: Reading, start: int, stop: int) -> Sequence[Message]:
        """Read the records that hold these messages, and nothing else of the log."""
        if not isinstance(reading, LogReading):
            raise Stale
        log = unpack(reading.visible, Places)
        results = _Results(entry.unit, log)
        thread = log.threads[entry.key]
        return read_page(
            entry.unit, reading, thread, lambda line: _said(line, results), (start, stop)
        )

    def doomed(self, entries: Sequence[Entry]) -> Doomed:
        """Name logs, their directories of side files, and the logs of their subagents."""
        first = entries[0]
        if first.key != MAIN:
            raise SessionNotFound(
                f"{first.session.id} is part of the session {first.session.parent_id}",
                hint="Delete that session: a part of a log can't be deleted alone.",
            )
        log = Path(first.unit)
        project = self._projects / self._parts(first.unit)[0]
        logs = {entry.unit for entry in entries if entry.unit.startswith(f"{project}/")}
        side = log.with_suffix("")
        below = self._logs(str(side), {}) if not side.is_symlink() else []
        # The session's own log goes last: until then it is there to be deleted again.
        ordered = [*map(Path, sorted(logs - {first.unit})), log]
        beside = [path.with_suffix(".meta.json") for path in ordered]
        directories = [side] if side.is_dir() and not side.is_symlink() else []
        return Doomed((*beside, *directories, *ordered), frozenset({*logs, *below}))

    def _is_log(self, parts: Sequence[str]) -> bool:
        match parts:
            case (_, name) | (_, _, "subagents", *_, name):
                return name.endswith(".jsonl")
        return False

    def _logs(self, directory: str, unreadable: dict[str, str]) -> list[Unit]:
        """Find the logs below a directory; links to directories are followed to projects only."""
        found: list[Unit] = []
        depth = directory.count("/", len(self._inside) - 1)
        _find_logs(directory, depth, found, unreadable)
        return found

    def _begin(self, unit: Unit) -> Log:
        parts = self._parts(unit)
        is_child = len(parts) > _SESSION or parts[-1].startswith("agent-")
        return Log(stem=shown(os.path.splitext(parts[-1])[0]), is_child=is_child or None)  # noqa: PTH122  (a string)

    def _parts(self, path: str) -> list[str]:
        """Take apart a path below the projects."""
        return path[len(self._inside) :].split("/")


def _find_logs(directory: str, depth: int, found: list[Unit], unreadable: dict[str, str]) -> None:
    """Find logs; at depth 0 are the projects, at 1 their logs, at 3 and below the subagents'."""
    try:
        with os.scandir(directory) as listing:
            children = list(listing)
    except FileNotFoundError:
        return  # nothing was written yet, or it went while we looked
    except OSError as error:
        unreadable[shown(directory)] = error.strerror or str(error)
        return
    for child in children:
        if depth in (1, 3) and child.name.endswith(".jsonl"):
            found.append(child.path)
        elif (depth != _SESSION or child.name == "subagents") and is_directory(
            child, follow=depth == 0
        ):
            _find_logs(child.path, min(depth + 1, 3), found, unreadable)


def _said(line: bytes, results: _Results) -> list[Message]:
    try:
        return messages_in(line, results)
    except Undecodable as error:
        raise Stale from error


def _described(unit: Unit, log: Log, modified: int) -> tuple[dict[str, Session], Notes]:
    return _sessions(unit, log, modified), notes_of(log)


def _sessions(unit: Unit, log: Log, modified: int) -> dict[str, Session]:
    stem = log.stem
    owner = log.owner if log.owner != log.stem else None
    above = unit.rsplit("/", 3)
    if above[-2] == "subagents" and owner is None:
        owner = shown(above[-3])
    parent = owner if log.is_child else None
    own_title = log.custom_title or log.ai_title
    sessions = {}
    for key, thread in log.threads.items():
        main = key == MAIN
        sessions[key] = _session(
            stem if main else key,
            unit,
            thread,
            title=own_title if main else None,
            parent=parent if main else stem,
            modified=modified,
            skipped=log.skipped if main else 0,
            directory=thread.directory or log.threads[MAIN].directory,
        )
    return sessions


def _session(
    identifier: str,
    unit: Unit,
    thread: Thread,
    *,
    title: str | None,
    parent: str | None,
    modified: int,
    skipped: int,
    directory: str | None,
) -> Session:
    sent, received = thread.tokens.both() if len(thread.tokens) else (None, None)
    return Session(
        id=identifier,
        agent_type="claude",
        title=title_of(title or thread.prompt or thread.command or identifier),
        directory=sys.intern(directory or ""),
        file_path=shown(unit),
        message_count=thread.total,
        first_prompt=thread.prompt or thread.command,
        last_activity=modified if thread.last_activity is None else thread.last_activity,
        git_branch=thread.branch and sys.intern(thread.branch),
        model=thread.model and sys.intern(thread.model),
        started_at=thread.started_at,
        parent_id=parent,
        input_tokens=sent,
        output_tokens=received,
        skipped_lines=skipped,
    )


def _titled(entry: Entry, title: str) -> Entry:
    if entry.key != MAIN:
        return entry
    return Entry(msgspec.structs.replace(entry.session, title=title_of(title)), entry.unit, MAIN)


class _Results:
    """Finds the whole text of results that Claude Code stored beside the log."""

    def __init__(self, unit: Unit, log: Places) -> None:
        self._unit = unit
        self._log = log

    def _directory(self) -> Path:
        unit, owner = Path(self._unit), self._log.owner
        session = unit.with_suffix("")
        if "subagents" in unit.parts:
            session = Path(*unit.parts[: len(unit.parts) - unit.parts[::-1].index("subagents") - 1])
        elif self._log.is_child and owner and _SAFE_ID.match(owner):
            session = unit.parent / owner
        return session / "tool-results"

    def __call__(self, preview: str, tool_id: str | None) -> str:
        named = _FILE_NAME.search(preview)
        names = [named.group(1)] if named else []
        if tool_id and _SAFE_ID.match(tool_id):
            names.append(f"{tool_id}.txt")
        for name in names:
            try:
                handle = os.open(
                    self._directory() / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                )
                with os.fdopen(handle, "rb") as file:
                    return file.read().decode("utf-8", "replace")
            except OSError:
                continue  # the side file is gone or unreadable: the preview is what is left
        return preview
