"""Looking at all files while what is remembered of them is read, on two cores.

At a start nearly every file is as it was, and to find that out takes as long as to read what it
was. So a helper is forked that finds the units and looks at their files, and hands back
fingerprints; where it hands back nothing, for whatever reason, the files are looked at as always.
This module must not know any format, or who compares the fingerprints with what.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO, TypeVar

import msgspec

from perry.sessions.jsonl import fingerprint
from perry.sessions.parallel import Helper
from perry.sessions.source import Scan, Source, Unit

T = TypeVar("T")


class Look(msgspec.Struct, frozen=True):
    """What a scan of one source has found, and the fingerprints of those units that are there."""

    scan: Scan
    fingerprints: Mapping[Unit, bytes] = {}


_Looked = dict[str, tuple[dict[bytes, bytes], dict[str, str]]]
"""The same as bytes, by coding agent; a unit that isn't there has an empty fingerprint."""


def look_while(sources: Iterable[Source], work: Callable[[], T]) -> tuple[T, Mapping[str, Look]]:
    """Work while a helper looks; gives what came of the work, and the looks by coding agent.

    Raises what the work raises.
    """
    with Helper(lambda file: _write(file, sources)) as helper:
        return work(), _read(helper.written())


def _write(file: BinaryIO, sources: Iterable[Source]) -> None:
    looked: _Looked = {}
    for source in sources:
        scan = source.scan()
        seen = {os.fsencode(unit): _fingerprint(unit) for unit in scan.units}
        looked[source.agent] = seen, dict(scan.unreadable)
    file.write(msgspec.msgpack.encode(looked))


def _read(file: BinaryIO) -> Mapping[str, Look]:
    try:
        looked = msgspec.msgpack.decode(file.read(), type=_Looked)
    except msgspec.DecodeError:
        return {}  # the helper was killed, or there was none
    return {agent: _look(seen, unreadable) for agent, (seen, unreadable) in looked.items()}


def _look(seen: Mapping[bytes, bytes], unreadable: Mapping[str, str]) -> Look:
    fingerprints = {os.fsdecode(unit): found for unit, found in seen.items()}
    return Look(Scan(frozenset(fingerprints), unreadable), fingerprints)


def _fingerprint(unit: Unit) -> bytes:
    try:
        return fingerprint(os.stat(unit))  # noqa: PTH116  (a string)
    except OSError:
        return b""  # reading it will tell what is wrong
