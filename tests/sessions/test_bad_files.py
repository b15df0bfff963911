"""Files that nobody would write on purpose: the others are shown, and what is wrong is told."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from perry.sessions.claude import ClaudeSource
from perry.sessions.index import SessionIndex
from perry.sessions.listing import Listing
from perry.sessions.models import Session
from tests.sessions.homes import ClaudeHome, Home, assert_invariant, every_message, user
from tests.sessions.test_opencode import SCHEMA, Database, text

if TYPE_CHECKING:
    from pathlib import Path

LINE = 100_000_000  # bytes


def seconds_of(index: SessionIndex, path: Path) -> float:
    began = time.perf_counter()
    index.apply([path])
    return time.perf_counter() - began


def test_a_line_of_100_mb_is_one_message(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [user("first"), user("x" * LINE), user("last")])
    index = claude.index()
    assert index.get("one").message_count == 3
    page = index.messages("one", limit=1, offset=0)
    assert [message.content for message in page.messages] == ["last"]
    path.unlink()


def test_a_line_that_grows_without_end_costs_what_was_added(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [user("first"), b'{"type":"user","message":{"content":"'])
    index = claude.index()
    with path.open("ab") as file:
        file.write(b"x" * LINE)
        file.flush()
        whole = seconds_of(index, path)
        for _ in range(5):
            file.write(b"x" * 1000)
            file.flush()
            assert seconds_of(index, path) < max(0.02, whole / 2)
        assert (index.get("one").message_count, index.get("one").skipped_lines) == (1, 0)
        file.write(b'"}}\n')
    index.apply([path])
    assert (index.get("one").message_count, index.get("one").skipped_lines) == (2, 0)
    path.unlink()


@pytest.mark.parametrize("ending", [b"", b"\n", b"}\n", b'\\ud83d"}}\n'])
def test_a_broken_line_of_100_mb_is_one_skipped_line_at_most(
    claude: ClaudeHome, ending: bytes
) -> None:
    head = b'{"type":"user","message":{"content":"'
    path = claude.write("one.jsonl", [user("first"), head + b"x" * LINE + ending])
    session = claude.index().get("one")
    path.unlink()
    assert session.message_count + session.skipped_lines == (1 if ending == b"" else 2)


def test_a_circle_of_links_is_not_followed(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("a")])
    claude.write("one/subagents/agent-x.jsonl", [user("b")])
    (claude.project / "one" / "subagents" / "up").symlink_to(claude.project)
    (claude.project.parent / "up").symlink_to(claude.project.parent)
    (claude.project.parent / "itself").symlink_to("itself")
    (claude.project / "itself.jsonl").symlink_to("itself.jsonl")
    index = claude.index()
    assert {session.id for session in index.list(children=True)} == {"one", "agent-x"}
    assert list(index.unreadable().values()) == ["Too many levels of symbolic links"]


@pytest.mark.parametrize("place", ["p/chats/session-1.jsonl", "p/chats/session-2.json"])
def test_a_directory_named_like_a_session_is_named(home: Home, place: str) -> None:
    (home.home / ".gemini/tmp" / place).mkdir(parents=True)
    (home.home / ".codex/sessions/rollout-a.jsonl").mkdir(parents=True)
    (home.home / ".pi/agent/sessions/x/t_a.jsonl").mkdir(parents=True)
    index = home.index()
    assert index.list(children=True) == []
    assert index.skipped_lines() == 0


def test_a_file_that_may_not_be_read_is_named_until_it_may(claude: ClaudeHome) -> None:
    """Root may read everything, but not what isn't there behind /proc."""
    claude.write("one.jsonl", [user("a")])
    secret = claude.project / "secret.jsonl"
    if os.geteuid() == 0:
        secret.symlink_to("/proc/1/mem/nothing")
    else:
        secret.write_bytes(b"{}\n")
        secret.chmod(0)
    index = claude.index()
    assert [*index.unreadable()] == [str(secret)]
    assert [session.id for session in index.list()] == ["one"]
    secret.unlink()
    claude.write("secret.jsonl", [user("b")])
    index.apply([secret])
    assert index.unreadable() == {}
    assert len(index.list()) == 2


def test_a_file_that_vanishes_between_listing_and_reading_is_no_session(
    claude: ClaudeHome,
) -> None:
    """The source lists, the file goes, the source reads: just what a scan does."""
    path = claude.write("one.jsonl", [user("a")])
    source = ClaudeSource(claude.home, {})
    (unit,) = source.scan().units
    path.unlink()
    assert source.read(unit, None) is None


