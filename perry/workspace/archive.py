"""Tar archives in memory, as Docker's archive API takes and gives them.

Pure: bytes in, bytes out. It must not know Docker, and it never writes to the host's disk, so what
a hostile archive names can't matter. Whoever writes what `members` gives has names that lead
nowhere else, and no kind of entry but regular files.
"""

from __future__ import annotations

import io
import math
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Self

MAX_FILE = 16 * 1024 * 1024
"""Bytes of a single file that is read through the archive API."""

MAX_HEADER = 1024 * 1024
"""Bytes of the headers of one entry: no honest names, links and times are longer."""

_BUFFER = 256 * 1024
_LATEST = 1 << 62  # ns: a time of change beyond what any file system keeps

Kind = Literal["file", "directory", "link", "other"]


class OutOfTime(tarfile.TarError):
    """An archive that doesn't end when it should."""


@dataclass(frozen=True)
class Member:
    """One entry of a tar.

    `parts` are the names on the way to it, none for the archive's own root, and None where they
    would lead out of it. `size` is in bytes, `modified` in nanoseconds since the epoch.
    """

    name: str
    parts: tuple[str, ...] | None
    kind: Kind
    size: int
    modified: int
    content: Iterator[bytes]


def pack(files: Mapping[str, bytes]) -> bytes:
    """Make a tar of regular files (path to content), owned by root and readable by all.

    The same files always give the same bytes. Directories are made as needed.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in _directories(files):
            tar.addfile(_entry(directory, tarfile.DIRTYPE, 0o755))
        for path in sorted(files):
            entry = _entry(path, tarfile.REGTYPE, 0o644)
            entry.size = len(files[path])
            tar.addfile(entry, io.BytesIO(files[path]))
    return buffer.getvalue()


def directory(path: str, uid: int, gid: int, mode: int) -> bytes:
    """Make a tar of one empty directory that belongs to a user."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = _entry(path, tarfile.DIRTYPE, mode)
        entry.uid, entry.gid = uid, gid
        tar.addfile(entry)
    return buffer.getvalue()


def directories(paths: Iterable[str]) -> bytes:
    """Make a tar of directories that belong to root, may be read by all, and are new."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in paths:
            entry = _entry(path, tarfile.DIRTYPE, 0o755)
            entry.mtime = time.time()
            tar.addfile(entry)
    return buffer.getvalue()


def only_file(stream: Iterable[bytes]) -> bytes | None:
    """Return the content of the regular file a tar starts with, None for anything else or larger
    than MAX_FILE.
    """  # noqa: D205 - one sentence
    with tarfile.open(fileobj=_Stream(stream), mode="r|") as tar:
        entry = tar.next()
        if entry is None or not entry.isreg() or entry.size > MAX_FILE:
            return None
        content = tar.extractfile(entry)
        return content.read() if content else None


def first_owner(stream: Iterable[bytes]) -> tuple[int, int] | None:
    """Return the (uid, gid) of a tar's first entry, None for an empty tar."""
    with tarfile.open(fileobj=_Stream(stream), mode="r|") as tar:
        entry = tar.next()
        return None if entry is None else (entry.uid, entry.gid)


def members(chunks: Iterable[bytes]) -> Iterator[Member]:
    """Yield the entries of a tar as they come; the content of each is gone at the next.

    Raises TarError for what is no tar, ends too early or has endless headers.
    """
    stream = _Stream(chunks)
    stream.allow(MAX_HEADER + _BUFFER)
    with tarfile.open(
        fileobj=stream,
        mode="r|",
        bufsize=_BUFFER,
        encoding="utf-8",
        errors="surrogateescape",
        tarinfo=_StrictEntry,
    ) as tar:
        while True:
            stream.allow(max(0, tar.offset - stream.taken) + MAX_HEADER + _BUFFER)
            entry = tar.next()
            if entry is None:
                return
            tar.members.clear()  # type: ignore[attr-defined]  # or it remembers all of them
            stream.allow(max(0, tar.offset - stream.taken) + _BUFFER)
            modified = entry.mtime * 1_000_000_000
            yield Member(
                name=entry.name,
                parts=_parts(entry.name),
                kind=_kind(entry),
                size=entry.size,
                modified=int(min(max(0, modified), _LATEST)) if math.isfinite(modified) else 0,
                content=_content(tar, entry),
            )


def until(deadline: float, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pass a stream on until a moment of the monotonic clock. Raises OutOfTime after it."""
    for chunk in chunks:
        if time.monotonic() > deadline:
            raise OutOfTime("the archive doesn't end")
        yield chunk


class _StrictEntry(tarfile.TarInfo):
    """An entry whose header is whole: tarfile takes any other for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            entry = super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no whole header: {error}") from error
        if entry.size < 0:
            raise tarfile.ReadError("an entry of less than no bytes")
        return entry


def _kind(entry: tarfile.TarInfo) -> Kind:
    if entry.issym() or entry.islnk():
        return "link"
    if entry.isdir():
        return "directory"
    # A sparse file's size and content are what its own headers say: no engine makes one.
    return "file" if entry.isreg() and not entry.issparse() else "other"


def _parts(name: str) -> tuple[str, ...] | None:
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    return None if name.startswith("/") or ".." in parts or "\0" in name else parts


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
    """Yield a regular file's content. Raises TarError where it is shorter than its size."""
    if _kind(entry) != "file":
        return
    left = entry.size
    content = tar.extractfile(entry)
    while content is not None and left > 0:
        chunk = content.read(min(left, _BUFFER))
        if not chunk:
            raise tarfile.ReadError("the content ends too early")
        left -= len(chunk)
        yield chunk


def _directories(files: Iterable[str]) -> list[str]:
    parents = {
        "/".join(parts[:depth])
        for path in files
        for parts in [path.split("/")]
        for depth in range(1, len(parts))
    }
    return sorted(parents)


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type = kind
    entry.mode = mode
    return entry


class _Stream(io.RawIOBase):
    """A file over chunks, for tarfile's streaming mode: nothing is read that isn't asked for.

    `taken` counts the bytes that were read.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self._rest = memoryview(b"")
        self._allowed: float = math.inf
        self.taken = 0

    def readable(self) -> bool:
        return True

    def allow(self, size: int) -> None:
        """Say how many bytes may be read from here on."""
        self._allowed = self.taken + size

    def read(self, size: int = -1) -> bytes:
        """Read what is at hand, up to as much as is asked for; b"" only at the end.

        Raises TarError where that is more than is allowed.
        """
        part = self._rest
        while not part:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            part = memoryview(chunk)
        if 0 <= size < len(part):
            part, self._rest = part[:size], part[size:]
        else:
            self._rest = memoryview(b"")
        self.taken += len(part)
        if self.taken > self._allowed:
            raise tarfile.ReadError("headers that don't end")
        return bytes(part)
