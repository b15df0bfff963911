"""A session's messages as lines to read.

Roles stand apart under headings; a tool's call and its result are folded to a line each, because
they are most of a session's bytes and little of its story. Times are local, and the first says of
which zone. Pure functions: the colours come in as a function, the lines go out, and this module
must not print.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from perry.cli.text import counted, harmless, local_time, one_line, shortened
from perry.sessions.records import epoch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from perry.sessions.models import Message

BOLD, DIM, RED, GREEN, YELLOW, CYAN = "1", "2", "31", "32", "33", "36"
"""Parameters of the terminal's colour sequence (SGR)."""

ROLE_STYLES = {"user": CYAN, "assistant": GREEN, "thinking": DIM, "system": YELLOW}
"""The messages that get a heading, and its colour; the others are tools'."""

FOLD = 100
"""Columns of a folded line where no terminal sets the width."""


def transcript_lines(
    messages: Iterable[Message],
    *,
    full: bool,
    columns: int | None,
    paint: Callable[[str, str], str],
) -> Iterator[str]:
    """Yield a conversation's text, in pieces that each end a line.

    `columns` is the terminal's width, None for a pipe; `paint` colours a text. With `full`, what
    tools were given and answered is there whole.
    """
    before, clock = "", _Clock()
    for message in messages:
        is_tool = message.type not in ROLE_STYLES
        if before and not (is_tool and before == "tool" and not full):
            yield ""
        before = "tool" if is_tool else message.type
        if not is_tool:
            yield _heading(message, clock.told(message.timestamp), paint)
            yield harmless(message.content).strip("\n")
        elif full:
            yield from _whole(message, paint)
        else:
            yield _folded(message, columns or FOLD, paint)


class _Clock:
    """Tells moments by the local clock, with the zone where it isn't the one told before."""

    def __init__(self) -> None:
        self._zone = ""

    def told(self, timestamp: str | None) -> str:
        """Tell an ISO 8601 moment; what a workspace may send instead stays as it is."""
        moment = epoch(timestamp)
        if moment is None:
            return one_line(timestamp or "")
        told, zone = local_time(moment)
        if zone == self._zone:
            return told
        self._zone = zone
        return f"{told} {zone}"


def _heading(message: Message, when: str, paint: Callable[[str, str], str]) -> str:
    role = paint(message.type.upper(), f"{BOLD};{ROLE_STYLES[message.type]}")
    return f"{role}  {paint(when, DIM)}" if when else role


def _folded(message: Message, columns: int, paint: Callable[[str, str], str]) -> str:
    """Tell a call by its input, a result by its first line and how many follow."""
    if message.type == "tool_use":
        told = f"  → {one_line(message.tool_name or 'tool')}  {one_line(_arguments(message))}"
        return shortened(told.rstrip(), columns)
    lines = [text for text in message.content.splitlines() if text.strip()]
    more = f"  (+{counted(len(lines) - 1, 'line')})" if len(lines) > 1 else ""
    first = one_line(lines[0]) if lines else "(empty)"
    return paint(shortened(f"  ← {first}", columns - len(more)) + more, DIM)


def _arguments(message: Message) -> str:
    """Put a call's input into words: `key: value` pairs where it is a JSON object."""
    text = message.tool_input or message.content
    try:
        value = json.loads(text)
    except ValueError:
        return text  # a tool's input need not be JSON; then its text is all there is to show
    if not isinstance(value, dict):
        return text
    return ", ".join(
        f"{key}: {part if isinstance(part, str) else json.dumps(part)}"
        for key, part in value.items()
    )


def _whole(message: Message, paint: Callable[[str, str], str]) -> Iterator[str]:
    is_call = message.type == "tool_use"
    label = "TOOL CALL" if is_call else "TOOL RESULT"
    yield paint(f"{label} {one_line(message.tool_name or '')}".rstrip(), BOLD)
    body = (message.tool_input or message.content) if is_call else message.content
    yield harmless(body).strip("\n")
