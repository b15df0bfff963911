"""A log that grows, shrinks or is replaced is read as if it had always been so."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perry.sessions.index import SessionIndex
from tests.sessions.fuzzing import examples
from tests.sessions.homes import (
    ClaudeHome,
    Home,
    as_bytes,
    assert_invariant,
    assistant,
    every_message,
    user,
)

if TYPE_CHECKING:
    from pathlib import Path

LINES: list[dict[str, Any] | bytes] = [
    user("hëllo", uuid="u1"),
    b"{broken\n",
    user("side", isSidechain=True, uuid="s1"),
    assistant([{"type": "text", "text": "x"}, {"type": "thinking", "thinking": "y"}], uuid="u2"),
    b"\n",
    {"type": "custom-title", "customTitle": "named"},
    user("hëllo", uuid="u1"),
    assistant("last", inner={"id": "m", "usage": {"input_tokens": 1, "output_tokens": 2}}),
]

CODEX = ".codex/sessions/2026/01/02/rollout-2026-01-02T03-04-05-one.jsonl"
CODEX_LINES: list[dict[str, Any] | bytes] = [
    {"id": "one", "timestamp": "2026-01-02T03:04:05Z", "instructions": None},
    {"record_type": "state"},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hëllo"}]},
    b"{broken\n",
    {"type": "response_item", "payload": {"type": "reasoning", "summary": ["a"]}},
    {"type": "response_item", "payload": {"type": "function_call_output", "output": "x"}},
]
PI = ".pi/agent/sessions/--x--/t_one.jsonl"
PI_LINES: list[dict[str, Any] | bytes] = [
    {"type": "session", "id": "one", "cwd": "/x", "timestamp": "2026-01-02T03:04:05Z"},
    {"type": "message", "message": {"role": "user", "content": "hëllo"}},
    b"{broken\n",
    {"type": "message", "message": {"role": "assistant", "content": ["a", "b"]}},
    {"type": "session_info", "name": "named"},
    {"type": "message", "message": {"role": "bashExecution", "command": "ls"}},
]
GEMINI = ".gemini/tmp/p/chats/session-one.jsonl"
GEMINI_CALL = {"id": "c", "name": "run", "result": [{"functionResponse": {"response": "x"}}]}
GEMINI_LINES: list[dict[str, Any] | bytes] = [
    {"sessionId": "one", "startTime": "2026-01-02T03:04:05Z"},
    {"id": "1", "type": "user", "content": "hëllo"},
    {"id": "2", "type": "gemini", "content": "a", "toolCalls": [GEMINI_CALL]},
    {"id": "3", "type": "user", "content": [{"functionResponse": {"id": "c", "response": "x"}}]},
    b"{broken\n",
    {"$set": {"messages": [{"id": "1", "type": "user", "content": "b"}], "summary": "s"}},
    {"id": "4", "type": "user", "content": "c"},
    {"$rewindTo": "4"},
    {"id": "1", "type": "user", "content": ["d", "e"]},
]
CLAUDE = ".claude/projects/-home-dev-proj/one.jsonl"
PLACES = {"claude": CLAUDE, "codex": CODEX, "pi": PI, "gemini": GEMINI}
WHOLE = {"claude": LINES, "codex": CODEX_LINES, "pi": PI_LINES, "gemini": GEMINI_LINES}


@pytest.mark.parametrize("agent", PLACES)
def test_growing_byte_by_byte_reads_as_a_fresh_parse_does(home: Home, agent: str) -> None:
    data = as_bytes(WHOLE[agent])
    path = home.write(PLACES[agent], [])
    grown = home.index()
    for end in range(1, len(data) + 1):
        with path.open("ab") as file:
            file.write(data[end - 1 : end])
        grown.apply([path])
        fresh = home.index()
        assert grown.list(children=True) == fresh.list(children=True)
        assert grown.skipped_lines() == fresh.skipped_lines()
    assert every_message(grown, "one") == every_message(home.index(), "one")
    assert_invariant(grown)


@pytest.mark.parametrize("agent", PLACES)
def test_any_log_that_shrank_or_was_rewritten_is_read_from_the_start(
    home: Home, agent: str
) -> None:
    path = home.write(PLACES[agent], WHOLE[agent])
    grown = home.index()
    for lines in (WHOLE[agent][:3], [b"#" * 40 + b"\n", *WHOLE[agent]]):
        home.write(PLACES[agent], lines)
        grown.apply([path])
        assert_invariant(grown)
        assert grown.list(children=True) == home.index().list(children=True)
        assert grown.skipped_lines() == home.index().skipped_lines()


@pytest.mark.parametrize("agent", PLACES)
def test_any_log_is_read_on_from_where_it_ended(home: Home, agent: str) -> None:
    padding = {"type": "session", "sessionId": "one", "id": "one", "padding": "x" * 3000}
    path = home.write(PLACES[agent], [padding, *WHOLE[agent], padding])
    index = home.index()
    before = index.get("one").skipped_lines
    with path.open("r+b") as file:
        file.write(b"#" * 1000)  # would be a skipped line if it were read again
    home.append(PLACES[agent], [b"{broken\n"])
    index.apply([path])
    assert index.get("one").skipped_lines == before + 1
    page = index.messages("one", limit=1, offset=0)
    assert len(page.messages) == 1


def test_only_the_added_bytes_are_read(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [user("a" * 5000), user("b" * 5000)])
    index = claude.index()
    with path.open("r+b") as file:
        file.write(b"#" * 100)  # would be a skipped line if it were read again
    claude.append("one.jsonl", [user("c")])
    index.apply([path])
    assert (index.get("one").message_count, index.get("one").skipped_lines) == (3, 0)


def test_a_shrunk_log_is_read_from_the_start(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [user("a"), user("b")])
    index = claude.index()
    path.write_bytes(as_bytes([user("c")]))
    index.refresh()
    assert [m.content for m in every_message(index, "one")] == ["c"]


def test_a_log_rewritten_in_place_and_longer_is_read_from_the_start(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [user("a"), user("b")])
    index = claude.index()
    path.write_bytes(as_bytes([user("longer than before"), user("c"), user("d")]))
    index.refresh()
    assert [m.content for m in every_message(index, "one")] == ["longer than before", "c", "d"]


def test_a_page_of_a_log_replaced_behind_the_index_is_the_new_logs(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [user("a"), user("b")])
    index = claude.index()
    other = claude.write("other.tmp", [user("x"), user("y"), user("z")])
    os.replace(other, path)  # noqa: PTH105  (the very call that clients make)
    page = index.messages("one", limit=10, offset=0)
    assert ([m.content for m in page.messages], page.total) == (["x", "y", "z"], 3)
    assert index.get("one").message_count == 3


def test_a_page_near_the_end_reads_only_that_page(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [user(f"{n:04}") for n in range(1000)])
    index = claude.index()
    with path.open("r+b") as file:
        file.write(b"#" * 1000)
    page = index.messages("one", limit=3, offset=2)
    assert [m.content for m in page.messages] == ["0995", "0996", "0997"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
BLOCK = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "thinking", "tool_use", "tool_result", "image", "odd"])},
    optional={
        "text": JSON, "thinking": JSON, "input": JSON, "content": JSON, "id": JSON,
        "tool_use_id": JSON, "name": JSON, "source": JSON,
    },
)  # fmt: skip
CONTENT = JSON | st.text(max_size=20) | st.lists(BLOCK, max_size=3)
RECORD = st.fixed_dictionaries(
    {"type": st.sampled_from(["user", "assistant", "human", "system", "summary", "tool_result"])},
    optional={
        "message": JSON | st.fixed_dictionaries({"content": CONTENT}, optional={"usage": JSON}),
        "content": CONTENT,
        "uuid": st.sampled_from(["u1", "u2", "u3"]) | JSON,
        "parentUuid": st.sampled_from(["u1", "u2"]) | JSON,
        "isSidechain": st.booleans() | JSON,
        "isMeta": st.booleans(),
        "isCompactSummary": st.booleans(),
        "timestamp": JSON,
        "sessionId": JSON,
        "summary": JSON,
        "leafUuid": JSON,
    },
)  # fmt: skip
LINE = RECORD.map(lambda record: json.dumps(record).encode()) | st.binary(max_size=30).map(
    lambda data: data.replace(b"\n", b" ")
)


@settings(
    max_examples=examples(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(lines=st.lists(LINE, max_size=8), cut=st.integers(0, 400), ended=st.booleans())
def test_whatever_the_lines_say_the_counts_agree_and_growth_equals_a_fresh_parse(
    tmp_path: Path, lines: list[bytes], cut: int, ended: bool
) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    claude = ClaudeHome(tmp_path)
    path = claude.write("one.jsonl", [data[:cut]])
    index = claude.index()
    with path.open("ab") as file:
        file.write(data[cut:])
    index.refresh()
    assert_invariant(index)
    fresh = SessionIndex.of_home(tmp_path, {})
    fresh.refresh()
    assert fresh.unreadable() == {}
    assert msgspec.json.encode(fresh.list(children=True))
    assert fresh.list(children=True) == index.list(children=True)
    path.unlink()


KIND = st.sampled_from(
    ["text", "input_text", "thinking", "toolCall", "input_image", "inlineData", "odd"]
)
PART = st.fixed_dictionaries(
    {"type": KIND},
    optional={
        "text": JSON, "thinking": JSON, "thought": st.booleans(), "arguments": JSON,
        "functionResponse": JSON | st.fixed_dictionaries({"id": st.sampled_from("cd")}),
        "functionCall": JSON | st.fixed_dictionaries({"id": st.sampled_from("cd")}),
    },
)  # fmt: skip
PARTS = JSON | st.text(max_size=20) | st.lists(PART, max_size=3)
ITEM = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["message", "reasoning", "function_call", "function_call_output", "custom_tool_call"]
        )
    },
    optional={
        "role": st.sampled_from(["user", "assistant", "developer"]) | JSON,
        "content": PARTS, "summary": PARTS, "arguments": JSON, "output": PARTS, "call_id": JSON,
        "internal_chat_message_metadata_passthrough": JSON
        | st.fixed_dictionaries({"content_item_kinds": st.lists(st.just("user.text"))}),
        "id": JSON, "cwd": JSON, "git": JSON, "model": JSON, "info": JSON, "message": JSON,
    },
)  # fmt: skip
CODEX_LINE = ITEM | st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["session_meta", "response_item", "compacted", "turn_context", "event_msg"]
        ),
        "payload": ITEM | JSON,
    },
    optional={"timestamp": JSON},
)
PI_LINE = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["session", "message", "compaction", "session_info", "custom_message", "model_change"]
        )
    },
    optional={
        "message": JSON
        | st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "toolResult", "bashExecution", "odd"])},
            optional={"content": PARTS, "usage": JSON, "command": JSON, "timestamp": JSON},
        ),
        "summary": JSON, "content": PARTS, "name": JSON, "id": JSON, "timestamp": JSON,
    },
)  # fmt: skip
TURN = st.fixed_dictionaries(
    {
        "id": st.sampled_from("1234") | JSON,
        "type": st.sampled_from(["user", "gemini", "info", "odd"]),
    },
    optional={
        "content": PARTS, "thoughts": JSON, "tokens": JSON, "timestamp": JSON, "model": JSON,
        "toolCalls": JSON
        | st.lists(
            st.fixed_dictionaries(
                {"id": st.sampled_from("cd")}, optional={"result": PARTS, "resultDisplay": JSON}
            )
        ),
    },
)  # fmt: skip
GEMINI_LINE = (
    TURN
    | st.fixed_dictionaries({"$rewindTo": st.sampled_from("1234") | JSON})
    | st.fixed_dictionaries(
        {"$set": JSON | st.fixed_dictionaries({"messages": st.lists(TURN | JSON, max_size=3)})}
    )
    | st.fixed_dictionaries({"startTime": JSON}, optional={"summary": JSON, "messages": JSON})
)
RECORDS = {"codex": CODEX_LINE, "pi": PI_LINE, "gemini": GEMINI_LINE}


@pytest.mark.parametrize("agent", RECORDS)
@settings(
    max_examples=examples(80),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_any_log_says_the_counts_agree_and_growth_equals_a_fresh_parse(
    tmp_path: Path, agent: str, data: st.DataObject
) -> None:
    lines = data.draw(st.lists(RECORDS[agent], max_size=6))
    written = as_bytes(lines)
    cut = data.draw(st.integers(0, len(written)))
    home = Home(tmp_path)
    path = home.write(PLACES[agent], [written[:cut]])
    index = home.index()
    with path.open("ab") as file:
        file.write(written[cut:])
    index.refresh()
    assert_invariant(index)
    fresh = home.index()
    assert fresh.unreadable() == {}
    assert msgspec.json.encode(fresh.list(children=True))
    assert fresh.list(children=True) == index.list(children=True)
    path.unlink()
