"""Words are found in messages, wherever they stand in them and however they were written."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from perry.sessions.index import SessionIndex
from perry.sessions.models import Hit
from perry.sessions.search import search, search_page, snippet_of, words_in
from tests.e2e.transcripts import opencode_database


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


def test_a_word_written_as_escapes_is_found(tmp_path: Path) -> None:
    write_log(tmp_path, "s", "before NEEDLE/path after")
    log = tmp_path / ".claude/projects/-p/s.jsonl"
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in "NEEDLE") + "\\/path"
    log.write_text(log.read_text().replace("NEEDLE/path", escaped))
    for query in ("needle", "needle/path", "path"):
        assert len(find(tmp_path, query)) == 1, query


def test_the_whole_text_of_a_result_that_lies_beside_the_log_is_searched(tmp_path: Path) -> None:
    preview = "<persisted-output>saved to tool-results/t.txt</persisted-output>"
    result = {"type": "tool_result", "tool_use_id": "t", "content": preview}
    write_log(tmp_path, "s", "hello", "hi", [result])
    side = tmp_path / ".claude/projects/-p/s/tool-results/t.txt"
    side.parent.mkdir(parents=True)
    side.write_text("hay " * 1000 + "needle")
    assert [hit.type for hit in find(tmp_path, "needle")] == ["tool_result"]


def test_what_a_subagent_said_in_the_same_file_is_found_as_its_own(tmp_path: Path) -> None:
    write_log(tmp_path, "s", "hello")
    log = tmp_path / ".claude/projects/-p/s.jsonl"
    record = json.loads(log.read_text())
    side = {"uuid": "side", "isSidechain": True, "message": {"role": "user", "content": "needle"}}
    with log.open("a") as file:
        file.write(json.dumps({**record, **side}) + "\n")
    (hit,) = find(tmp_path, "needle")
    assert hit.session_id != "s"


def test_an_opencode_database_and_a_gemini_document_are_searched(tmp_path: Path) -> None:
    with contextlib.closing(opencode_database(tmp_path / ".local/share/opencode/opencode.db")):
        chat = tmp_path / ".gemini/tmp/slug/chats/session-1.json"
        chat.parent.mkdir(parents=True)
        said = {
            "id": "m",
            "timestamp": "2026-11-20T10:00:00Z",
            "type": "user",
            "content": "renamed",
        }
        chat.write_text(json.dumps({"sessionId": "g", "messages": [said]}))
        assert {hit.agent_type for hit in find(tmp_path, "RENAMED")} == {"gemini", "opencode"}


def test_words_that_readers_add_are_found(tmp_path: Path) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}
    write_log(tmp_path, "s", [image])
    assert [hit.snippet for hit in find(tmp_path, "image/png]")] == ["[image image/png]"]


def test_folding_keeps_every_character_in_its_place_and_makes_ascii_of_none() -> None:
    for number in range(0x110000):
        letter = chr(number)
        (folded,) = words_in(f"a{letter}b") if not letter.isspace() else ("a.b",)
        assert len(folded) == 3, hex(number)
        is_ascii = letter.isascii() or letter.isspace() or letter == "İ"
        assert is_ascii or not folded[1].isascii(), hex(number)


@pytest.mark.parametrize(
    ("said", "query"), [("ΟΔΟΣ", "οδος"), ("οδοσ", "ΟΔΟΣ"), ("İzmir", "İZMİR"), ("İZM", "izm")]
)
def test_case_is_no_matter_in_any_alphabet(tmp_path: Path, said: str, query: str) -> None:
    write_log(tmp_path, "s", f"to {said} now")
    (hit,) = find(tmp_path, query)
    assert [hit.snippet[start:stop] for start, stop in hit.marks] == [said]


def test_a_search_ends_soon_after_it_is_told_to(tmp_path: Path) -> None:
    for number in range(20):
        write_log(tmp_path, f"s{number}", "needle")
    index = SessionIndex.of_home(tmp_path, {})
    index.refresh()
    answers = iter([True] * 5)
    found = list(search(index, ("needle",), go_on=lambda: next(answers, False)))
    assert len(found) < 6


def test_a_page_has_so_many_hits_and_their_sessions_once(tmp_path: Path) -> None:
    write_log(tmp_path, "old", "word", "word", "word", day=10)
    write_log(tmp_path, "new", "word", "word", day=12)
    index = SessionIndex.of_home(tmp_path, {})
    index.refresh()
    pages = [search_page(index, ("word",), limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert [[session.id for session in page.sessions] for page in pages] == [
        ["new"], ["old"], ["old"], [],
    ]  # fmt: skip
    assert [(hit.session_id, hit.position) for page in pages for hit in page.hits] == [
        ("new", 1), ("new", 0), ("old", 2), ("old", 1), ("old", 0),
    ]  # fmt: skip


def test_a_session_that_grows_while_it_is_searched_has_no_hit_twice(tmp_path: Path) -> None:
    write_log(tmp_path, "s", *["word"] * 59)
    write_log(tmp_path, "s", *["word"] * 59)  # the same uuids: told once
    log = tmp_path / ".claude/projects/-p/s.jsonl"
    lines = log.read_text().splitlines(keepends=True)[:59]
    text = "".join(line.replace("s-", f"{copy}-") for copy in range(5) for line in lines)
    log.write_text(text)
    index = SessionIndex.of_home(tmp_path, {})
    index.refresh()
    found = search(index, ("word",))
    positions = [next(found)[1].position]
    with log.open("a") as file:
        file.writelines(line.replace("s-", "more-") for line in lines)
    index.refresh()
    positions += [hit.position for _, hit in found]
    assert positions == list(range(5 * 59 - 1, -1, -1))


def test_a_snippet_is_where_most_of_the_words_are() -> None:
    text = "the needle alone. " + "hay " * 200 + "a needle in the stack" + " hay" * 200
    snippet, marks = snippet_of(text, ("needle", "stack"))
    assert {snippet[start:stop] for start, stop in marks} == {"needle", "stack"}


def test_words_that_overlap_are_one_mark() -> None:
    snippet, marks = snippet_of("two carts here", ("cart", "carts", "arts"))
    assert [snippet[start:stop] for start, stop in marks] == ["carts"]


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


def titled(home: Path, session: str, title: str, *contents: object, day: int = 20) -> None:
    """Write a session that somebody has named."""
    write_log(home, session, *contents, day=day)
    with (home / f".claude/projects/-p/{session}.jsonl").open("a") as log:
        log.write(json.dumps({"type": "custom-title", "customTitle": title}) + "\n")


def test_a_session_is_found_by_its_title_before_its_messages(tmp_path: Path) -> None:
    titled(tmp_path, "s", "The needle in hay", "look for it", "a needle")
    first, second = find(tmp_path, "NEEDLE")
    assert (first.session_id, first.agent_type, first.type, first.position) == (
        "s", "claude", "title", 0,
    )  # fmt: skip
    assert first.timestamp == "2026-11-20T10:01:00.000Z"  # the session's last activity
    assert first.snippet == "The needle in hay"
    assert [first.snippet[start:stop] for start, stop in first.marks] == ["needle"]
    assert (second.type, second.position) == ("assistant", 1)


def test_a_title_has_to_have_all_the_words(tmp_path: Path) -> None:
    titled(tmp_path, "s", "The needle", "in hay")
    assert find(tmp_path, "needle hay") == []
    assert [hit.type for hit in find(tmp_path, "the needle")] == ["title"]


def test_a_title_that_only_says_what_the_first_prompt_says_is_no_find_of_its_own(
    tmp_path: Path,
) -> None:
    write_log(tmp_path, "unnamed", "Find the needle", day=12)
    titled(tmp_path, "named", "A needle to find", "Find me that needle, please")
    assert [(hit.session_id, hit.type) for hit in find(tmp_path, "find needle")] == [
        ("named", "user"), ("unnamed", "user"),
    ]  # fmt: skip


def test_a_title_is_found_where_no_message_shows_the_prompt_it_is_made_of(tmp_path: Path) -> None:
    part = {"text": "needle", "functionCall": {"id": "c", "name": "run"}}
    lines = [{"sessionId": "g"}, {"id": "1", "type": "user", "content": [part]}]
    path = tmp_path / ".gemini/tmp/p/chats/session-1.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [hit.type for hit in find(tmp_path, "needle")] == ["title"]


def test_a_title_is_as_young_as_its_session(tmp_path: Path) -> None:
    titled(tmp_path, "s", "needle", "word one", "word two")
    last = 1795168800000 + 60_000  # 2026-11-20T10:01Z
    assert [hit.type for hit in find(tmp_path, "needle", since=last)] == ["title"]
    assert find(tmp_path, "needle", since=last + 1) == []


def test_titles_count_in_a_page_as_messages_do(tmp_path: Path) -> None:
    titled(tmp_path, "s", "needle", "one", "a needle")
    index = SessionIndex.of_home(tmp_path, {})
    index.refresh()
    pages = [search_page(index, ("needle",), limit=1, offset=n) for n in range(3)]
    assert [[hit.type for hit in page.hits] for page in pages] == [["title"], ["assistant"], []]
    assert [session.title for session in pages[0].sessions] == ["needle"]
