"""Work on two cores, above all the reading of many files for the first time.

Decoding is what takes the time, and one Python process does that on one core. So where there is a
lot to read a helper is forked, and both take what is next until there is nothing left. A helper
only reads files and hands back bytes; whatever it doesn't hand back, for whatever reason, is read
here. This module must not know any format, or what the readings are for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Self

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
    if units and sum(sizes.values()) >= enough and may_help():
        for unit, reading in _read_by_two(source, list(left), read):
            left.pop(unit, None)
            yield unit, reading
    for unit in left:
        yield unit, read(unit)


class Helper:
    """A forked process that writes bytes for this one; a context manager that waits for its end.

    `work` may use nothing that another thread could have locked; `needs` is a handle it has to
    have. Killed, or never started, it leaves bytes that are not whole.
    """

    def __init__(self, work: Callable[[BinaryIO], None], needs: int | None = None) -> None:
        self._handle = os.memfd_create("perry-helper")
        try:
            self._process = os.fork()
        except OSError:
            self._process = -1  # no more processes
        if self._process == 0:
            _help(work, self._handle, needs)

    @property
    def is_there(self) -> bool:
        """Whether it was started."""
        return self._process > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()
        os.close(self._handle)

    def written(self) -> BinaryIO:
        """Give what it has written, once it has ended; to be read within the block."""
        self._wait()
        os.lseek(self._handle, 0, os.SEEK_SET)
        return open(self._handle, "rb", closefd=False)

    def _wait(self) -> None:
        if self.is_there:
            os.waitpid(self._process, 0)
        self._process = -1


def may_help() -> bool:
    """Tell whether a helper can be had, and a core for it."""
    return hasattr(os, "memfd_create") and len(os.sched_getaffinity(0)) > 1


def _help(work: Callable[[BinaryIO], None], handle: int, needs: int | None) -> None:
    """Be the helper, and end."""
    try:
        for other in {*map(int, os.listdir("/proc/self/fd"))} - {0, 1, 2, handle, needs}:  # noqa: PTH208  (names, of which one is gone by now)
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(other)  # a connection must end when its owner ends it
        with open(handle, "wb", closefd=False) as file:
            work(file)
    finally:
        os._exit(0)  # without what a process does at its end: that is for the one that was forked


def _read_by_two(source: Source, units: Sequence[Unit], read: Read) -> Found:
    parts = [units[number::_PARTS] for number in range(_PARTS)]
    turns, write_end = os.pipe()
    os.write(write_end, bytes(range(_PARTS)))
    os.close(write_end)

    def help_reading(file: BinaryIO) -> None:
        units = _taken(turns, parts)
        pairs = ((unit, reading) for unit in units if (reading := read(unit)) is not None)
        write_frames(file, source.agent, pairs)
        end_frames(file)

    with Helper(help_reading, needs=turns) as helper:
        try:
            if helper.is_there:
                for unit in _taken(turns, parts):
                    yield unit, read(unit)
        finally:
            os.close(turns)
        with contextlib.suppress(Damaged):  # the helper was killed, or there was none
            for _, pairs in read_frames(helper.written(), [source]):
                yield from pairs


def _taken(turns: int, parts: Sequence[Sequence[Unit]]) -> Iterator[Unit]:
    """Take part after part, as long as nobody else has taken it."""
    while number := os.read(turns, 1):
        yield from parts[number[0]]


def _size(unit: Unit) -> int:
    try:
        return os.stat(unit).st_size  # noqa: PTH116  (a string)
    except OSError:
        return 0  # reading it will tell what is wrong
