"""Logs of one JSON record a line, read from where the last reading ended.

Most coding agents append to such logs, so going on, noticing that a log shrank or was replaced,
and finding a page without reading the rest are the same for all of them. A last line without its
newline counts if it is a whole record, and is tried again at every reading until its newline
arrives; half a line counts as nothing, not even as skipped. This module must not know what any
record means, or where logs lie.
"""

from __future__ import annotations

import copy
import os
import stat
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Generic, Self, TypeVar

from perry.sessions.models import Message, Session
from perry.sessions.source import Reading, Stale, shown

_EDGE = 256  # bytes before the end that must still be there for a log to count as grown


@dataclass
class LineLog(ABC):
    """The state after the bytes up to `end`, which is the beginning of a line."""

    end: int = 0
    skipped: int = 0

    def copy(self) -> Self:
        """Copy the state, so that a line which may yet change can be tried on it."""
        return copy.deepcopy(self)

    @abstractmethod
    def take(self, line: bytes, offset: int) -> bool:
        """Take in a line that begins at byte `offset` if it is a record; say whether it was."""


@dataclass
class Track:
    """Where the messages of one session stand in a log, and the time that they span.

    `offsets` are the bytes where records with messages begin, `ends` how many messages there are
    up to and including each of them. Times are milliseconds since the epoch.
    """

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("Q"))
    started_at: int | None = None
    last_activity: int | None = None

    @property
    def total(self) -> int:
        """The number of messages."""
        return self.ends[-1] if self.ends else 0

    def between(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Name the records that hold the messages from `start` up to `stop`.

        Each is its byte offset, its first message's number, and how many messages it holds.
        """
        found = []
        index = bisect_right(self.ends, start)
        while index < len(self.ends) and start < stop:
            first = self.ends[index - 1] if index else 0
            if first >= stop:
                break
            found.append((self.offsets[index], first, self.ends[index] - first))
            index += 1
        return found

    def put(self, offset: int, count: int) -> None:
        """Remember a record that holds `count` messages."""
        if count:
            self.offsets.append(offset)
            self.ends.append(self.total + count)

    def saw(self, moment: int | None) -> None:
        """Take in the time of a record; they may go backwards."""
        if moment is not None:
            self.started_at = moment if self.started_at is None else self.started_at
            self.last_activity = max(moment, self.last_activity or moment)


L = TypeVar("L", bound=LineLog)


@dataclass(frozen=True)
class LogReading(Reading, Generic[L]):
    """A reading of one log: `log` holds all whole lines, `visible` an unfinished last one too."""

    log: L | None = None
    visible: L | None = None
    identity: tuple[int, int] = (0, 0)
    stamp: tuple[int, int] = (0, 0)
    edge: bytes = b""


def read_log(
    unit: Path,
    before: Reading | None,
    begin: Callable[[], L],
    describe: Callable[[L, int], Mapping[str, Session]],
) -> Reading | None:
    """Read what was added to a log since the last reading; None where it is gone.

    `begin` makes the state before the first line, `describe` makes the sessions of a state and
    the file's time of change (milliseconds since the epoch).
    """
    old: LogReading[L] | None = before if isinstance(before, LogReading) else None
    try:
        status = unit.stat()
        if not stat.S_ISREG(status.st_mode):
            return unreadable(unit, "not a regular file", before)
        if old and old.log and (old.identity, old.stamp) == fingerprint(status):
            return old
        with unit.open("rb") as file:
            return _read(file, old, begin, describe)
    except (FileNotFoundError, NotADirectoryError):
        return unreadable(unit, "a broken link", before) if unit.is_symlink() else None
    except OSError as error:
        return unreadable(unit, error.strerror or str(error), before)


def read_page(
    unit: Path,
    reading: LogReading[L],
    track: Track,
    make: Callable[[bytes], Sequence[Message]],
    span: tuple[int, int],
) -> list[Message]:
    """Read the records that hold the messages of a span, and nothing else of the log.

    Raises Stale where the log has changed.
    """
    try:
        with opened(unit, reading.identity) as file:
            return list(_page(file, track, make, *span))
    except OSError as error:
        raise Stale from error


def opened(unit: Path, identity: tuple[int, int]) -> BinaryIO:
    """Open the very file that was read. Raises Stale where another one took its place."""
    file = unit.open("rb")
    if fingerprint(os.fstat(file.fileno()))[0] == identity:
        return file
    file.close()
    raise Stale


def fingerprint(status: os.stat_result) -> tuple[tuple[int, int], tuple[int, int]]:
    """Tell which file it is, and its size and time of change."""
    return (status.st_dev, status.st_ino), (status.st_size, status.st_mtime_ns)


def unreadable(unit: Path, reason: str, before: Reading | None) -> Reading:
    """Make the reading of a file that can't be read; the same one where nothing changed."""
    reading = Reading(unreadable={shown(unit): reason})
    return before if before is not None and before == reading else reading


def _read(
    file: BinaryIO,
    old: LogReading[L] | None,
    begin: Callable[[], L],
    describe: Callable[[L, int], Mapping[str, Session]],
) -> LogReading[L]:
    status = os.fstat(file.fileno())
    identity, stamp = fingerprint(status)
    log = old.log if old and _has_grown(file, status, old) else None
    whole, tail = _feed(file, begin() if log is None else log)
    visible = whole if tail is None else tail
    file.seek(max(0, whole.end - _EDGE))
    reading = LogReading(
        skipped_lines=visible.skipped,
        log=whole,
        visible=visible,
        identity=identity,
        stamp=stamp,
        edge=file.read(whole.end - file.tell()),
    )
    return replace(reading, sessions=describe(visible, status.st_mtime_ns // 1_000_000))


def _feed(file: BinaryIO, log: L) -> tuple[L, L | None]:
    """Take in what follows; the second state also has a whole record without its newline."""
    file.seek(log.end)
    for line in file:
        if not line.endswith(b"\n"):
            if not line.rstrip().endswith(b"}"):
                return log, None  # half a record: not worth a copy of the state
            trial = log.copy()
            return log, (trial if trial.take(line, log.end) else None)
        if line.strip() and not log.take(line, log.end):
            log.skipped += 1
        log.end += len(line)
    return log, None


def _has_grown(file: BinaryIO, status: os.stat_result, old: LogReading[L]) -> bool:
    identity, (size, _) = fingerprint(status)
    if old.log is None or old.identity != identity or size <= old.stamp[0]:
        return False
    file.seek(old.log.end - len(old.edge))
    return file.read(len(old.edge)) == old.edge


def _page(
    file: BinaryIO,
    track: Track,
    make: Callable[[bytes], Sequence[Message]],
    start: int,
    stop: int,
) -> Iterator[Message]:
    for offset, first, count in track.between(start, stop):
        file.seek(offset)
        messages = make(file.readline())
        if len(messages) != count:
            raise Stale
        yield from messages[max(0, start - first) : stop - first]
