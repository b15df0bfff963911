"""How things are put into words and columns: harmless text, widths, times, durations, tables.

What coding agents and repositories wrote ends on somebody's terminal, where a control character
can move the cursor or rename the window; columns must fit 80 characters, and a person wants
"3 min ago" and no timestamp. Pure functions of their arguments and the time zone: this module must
not print and must not know workspaces or sessions.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MONTH = 30 * DAY

BIDIRECTIONAL = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of text around, and so can make it lie."""


def harmless(text: str) -> str:
    """Make control characters visible in place of obeyed; line ends and tabs stay."""
    return "".join(_visible(letter) for letter in text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Put text on one line: white space of any kind becomes one space, the rest is harmless."""
    return harmless(" ".join(text.split()))


def _visible(letter: str) -> str:
    if letter in "\n\t" or letter.isprintable():
        return letter
    if letter in BIDIRECTIONAL or unicodedata.category(letter) in {"Cc", "Zl", "Zp"}:
        code = ord(letter)
        return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"  # noqa: PLR2004  # one byte
    return "\ufffd" if unicodedata.category(letter) == "Cs" else letter


def width(text: str) -> int:
    """Count the terminal columns of one line of text."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(letter: str) -> int:
    if unicodedata.category(letter) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in {"W", "F"} else 1


def shortened(text: str, columns: int) -> str:
    """Cut text to so many columns, its end replaced by an ellipsis where it was cut."""
    if width(text) <= columns:
        return text
    kept, used = [], 1
    for letter in text:
        used += _columns(letter)
        if used > columns:
            break
        kept.append(letter)
    return "".join(kept).rstrip() + "…"


def shortened_left(text: str, columns: int) -> str:
    """Cut text to so many columns, keeping its end: of a path, the end tells most."""
    return shortened(text[::-1], columns)[::-1]


def ago(milliseconds: int, now: float) -> str:
    """Say when something was, as people do.

    `milliseconds` and `now` (seconds) count from the epoch; after a month it is the local date.
    """
    seconds = int(now - milliseconds / 1000)
    if seconds < MINUTE:
        return "just now"
    if seconds < HOUR:
        return f"{seconds // MINUTE} min ago"
    if seconds < DAY:
        return f"{counted(seconds // HOUR, 'hour')} ago"
    if seconds < MONTH:
        return f"{counted(seconds // DAY, 'day')} ago"
    return local_time(milliseconds)[0][:10]


def local_time(milliseconds: int) -> tuple[str, str]:
    """Tell a moment, in milliseconds since the epoch, by the clock here, and how far it is off UTC.

    Such as `2026-11-20 10:01:00` and `UTC+01:00`; a dash where no calendar has it.
    """
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return "-", ""  # what a workspace says need not make sense
    told = moment.isoformat(sep=" ", timespec="seconds")
    place = len("2026-11-20 10:01:00")
    return told[:place], "UTC" + told[place:].replace("+00:00", "")


def utc_time(milliseconds: int) -> str:
    """Tell a moment, in milliseconds since the epoch, for readers anywhere; a dash as above."""
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return "-"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def iso_ago(moment: str, now: float) -> str:
    """Say when an ISO 8601 moment was; what isn't one stays as it is."""
    try:
        return ago(round(datetime.fromisoformat(moment).timestamp() * 1000), now)
    except ValueError:
        return moment


def duration(seconds: float) -> str:
    """Say how long something took: `0.04 s`, `12.3 s`, `2 min 5 s`."""
    if seconds < 10:  # noqa: PLR2004  # two digits are enough below, one above
        return f"{seconds:.2f} s"
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // MINUTE} min {int(seconds) % MINUTE} s"


def counted(number: int, noun: str) -> str:
    """Say how many: `1 session`, `2 sessions`, `1,204 messages`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    It may be cut to `least` columns where the table is too wide; None means never. `keeps_end`
    cuts from the left, `right` sets numbers flush right.
    """

    title: str
    least: int | None = None
    keeps_end: bool = False
    right: bool = False


GAP = 2
"""Spaces between two columns."""


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int | None) -> list[str]:
    """Lay rows out below the columns' titles.

    `room` is the width it must fit; None keeps every value whole, as a pipe wants it.
    """
    lines = [
        [column.title for column in columns],
        *([one_line(cell) for cell in row] for row in rows),
    ]
    widths = [max(map(width, cells)) for cells in zip(*lines, strict=True)]
    if room is not None:
        _shrink(widths, columns, room)
    return [
        (" " * GAP).join(_cell(*cell) for cell in zip(line, columns, widths, strict=True)).rstrip()
        for line in lines
    ]


def _shrink(widths: list[int], columns: Sequence[Column], room: int) -> None:
    """Take from the widest column that can spare some, until the line fits or none can."""
    excess = sum(widths) + GAP * (len(widths) - 1) - room
    for _ in range(excess):
        spare = [
            (widths[place], place)
            for place, column in enumerate(columns)
            if column.least is not None and widths[place] > column.least
        ]
        if not spare:
            return
        widths[max(spare)[1]] -= 1


def _cell(text: str, column: Column, columns: int) -> str:
    cut = (shortened_left if column.keeps_end else shortened)(text, columns)
    padding = " " * (columns - width(cut))
    return padding + cut if column.right else cut + padding
