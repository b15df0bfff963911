"""What a Gemini CLI log amounts to once it is replayed, and where its messages stand.

A log is not a list of messages: records of an id that was there replace the earlier ones, some
drop messages, some replace them all. So the state is the ordered turns that are left, each with
its place in the file, and it can be carried on from wherever the last reading ended. This module
must not open files, or know where a log lies.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

import msgspec

from perry.sessions.gemini_content import (
    Record,
    answers_of,
    directory_of,
    messages_of,
    prompt_of,
    results_of,
)
from perry.sessions.jsonl import LineLog, Track
from perry.sessions.records import Undecodable, decode, epoch, text_or_none, token_count

BARE = -1
"""The index of a message that is a record of its own."""


class Turn(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One recorded message: its place, and what its session is described by.

    `offset` is the byte where its record begins, `index` its number among several in one record.
    `count` is how many messages it makes, with the results that stand in its content.
    """

    offset: int
    index: int
    count: int
    results: tuple[str, ...]
    answers: tuple[str, ...]
    prompt: str | None


class View(msgspec.Struct, frozen=True):
    """The turns as they stood after a reading; it never changes."""

    turns: tuple[Turn, ...] = ()
    ends: tuple[int, ...] = ()
    answered: frozenset[str] = frozenset()

    @classmethod
    def of(cls, turns: Iterable[Turn]) -> View:
        """Count the messages of turns; results that a call has with it don't count twice."""
        kept = tuple(turns)
        answered = frozenset(call for turn in kept for call in turn.answers)
        ends: list[int] = []
        total = 0
        for turn in kept:
            total += turn.count - sum(call in answered for call in turn.results)
            ends.append(total)
        return cls(kept, tuple(ends), answered)

    @property
    def total(self) -> int:
        """The number of messages."""
        return self.ends[-1] if self.ends else 0

    def between(self, start: int, stop: int) -> Iterator[tuple[Turn, int, int]]:
        """Name the turns that hold the messages from `start` up to `stop`.

        Each with its first message's number and how many messages it holds.
        """
        index = bisect_right(self.ends, start)
        while index < len(self.ends):
            first = self.ends[index - 1] if index else 0
            if first >= stop:
                return
            if self.ends[index] > first:
                yield self.turns[index], first, self.ends[index] - first
            index += 1

    def prompt(self) -> str | None:
        """Give the first prompt; a command only where there is nothing else."""
        prompts = [turn.prompt for turn in self.turns if turn.prompt]
        return next((p for p in prompts if not p.startswith(("/", "?"))), next(iter(prompts), None))


class GeminiLog(LineLog, array_like=True):
    """What has been replayed so far of one log or document."""

    turns: dict[str, Turn] = msgspec.field(default_factory=dict)
    times: Track = msgspec.field(default_factory=Track)
    usage: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    id: str | None = None
    summary: str | None = None
    project: str | None = None
    directory: str | None = None
    model: str | None = None

    def view(self) -> View:
        """Make the view of what was taken in up to now."""
        return View.of(self.turns.values())

    def take(self, line: bytes, offset: int) -> bool:
        """Replay one record."""
        try:
            record = decode(line, Record)
        except Undecodable:
            return False
        if isinstance(record.rewind_to, str):
            self._rewind(record.rewind_to)
        elif isinstance(record.type, str):
            key = record.id if isinstance(record.id, str) else f"#{offset}"
            self._put(key, record, offset, BARE)
        elif isinstance(record.change, dict):
            self._merge(msgspec.convert(record.change, Record), offset)
        elif _is_description(record):
            self._merge(record, offset)
        else:
            return False
        return True

    def take_document(self, data: bytes) -> bool:
        """Take in a whole document, whose messages are all kept as they stand."""
        try:
            record = decode(data, Record)
        except Undecodable:
            return False
        self._describe(record)
        for index, message in enumerate(_listed(record.messages)):
            self._put_listed(f"#{index}", message, 0, index)
        return True

    def _rewind(self, target: str) -> None:
        """Drop a message and all after it; all of them where it isn't known, as the client does."""
        keys = list(self.turns)
        for key in keys[keys.index(target) if target in self.turns else 0 :]:
            del self.turns[key]

    def _merge(self, record: Record, offset: int) -> None:
        self._describe(record)
        if isinstance(record.messages, list):
            self.turns.clear()
            for index, message in enumerate(record.messages):
                identifier = message.get("id") if isinstance(message, dict) else None
                key = identifier if isinstance(identifier, str) else f"#{offset}:{index}"
                self._put_listed(key, message, offset, index)

    def _describe(self, record: Record) -> None:
        self.id = text_or_none(record.session_id) or self.id
        self.project = text_or_none(record.project_hash) or self.project
        if record.summary is not msgspec.UNSET:
            self.summary = text_or_none(record.summary)
        self.times.saw(epoch(record.start_time))
        self.times.saw(epoch(record.last_updated))
        for directory in _listed(record.directories):
            self.directory = self.directory or text_or_none(directory)

    def _put_listed(self, key: str, message: object, offset: int, index: int) -> None:
        record = listed(message)
        if record is None:
            self.skipped += 1
        else:
            self._put(key, record, offset, index)

    def _put(self, key: str, record: Record, offset: int, index: int) -> None:
        self.turns[key] = Turn(
            offset,
            index,
            len(messages_of(record)),
            results_of(record),
            answers_of(record),
            prompt_of(record),
        )
        self.times.saw(epoch(record.timestamp))
        self.directory = directory_of(record) or self.directory
        if record.type == "gemini":
            self.model = text_or_none(record.model) or self.model
        if isinstance(record.tokens, dict):
            sent, received = record.tokens.get("input"), record.tokens.get("output")
            self.usage[key] = token_count(sent), token_count(received)


def listed(message: object) -> Record | None:
    """Read one of several messages in a record; None where it is no message."""
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return None
    return msgspec.convert(message, Record)


def _is_description(record: Record) -> bool:
    told = (record.session_id, record.project_hash, record.start_time, record.last_updated)
    return any(isinstance(value, str) for value in told) or isinstance(record.messages, list)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []
