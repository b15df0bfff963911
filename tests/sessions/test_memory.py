"""A restarted index knows what the one before it read, and believes nothing that isn't so."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from perry.sessions.index import SessionIndex
from tests.sessions.homes import ClaudeHome, Home, assert_invariant, every_message, user
from tests.sessions.test_growth import PLACES, WHOLE
from tests.sessions.test_opencode import SCHEMA, Database, text

if TYPE_CHECKING:
    from pathlib import Path

    from perry.sessions.models import Session


def started(home: Path, **env: str) -> SessionIndex:
    index = SessionIndex.of_home(home, env, remember=True)
    index.refresh()
    return index


def everything(index: SessionIndex) -> list[Session]:
    return index.list(children=True)


def disguise(path: Path) -> None:
    """Change what a file says so that its size and its times don't tell."""
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b"hi", b"ho"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def remembered(claude: ClaudeHome) -> Path:
    """Give the file in which a home with one session is remembered."""
    claude.write("one.jsonl", [user("hi")])
    index = started(claude.home)
    assert index.save()
    (path,) = (claude.home / ".cache" / "perry").iterdir()
    return path


def test_a_restart_looks_at_files_and_reads_none(claude: ClaudeHome, remembered: Path) -> None:
    disguise(claude.project / "one.jsonl")
    assert started(claude.home).get("one").first_prompt == "hi"
    remembered.unlink()
    assert started(claude.home).get("one").first_prompt == "ho"


def test_every_coding_agents_sessions_are_remembered(home: Home) -> None:
    for agent, place in PLACES.items():
        home.write(place, WHOLE[agent])
    home.write(".gemini/tmp/p/.project_root", [b"/home/dev/p"])
    home.write(".codex/session_index.jsonl", [{"id": "one", "thread_name": "named"}])
    files = ".local/share/opencode/storage"
    home.write(f"{files}/session/p/ses_f.json", {"id": "ses_f", "title": "filed"})
    home.write(f"{files}/message/ses_f/msg.json", {"role": "user", "time": {"created": 5}})
    home.write(f"{files}/part/msg/prt.json", {"type": "text", "text": "filed"})
    database = Database(home.home)
    database.run(schema=SCHEMA)
    database.session("ses_d")
    database.say("ses_d", "user", text("stored"))
    first = started(home.home)
    assert first.save()
    again = started(home.home)
    assert len(everything(again)) >= 6
    assert everything(again) == everything(first)
    assert again.skipped_lines() == first.skipped_lines()
    for session in everything(first):
        agent = session.agent_type
        page = again.messages(session.id, limit=99, offset=0, agent=agent)
        assert page == first.messages(session.id, limit=99, offset=0, agent=agent)


def test_what_changed_while_nobody_looked_is_read(claude: ClaudeHome, remembered: Path) -> None:
    claude.append("one.jsonl", [user("more")])
    claude.write("two.jsonl", [user("new")])
    index = started(claude.home)
    assert [m.content for m in every_message(index, "one")] == ["hi", "more"]
    assert_invariant(index)
    (claude.project / "one.jsonl").unlink()
    assert index.save()
    assert [session.id for session in everything(started(claude.home))] == ["two"]
    assert remembered.exists()


def test_a_grown_log_is_read_on_from_where_it_was_left(
    claude: ClaudeHome, remembered: Path
) -> None:
    lines = [user(f"{number}" * 400) for number in range(9)]
    path = claude.write("one.jsonl", lines)
    assert started(claude.home).save()
    with path.open("r+b") as file:
        file.write(b"#" * 100)  # would be a skipped line if it were read again
    claude.append("one.jsonl", [user("last")])
    session = started(claude.home).get("one")
    assert (session.message_count, session.skipped_lines) == (10, 0)
    assert remembered.exists()


def test_whatever_is_damaged_is_read_again(claude: ClaudeHome, remembered: Path) -> None:
    whole = remembered.read_bytes()
    disguise(claude.project / "one.jsonl")
    for place in range(len(whole)):
        remembered.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        assert started(claude.home).get("one").first_prompt == "ho"
    for end in range(0, len(whole), 7):
        remembered.write_bytes(whole[:end])
        assert started(claude.home).get("one").first_prompt == "ho"
    remembered.write_bytes(whole)
    assert started(claude.home).get("one").first_prompt == "hi"


def test_only_this_user_may_read_what_is_remembered(remembered: Path) -> None:
    assert stat.S_IMODE(remembered.stat().st_mode) == 0o600
    assert stat.S_IMODE(remembered.parent.stat().st_mode) == 0o700


def test_the_cache_directory_can_be_elsewhere(claude: ClaudeHome, tmp_path: Path) -> None:
    claude.write("one.jsonl", [user("hi")])
    assert started(claude.home, XDG_CACHE_HOME=str(tmp_path / "cache")).save()
    assert len([*(tmp_path / "cache" / "perry").iterdir()]) == 1
    assert not (claude.home / ".cache").exists()


def test_two_places_of_the_same_home_are_remembered_apart(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("hi")])
    assert started(claude.home).save()
    elsewhere = started(claude.home, CLAUDE_CONFIG_DIR=str(claude.home / "other"))
    assert everything(elsewhere) == []
    assert elsewhere.save()
    assert [session.id for session in everything(started(claude.home))] == ["one"]


def test_a_directory_that_cannot_be_written_is_named_and_costs_nothing_else(
    claude: ClaudeHome,
) -> None:
    claude.write("one.jsonl", [user("hi")])
    (claude.home / ".cache").write_text("not a directory")
    index = started(claude.home)
    assert not index.save()
    assert [*index.unreadable().values()] == ["Not a directory"]
    assert index.get("one").message_count == 1


def test_nothing_is_written_until_something_changes(claude: ClaudeHome, remembered: Path) -> None:
    before = remembered.stat().st_ino
    index = started(claude.home)
    assert index.save()
    index.refresh()
    assert index.save()
    assert remembered.stat().st_ino == before
    claude.append("one.jsonl", [user("more")])
    index.refresh()
    assert index.save()
    assert remembered.stat().st_ino != before


def test_an_index_that_is_not_told_to_remember_leaves_nothing_behind(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("hi")])
    index = claude.index()
    assert not index.save()
    assert [path.name for path in claude.home.iterdir()] == [".claude"]


def test_a_file_name_that_is_no_text_is_read_again(claude: ClaudeHome, remembered: Path) -> None:
    odd = os.fsencode(claude.project) + b"/caf\xe9.jsonl"
    with open(odd, "wb") as file:  # noqa: PTH123  (Path has no byte names)
        file.write((claude.project / "one.jsonl").read_bytes())
    assert started(claude.home).save()
    assert {session.id for session in everything(started(claude.home))} == {"one", "caf\ufffd"}
    assert remembered.exists()


def test_what_a_killed_process_left_is_removed_in_time(
    claude: ClaudeHome, remembered: Path
) -> None:
    old, new = (remembered.with_name(f"{remembered.name}.{end}") for end in ("old", "new"))
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (1_700_000_000, 1_700_000_000))
    claude.append("one.jsonl", [user("more")])
    assert started(claude.home).save()
    assert {path.name for path in remembered.parent.iterdir()} == {remembered.name, new.name}
