"""The table that the bench prints, and the same as JSON.

A row carries its words for people and its numbers for programs. This module must not know what is
measured.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure, what it stands beside, and what is promised.

    `numbers` are the same figures for programs: seconds, bytes, or what their names say.
    """

    what: str
    figure: str
    floor: str = ""
    relation: str = ""
    promise: str = ""
    numbers: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def cells(self) -> tuple[str, ...]:
        """What is printed of it."""
        return self.what, self.figure, self.floor, self.relation, self.promise


HEAD = Row("what", "median", "floor", "compared", "promised")


def print_rows(rows: Sequence[Row]) -> None:
    """Print rows below each other."""
    widths = [
        max(map(len, column)) for column in zip(*(r.cells for r in [HEAD, *rows]), strict=True)
    ]
    for row in [HEAD, *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row.cells, widths, strict=True))
        print("  ".join(cells).rstrip())


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as a JSON list of objects."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


@contextmanager
def stopwatch(into: list[float]) -> Iterator[None]:
    """Add the seconds that the block takes."""
    began = time.perf_counter()
    yield
    into.append(time.perf_counter() - began)


def percentile(values: Sequence[float], share: float) -> float:
    """Give the value that a share of all values (between 0 and 1) doesn't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """Give the middle value."""
    return statistics.median(values)


def seconds(value: float) -> str:
    """Write a duration."""
    return f"{value:.2f} s"


def milliseconds(value: float) -> str:
    """Write a short duration, given in seconds."""
    return f"{value * 1000:.2f} ms"


def megabytes(value: float) -> str:
    """Write a number of bytes."""
    return f"{value / 1e6:.0f} MB"
