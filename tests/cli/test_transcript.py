from __future__ import annotations

from collections.abc import Callable

import pytest

from perry.cli.text import width
from perry.cli.transcript import transcript_lines
from perry.sessions.models import Message

SetZone = Callable[[str], None]

CALL = Message(
    "tool_use", "", None, tool_name="Bash", tool_id="t1", tool_input='{"command":"ls\\n-la","n":2}'
)
RESULT = Message("tool_result", "\n total 8\na\n\nb\n", None, tool_id="t1")
CONVERSATION = [
    Message("user", "Look around", "2026-01-02T03:04:05.678Z"),
    Message("thinking", "hm", None),
    CALL,
    RESULT,
    Message("assistant", "Two files.\nDone.", None),
]


def lines(messages: list[Message], *, full: bool = False, columns: int | None = 80) -> list[str]:
    told = transcript_lines(messages, full=full, columns=columns, paint=lambda text, _: text)
    return "\n".join(told).split("\n")


def test_roles_stand_apart_and_tools_are_folded_to_a_line_each(set_zone: SetZone) -> None:
    set_zone("UTC0")
    assert lines(CONVERSATION) == [
        "USER  2026-01-02 03:04:05 UTC",
        "Look around",
        "",
        "THINKING",
        "hm",
        "",
        "  → Bash  command: ls -la, n: 2",
        "  ← total 8  (+2 lines)",
        "",
        "ASSISTANT",
        "Two files.",
        "Done.",
    ]


def test_times_are_local_and_the_zone_is_said_once_and_when_it_changes(set_zone: SetZone) -> None:
    set_zone("CET-1CEST,M3.5.0,M10.5.0/3")
    times = ["2026-10-24T23:00:00Z", "2026-10-25T00:59:59Z", "2026-10-25T02:00:00+01:00", None]
    told = lines([Message("user", "x", time) for time in [*times, "2026-10-25T02:00:00.000Z"]])
    assert [line for line in told if line.startswith("USER")] == [
        "USER  2026-10-25 01:00:00 UTC+02:00",
        "USER  2026-10-25 02:59:59",
        "USER  2026-10-25 02:00:00 UTC+01:00",
        "USER",
        "USER  2026-10-25 03:00:00",
    ]


@pytest.mark.parametrize("timestamp", ["yesterday", "0001-01-01T00:00:00Z", "\x1b[2J"])
def test_what_is_no_time_here_does_no_harm(set_zone: SetZone, timestamp: str) -> None:
    set_zone("EST5")
    (head, _) = lines([Message("user", "x", timestamp)])
    assert head.startswith("USER  ")
    assert "\x1b" not in head


def test_full_shows_what_tools_were_given_and_answered() -> None:
    told = lines([CALL, RESULT], full=True)
    assert told == [
        "TOOL CALL Bash",
        '{"command":"ls\\n-la","n":2}',
        "",
        "TOOL RESULT",
        " total 8",
        "a",
        "",
        "b",
    ]


def test_a_folded_line_fits_the_terminal() -> None:
    long = Message("tool_result", "x" * 500 + "\ny", None)
    call = Message(
        "tool_use", "", None, tool_name="Write", tool_input='{"text":"' + "z" * 500 + '"}'
    )
    assert [width(line) <= 60 for line in lines([call, long], columns=60)] == [True, True]


def test_a_tool_whose_input_is_no_object_is_shown_as_it_is() -> None:
    for text in ("plain words", '["a", 1]', '"x"', "{broken"):
        call = Message("tool_use", "", None, tool_name="T", tool_input=text)
        assert lines([call]) == [f"  → T  {text}"]


def test_a_tool_that_answered_nothing_says_so() -> None:
    assert lines([Message("tool_result", "", None)]) == ["  ← (empty)"]


def test_nobody_s_words_reach_the_terminal_as_commands() -> None:
    evil = "\x1b]0;owned\x07"
    messages = [
        Message("user", evil, evil),
        Message("tool_use", evil, None, tool_name=evil, tool_input=evil),
        Message("tool_result", evil, None),
    ]
    for full in (False, True):
        assert "\x1b" not in "".join(lines(messages, full=full))
