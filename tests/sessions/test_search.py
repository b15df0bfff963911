"""Words are found in messages, wherever they stand in them and however they were written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perry.sessions.index import SessionIndex
from perry.sessions.search import Hit, search, snippet_of, words_in


def write_log(home: Path, session: str, *contents: object, day: int = 20) -> None:
    """Write a Claude Code session, a message a minute."""
    directory = home / ".claude/projects/-p"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / f"{session}.jsonl").open("a", encoding="utf-8") as log:
        for minute, content in enumerate(contents):
            kind = "user" if minute % 2 == 0 else "assistant"
            record = {
                "type": kind,
                "uuid": f"{session}-{minute}",
                "timestamp": f"2026-11-{day}T10:{minute:02d}:00.000Z",
                "message": {"role": kind, "content": content},
            }
            log.write(json.dumps(record) + "\n")


def find(home: Path, query: str, **options: object) -> list[Hit]:
    index = SessionIndex.of_home(home, {})
    index.refresh()
    return [hit for _, hit in search(index, words_in(query), **options)]  # type: ignore[arg-type]  # search's own keywords


def test_a_message_is_found_by_all_its_words_whatever_their_case(tmp_path: Path) -> None:
    write_log(tmp_path, "s", "The cart is Empty", "I see an empty list")
    (hit,) = find(tmp_path, "EMPTY cart")
    assert (hit.session_id, hit.type, hit.position) == ("s", "user", 0)
    assert hit.timestamp == "2026-11-20T10:00:00.000Z"
    assert [hit.snippet[start:stop] for start, stop in hit.marks] == ["cart", "Empty"]


def test_tool_calls_and_results_are_searched_too(tmp_path: Path) -> None:
    call = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "grep needle"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "a needle in hay"}
    write_log(tmp_path, "s", "hello", [call], [result])
    assert [hit.type for hit in find(tmp_path, "needle")] == ["tool_result", "tool_use"]


@pytest.mark.parametrize("words", ["grün", "漢字", "naïve", 'say "hi"', "a\\b"])
def test_words_that_json_writes_otherwise_are_found(tmp_path: Path, words: str) -> None:
    write_log(tmp_path, "s", f"before {words} after")
    assert len(find(tmp_path, words)) == 1


def test_the_newest_session_and_its_newest_message_come_first(tmp_path: Path) -> None:
    write_log(tmp_path, "old", "word one", "word two", day=10)
    write_log(tmp_path, "new", "word three", day=12)
    assert [(hit.session_id, hit.position) for hit in find(tmp_path, "word")] == [
        ("new", 0), ("old", 1), ("old", 0),
    ]  # fmt: skip


def test_since_leaves_out_what_was_said_before(tmp_path: Path) -> None:
    write_log(tmp_path, "s", "word one", "word two", "word three")
    noon = 1795168800000 + 60_000  # 2026-11-20T10:01Z
    assert [hit.position for hit in find(tmp_path, "word", since=noon)] == [2, 1]


def test_a_word_across_the_blocks_of_a_large_file_is_found(tmp_path: Path) -> None:
    filler = "x" * ((1 << 20) - 200)
    write_log(tmp_path, "s", filler, "hay needle hay", *["y" * 400_000] * 3)
    for shift in range(0, 120, 7):
        write_log(tmp_path, f"s{shift}", "x" * ((1 << 20) - 130 - shift) + " needle")
    assert len(find(tmp_path, "needle")) == 1 + len(range(0, 120, 7))


def test_a_long_session_is_searched_to_its_start(tmp_path: Path) -> None:
    write_log(tmp_path, "s", *[f"message {number}" for number in range(60)])
    write_log(tmp_path, "s2", *["filler"] * 59, "last")
    assert [hit.position for hit in find(tmp_path, "message")] == list(range(59, -1, -1))


def test_nothing_is_found_for_no_words_and_for_words_that_are_not_there(tmp_path: Path) -> None:
    write_log(tmp_path, "s", "something")
    assert find(tmp_path, "   ") == []
    assert find(tmp_path, "something else") == []


def test_a_snippet_is_one_line_around_the_first_word() -> None:
    text = "a" * 500 + "\n the needle\n is here " + "b" * 500
    snippet, marks = snippet_of(text, ("needle",))
    assert "\n" not in snippet
    assert snippet.startswith("…")
    assert snippet.endswith("…")
    assert [snippet[start:stop] for start, stop in marks] == ["needle"]
