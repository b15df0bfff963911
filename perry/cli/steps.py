"""Steps, shown as they happen: on a terminal with a live line below, in a pipe a line each.

A step's line is printed when it is done, with how long it took; a note is printed at once, so that
whoever reads a pipe knows what a long silence is for. It must not know what a step does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Protocol, TextIO, TypeVar

from perry.cli.render import line, styled
from perry.cli.text import duration, one_line
from perry.cli.transcript import GREEN

if TYPE_CHECKING:
    from perry.workspace.models import Step

Result = TypeVar("Result")


class LiveLine(Protocol):
    """The line that shows what is going on, below the lines that stay."""

    def show(self, text: str) -> None:
        """Replace the line's words and start its clock again."""

    def update(self, text: str) -> None:
        """Replace the line's words; the clock goes on."""

    def above(self, text: str) -> None:
        """Print a line that stays, above."""

    def close(self) -> None:
        """Take the line away."""


class PlainLine:
    """The live line of a pipe: none; what stays is printed, once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, text: str) -> None:
        """Show nothing: in a pipe a step is told when it is done, or by a note."""

    update = show

    def above(self, text: str) -> None:
        """Print a line that stays."""
        line(text, stream=self._stream)
        self._stream.flush()

    def close(self) -> None:
        """Nothing to take away."""


def follow(steps: Generator[Step, None, Result], *, stream: TextIO | None = None) -> Result:
    """Show steps as they happen, and return what they lead to."""
    where = stream or sys.stdout
    live = _live_line(where)
    try:
        while True:
            try:
                _show_step(next(steps), live, where)
            except StopIteration as end:
                result: Result = end.value
                return result
    finally:
        live.close()
        steps.close()


def _show_step(step: Step, live: LiveLine, stream: TextIO) -> None:
    detail = one_line(step.detail)
    if step.state == "note":
        live.above(f"{step.name:<9} {'':>8}  {detail}")
    elif step.state == "done":
        took = "" if step.seconds is None else duration(step.seconds)
        live.above(f"{styled(f'{step.name:<9}', GREEN, stream)} {took:>8}  {detail}".rstrip())
    elif step.state == "begun":
        live.show(f"{step.name:<9} {detail}")
    else:
        live.update(f"{step.name:<9} {detail}")


def _live_line(stream: TextIO) -> LiveLine:
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return PlainLine(stream)
    from perry.cli.spinner import Spinner  # noqa: PLC0415  # rich is slow to load

    return Spinner(stream)
