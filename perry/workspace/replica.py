"""A copy of a container's files on the host: what is written there, and how.

What comes in is hostile. Only regular files are made, only below the copy's own root, only those
that are wanted and within limits; no link is made or followed, and what is left out is told. A file
that has grown is added to in place, so that who reads it goes on where it stopped; anything else
that changed is put in its place whole. It must not know where files come from.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from perry.sessions.source import shown
from perry.workspace.archive import Member
from perry.workspace.wanted import Wanted

MAX_PROBLEMS = 100
"""What is left out and told one by one; the rest is counted."""

MAX_DEPTH = 64
"""Names in a path: whoever walks through directories may call themselves once for each."""

_OF_ONE_FILE = frozenset(
    {
        errno.EEXIST, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOTDIR,
        errno.EFBIG,
    }
)  # fmt: skip
"""Errors that say something of one file, and not of the place that all are kept in."""


@dataclass(frozen=True)
class Limits:
    """What is copied at most: bytes of a file, bytes and number of all, and seconds of a look."""

    file: int = 1 << 30
    total: int = 4 << 30
    files: int = 200_000
    seconds: float = 120.0


class Replica:
    """One look's work on a copy below `root`; `draft` is a file beside it, for what is unfinished.

    A file of the same size and time is taken to be the same if that time is before `settled`
    (nanoseconds since the epoch): one that changed later may change again without a sign. `copied`
    and `received` count the files and the bytes that did not pass for the same, `databases` has
    those that were passed by. `problems` maps paths to the reasons why they were left out.
    """

    def __init__(
        self, root: Path, draft: Path, wanted: Wanted, limits: Limits, *, settled: int
    ) -> None:
        self.problems: dict[str, str] = {}
        self.databases: set[str] = set()
        self.copied = 0
        self.received = 0
        self._root = os.fsencode(root)
        self._draft = draft
        self._wanted = wanted
        self._limits = limits
        self._settled = settled
        self._kept: dict[str, int] = {}
        self._total = 0
        self._left_out = 0
        self._made: set[bytes] = set()

    def take(self, place: str, members: Iterable[Member]) -> None:
        """Copy what is wanted of a tar of a directory. Raises TarError, and OSError for the copy.

        `place` is the directory in the container.
        """
        seen: set[str] = set()
        for member in members:
            if member.parts is None:
                self.leave_out(f"{place}/{member.name}", "its name leads out of its directory")
                continue
            path = "/".join((place.rstrip("/"), *member.parts))
            if member.kind == "directory":
                continue
            if member.kind != "file":
                if self._wanted.may_hold(path):
                    self.leave_out(path, _REASONS[member.kind])
            elif self._wanted.is_database(path):
                self.databases.add(path)
            elif self._wanted.is_file(path):
                if path in seen:
                    self.leave_out(path, "a second file of the same name")
                    continue
                seen.add(path)
                self.put(path, member.size, member.modified, member.content)

    def put(self, path: str, size: int, modified: int, content: Iterator[bytes]) -> None:
        """Copy one file, unless it is known or beyond the limits. Raises as `take` does."""
        if not self.fits(path, size):
            return
        try:
            if not self.has(path, size, modified):
                self.copied += 1
                self.received += size
                self._make_room(path)
                self._write(self.place(path), size, content)
                os.utime(self.place(path), ns=(modified, modified))
        except OSError as error:
            if error.errno not in _OF_ONE_FILE:
                raise
            self.leave_out(path, error.strerror or str(error))
            return
        self.keep(path, size)

    def fits(self, path: str, size: int) -> bool:
        """Tell whether a file is within the limits; one that isn't is left out."""
        limits, more = self._limits, size - self._kept.get(path, 0)
        if size > limits.file:
            self.leave_out(path, f"{size} bytes are more than the {limits.file} of a file")
        elif self._total + more > limits.total:
            self.leave_out(path, f"all files have more than {limits.total} bytes")
        elif path not in self._kept and len(self._kept) >= limits.files:
            self.leave_out(path, f"there are more than {limits.files} files")
        elif path.count("/") > MAX_DEPTH:
            self.leave_out(path, f"it lies more than {MAX_DEPTH} directories deep")
        else:
            return True
        return False

    def has(self, path: str, size: int, modified: int) -> bool:
        """Tell whether the copy already has a file as it is."""
        try:
            status = os.lstat(self.place(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        same = (status.st_size, status.st_mtime_ns) == (size, modified)
        return same and stat.S_ISREG(status.st_mode) and modified < self._settled

    def keep(self, path: str, size: int) -> None:
        """Let a file of the copy stay when all others are dropped."""
        self._total += size - self._kept.get(path, 0)
        self._kept[path] = size

    def leave_out(self, path: str, reason: str) -> None:
        """Tell of something that isn't copied."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems[shown(path)] = reason
        elif shown(path) not in self.problems:
            self._left_out += 1
            self.problems["…"] = f"and {self._left_out} more"

    def drop_others(self, unknown: Iterable[str]) -> None:
        """Remove every file that isn't kept, but for those at and below `unknown` places."""
        places = tuple(place.rstrip("/") for place in unknown)
        for directory, folders, names in os.walk(self._root, topdown=False):
            inside = os.fsdecode(directory[len(self._root) :])
            for name in names:
                path = f"{inside}/{os.fsdecode(name)}"
                if path not in self._kept and not _is_at(path, places):
                    os.unlink(os.path.join(directory, name))  # noqa: PTH108, PTH118  (bytes)
            for folder in folders:
                with suppress(OSError):  # what isn't empty stays
                    os.rmdir(os.path.join(directory, folder))  # noqa: PTH106, PTH118  (bytes)

    def place(self, path: str) -> bytes:
        """Tell where the copy of a file lies on this machine."""
        return self._root + path.encode("utf-8", "surrogateescape")

    def holds(self, path: str) -> bool:
        """Tell whether the copy has something at a path."""
        return os.path.lexists(self.place(path))

    def write_draft(self, suffix: str, content: Iterable[bytes], modified: int) -> None:
        """Write one of several files that are put in their places together. Raises as `take`."""
        draft = self._draft_of(suffix)
        with _begun(draft) as file:
            for chunk in content:
                file.write(chunk)
        os.utime(draft, ns=(modified, modified))

    def begin_of_draft(self, suffix: str, size: int) -> bytes:
        """Read the first bytes of what was written so."""
        with self._draft_of(suffix).open("rb") as file:
            return file.read(size)

    def install(self, path: str, suffix: str, size: int) -> None:
        """Put an unfinished file in its place."""
        self._make_room(path)
        os.replace(self._draft_of(suffix), self.place(path))  # noqa: PTH105  (bytes)
        self.copied += 1
        self.received += size

    def remove(self, path: str) -> None:
        """Remove a file; one that isn't there is no error."""
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(self.place(path))  # noqa: PTH108  (bytes)

    def _draft_of(self, suffix: str) -> Path:
        return self._draft.with_name(self._draft.name + suffix)

    def _make_room(self, path: str) -> None:
        """Make a file's directories, in place of what an earlier look had there."""
        target = self.place(path)
        self._make_directory(os.path.dirname(target))  # noqa: PTH120  (bytes)
        if os.path.isdir(target) and not self._is_used(path):  # noqa: PTH112  (bytes)
            shutil.rmtree(target)
            self._made.clear()

    def _make_directory(self, directory: bytes) -> None:
        if directory in self._made:
            return
        try:
            os.mkdir(directory, 0o700)  # noqa: PTH102  (bytes)
        except (FileNotFoundError, NotADirectoryError):
            self._make_directory(os.path.dirname(directory))  # noqa: PTH120  (bytes)
            os.mkdir(directory, 0o700)  # noqa: PTH102  (bytes)
        except FileExistsError:
            inside = os.fsdecode(directory[len(self._root) :])
            if not os.path.isdir(directory):  # noqa: PTH112  (bytes)
                if inside in self._kept:
                    raise NotADirectoryError(errno.ENOTDIR, "a file lies in its way") from None
                os.unlink(directory)  # noqa: PTH108  (bytes)
                os.mkdir(directory, 0o700)  # noqa: PTH102  (bytes)
        self._made.add(directory)

    def _is_used(self, path: str) -> bool:
        return any(kept.startswith(f"{path}/") for kept in self._kept)

    def _write(self, target: bytes, size: int, content: Iterator[bytes]) -> None:
        try:
            known = open(os.open(target, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b")  # noqa: PTH123, SIM115  (of a handle)
        except FileNotFoundError:
            self._write_anew(target, content)
            return
        with known:
            if size < os.fstat(known.fileno()).st_size:
                self._write_anew(target, content)
            else:
                self._add(known, target, content)

    def _add(self, known: BinaryIO, target: bytes, content: Iterator[bytes]) -> None:
        """Add what is new to a file, or replace it where it doesn't begin as before."""
        same = 0
        for chunk in content:
            before = known.read(len(chunk))
            if not chunk.startswith(before):
                known.seek(0)
                self._write_anew(target, chain(_first(known, same), (chunk,), content))
                return
            same += len(before)
            known.write(chunk[len(before) :])

    def _write_anew(self, target: bytes, content: Iterable[bytes]) -> None:
        with _begun(self._draft) as file:
            for chunk in content:
                file.write(chunk)
        os.replace(self._draft, target)  # noqa: PTH105  (bytes)


_REASONS = {"link": "a link, and links are not followed", "other": "not a regular file"}


def _begun(path: Path) -> BinaryIO:
    """Begin an unfinished file that nobody else may read. Raises OSError."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(path, flags, 0o600), "wb")  # noqa: PTH123  (of a handle)


def _first(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := file.read(min(size, 1 << 18))):
        size -= len(chunk)
        yield chunk


def _is_at(path: str, places: Iterable[str]) -> bool:
    """Tell whether a file lies below a place, or is a database there or the log of one."""
    return any(path.startswith((f"{place}/", f"{place}-")) or path == place for place in places)
