"""Logs of one JSON record a line, read from where the last reading ended.

Most coding agents append to such logs, so going on, noticing that a log shrank or was replaced,
and finding a page without reading the rest are the same for all of them. A last line without its
newline counts if it is a whole record, and is tried again at every reading until its newline
arrives; half a line counts as nothing, not even as skipped. This module must not know what any
record means, or where logs lie.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import BinaryIO, Self, TypeVar

import msgspec

from perry.sessions.models import Message, Session
from perry.sessions.packed import Counts, Numbers, pack, unpack
from perry.sessions.source import Reading, Stale, Unit, shown

_EDGE = 256  # bytes before the end that must still be there for a log to count as grown
_DIGEST = 16  # bytes
_STAMP = struct.Struct("=QQQq")  # device, inode, size, time of change in ns
_IDENTITY = 16  # bytes of it that say which file it is
_CHUNK = 256 * 1024  # bytes read at a time: with Python's 8 KB, reading takes longer than decoding
_PAGE = 64 * 1024  # bytes read at a time for a page


class LineLog(msgspec.Struct, array_like=True):
    """The state after the bytes up to `end`, which is the beginning of a line."""

    end: int = 0
    skipped: int = 0

    def copy(self) -> Self:
        """Copy the state, so that a line which may yet change can be tried on it."""
        return unpack(pack(self), type(self))

    def take(self, line: bytes, offset: int) -> bool:
        """Take in a line that begins at byte `offset` if it is a record; say whether it was."""
        raise NotImplementedError

    def take_all(self, lines: Iterable[bytes]) -> bytes:
        """Take in the lines that follow; gives what there is of an unfinished last one."""
        for line in lines:
            if not line.endswith(b"\n"):
                return line
            self.take_whole(line)
        return b""

    def take_whole(self, line: bytes) -> None:
        """Take in the next line, which has its newline."""
        if not self.take(line, self.end) and line.strip():
            self.skipped += 1
        self.end += len(line)


class Track(msgspec.Struct, array_like=True, gc=False):
    """Where the messages of one session stand in a log, and the time that they span.

    `offsets` are the bytes where records with messages begin, `ends` how many messages there are
    up to and including each of them. Times are milliseconds since the epoch.
    """

    offsets: Numbers = msgspec.field(default_factory=Numbers)
    ends: Counts = msgspec.field(default_factory=Counts)
    total: int = 0
    started_at: int | None = None
    last_activity: int | None = None

    def between(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Name the records that hold the messages from `start` up to `stop`.

        Each is its byte offset, its first message's number, and how many messages it holds.
        """
        found = []
        index = self.ends.after(start)
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
            self.total += count
            self.offsets.extend((offset,))
            self.ends.extend((self.total,))

    def add_all(self, offsets: Sequence[int], ends: Sequence[int]) -> None:
        """Remember several records as `put` does."""
        if ends:
            self.total = ends[-1]
            self.offsets.extend(offsets)
            self.ends.extend(ends)

    def saw(self, moment: int | None) -> None:
        """Take in the time of a record; they may go backwards."""
        if moment is None:
            return
        if self.started_at is None:
            self.started_at = moment
        if self.last_activity is None or moment > self.last_activity:
            self.last_activity = moment


L = TypeVar("L", bound=LineLog)


Notes = tuple[tuple[str, str], ...]
Describe = Callable[[Unit, L, int], tuple[dict[str, Session], Notes]]


class LogReading(Reading, frozen=True, array_like=True, gc=False):
    """A reading of one log.

    `notes` is what concerns other units' sessions, in the reader's own words. `log` is the packed
    state after all whole lines, which end at `end`; `trial` the one after an unfinished last line
    too, where that is a record. `stamp` is the file's fingerprint, `edge` a digest of the last
    bytes before that end. `looked_for` is a note of the reader's to itself, 0 at first.
    """

    notes: Notes = ()
    log: bytes = b""
    trial: bytes = b""
    end: int = 0
    stamp: bytes = b""
    edge: bytes = b""
    looked_for: int = 0

    @property
    def visible(self) -> bytes:
        """The packed state that the sessions were described by."""
        return self.trial or self.log

    @property
    def fingerprint(self) -> bytes:
        """That of the unit's file; none where it has to be read again in any case."""
        return self.stamp if self.log else b""

    @property
    def identity(self) -> bytes:
        """Which file it is, of whatever size."""
        return self.stamp[:_IDENTITY]


