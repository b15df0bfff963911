"""Tar archives in memory, as Docker's archive API takes and gives them.

Pure: bytes in, bytes out. It must not know Docker, and it never writes to the host's disk, so what
a hostile archive names can't matter.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping

MAX_FILE = 16 * 1024 * 1024
"""Bytes of a single file that is read through the archive API."""


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
    """A file over chunks, for tarfile's streaming mode: nothing is read that isn't asked for."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                size = len(self._rest)
                break
            self._rest += chunk
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken
