"""Free space on a disk: of this machine, or as seen from inside a container.

It must not know whose disk it is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from perry.errors import EngineFailure
from perry.workspace.bundle import BUSYBOX
from perry.workspace.doctor.finding import Verdict, failure, ok, warning
from perry.workspace.engine import Engine

MEGABYTE = 1024**2
FULL = 10 * MEGABYTE
LOW = 1024 * MEGABYTE
FULL_SHARE, LOW_SHARE = 0.01, 0.1
"""Bytes, or a share of a small disk, with less than which it is full or getting so."""

_FORMAT = "%a %S %b %c %d"
"""Busybox's words for: free blocks, bytes of a block, blocks, inodes, free inodes."""


@dataclass(frozen=True)
class Space:
    """What a disk has for a user who isn't root; some kinds have no number of inodes: 0 in all."""

    free: int
    size: int
    free_inodes: int
    inodes: int

    def judge(self, what: str, advice: str) -> Verdict:
        """Say how much is free, `what` naming the place; a full disk is a failure."""
        told = f"{what} has {_size(self.free)} of {_size(self.size)} free"
        if self.inodes and not self.free_inodes:
            return failure(f"{what} has no room for another file (no free inodes)", advice)
        if self.free < min(FULL, FULL_SHARE * self.size):
            return failure(f"{what} is full: {_size(self.free)} of {_size(self.size)} free", advice)
        return warning(told, advice) if self.free < min(LOW, LOW_SHARE * self.size) else ok(told)


def here(directory: Path) -> Space:
    """Look at the disk of a directory of this machine. Raises OSError."""
    found = os.statvfs(directory)
    return Space(
        found.f_bavail * found.f_frsize,
        found.f_blocks * found.f_frsize,
        found.f_favail,
        found.f_files,
    )


def inside(engine: Engine, container_id: str, path: str) -> Space:
    """Look at the disk of a path in a running container that has the bundle.

    Raises EngineFailure where it can't be looked at.
    """
    looked = engine.run(container_id, [BUSYBOX, "stat", "-f", "-c", _FORMAT, path])
    numbers = looked.output.split()
    if looked.exit_code != 0 or not all(map(str.isdigit, numbers)):
        raise EngineFailure(f"The free space of {path} can't be told: {looked.output.strip()}")
    free, block, blocks, inodes, free_inodes = map(int, numbers)
    return Space(free * block, blocks * block, free_inodes, inodes)


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1024:  # noqa: PLR2004 - each unit is so many of the one before
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"
