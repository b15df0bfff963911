"""The live line of a terminal: a spinner, what is going on, and for how long.

Apart from `steps.py` because rich takes a while to load and only a terminal needs it. This module
must not know what the words mean.
"""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text


class Spinner:
    """A line at the bottom that disappears when it is closed; the lines above it stay."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("working")
        self._progress.start()

    def show(self, text: str) -> None:
        """Replace the line's words and start its clock again."""
        self._progress.reset(self._task, description=self._fitting(text))

    def update(self, text: str) -> None:
        """Replace the line's words; the clock goes on."""
        self._progress.update(self._task, description=self._fitting(text))

    def above(self, text: str) -> None:
        """Print a line that stays, above."""
        self._progress.console.print(Text.from_ansi(text), soft_wrap=True)

    def close(self) -> None:
        """Take the line away."""
        self._progress.stop()

    def _fitting(self, text: str) -> str:
        """Cut to one line: a wrapped one could not be taken away again."""
        line = Text(text)
        line.truncate(max(10, self._console.width - 12), overflow="ellipsis")
        return line.plain