def test_tens_of_thousands_of_files_are_all_there(claude: ClaudeHome) -> None:
    line = b'{"type":"user","message":{"content":"x"}}\n'
    one = claude.write("0.jsonl", [line])
    directory = os.open(claude.project, os.O_RDONLY)
    for number in range(1, 20_000):  # of each link there are no more on some file systems
        os.link(one, f"{number}.jsonl", dst_dir_fd=directory)
    os.close(directory)
    index = claude.index()
    assert len(index.list()) == 20_000
    path = claude.write("new.jsonl", [line])
    assert seconds_of(index, path) < 0.1
    assert len(index.list()) == 20_001
    assert seconds_of(index, path) < 0.05


def test_a_database_locked_by_a_writer_is_read_as_it_was(tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.run(schema=SCHEMA)
    database.session("ses_1")
    database.say("ses_1", "user", text("before"))
    with closing(sqlite3.connect(database.path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=wal")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE session SET title = 'unfinished'")
        index = database.index()
        assert index.get("ses_1").title == "A title"
        assert_invariant(index)
        writer.execute("COMMIT")
        index.apply([database.path])
        assert index.get("ses_1").title == "unfinished"


@pytest.mark.parametrize("missing", ["session", "message", "part"])
def test_a_missing_table_costs_what_it_would_have_told(tmp_path: Path, missing: str) -> None:
    database = Database(tmp_path)
    database.run(schema=SCHEMA)
    database.session("ses_1")
    database.say("ses_1", "user", text("said"))
    database.run(schema=f"DROP TABLE {missing}")
    index = database.index()
    assert_invariant(index)
    assert index.list() == []


def test_times_that_jump_neither_hide_nor_repeat_anything(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [user("a", timestamp="2038-01-01T00:00:00Z")])
    index = claude.index()
    for moment in (4_000_000_000, 0, 1_700_000_000):
        with path.open("ab") as file:
            file.write(
                b'{"type":"user","message":{"content":"x"},"timestamp":"1971-01-01T00:00:00Z"}\n'
            )
        os.utime(path, (moment, moment))
        index.apply([path])
    session = index.get("one")
    assert (session.message_count, session.last_activity) == (4, 2_145_916_800_000)
    assert len(every_message(index, "one")) == 4
    assert session.started_at == 2_145_916_800_000


def test_a_file_from_the_future_is_read_again_when_it_changes(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [user("a")])
    os.utime(path, (2**33, 2**33))
    index = claude.index()
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"b"'))
    index.refresh()
    assert index.get("one").first_prompt == "b"


def test_an_id_that_two_coding_agents_share_is_reachable_for_both(home: Home) -> None:
    home.write(".claude/projects/p/one.jsonl", [user("of claude")])
    home.write(
        ".pi/agent/sessions/p/t_one.jsonl",
        [
            {"type": "session", "id": "one", "timestamp": "2020-01-02T03:04:05Z"},
            {"type": "message", "message": {"role": "user", "content": "of pi"}},
        ],
    )
    index = home.index()
    assert [s.agent_type for s in index.list()] == ["claude", "pi"]
    for agent in ("claude", "pi"):
        page = index.messages("one", limit=9, offset=0, agent=agent)
        assert [message.content for message in page.messages] == [f"of {agent}"]
        assert index.get("one", agent=agent).first_prompt == f"of {agent}"
    assert index.get("one").agent_type == "claude"
    index.delete("one", agent="pi")
    assert [s.agent_type for s in index.list()] == ["claude"]


def test_what_did_not_change_is_the_same_list(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("a")])
    index = claude.index()
    assert index.listing() is index.listing()
    before = index.listing()
    claude.append("one.jsonl", [user("b")])
    index.refresh()
    assert index.listing() is not before
    assert [session.message_count for session in index.listing()] == [2]


def test_a_listing_stays_in_order_however_many_change_at_once() -> None:
    def session(number: int, activity: int) -> Session:
        return Session(str(number), "claude", "t", "", "", 1, None, activity)

    listing = Listing()
    now = {number: session(number, number % 17) for number in range(500)}
    listing.change([], now.values())
    for changed in (range(3), range(0, 500, 2), range(7)):
        after = {number: session(number, now[number].last_activity + 5) for number in changed}
        listing.change([now[number] for number in changed], after.values())
        now.update(after)
        expected = sorted(now.values(), key=lambda s: (-s.last_activity, s.id))
        assert listing.sessions(None, children=False) == tuple(expected)
