from __future__ import annotations

from perry.cli.text import width
from perry.cli.transcript import transcript_lines
from perry.sessions.models import Message

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


def test_roles_stand_apart_and_tools_are_folded_to_a_line_each() -> None:
    assert lines(CONVERSATION) == [
        "USER  2026-01-02 03:04:05",
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
