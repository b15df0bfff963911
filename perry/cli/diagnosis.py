"""What `perry doctor` found, as lines to read: a heading for each subject, a finding a line.

At a terminal long findings go on below their own column; in a pipe every line is whole. Workers and
engines may say anything, so it is made harmless. Pure functions: the colours come in as a function,
the lines go out, and this module must not print.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from perry.cli.text import counted, one_line
from perry.cli.transcript import BOLD, GREEN, RED, YELLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perry.workspace.doctor.finding import Finding

    Paint = Callable[[str, str], str]

STYLES = {"ok": GREEN, "warning": YELLOW, "failure": RED}
LEVEL_COLUMNS = len("warning")
NAME_COLUMNS = len("architecture")
INDENT = "  "
ARROW = "→ "
LEAST = 20
"""Columns that a finding has at least, however narrow the terminal is."""


def heading(finding: Finding, paint: Paint) -> str:
    """Name what a finding is about."""
    named = finding.subject if finding.workspace is None else f"workspace {finding.workspace}"
    return paint(one_line(named), BOLD)


def lines(finding: Finding, columns: int | None, paint: Paint) -> Iterator[str]:
    """Yield a finding's lines: how bad it is, which check, what it found, what to do.

    `columns` is the terminal's width, None for a pipe; `paint` colours a text.
    """
    level = paint(f"{finding.level:<{LEVEL_COLUMNS}}", STYLES[finding.level])
    head = f"{INDENT}{level}  {finding.name:<{NAME_COLUMNS}}  "
    margin = " " * (len(INDENT) + LEVEL_COLUMNS + 2 + NAME_COLUMNS + 2)
    room = None if columns is None else max(LEAST, columns - len(margin))
    first, *more = _wrapped(finding.found, room)
    yield f"{head}{first}".rstrip()
    for text in more:
        yield margin + text
    if finding.advice:
        first, *more = _wrapped(finding.advice, None if room is None else room - len(ARROW))
        yield f"{margin}{ARROW}{first}"
        for text in more:
            yield margin + " " * len(ARROW) + text


def summary(findings: Sequence[Finding]) -> str:
    """Say how many findings are bad."""
    levels = [one.level for one in findings]
    failures, warnings = levels.count("failure"), levels.count("warning")
    parts = [counted(failures, "failure")] * bool(failures)
    parts += [counted(warnings, "warning")] * bool(warnings)
    return ", ".join(parts) or "all is well"


def _wrapped(text: str, room: int | None) -> list[str]:
    told = one_line(text)
    if room is None:
        return [told]
    return textwrap.wrap(told, room, break_on_hyphens=False) or [""]
