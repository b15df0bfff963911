"""Reading many files for the first time, on two cores.

Decoding is what takes the time, and one Python process does that on one core. So where there is a
lot to read a helper is forked, and both take what is next until there is nothing left. The helper
only reads files and hands back bytes; whatever it doesn't hand back, for whatever reason, is read
here. This module must not know any format, or what the readings are for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

from perry.sessions.frames import Damaged, end_frames, read_frames, write_frames
from perry.sessions.source import Reading, Source, Unit

ENOUGH = 32 * 1024 * 1024  # bytes that take longer to read than a helper to start
_PARTS = 200  # that two processes take turns in taking: few enough for the buffer of a pipe

Read = Callable[[Unit], Reading | None]
Found = Iterator[tuple[Unit, Reading | None]]


def read_many(source: Source, units: Sequence[Unit], read: Read, *, enough: int = ENOUGH) -> Found:
    """Read units, in any order; with a helper where they have `enough` bytes for that."""
    sizes = {unit: _size(unit) for unit in units}
    left = dict.fromkeys(sorted(units, key=sizes.__getitem__, reverse=True))
    if units and sum(sizes.values()) >= enough and _may_fork():
        for unit, reading in _read_by_two(source, list(left), read):
            left.pop(unit, None)
            yield unit, reading
    for unit in left:
        yield unit, read(unit)


def _read_by_two(source: Source, units: Sequence[Unit], read: Read) -> Found:
    parts = [units[number::_PARTS] for number in range(_PARTS)]
    turns, write_end = os.pipe()
    os.write(write_end, bytes(range(_PARTS)))
    os.close(write_end)
    handle = os.memfd_create("perry-readings")
    try:
        helper = os.fork()
    except OSError:
        helper = -1  # no more processes: what is left is read by one
    if helper == 0:
        _help(source, _taken(turns, parts), read, handle, turns)
    with open(handle, "rb") as file:  # noqa: PTH123  (of a handle)
        try:
            if helper > 0:
                for unit in _taken(turns, parts):
                    yield unit, read(unit)
        finally:
            os.close(turns)
            if helper > 0:
                os.waitpid(helper, 0)
        file.seek(0)
        try:
            for _, pairs in read_frames(file, [source]):
                yield from pairs
        except Damaged:
            return  # the helper was killed, or there was none


def _help(source: Source, units: Iterator[Unit], read: Read, handle: int, turns: int) -> None:
    """Be the helper, and end. Nothing may be used that another thread could have locked."""
    try:
        for other in {*map(int, os.listdir("/proc/self/fd"))} - {0, 1, 2, handle, turns}:  # noqa: PTH208  (names, of which one is gone by now)
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(other)  # a connection must end when its owner ends it
        with open(handle, "wb", closefd=False) as file:
            pairs = ((unit, reading) for unit in units if (reading := read(unit)) is not None)
            write_frames(file, source.agent, pairs)
            end_frames(file)
    finally:
        os._exit(0)  # without what a process does at its end: that is for the one that was forked


def _taken(turns: int, parts: Sequence[Sequence[Unit]]) -> Iterator[Unit]:
    """Take part after part, as long as nobody else has taken it."""
    while number := os.read(turns, 1):
        yield from parts[number[0]]


def _may_fork() -> bool:
    return hasattr(os, "memfd_create") and len(os.sched_getaffinity(0)) > 1


def _size(unit: Unit) -> int:
    try:
        return os.stat(unit).st_size  # noqa: PTH116  (a string)
    except OSError:
        return 0  # reading it will tell what is wrong
