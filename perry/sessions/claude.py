"""Where Claude Code keeps its sessions, and how they are read, paged and deleted.

One log file is one unit. What a record means stands in `claude_content.py`, what a log amounts
to in `claude_log.py`; this module must not know either.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from perry.errors import SessionNotFound
from perry.sessions.claude_content import Record, messages_of
from perry.sessions.claude_log import MAIN, Log, Thread
from perry.sessions.jsonl import LogReading, read_log, read_page
from perry.sessions.models import Message, Session
from perry.sessions.records import Undecodable, decode, title_of
from perry.sessions.source import Entry, Reading, Scan, Stale, distinct, shown

_FILE_NAME = re.compile(r"tool-results[/\\]+([A-Za-z0-9_-][A-Za-z0-9_.-]*\.txt)")
_SAFE_ID = re.compile(r"[A-Za-z0-9_-]+\Z")


class ClaudeSource:
    """Reads `projects/<directory>/<uuid>.jsonl` and the subagents beside them."""

    agent = "claude"

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        configured = env.get("CLAUDE_CONFIG_DIR")
        base = home / configured if configured else home / ".claude"
        self._projects = base / "projects"

    @property
    def roots(self) -> tuple[Path, ...]:
        """The directory with one directory a project."""
        return (self._projects,)

    def scan(self) -> Scan:
        """Find every log, two levels down and in the `subagents` of each session."""
        unreadable: dict[str, str] = {}
        found = frozenset(self._logs(self._projects, unreadable))
        return Scan(found, unreadable)

    def units_of(self, path: Path) -> frozenset[Path]:
        """Name the log itself, the log whose result was stored, or the logs of a directory."""
        if not path.is_relative_to(self._projects):
            return self.scan().units if self._projects.is_relative_to(path) else frozenset()
        parts = path.relative_to(self._projects).parts
        if self._is_log(parts):
            return frozenset({path})
        match parts:
            case (project, session, "tool-results", *_):
                return frozenset({self._projects / project / f"{session}.jsonl"})
        return frozenset(self._logs(path, {})) if path.is_dir() else frozenset()

    def read(self, unit: Path, before: Reading | None) -> Reading | None:
        """Read what was added to a log since the last reading."""
        is_child = True if self._is_child(unit) else None
        return read_log(
            unit,
            before,
            lambda: Log(stem=unit.stem, is_child=is_child),
            lambda log, modified: _sessions(unit, log, modified),
        )

    def resolve(self, readings: Mapping[Path, Reading]) -> Iterable[Entry]:
        """Give sessions the summaries that stand in other logs, and every session its own id."""
        titles = _summary_titles(readings)
        entries = []
        for unit, reading in readings.items():
            for key, session in reading.sessions.items():
                entry = Entry(session, unit, key)
                entries.append(_titled(entry, titles.get(unit)))
        return distinct(entries)

    def messages(self, entry: Entry, reading: Reading, start: int, stop: int) -> Sequence[Message]:
        """Read the records that hold these messages, and nothing else of the log."""
        log = _log_of(reading)
        if log is None or not isinstance(reading, LogReading):
            raise Stale
        results = _Results(entry.unit, log)
        thread = log.threads[entry.key]
        return read_page(
            entry.unit, reading, thread, lambda line: _said(line, results), (start, stop)
        )

    def delete(self, doomed: Sequence[Entry]) -> frozenset[Path]:
        """Delete logs, their directories of side files, and the logs of their subagents."""
        first = doomed[0]
        if first.key != MAIN:
            raise SessionNotFound(
                f"{first.session.id} is part of the session {first.session.parent_id}",
                hint="Delete that session: a part of a log can't be deleted alone.",
            )
        project = self._projects / first.unit.relative_to(self._projects).parts[0]
        units = {entry.unit for entry in doomed if entry.unit.is_relative_to(project)}
        for unit in units:
            unit.unlink(missing_ok=True)
            unit.with_suffix(".meta.json").unlink(missing_ok=True)
        side = first.unit.with_suffix("")
        if side.is_dir() and not side.is_symlink():
            units.update(self._logs(side, {}))
            shutil.rmtree(side)
        return frozenset(units)

    def _is_log(self, parts: Sequence[str]) -> bool:
        match parts:
            case (_, name) | (_, _, "subagents", *_, name):
                return name.endswith(".jsonl")
        return False

    def _logs(self, directory: Path, unreadable: dict[str, str]) -> Iterator[Path]:
        """Find the logs below a directory; links to directories are followed to projects only."""
        try:
            with os.scandir(directory) as listing:
                children = list(listing)
        except FileNotFoundError:
            return  # nothing was written yet, or it went while we looked
        except OSError as error:
            unreadable[shown(directory)] = error.strerror or str(error)
            return
        for child in children:
            path = Path(child.path)
            parts = path.relative_to(self._projects).parts
            if self._is_log(parts):
                yield path
            elif self._may_hold_logs(path, parts):
                yield from self._logs(path, unreadable)

    def _may_hold_logs(self, path: Path, parts: Sequence[str]) -> bool:
        match parts:
            case (_,):
                return path.is_dir()
            case (_, _) | (_, _, "subagents", *_):
                return path.is_dir() and not path.is_symlink()
        return False

    def _is_child(self, unit: Path) -> bool:
        project = unit.relative_to(self._projects).parts[0]
        return unit.parent != self._projects / project or unit.name.startswith("agent-")


def _log_of(reading: Reading) -> Log | None:
    visible = reading.visible if isinstance(reading, LogReading) else None
    return visible if isinstance(visible, Log) else None


def _said(line: bytes, results: _Results) -> list[Message]:
    try:
        return messages_of(decode(line, Record), results)
    except Undecodable as error:
        raise Stale from error


def _sessions(unit: Path, log: Log, modified: int) -> dict[str, Session]:
    stem = shown(unit.stem)
    owner = log.owner if log.owner != log.stem else None
    if unit.parent.name == "subagents" and owner is None:
        owner = shown(unit.parent.parent.name)
    parent = owner if log.is_child else None
    own_title = log.custom_title or log.ai_title
    sessions = {}
    for key, thread in log.threads.items():
        main = key == MAIN
        sessions[key] = _session(
            stem if main else shown(key),
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
    unit: Path,
    thread: Thread,
    *,
    title: str | None,
    parent: str | None,
    modified: int,
    skipped: int,
    directory: str | None,
) -> Session:
    usage = thread.usage.values()
    return Session(
        id=identifier,
        agent_type="claude",
        title=title_of(title or thread.prompt or thread.command or identifier),
        directory=directory or "",
        file_path=shown(unit),
        message_count=thread.total,
        first_prompt=thread.prompt or thread.command,
        last_activity=modified if thread.last_activity is None else thread.last_activity,
        git_branch=thread.branch,
        model=thread.model,
        started_at=thread.started_at,
        parent_id=parent,
        input_tokens=sum(sent for sent, _ in usage) if usage else None,
        output_tokens=sum(received for _, received in usage) if usage else None,
        skipped_lines=skipped,
    )


def _summary_titles(readings: Mapping[Path, Reading]) -> dict[Path, str]:
    """Match summaries to logs by the leaf they name: it may stand in another log.

    A summary whose leaf stands nowhere belongs to the log that holds it.
    """
    logs = {unit: log for unit, reading in readings.items() if (log := _log_of(reading))}
    abroad = {
        leaf: title
        for log in logs.values()
        for leaf, title in log.summaries
        if leaf not in log.seen
    }
    found: set[str] = set()
    titles: dict[Path, str] = {}
    for unit, log in logs.items():
        for leaf in abroad.keys() & log.seen if abroad else ():
            found.add(leaf)
            titles[unit] = abroad[leaf]
    for unit, log in logs.items():
        for leaf, title in log.summaries:
            if leaf in log.seen or leaf not in found:
                titles[unit] = title
    named = {unit for unit, log in logs.items() if log.custom_title or log.ai_title}
    return {unit: title for unit, title in titles.items() if unit not in named}


def _titled(entry: Entry, title: str | None) -> Entry:
    if title is None or entry.key != MAIN:
        return entry
    session = msgspec.structs.replace(entry.session, title=title_of(title))
    return replace(entry, session=session)


class _Results:
    """Finds the whole text of results that Claude Code stored beside the log."""

    def __init__(self, unit: Path, log: Log) -> None:
        session = unit.with_suffix("")
        if "subagents" in unit.parts:
            session = Path(*unit.parts[: len(unit.parts) - unit.parts[::-1].index("subagents") - 1])
        elif log.is_child and log.owner and _SAFE_ID.match(log.owner):
            session = unit.parent / log.owner
        self._directory = session / "tool-results"

    def __call__(self, preview: str, tool_id: str | None) -> str:
        named = _FILE_NAME.search(preview)
        names = [named.group(1)] if named else []
        if tool_id and _SAFE_ID.match(tool_id):
            names.append(f"{tool_id}.txt")
        for name in names:
            try:
                handle = os.open(
                    self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                )
                with os.fdopen(handle, "rb") as file:
                    return file.read().decode("utf-8", "replace")
            except OSError:
                continue  # the side file is gone or unreadable: the preview is what is left
        return preview
