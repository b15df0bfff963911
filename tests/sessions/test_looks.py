"""Files are looked at while what is remembered is read, and nothing comes out differently."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from perry.sessions import index as index_module
from perry.sessions.claude import ClaudeSource
from perry.sessions.index import SessionIndex
from perry.sessions.looks import look_while
from tests.sessions.homes import ClaudeHome, user
from tests.sessions.test_parallel import children, open_files

if TYPE_CHECKING:
    from pathlib import Path

    from perry.sessions.source import Scan


class Killed(ClaudeSource):
    """A source that no other process can scan."""

    def scan(self) -> Scan:
        if os.getpid() != self.of:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().scan()

    of = os.getpid()


@pytest.fixture
def source(claude: ClaudeHome) -> ClaudeSource:
    for number in range(5):
        claude.write(f"{number}.jsonl", [user(f"prompt {number}")])
    return ClaudeSource(claude.home, {})


@pytest.fixture
def remembered(claude: ClaudeHome, monkeypatch: pytest.MonkeyPatch) -> ClaudeHome:
    """Give a home of two sessions that are remembered, and enough for a helper."""
    claude.write("one.jsonl", [user("hi")])
    claude.write("two.jsonl", [user("hi")])
    assert started(claude.home).save()
    monkeypatch.setattr(index_module, "_MUCH", 0)
    return claude


def started(home: Path) -> SessionIndex:
    index = SessionIndex.of_home(home, {}, remember=True)
    index.refresh()
    return index


def test_a_helper_finds_what_a_scan_finds_and_what_a_reading_has(source: ClaudeSource) -> None:
    files, processes = open_files(), children()
    done, looks = look_while([source], lambda: "done")
    assert done == "done"
    look = looks["claude"]
    assert look.scan == source.scan()
    for unit in look.scan.units:
        reading = source.read(unit, None)
        assert reading is not None
        assert look.fingerprints[unit] == reading.fingerprint
    assert (open_files(), children()) == (files, processes)


def test_names_that_are_no_text_are_looked_at_too(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [user("hi")])
    path.rename(path.with_name(os.fsdecode(b"\xff.jsonl")))
    source = ClaudeSource(claude.home, {})
    assert look_while([source], lambda: None)[1]["claude"].scan == source.scan()


def test_a_killed_helper_has_seen_nothing(source: ClaudeSource, claude: ClaudeHome) -> None:
    assert len(source.scan().units) == 5
    assert look_while([Killed(claude.home, {})], lambda: 1) == (1, {})


def test_nothing_is_left_of_a_helper_whose_work_failed(source: ClaudeSource) -> None:
    files, processes = open_files(), children()
    with pytest.raises(ZeroDivisionError):
        look_while([source], lambda: 1 // 0)
    assert (open_files(), children()) == (files, processes)


def test_a_file_that_is_as_it_was_is_not_read_again(remembered: ClaudeHome) -> None:
    path = remembered.project / "one.jsonl"
    status = path.stat()
    path.write_bytes(path.read_bytes().replace(b"hi", b"ho"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert started(remembered.home).get("one").first_prompt == "hi"


def test_what_changed_came_or_went_meanwhile_is_seen(remembered: ClaudeHome) -> None:
    remembered.append("one.jsonl", [user("more")])
    (remembered.project / "two.jsonl").unlink()
    remembered.write("three.jsonl", [user("hi")])
    found = {session.id: session.message_count for session in started(remembered.home).list()}
    assert found == {"one": 2, "three": 1}
