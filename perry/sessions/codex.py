"""Where Codex keeps its sessions, and what one of its logs amounts to.

One log file is one unit and one session; archiving moves the file. Names that users gave stand in
files of their own, which are units without sessions. What a line means stands in
`codex_content.py`, how names are read in `codex_titles.py`; this module must not know.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from perry.sessions.codex_content import Line, directory_of, messages_of, prompt_of
from perry.sessions.codex_titles import (
    NAMES_LOG,
    TitlesReading,
    database_of,
    is_database,
    read_titles,
    titles_of,
)
from perry.sessions.jsonl import LineLog, LogReading, Notes, Track, read_log, read_page
from perry.sessions.models import Message, Session
from perry.sessions.packed import unpack
from perry.sessions.records import (
    Undecodable,
    decode,
    epoch,
    text_or_none,
    title_of,
    token_count,
)
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
from perry.sessions.tree import files_below, placed

_MAIN = ""
_DEPTH = 3  # year, month and day
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)


class CodexLog(LineLog, array_like=True):
    """What has been read so far of one log; `is_described` once its first line was seen."""

    track: Track = msgspec.field(default_factory=Track)
    is_described: bool = False
    id: str | None = None
    parent: str | None = None
    directory: str | None = None
    noted_directory: str | None = None
    branch: str | None = None
    prompt: str | None = None
    model: str | None = None
    tokens: tuple[int, int] | None = None

    def take(self, line: bytes, offset: int) -> bool:
        """Take in one line."""
        try:
            record = decode(line, Line)
        except Undecodable:
            return False
        if not record.kind:
            return False
        self.track.put(offset, len(messages_of(record)))
        self.track.saw(epoch(record.timestamp))
        self.prompt = self.prompt or prompt_of(record)
        self._describe(record)
        return True

    def _describe(self, record: Line) -> None:
        match record.kind:
            case "session_meta" if not self.is_described:
                self._introduce(record)
            case "turn_context":
                self.model = text_or_none(record.body.get("model")) or self.model
                self._note_directory(text_or_none(record.body.get("cwd")))
            case "event_msg" if record.body.get("type") == "token_count":
                self._count(record.body.get("info"))
            case "response_item" if self.directory is None and self.noted_directory is None:
                self._note_directory(directory_of(record))

    def _introduce(self, record: Line) -> None:
        """Take in the first line that describes a session: a fork copies its parent's below."""
        meta = record.body
        self.is_described = True
        self.id = text_or_none(meta.get("id")) or text_or_none(meta.get("session_id"))
        self.directory = text_or_none(meta.get("cwd"))
        git = meta.get("git")
        self.branch = text_or_none(git.get("branch")) if isinstance(git, dict) else None
        self.parent = _spawner(meta.get("source"))
        if self.track.started_at is None:
            self.track.saw(epoch(meta.get("timestamp")))

    def _note_directory(self, directory: str | None) -> None:
        self.noted_directory = self.noted_directory or directory

    def _count(self, info: object) -> None:
        total = info.get("total_token_usage") if isinstance(info, dict) else None
        if isinstance(total, dict):
            sent = token_count(total.get("input_tokens"))
            self.tokens = sent, token_count(total.get("output_tokens"))


