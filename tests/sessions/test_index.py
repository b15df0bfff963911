"""What the index promises whoever asks: order, pages, changes, and ids that are only ids."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

import pytest

from perry.errors import SessionNotFound
from perry.sessions.index import SessionIndex
from tests.sessions.homes import ClaudeHome, assert_invariant, user

if TYPE_CHECKING:
    from pathlib import Path


def test_an_empty_home_has_no_sessions_and_names_what_to_watch(tmp_path: Path) -> None:
    index = SessionIndex.of_home(tmp_path, {})
    index.refresh()
    assert index.list() == []
    assert index.roots() == (
        tmp_path / ".claude/projects",
        tmp_path / ".local/share/opencode",
        tmp_path / ".codex",
        tmp_path / ".pi/agent/sessions",
        tmp_path / ".gemini/tmp",
    )


def test_sessions_come_newest_activity_first(claude: ClaudeHome) -> None:
    claude.write("old.jsonl", [user("a", timestamp="2026-01-01T00:00:00Z")])
    claude.write("new.jsonl", [user("a", timestamp="2026-01-03T00:00:00Z")])
    claude.write("mid.jsonl", [user("a", timestamp="2026-01-02T00:00:00Z")])
    assert [s.id for s in claude.index().list()] == ["new", "mid", "old"]
    assert claude.index().list(agent="opencode") == []


@pytest.mark.parametrize(
    ("limit", "offset", "expected"),
    [(2, 0, "de"), (2, 1, "cd"), (2, 4, "a"), (9, 0, "abcde"), (0, 0, ""), (2, 5, ""), (2, 99, "")],
)
def test_offset_counts_back_from_the_newest(
    claude: ClaudeHome, limit: int, offset: int, expected: str
) -> None:
    claude.write("one.jsonl", [user(letter) for letter in "abcde"])
    page = claude.index().messages("one", limit=limit, offset=offset)
    assert ("".join(m.content for m in page.messages), page.total) == (expected, 5)


@pytest.mark.parametrize("bad", ["..", "../one", "", "one.jsonl", "\0", "nobody"])
def test_an_id_of_no_session_is_not_found(claude: ClaudeHome, bad: str) -> None:
    claude.write("one.jsonl", [user("a")])
    index = claude.index()
    for ask in (index.get, index.delete, lambda i: index.messages(i, limit=1, offset=0)):
        with pytest.raises(SessionNotFound):
            ask(bad)
    with pytest.raises(SessionNotFound):
        index.get("one", agent="opencode")
    assert index.get("one").message_count == 1


def test_applied_changes_appear_and_raise_the_version(claude: ClaudeHome) -> None:
    index = claude.index()
    path = claude.write("one.jsonl", [user("a")])
    before = index.version
    index.apply([path])
    assert [s.id for s in index.list()] == ["one"]
    assert index.version > before
    before = index.version
    index.apply([path, claude.home / "unrelated"])
    assert index.version == before
    path.unlink()
    index.apply([path])
    assert index.list() == []
    assert index.version > before


def test_a_new_or_deleted_directory_is_looked_through_whole(claude: ClaudeHome) -> None:
    index = claude.index()
    claude.write("one.jsonl", [user("a")])
    claude.write("one/subagents/agent-b.jsonl", [user("b")])
    index.apply([claude.home / ".claude"])
    assert len(index.list(children=True)) == 2
    shutil.rmtree(claude.project)
    index.apply([claude.project])
    assert index.list(children=True) == []


def test_refresh_forgets_what_is_gone(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [user("a")])
    index = claude.index()
    path.unlink()
    index.refresh()
    with pytest.raises(SessionNotFound):
        index.get("one")


def test_readers_on_other_threads_get_answers_that_agree(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [user("first")])
    index = claude.index()
    failures: list[BaseException] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                page = index.messages("one", limit=10_000, offset=0)
                assert len(page.messages) == page.total
            except BaseException as error:  # noqa: BLE001  (handed to the test's own thread)
                failures.append(error)
                return

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(100):
        if number % 30 == 29:
            path.write_bytes(b"")
        claude.append("one.jsonl", [user(f"{number}")])
        index.apply([path])
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert_invariant(index)
