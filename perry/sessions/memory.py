"""What was read of all files, kept on the disk for the next start.

One file for each home, a header and then frames of many readings each, written beside the old one
and renamed over it, so there is always a whole one. Frames are small, so neither writing nor reading
needs much memory, and each has a checksum. Whatever is wrong with a file, of another version or
damaged, it counts as empty, and a unit that it has is looked at before it is believed. It can be
deleted at any time. This module must not know any format, or when is a good time to write.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Union

import msgspec

from perry.sessions.source import Reading, Source

Readings = Mapping[Path, Reading]

_FRAME = struct.Struct("<II")  # how many bytes follow, and their checksum
_UNITS = 64  # in one frame
_LONGEST = 1 << 30  # bytes of a frame: what claims to be longer is damaged
_BUFFER = 1 << 20  # bytes


class Memory:
    """One home's readings on the disk; `problem` says why they could not be kept there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None

    @classmethod
    def of_home(cls, home: Path, env: Mapping[str, str], sources: Iterable[Source]) -> Memory:
        """Name the place for what these sources read, in the user's cache directory."""
        configured = env.get("XDG_CACHE_HOME", "")
        cache = Path(configured) if os.path.isabs(configured) else home / ".cache"  # noqa: PTH117  (a string)
        roots = "\0".join(str(root) for source in sources for root in source.roots)
        name = blake2b(roots.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        return cls(cache / "perry" / f"sessions-{name}")

    def load(self, sources: Iterable[Source]) -> dict[str, dict[Path, Reading]]:
        """Read what was written last, by coding agent; nothing where it can't be used."""
        kinds = {source.agent: _decoder(source.remembered) for source in sources}
        found: dict[str, dict[Path, Reading]] = {agent: {} for agent in kinds}
        try:
            with self.path.open("rb", buffering=_BUFFER) as file:
                for agent, frame in _frames(file):
                    decoded = kinds[agent].decode(frame)
                    found[agent].update((Path(os.fsdecode(u)), r) for u, r in decoded)
        except (OSError, ValueError, LookupError, struct.error, msgspec.DecodeError):
            # Missing, damaged or of another version: all files are read again, as without it.
            return {agent: {} for agent in kinds}
        return found

    def save(self, readings: Mapping[str, Readings]) -> bool:
        """Write readings by coding agent, and tell whether that was possible."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f"{self.path.name}.", dir=self.path.parent)
            try:
                with open(handle, "wb", buffering=_BUFFER) as file:  # noqa: PTH123  (of a handle)
                    _write(file, readings)
                os.replace(name, self.path)  # noqa: PTH105  (a string)
            except BaseException:
                with contextlib.suppress(OSError):  # what went wrong before is the news
                    os.unlink(name)  # noqa: PTH108  (a string)
                raise
        except OSError as error:
            self.problem = error.strerror or str(error)
            return False
        self.problem = None
        return True


def _frames(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Read frame after frame, each with its coding agent. Raises ValueError for what is damaged."""
    if file.readline(256) != _header():
        raise ValueError("another version")
    while True:
        length, checksum = _FRAME.unpack(file.read(_FRAME.size))
        if length == 0:
            return
        frame = file.read(length) if length < _LONGEST else b""
        if len(frame) != length or zlib.crc32(frame) != checksum:
            raise ValueError("damaged")
        agent, _, rest = frame.partition(b"\0")
        yield agent.decode(), rest


def _write(file: BinaryIO, readings: Mapping[str, Readings]) -> None:
    file.write(_header())
    for agent, of_agent in readings.items():
        left = iter(of_agent.items())
        while units := list(islice(left, _UNITS)):
            frame = agent.encode() + b"\0" + _encoded(units)
            file.write(_FRAME.pack(len(frame), zlib.crc32(frame)))
            file.write(frame)
    file.write(_FRAME.pack(0, 0))


def _encoded(units: Iterable[tuple[Path, Reading]]) -> bytes:
    encode = msgspec.msgpack.encode
    kept = []
    for unit, reading in units:
        # Lone surrogates, of names that are no text, can't be written: such a unit is read again.
        with contextlib.suppress(UnicodeEncodeError):
            kept.append((os.fsencode(unit), msgspec.Raw(encode(reading))))
    return encode(kept)


def _decoder(
    kinds: tuple[type[Reading], ...],
) -> msgspec.msgpack.Decoder[list[tuple[bytes, Reading]]]:
    return msgspec.msgpack.Decoder(list[tuple[bytes, Union[kinds]]])  # type: ignore[valid-type]  # noqa: UP007  (known only now)


def _header() -> bytes:
    """Name the version: a digest of the code that reads files, and of the Python that runs it."""
    digest = blake2b(f"{sys.version} {sys.byteorder}".encode(), digest_size=16)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return f"perry sessions {digest.hexdigest()}\n".encode()
