"""Where Pi keeps its sessions, and what one of its logs amounts to.

One log file is one unit and one session. Entries form a tree, and all of its branches are shown in
file order: nothing that was said is left out. A fork is a log of its own that begins with a copy.
What an entry means stands in `pi_content.py`; this module must not know.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from perry.sessions.jsonl import LineLog, LogReading, Notes, Track, read_log, read_page
from perry.sessions.models import Message, Session
from perry.sessions.packed import unpack
from perry.sessions.pi_content import Entry as PiEntry
from perry.sessions.pi_content import messages_of, prompt_of
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


class PiLog(LineLog, array_like=True):
    """What has been read so far of one log."""

    track: Track = msgspec.field(default_factory=Track)
    id: str | None = None
    directory: str | None = None
    name: str | None = None
    prompt: str | None = None
    model: str | None = None
    chosen_model: str | None = None
    tokens: tuple[int, int] | None = None

    def take(self, line: bytes, offset: int) -> bool:
        """Take in one entry."""
        try:
            entry = decode(line, PiEntry)
        except Undecodable:
            return False
        if not isinstance(entry.type, str) or (entry.type == "message" and not entry.body):
            return False
        messages = messages_of(entry)
        self.track.put(offset, len(messages))
        self.track.saw(epoch(entry.stamp))
        self.prompt = self.prompt or prompt_of(entry)
        self._describe(entry)
        return True

    def _describe(self, entry: PiEntry) -> None:
        match entry.type:
            case "session":
                self.id = self.id or text_or_none(entry.id)
                self.directory = self.directory or text_or_none(entry.cwd)
                self.chosen_model = text_or_none(entry.model_id) or self.chosen_model
            case "session_info":
                self.name = text_or_none(entry.name)
            case "model_change":
                self.chosen_model = text_or_none(entry.model_id) or self.chosen_model
            case "message" if entry.body.get("role") == "assistant":
                self.model = text_or_none(entry.body.get("model")) or self.model
                self._count(entry.body.get("usage"))

    def _count(self, usage: object) -> None:
        if isinstance(usage, dict):
            sent, received = self.tokens or (0, 0)
            sent += token_count(usage.get("input"))
            self.tokens = sent, received + token_count(usage.get("output"))


class PiSource:
    """Reads `sessions/<directory>/<time>_<uuid>.jsonl`."""

    agent = "pi"
    remembered = (Reading, LogReading)

    def __init__(self, home: Path, env: Mapping[str, str]) -> None:
        flat = env.get("PI_CODING_AGENT_SESSION_DIR")
        base = placed(home, env.get("PI_CODING_AGENT_DIR") or ".pi/agent")
        self._sessions = placed(home, flat) if flat else base / "sessions"
        self._inside = f"{self._sessions}/"
        self._depth = 0 if flat else 1

    @property
    def roots(self) -> tuple[Path, ...]:
        """The directory that holds the sessions."""
        return (self._sessions,)

    @property
    def files(self) -> tuple[Files, ...]:
        """The logs."""
        return (Files(self._sessions, ("*.jsonl",)),)

    def scan(self) -> Scan:
        """Find every log."""
        unreadable: dict[str, str] = {}
        files = files_below(self._sessions, self._depth, unreadable)
        return Scan(frozenset(str(path) for path in files if path.suffix == ".jsonl"), unreadable)

    def units_of(self, path: str) -> frozenset[Unit]:
        """Name the log itself, or all logs for a directory."""
        if not path.startswith(self._inside):
            return self.scan().units if self._inside.startswith(f"{path}/") else frozenset()
        if os.path.isdir(path):  # noqa: PTH112  (a string)
            return frozenset(unit for unit in self.scan().units if unit.startswith(f"{path}/"))
        deep = path.count("/", len(self._inside)) > self._depth
        return frozenset() if deep or Path(path).suffix != ".jsonl" else frozenset({path})

    def read(self, unit: Unit, before: Reading | None) -> Reading | None:
        """Read what was added to a log since the last reading."""
        return read_log(unit, before, lambda _: PiLog(), _described)

    def resolve(
        self, readings: Mapping[Unit, Reading], changed: Collection[Unit]
    ) -> Mapping[Unit, Sequence[Entry]]:
        """Give the sessions as they were read: no log says anything of another."""
        return entries_of(readings, changed)

    def messages(self, entry: Entry, reading: Reading, start: int, stop: int) -> Sequence[Message]:
        """Read the entries that hold these messages, and nothing else of the log."""
        if not isinstance(reading, LogReading):
            raise Stale
        track = unpack(reading.visible, PiLog).track
        return read_page(entry.unit, reading, track, _messages, (start, stop))

    def doomed(self, entries: Sequence[Entry]) -> Doomed:
        """Name the logs."""
        units = dict.fromkeys(entry.unit for entry in reversed(entries))
        return Doomed(tuple(map(Path, units)), frozenset(units))


def _messages(line: bytes) -> list[Message]:
    try:
        return messages_of(decode(line, PiEntry))
    except Undecodable as error:
        raise Stale from error


def _described(unit: Unit, log: PiLog, modified: int) -> tuple[dict[str, Session], Notes]:
    identifier = log.id or shown(Path(unit).stem.rpartition("_")[2])
    track = log.track
    session = Session(
        id=identifier,
        agent_type="pi",
        title=title_of(log.name or log.prompt or identifier),
        directory=log.directory or "",
        file_path=shown(unit),
        message_count=track.total,
        first_prompt=log.prompt,
        last_activity=modified if track.last_activity is None else track.last_activity,
        model=log.model or log.chosen_model,
        started_at=track.started_at,
        input_tokens=log.tokens[0] if log.tokens else None,
        output_tokens=log.tokens[1] if log.tokens else None,
        skipped_lines=log.skipped,
    )
    return {_MAIN: session}, ()
