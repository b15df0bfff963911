"""The table of faults: what was done, how long recovery took, and what was checked."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class FaultTable:
    """Rows that the tests of faults add, printed at the end of the run."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, fault: str, seconds: list[float] | float | None, checked: str) -> None:
        if isinstance(seconds, list):
            ordered = sorted(seconds)
            middle = ordered[len(ordered) // 2]
            took = f"{middle:.2f} s, longest {ordered[-1]:.2f} s of {len(ordered)}"
        else:
            took = "-" if seconds is None else f"{seconds:.2f} s"
        self.rows.append((fault, took, checked))

    def lines(self) -> list[str]:
        rows = [("fault", "recovered after", "checked"), *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(2)]
        return [f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}" for row in rows]


TABLE = FaultTable()
