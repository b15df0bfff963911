"""Readings as bytes, many at a time: on the way to the disk, and between processes.

A frame holds the readings of some units of one coding agent, with its length and a checksum before
it. Frames are small, so that neither writing nor reading needs much memory, and a frame of length 0
ends a stream: what lacks it is not whole. This module must not know what becomes of the bytes.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO

import msgspec

from perry.sessions.source import Reading, Source, Unit

Pairs = list[tuple[Unit, Reading]]

_HEAD = struct.Struct("<II")  # how many bytes follow, and their checksum
_UNITS = 64  # in one frame
_LONGEST = 1 << 30  # bytes of a frame: what claims to be longer is damaged


_set = msgspec.structs.force_setattr
_REPEATED = ("agent_type", "directory", "git_branch", "model")


class Damaged(ValueError):
    """Bytes that are no whole stream of frames."""


def write_frames(file: BinaryIO, agent: str, readings: Iterable[tuple[Unit, Reading]]) -> None:
    """Write readings of one coding agent's units. Raises OSError."""
    left = iter(readings)
    while pairs := list(islice(left, _UNITS)):
        frame = agent.encode() + b"\0" + _encoded(pairs)
        file.write(_HEAD.pack(len(frame), zlib.crc32(frame)))
        file.write(frame)


def end_frames(file: BinaryIO) -> None:
    """Write the end of a stream. Raises OSError."""
    file.write(_HEAD.pack(0, 0))


def read_frames(file: BinaryIO, sources: Iterable[Source]) -> Iterator[tuple[str, Pairs]]:
    """Read frame after frame, each with its coding agent. Raises Damaged, and OSError."""
    decoders = {source.agent: _decoder(source) for source in sources}
    for frame in _frames(file):
        try:
            end = frame.index(b"\0")
            agent = frame[:end].decode()
            pairs = decoders[agent].decode(memoryview(frame)[end + 1 :])
        except (msgspec.DecodeError, ValueError, LookupError) as error:
            raise Damaged(str(error)) from error
        yield agent, [_shared(os.fsdecode(unit), reading) for unit, reading in pairs]


def _shared(unit: Unit, reading: Reading) -> tuple[Unit, Reading]:
    """Let equal texts of many sessions be one text: decoded, each takes its own memory."""
    for session in reading.sessions.values():
        for name in _REPEATED:
            text = getattr(session, name)
            if text is not None:
                _set(session, name, sys.intern(text))
        if session.file_path == unit:
            _set(session, "file_path", unit)
    return unit, reading


def _frames(file: BinaryIO) -> Iterator[bytes]:
    while True:
        head = file.read(_HEAD.size)
        if len(head) != _HEAD.size:
            raise Damaged("cut off")
        length, checksum = _HEAD.unpack(head)
        if length == checksum == 0:
            return
        frame = file.read(length) if length < _LONGEST else b""
        if len(frame) != length or zlib.crc32(frame) != checksum:
            raise Damaged("not what was written")
        yield frame


def _encoded(pairs: Pairs) -> bytes:
    encode = msgspec.msgpack.encode
    kept = []
    for unit, reading in pairs:
        # Lone surrogates, of names that are no text, can't be written: such a unit is read again.
        with contextlib.suppress(UnicodeEncodeError):
            kept.append((os.fsencode(unit), msgspec.Raw(encode(reading))))
    return encode(kept)


def _decoder(source: Source) -> msgspec.msgpack.Decoder[list[tuple[bytes, Reading]]]:
    kinds: Any = functools.reduce(operator.or_, source.remembered)
    return msgspec.msgpack.Decoder(list[tuple[bytes, kinds]])
