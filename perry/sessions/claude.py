"""Where Claude Code keeps its sessions, and how they are read, paged and deleted.

One log file is one unit. It is read from where the last reading ended, unless it shrank, was
replaced, or no longer ends there as it did. A last line without its newline counts if it is a
whole record, and is tried again at every reading until its newline arrives; half a line counts as
nothing, not even as skipped. What a record means stands in `claude_content.py`, what a log amounts
to in `claude_log.py`; this module must not know either.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import msgspec

from perry.errors import SessionNotFound
from perry.sessions.claude_content import Record, messages_of
from perry.sessions.claude_log import MAIN, Log, Thread
from perry.sessions.models import Message, Session
from perry.sessions.records import Undecodable, decode, title_of
from perry.sessions.source import Entry, Reading, Scan, Stale, distinct, shown

_EDGE = 256  # bytes before the end that must still be there for a log to count as grown
_FILE_NAME = re.compile(r"tool-results[/\\]+([A-Za-z0-9_-][A-Za-z0-9_.-]*\.txt)")
_SAFE_ID = re.compile(r"[A-Za-z0-9_-]+\Z")


@dataclass(frozen=True)
class LogReading(Reading):
    """A reading of one log: `log` holds all whole lines, `shown` an unfinished last one too."""

    log: Log | None = None
    shown: Log | None = None
    identity: tuple[int, int] = (0, 0)
    stamp: tuple[int, int] = (0, 0)
    edge: bytes = b""


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
        if len(parts) > 2 and parts[2] == "tool-results":
            return frozenset({self._projects / parts[0] / f"{parts[1]}.jsonl"})
        return frozenset(self._logs(path, {})) if path.is_dir() else frozenset()

    def read(self, unit: Path, before: Reading | None) -> Reading | None:
        """Read what was added to a log since the last reading."""
        old = before if isinstance(before, LogReading) else None
        try:
            status = unit.stat()
            if not stat.S_ISREG(status.st_mode):
                return _unreadable(unit, "not a regular file", old)
            if old and old.log and (old.identity, old.stamp) == _fingerprint(status):
                return old
            with unit.open("rb") as file:
                return self._read(unit, file, old)
        except (FileNotFoundError, NotADirectoryError) as error:
            return _unreadable(unit, "a broken link", old) if unit.is_symlink() else _gone(error)
        except OSError as error:
            return _unreadable(unit, error.strerror or str(error), old)

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
        if not isinstance(reading, LogReading) or reading.shown is None:
            raise Stale
        results = _Results(entry.unit, reading.shown)
        try:
            with entry.unit.open("rb") as file:
                status = os.fstat(file.fileno())
                if (status.st_dev, status.st_ino) != reading.identity:
                    raise Stale
                thread = reading.shown.threads[entry.key]
                return list(_page(file, thread, results, start, stop))
        except OSError as error:
            raise Stale from error

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
        if not parts or not parts[-1].endswith(".jsonl"):
            return False
        return len(parts) == 2 or (len(parts) > 3 and parts[2] == "subagents")

    def _logs(self, directory: Path, unreadable: dict[str, str]) -> Iterator[Path]:
        """Find the logs below a directory; links to directories are followed to projects only."""
        depth = len(directory.relative_to(self._projects).parts)
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
            elif (len(parts) < 3 or parts[2] == "subagents") and path.is_dir():
                if depth == 0 or not path.is_symlink():
                    yield from self._logs(path, unreadable)

    def _read(self, unit: Path, file: BinaryIO, old: LogReading | None) -> LogReading:
        status = os.fstat(file.fileno())
        identity, stamp = _fingerprint(status)
        if old and old.log and _has_grown(file, status, old):
            log = old.log
        else:
            in_place = self._is_child(unit)
            log = Log(unit.stem, is_child=True if in_place else None)
        whole, tail = _feed(file, log)
        visible = whole if tail is None else tail
        file.seek(max(0, whole.end - _EDGE))
        edge = file.read(whole.end - file.tell())
        reading = LogReading(
            skipped_lines=visible.skipped,
            log=whole,
            shown=visible,
            identity=identity,
            stamp=stamp,
            edge=edge,
        )
        sessions = _sessions(unit, visible, status.st_mtime_ns // 1_000_000)
        return replace(reading, sessions=sessions)

    def _is_child(self, unit: Path) -> bool:
        parts = unit.relative_to(self._projects).parts
        return len(parts) > 2 or parts[-1].startswith("agent-")


def _feed(file: BinaryIO, log: Log) -> tuple[Log, Log | None]:
    """Take in what follows; the second state also has a whole record without its newline."""
    file.seek(log.end)
    for line in file:
        if not line.endswith(b"\n"):
            trial = log.copy()
            return log, (trial if line.strip() and trial.take(line, log.end) else None)
        log.feed(line, log.end)
        log.end += len(line)
    return log, None


def _has_grown(file: BinaryIO, status: os.stat_result, old: LogReading) -> bool:
    identity, (size, _) = _fingerprint(status)
    if old.log is None or old.identity != identity or size <= old.stamp[0]:
        return False
    file.seek(old.log.end - len(old.edge))
    return file.read(len(old.edge)) == old.edge


def _fingerprint(status: os.stat_result) -> tuple[tuple[int, int], tuple[int, int]]:
    """Tell which file it is, and its size and time of change."""
    return (status.st_dev, status.st_ino), (status.st_size, status.st_mtime_ns)


def _gone(_error: OSError) -> None:
    return None


def _unreadable(unit: Path, reason: str, old: LogReading | None) -> LogReading:
    reading = LogReading(unreadable={shown(unit): reason})
    return old if old == reading else reading


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
    logs = {unit: r.shown for unit, r in readings.items() if isinstance(r, LogReading) and r.shown}
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


def _page(
    file: BinaryIO, thread: Thread, results: _Results, start: int, stop: int
) -> Iterator[Message]:
    for offset, first, count in thread.between(start, stop):
        file.seek(offset)
        try:
            record = decode(file.readline(), Record)
        except Undecodable as error:
            raise Stale from error
        messages = messages_of(record, results)
        if len(messages) != count:
            raise Stale
        yield from messages[max(0, start - first) : stop - first]


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
                with open(handle, "rb") as file:
                    return file.read().decode("utf-8", "replace")
            except OSError:
                continue  # the side file is gone or unreadable: the preview is what is left
        return preview
