"""The fast way through a line gives what the long way gives, for every line that can go either."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perry.sessions.claude_line import Line, read_line, read_quickly, read_slowly
from perry.sessions.records import token_count
from tests.sessions.fuzzing import examples
from tests.sessions.homes import assistant, user
from tests.sessions.test_growth import JSON

TEXT = st.sampled_from(["", " ", "\n", "x", "é", "\u2003", "{}"])
BLOCK = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "thinking", "tool_use", "tool_result", "image"])},
    optional={"text": TEXT | JSON, "thinking": TEXT | JSON, "input": JSON, "content": JSON},
)
CONTENT = TEXT | st.lists(BLOCK, max_size=3) | JSON
SAID = st.fixed_dictionaries(
    {"content": CONTENT},
    optional={
        "id": TEXT | JSON,
        "model": TEXT | JSON,
        "usage": st.fixed_dictionaries({}, optional={"input_tokens": JSON, "output_tokens": JSON}),
    },
)
STAMP = st.sampled_from(
    ["2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05", "2026-99-99T00:00:00Z", "now", 17672, ""]
)
RECORD = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["user", "assistant", "system", "summary", "human", "attachment", "progress", ""]
        )
    },
    optional={
        "message": SAID | JSON,
        "content": CONTENT,
        "subtype": st.just("local_command") | JSON,
        "uuid": TEXT | JSON,
        "parentUuid": TEXT | JSON,
        "sessionId": TEXT | JSON,
        "agentId": TEXT | JSON,
        "isSidechain": st.booleans() | JSON,
        "isMeta": st.booleans() | JSON,
        "isCompactSummary": st.booleans() | JSON,
        "timestamp": STAMP | JSON,
        "cwd": TEXT | JSON,
        "gitBranch": TEXT | JSON,
        "customTitle": TEXT | JSON,
        "aiTitle": TEXT | JSON,
        "toolUseResult": JSON,
    },
)


def told(found: tuple[Line, int] | None) -> object:
    """Reduce a line to what a log takes from it."""
    if found is None:
        return None
    line, count = found
    said = line.message if line.type == "assistant" else None
    used = said.usage if said else None
    tokens = (token_count(used.input_tokens), token_count(used.output_tokens)) if used else None
    model = (said.id, said.model, tokens) if said else None
    flags = line.is_sidechain, bool(line.is_meta), bool(line.is_compact_summary)
    ids = line.type, line.uuid, line.parent_uuid, line.session_id, line.agent_id
    texts = line.cwd, line.git_branch, line.custom_title, line.ai_title, line.summary
    return count, ids, flags, texts, line.timestamp, model


@settings(max_examples=examples(400), deadline=None)
@given(RECORD)
@example({"type": "system", "isCompactSummary": True, "content": [{"type": "text"}]})
def test_both_ways_tell_the_same(record: dict[str, Any]) -> None:
    data = json.dumps(record).encode()
    quick = read_quickly(data)
    if quick is not None:
        assert told(quick) == told(read_slowly(data))


@pytest.mark.parametrize(
    "record",
    [
        user("hi", uuid="u"),
        user([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}]}]),
        assistant([{"type": "text", "text": "x"}, {"type": "tool_use", "input": {"a": 10**30}}]),
        {"type": "attachment", "attachment": {"type": "file"}},
        {"type": "system", "subtype": "turn_duration", "durationMs": 1},
        user("meta", isMeta=True),
    ],
)
def test_what_is_in_most_lines_goes_the_fast_way(record: dict[str, Any]) -> None:
    assert read_quickly(json.dumps(record).encode()) is not None


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"user","message":{"content":"x"},"toolUseResult":1e999}',
        b'{"type":"user","message":{"content":"x"},"toolUseResult":"\\udc00"}',
        b'{"type":"user","message":{"content":"x"},"toolUseResult":"\xff"}',
        b'{"type":"user","message":{"content":[{"type":"tool_use","input":-1e999}]}}',
    ],
)
def test_what_one_way_only_passes_over_does_not_defeat_the_other(line: bytes) -> None:
    found, slowly = read_line(line), read_slowly(line)
    assert found is not None
    assert slowly is not None
    assert found[1] == slowly[1] == 1
