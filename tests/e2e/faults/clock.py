"""A clock that can be stepped under programs that run: the C library's time, by libfaketime.

Only the time of day is stepped, as an administrator or NTP does it; the monotonic clock goes on.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.packages import require

SLEEP, OTHER_NAME = b"\0clock_nanosleep\0", b"\0clock_nanosleeq\0"
"""The library takes a sleep until a moment of the monotonic clock, as Python's are, for one by the
clock that it steps. Without its word for it in the table of its symbols, sleeping is left alone."""


@dataclass(frozen=True)
class Clock:
    """How far a clock is off, as a file says; `environment` puts a program under it."""

    file: Path
    library: Path

    @classmethod
    def made(cls, file: Path) -> Clock:
        """Make one that is right so far."""
        require("faketime", "faketime")
        listed = subprocess.run(
            ["dpkg-query", "--listfiles", "libfaketime"], capture_output=True, text=True, check=True
        )
        [original] = [path for path in listed.stdout.split() if path.endswith("MT.so.1")]
        library = file.with_suffix(".so")
        library.write_bytes(Path(original).read_bytes().replace(SLEEP, OTHER_NAME, 1))
        clock = cls(file, library)
        clock.step(0)
        return clock

    @property
    def environment(self) -> dict[str, str]:
        """What a program is started with, to be under it."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def step(self, seconds: int) -> None:
        """Have it be so many seconds ahead of the true time, or behind it."""
        draft = self.file.with_suffix(".draft")
        draft.write_text(f"{seconds:+d}\n")
        draft.replace(self.file)

    def now(self) -> float:
        """Tell the time by it, in seconds since the epoch."""
        return time.time() + int(self.file.read_text())
