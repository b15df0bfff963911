"""A log that grows, shrinks or is replaced is read as if it had always been so."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perry.sessions.index import SessionIndex
from tests.sessions.homes import (
    ClaudeHome,
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


def test_growing_byte_by_byte_reads_as_a_fresh_parse_does(claude: ClaudeHome) -> None:
    data = as_bytes(LINES)
    path = claude.write("one.jsonl", [])
    grown = claude.index()
    for end in range(1, len(data) + 1):
        with path.open("ab") as file:
            file.write(data[end - 1 : end])
        grown.apply([path])
        fresh = claude.index()
        assert grown.list(children=True) == fresh.list(children=True)
        assert grown.skipped_lines() == fresh.skipped_lines()
    assert every_message(grown, "one") == every_message(claude.index(), "one")


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
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