def read_log(
    unit: Unit,
    before: Reading | None,
    begin: Callable[[Unit], L],
    describe: Describe[L],
) -> Reading | None:
    """Read what was added to a log since the last reading; None where it is gone.

    `begin` makes the state before the first line, `describe` makes the sessions and the notes of
    a state and the file's time of change (milliseconds since the epoch).
    """
    old = before if isinstance(before, LogReading) else None
    try:
        if old and old.stamp == fingerprint(os.stat(unit)):  # noqa: PTH116  (a string)
            return old
        # Without O_NONBLOCK the opening of a pipe would wait for somebody to write to it.
        handle = os.open(unit, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb", buffering=_CHUNK) as file:  # noqa: PTH123  (of a handle)
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return unreadable(unit, "not a regular file", before)
            return _read(file, unit, old, begin, describe)
    except IsADirectoryError:
        return unreadable(unit, "not a regular file", before)
    except (FileNotFoundError, NotADirectoryError):
        return unreadable(unit, "a broken link", before) if os.path.islink(unit) else None  # noqa: PTH114  (a string)
    except OSError as error:
        return unreadable(unit, error.strerror or str(error), before)


def read_page(
    unit: Unit,
    reading: LogReading,
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


def opened(unit: Unit, identity: bytes) -> BinaryIO:
    """Open the very file that was read. Raises Stale where another one took its place."""
    file = open(unit, "rb", buffering=_PAGE)  # noqa: PTH123, SIM115  (a string; it is given back open)
    if fingerprint(os.fstat(file.fileno()))[:_IDENTITY] == identity:
        return file
    file.close()
    raise Stale


def fingerprint(status: os.stat_result) -> bytes:
    """Tell which file it is, its size and its time of change."""
    return _STAMP.pack(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def unreadable(unit: Unit, reason: str, before: Reading | None) -> Reading:
    """Make the reading of a file that can't be read; the same one where nothing changed."""
    reading = Reading(unreadable={shown(unit): reason})
    return before if before is not None and before == reading else reading


def _read(
    file: BinaryIO,
    unit: Unit,
    old: LogReading | None,
    begin: Callable[[Unit], L],
    describe: Describe[L],
) -> LogReading:
    status = os.fstat(file.fileno())
    log = begin(unit)
    grown = old if old and _has_grown(file, status, old) else None
    if grown:
        log = unpack(grown.log, type(log))
    whole, trial = (log, None) if grown and _is_half(file, grown) else _feed(file, log)
    visible = whole if trial is None else trial
    sessions, notes = describe(unit, visible, status.st_mtime_ns // 1_000_000)
    return LogReading(
        sessions=sessions,
        notes=notes,
        skipped_lines=visible.skipped,
        log=pack(whole),
        trial=b"" if trial is None else pack(trial),
        end=whole.end,
        stamp=fingerprint(status),
        edge=_edge(file, whole.end),
    )


def _feed(file: BinaryIO, log: L) -> tuple[L, L | None]:
    """Take in what follows; the second state also has a whole record without its newline."""
    file.seek(log.end)
    rest = log.take_all(file)
    if not rest.rstrip().endswith(b"}"):
        return log, None  # half a record: not worth a copy of the state
    trial = log.copy()
    return log, (trial if trial.take(rest, log.end) else None)


def _is_half(file: BinaryIO, old: LogReading) -> bool:
    """Tell whether all that was added is more of an unfinished line, and not yet its end.

    However long the line gets, only what was added is looked at.
    """
    size = _size_of(old)
    if old.trial or size == old.end:
        return False
    file.seek(size)
    last = b""
    while chunk := file.read(_CHUNK):
        if b"\n" in chunk:
            return False
        last = chunk.rstrip() or last
    return not last.endswith(b"}") and bool(last)


def _has_grown(file: BinaryIO, status: os.stat_result, old: LogReading) -> bool:
    if not old.log or old.identity != fingerprint(status)[:_IDENTITY]:
        return False
    return status.st_size > _size_of(old) and _edge(file, old.end) == old.edge


def _size_of(reading: LogReading) -> int:
    size: int = _STAMP.unpack(reading.stamp)[2]
    return size


def _edge(file: BinaryIO, end: int) -> bytes:
    file.seek(max(0, end - _EDGE))
    return blake2b(file.read(min(end, _EDGE)), digest_size=_DIGEST).digest()


def _page(
    file: BinaryIO,
    track: Track,
    make: Callable[[bytes], Sequence[Message]],
    start: int,
    stop: int,
) -> Iterator[Message]:
    at = -1
    for offset, first, count in track.between(start, stop):
        if offset != at:
            file.seek(offset)
        line = file.readline()
        at = offset + len(line)
        messages = make(line)
        if len(messages) != count:
            raise Stale
        yield from messages[max(0, start - first) : stop - first]
