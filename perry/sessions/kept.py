"""How what was deleted stands in one file.

A label, then what there is, each after its length and a checksum; then the rows and the bytes of
files in that order, compressed; and at the end, once all is gone, when the directories above were
changed. The label can be read without the rest. This module must not know where such files are.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Self, TypeVar

import msgspec

from perry.sessions.kept_files import CHUNK, Item
from perry.sessions.kept_rows import Damaged, Table
from perry.sessions.models import Session

T = TypeVar("T")

_MAGIC = b"perry deleted 1\n"
_LENGTH = 8  # bytes of a length
_SUM = 4  # bytes of a checksum
_FAST = 1  # zlib's level: what there is to gain in text is gained with it

Write = Callable[[bytes], object]


class Label(msgspec.Struct, frozen=True, array_like=True):
    """Whose it is: `deleted_at` is in ms since the epoch, `roots` are those of its reader."""

    session: Session
    deleted_at: int
    roots: tuple[bytes, ...]


class Database(msgspec.Struct, frozen=True, array_like=True):
    """A database below one of the roots, and the tables whose rows were kept."""

    root: int
    path: bytes
    tables: tuple[Table, ...]


class Contents(msgspec.Struct, frozen=True, array_like=True):
    """What there is: `units` are to be read again once it is back."""

    items: tuple[Item, ...]
    databases: tuple[Database, ...]
    units: tuple[bytes, ...]


def write_kept(
    file: BinaryIO, label: Label, contents: Contents, fill: Callable[[Write], object]
) -> None:
    """Write a whole file; `fill` writes the rows and the bytes of files. Raises OSError."""
    file.write(_MAGIC)
    for part in (label, contents):
        data = msgspec.msgpack.encode(part)
        file.write(len(data).to_bytes(_LENGTH, "big") + _sum(data) + data)
    packer = zlib.compressobj(_FAST)
    fill(lambda data: file.write(packer.compress(data)))
    file.write(packer.flush())


def write_settled(file: BinaryIO, settled: Mapping[int, int]) -> None:
    """Add when the directories above were changed last, by their places among the items."""
    file.write(msgspec.msgpack.encode(settled))


class KeptFile:
    """A file that is being read; a context manager. Every method may raise Damaged and OSError."""

    def __init__(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        self._file = open(handle, "rb", buffering=CHUNK)  # noqa: PTH123, SIM115  (of a handle; `__exit__` closes)
        self._inflate = zlib.decompressobj()
        self._ready = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def label(self) -> Label:
        """Read whose it is; the first thing to ask."""
        if self._file.read(len(_MAGIC)) != _MAGIC:
            raise Damaged("It doesn't begin as what was kept does")
        return self._part(Label)

    def contents(self) -> Contents:
        """Read what there is; the second."""
        return self._part(Contents)

    def read(self, size: int) -> bytes:
        """Read so many bytes of the rows and files, which come in their order."""
        while len(self._ready) < size:
            more = self._inflated()
            if not more:
                raise Damaged("It ends too early")
            self._ready += more
        data = bytes(self._ready[:size])
        del self._ready[:size]
        return data

    def settled(self) -> Mapping[int, int]:
        """Read when the directories above were changed last; nothing where that is not known."""
        while self._inflated():
            pass
        rest = self._inflate.unused_data + self._file.read()
        try:
            return msgspec.msgpack.decode(rest, type=dict[int, int])
        except msgspec.MsgspecError:
            return {}  # the disk was full, or perry was killed

    def _part(self, kind: type[T]) -> T:
        length = int.from_bytes(self._file.read(_LENGTH), "big")
        expected = self._file.read(_SUM)
        left = os.fstat(self._file.fileno()).st_size - self._file.tell()
        data = self._file.read(length) if length <= left else b""
        if _sum(data) != expected:
            raise Damaged("Its bytes have changed, or it ends too early")
        try:
            return msgspec.msgpack.decode(data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Damaged(f"It makes no sense: {error}") from error

    def _inflated(self) -> bytes:
        """Give some more bytes, none at the end."""
        while not self._inflate.eof:
            data = self._inflate.unconsumed_tail or self._file.read(CHUNK)
            if not data:
                raise Damaged("It ends too early")
            try:
                more = self._inflate.decompress(data, CHUNK)
            except zlib.error as error:
                raise Damaged(f"Its bytes have changed: {error}") from error
            if more:
                return more
        return b""


def _sum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_SUM, "big")
