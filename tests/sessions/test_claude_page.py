"""A page is the same whichever way its lines are read."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from perry.sessions.claude_content import Record, messages_of
from perry.sessions.claude_page import messages_in
from perry.sessions.records import decode
from tests.sessions.test_claude_line import STAMP, TEXT
from tests.sessions.test_growth import JSON

KINDS = ["text", "thinking", "tool_use", "tool_result", "image", "server_tool_use"]
PART = st.fixed_dictionaries({"type": st.just("text"), "text": TEXT})
BLOCK = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS)},
    optional={
        "text": TEXT | JSON,
        "thinking": TEXT | JSON,
        "id": TEXT | JSON,
        "name": TEXT | JSON,
        "input": JSON,
        "tool_use_id": TEXT | JSON,
        "content": TEXT | st.lists(PART, max_size=2) | JSON,
    },
)
RECORD = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["user", "assistant", "human", "system"]),
        "message": st.fixed_dictionaries(
            {"content": TEXT | st.lists(BLOCK, max_size=3)}, optional={"role": TEXT}
        ),
    },
    optional={
        "content": TEXT,
        "isMeta": st.booleans() | st.none(),
        "isCompactSummary": st.booleans() | st.none(),
        "timestamp": STAMP | JSON,
        "toolUseResult": JSON,
    },
)
CALL = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"é": 1.0, "n": 10**30}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": "<persisted-output>\n…"}


def said(speaker: str, *blocks: object) -> dict[str, object]:
    return {"type": speaker, "message": {"content": blocks}, "timestamp": "2026-01-02T03:04:05Z"}


def whole(preview: str, tool_id: str | None) -> str:
    return f"{tool_id}: all of {preview}"


@settings(max_examples=600, deadline=None)
@given(RECORD)
@example(said("assistant", CALL, {"type": "thinking", "thinking": "hm"}))
@example(said("user", RESULT, {"type": "text", "text": "x"}))
def test_both_ways_say_the_same(record: dict[str, Any]) -> None:
    data = json.dumps(record).encode()
    assert messages_in(data, whole) == messages_of(decode(data, Record), whole)
