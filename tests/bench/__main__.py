"""`make bench`: the figures perry promises, as ratios measured in one run, the floor beside them.

Machines are noisy: each figure is the median of several rounds, and what is compared is measured
in turn within the same run. Nothing here fails; it prints a table, and writes it as JSON where
asked to.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tests.bench.table import Row, print_rows, write_rows


def main() -> None:
    """Measure what was asked for, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--only", choices=["workspaces", "sessions", "agent", "archive"])
    parser.add_argument(
        "--small", action="store_true", help="a quick trial; workspaces are always whole"
    )
    parser.add_argument("--json", type=Path, help="also write the table there")
    options = parser.parse_args()
    rows: list[Row] = []
    if options.only in {None, "workspaces"}:
        rows += workspaces()
    if options.only in {None, "sessions"}:
        rows += sessions(small=options.small)
    if options.only in {None, "agent"}:
        rows += agent(small=options.small)
    if options.only in {None, "archive"}:
        rows += archive(small=options.small)
    print_rows(rows)
    if options.json:
        write_rows(rows, options.json)


def workspaces() -> Iterator[Row]:
    """Measure workspaces, which needs Docker."""
    from tests.bench.workspaces import measure_workspaces  # noqa: PLC0415 - sessions need no Docker

    return measure_workspaces()


def sessions(*, small: bool) -> Iterator[Row]:
    """Measure sessions, which needs none."""
    from tests.bench.sessions import SMALL, Plan, measure_sessions  # noqa: PLC0415 - as above

    return measure_sessions(SMALL if small else Plan())


def agent(*, small: bool) -> Iterator[Row]:
    """Measure the agent daemon, which needs Docker and an engine of its own."""
    from tests.bench.agent import SMALL, Plan, measure_agent  # noqa: PLC0415 - as above

    return measure_agent(SMALL if small else Plan())


def archive(*, small: bool) -> Iterator[Row]:
    """Measure the archive, which needs no engine."""
    from tests.bench.archive import SMALL, Plan, measure_archive  # noqa: PLC0415 - as above

    return measure_archive(SMALL if small else Plan())


if __name__ == "__main__":
    main()