class CodexSource:
    """Reads `sessions/YYYY/MM/DD/rollout-<time>-<uuid>.jsonl` and the archived ones."""

    agent = "codex"
    remembered = (Reading, LogReading, TitlesReading)

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        self._base = placed(home, env.get("CODEX_HOME") or ".codex")
        self._places = (self._base / "sessions", self._base / "archived_sessions")
        self._inside = f"{self._base}/"
        self._in_places = tuple(f"{place}/" for place in self._places)
        self._titles: dict[str, str] = {}

    @property
    def roots(self) -> tuple[Path, ...]:
        """The directory that holds the logs and the names."""
        return (self._base,)

    @property
    def files(self) -> tuple[Files, ...]:
        """The logs, and the log and the databases of names."""
        return (
            *(Files(place, ("*.jsonl",)) for place in self._places),
            Files(self._base, (NAMES_LOG,), below=False),
            Files(self._base, ("state_*.sqlite",), below=False, databases=True),
        )

    def scan(self) -> Scan:
        """Find every log, and the files with names."""
        unreadable: dict[str, str] = {}
        names = (path for path in files_below(self._base, 0, unreadable) if self._has_names(path))
        logs = (unit for place in self._places for unit in self._logs(place, unreadable))
        return Scan(frozenset(map(str, [*names, *logs])), unreadable)

    def units_of(self, path: str) -> frozenset[Unit]:
        """Name the log or the file with names that changed, or all logs of a directory."""
        if not path.startswith(self._inside):
            return self.scan().units if self._inside.startswith(f"{path}/") else frozenset()
        if not f"{path}/".startswith(self._in_places):
            named = database_of(path)
            return frozenset({named}) if self._has_names(named) else frozenset()
        if os.path.isdir(path):  # noqa: PTH112  (a string)
            return frozenset(map(str, self._logs(Path(path), {})))
        return frozenset({path}) if Path(path).suffix == ".jsonl" else frozenset()

    def read(self, unit: Unit, before: Reading | None) -> Reading | None:
        """Read what was added to a log since the last reading, or the names."""
        if self._has_names(unit):
            return read_titles(Path(unit), before)
        return read_log(unit, before, lambda _: CodexLog(), _described)

    def resolve(
        self, readings: Mapping[Unit, Reading], changed: Collection[Unit]
    ) -> Mapping[Unit, Sequence[Entry]]:
        """Give sessions their names; where a name may have changed, look at every session."""
        if any(self._has_names(unit) for unit in changed):
            self._titles = titles_of(readings)
            changed = readings.keys() | changed
        return {
            unit: [_titled(entry, self._titles.get(entry.session.id)) for entry in entries]
            for unit, entries in entries_of(readings, changed).items()
        }

    def messages(self, entry: Entry, reading: Reading, start: int, stop: int) -> Sequence[Message]:
        """Read the lines that hold these messages, and nothing else of the log."""
        if not isinstance(reading, LogReading):
            raise Stale
        track = unpack(reading.visible, CodexLog).track
        return read_page(entry.unit, reading, track, _messages, (start, stop))

    def doomed(self, entries: Sequence[Entry]) -> Doomed:
        """Name the logs; the client drops the names of logs that are gone."""
        units = dict.fromkeys(entry.unit for entry in reversed(entries))
        return Doomed(tuple(map(Path, units)), frozenset(units))

    def _has_names(self, unit: Unit | Path) -> bool:
        directory, name = os.path.split(unit)
        return directory == str(self._base) and (name == NAMES_LOG or is_database(name))

    def _logs(self, directory: Path, unreadable: dict[str, str]) -> Iterator[Path]:
        for path in files_below(directory, _DEPTH, unreadable):
            if path.suffix == ".jsonl":
                yield path


def _messages(line: bytes) -> list[Message]:
    try:
        return messages_of(decode(line, Line))
    except Undecodable as error:
        raise Stale from error


def _spawner(source: object) -> str | None:
    """Name the session whose agent started this one as a subagent."""
    subagent = source.get("subagent") if isinstance(source, dict) else None
    spawned = subagent.get("thread_spawn") if isinstance(subagent, dict) else None
    return text_or_none(spawned.get("parent_thread_id")) if isinstance(spawned, dict) else None


def _described(unit: Unit, log: CodexLog, modified: int) -> tuple[dict[str, Session], Notes]:
    stem = Path(unit).stem
    named = _UUID.search(stem)
    identifier = log.id or (named.group() if named else shown(stem))
    track = log.track
    session = Session(
        id=identifier,
        agent_type="codex",
        title=title_of(log.prompt or identifier),
        directory=log.directory or log.noted_directory or "",
        file_path=shown(unit),
        message_count=track.total,
        first_prompt=log.prompt,
        last_activity=modified if track.last_activity is None else track.last_activity,
        git_branch=log.branch,
        model=log.model,
        started_at=track.started_at,
        parent_id=log.parent if log.parent != identifier else None,
        input_tokens=log.tokens[0] if log.tokens else None,
        output_tokens=log.tokens[1] if log.tokens else None,
        skipped_lines=log.skipped,
    )
    return {_MAIN: session}, ()


def _titled(entry: Entry, title: str | None) -> Entry:
    if title is None:
        return entry
    session = msgspec.structs.replace(entry.session, title=title_of(title))
    return Entry(session, entry.unit, entry.key)
