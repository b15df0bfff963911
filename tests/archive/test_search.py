"""What is asked of the archive, and what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perry.archive.archive import Archive
from perry.archive.terms import fold, parse
from tests.archive.test_archive import NOW, find, said, session, texts, whole


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive.sqlite")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("The deploy of app.py failed", "deploy"),
        ("The deploy of app.py failed", "DEPLOY Failed"),
        ("The deploy of app.py failed", "app.py"),
        ("The deploy of app.py failed", '"of app"'),
        ("The deploy of app.py failed", "dep*"),
        ("The deploy of app.py failed", '"the dep"*'),
        ("The deploy of app.py failed", "failed the"),
        ("snake_case and camelCase", "snake_case"),
        ("snake_case and camelCase", "case"),
        ("un café crème", "cafe"),
        ("un cafe", "café"),
        ("Ελληνικά κείμενα", "ΕΛΛΗΝΙΚΆ"),
        ("Привет, мир", "привет"),
        ("数据库迁移失败了", "迁移"),
        ("数据库迁移失败了", "数据库 失败"),
        ("データベースの移行", "データベース"),
        ("데이터베이스를 옮겼다", "데이터베이스"),
        ("ใช้งานฐานข้อมูล", "ฐาน"),
        ("mixed 中文 and words", "中文 words"),
        ("the API中文", "api"),
        ("İstanbul'da", "İstanbul"),
        ("ὁ λόγος", "ΛΌΓΟΣ"),
        ("error: 42", "42"),
        ('it\'s "quoted" AND NOT (odd)', "AND"),
        ('it\'s "quoted" AND NOT (odd)', "not odd"),
    ],
)
def test_words_phrases_and_prefixes_are_found_in_any_script(
    archive: Archive, text: str, query: str
) -> None:
    archive.merge([whole([said("nothing of it"), said(text)])])
    [hit] = find(archive, query).hits
    assert hit.position == 1
    assert hit.marks
    for start, end in hit.marks:
        assert hit.snippet[start:end].strip()


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("The deploy failed", "dep"),
        ("The deploy failed", '"deploy the"'),
        ("The deploy failed", "deploy succeeded"),
        ("数据库迁移失败了", "移迁"),
        ("start", "art"),
        ("anything", "!!! ..."),
        ("anything", '""'),
        ("anything", "*"),
    ],
)
def test_what_is_not_there_is_not_found(archive: Archive, text: str, query: str) -> None:
    archive.merge([whole([said(text)])])
    assert find(archive, query).hits == ()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_no_query_is_an_error(archive: Archive, text: str) -> None:
    find(archive, text, directory=text, tool=text)


@given(st.text())
def test_folding_keeps_every_character_in_its_place(text: str) -> None:
    assert len(fold(text)) == len(text)


@pytest.mark.parametrize("word", ["word", "数据", "café"])
def test_whoever_says_a_word_is_found_by_it(archive: Archive, word: str) -> None:
    archive.merge([whole([said(f"a {word} b")])])
    [hit] = find(archive, word).hits
    [(start, end)] = hit.marks
    assert hit.snippet[start:end] == word


def test_filters_narrow_what_is_found(archive: Archive) -> None:
    archive.merge(
        [
            whole(
                [
                    said("apple"),
                    said("apple", type="assistant"),
                    said("Bash", type="tool_use", tool_name="Bash", tool_input='{"x": "apple"}'),
                    said("apple", type="tool_result", tool_name="Bash"),
                ]
            ),
            whole([said("apple")], "far", directory="/home/me/shop/api", agent_type="codex"),
            whole([said("apple")], "other", workspace="other", directory="/home/me/shopping"),
            whole([said("apple", timestamp="2020-01-01T00:00:00Z")], "old", last_activity=NOW - 9),
        ]
    )

    def names(**filters: object) -> list[tuple[str, str]]:
        found = find(archive, "apple", 100, 0, **filters)
        return sorted((hit.session_id, hit.type) for hit in found.hits)

    assert len(names()) == 7
    assert names(workspace="other") == [("other", "user")]
    assert names(agent="codex") == [("far", "user")]
    assert names(role="assistant") == [("s", "assistant")]
    assert names(tool="bash") == [("s", "tool_result"), ("s", "tool_use")]
    assert {name for name, _ in names(directory="/home/me/shop")} == {"s", "far", "old"}
    assert names(directory="/home/me/shop/api/") == [("far", "user")]
    assert names(directory="/nowhere") == []
    assert names(until=1_600_000_000_000) == [("old", "user")]
    assert "old" not in {name for name, _ in names(since=1_600_000_000_000)}
    assert names(workspace="demo", role="user", directory="/home/me/shop/api") == [("far", "user")]


def test_a_title_is_found_that_no_message_says(archive: Archive) -> None:
    archive.merge([whole([said("hello")], title="Fix the login page", first_prompt="hello")])
    [hit] = find(archive, "login").hits
    assert (hit.type, hit.position, hit.snippet) == ("title", 0, "Fix the login page")
    archive.merge([whole([said("hello")], title="Fix the logout page", first_prompt="hello")])
    assert find(archive, "login").hits == ()
    assert [hit.type for hit in find(archive, "logout", role="title").hits] == ["title"]


def test_a_title_that_is_the_first_prompt_is_found_once(archive: Archive) -> None:
    asked = "Please fix the login page of the shop"
    archive.merge([whole([said(asked)], title="Please fix the login…", first_prompt=asked)])
    assert [hit.type for hit in find(archive, "login").hits] == ["user"]


def test_the_best_come_first_and_what_people_say_before_output(archive: Archive) -> None:
    long = "word " * 2000
    archive.merge(
        [
            whole(
                [
                    said(f"{long} apple {long}"),
                    said("an apple", type="tool_result"),
                    said("an apple"),
                    said("apple apple apple"),
                ]
            )
        ]
    )
    assert [hit.position for hit in find(archive, "apple").hits] == [3, 2, 1, 0]


def test_pages_follow_each_other_without_a_gap_or_a_repetition(archive: Archive) -> None:
    archive.merge([whole([said(f"apple {number}") for number in range(257)])])
    seen = [
        hit.position
        for offset in range(0, 257, 30)
        for hit in find(archive, "apple", limit=30, offset=offset).hits
    ]
    assert sorted(seen) == list(range(257))
    assert min(seen[:100]) == 157  # the newest hundred before the rest


def test_what_is_said_in_an_old_session_now_is_found_before_what_came_in_between(
    archive: Archive,
) -> None:
    archive.merge([whole([said("apple old")], "old")])
    for number in range(150):
        archive.merge([whole([said(f"apple {number}")], f"s{number}")])
    archive.merge([whole([said("apple old"), said("apple now")], "old")])
    assert ("old", 1) in {(hit.session_id, hit.position) for hit in find(archive, "apple").hits}


def test_each_session_of_a_page_is_given_once(archive: Archive) -> None:
    archive.merge([whole([said("apple"), said("apple")]), whole([said("apple")], "t")])
    found = find(archive, "apple")
    assert sorted(kept.session.id for kept in found.sessions) == ["s", "t"]
    assert session("s", 2) in [kept.session for kept in found.sessions]


def test_a_snippet_is_cut_where_most_of_the_words_are(archive: Archive) -> None:
    archive.merge([whole([said("apple " + "x " * 500 + "apple and pear" + " y" * 500)])])
    [snippet] = texts(find(archive, "apple pear"))
    assert "apple and pear" in snippet
    assert snippet.startswith("…")
    assert len(snippet) < 300


def test_a_query_is_its_terms_once_each() -> None:
    assert parse('a "b c" d* A').match == '"a" AND "b c" AND "d"*'
    assert parse("app.py").match == '"app py"'
    assert parse('"unclosed phrase').match == '"unclosed phrase"'
