"""Two processes read what one would, whatever becomes of the second."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from perry.sessions.claude import ClaudeSource
from perry.sessions.parallel import read_many
from tests.sessions.homes import ClaudeHome, user

if TYPE_CHECKING:
    from perry.sessions.source import Reading


@pytest.fixture
def source(claude: ClaudeHome) -> ClaudeSource:
    for number in range(300):
        claude.write(f"{number}.jsonl", [user(f"prompt {number}")] * (number % 7))
    return ClaudeSource(claude.home, {})


def test_a_helper_reads_a_part_and_all_come_back_once(source: ClaudeSource) -> None:
    units = sorted(source.scan().units)
    alone = {unit: source.read(unit, None) for unit in units}
    here: list[str] = []

    def read(unit: str) -> Reading | None:
        here.append(unit)
        return source.read(unit, None)

    found = [*read_many(source, units, read, enough=0)]
    assert len(found) == len(units)
    assert dict(found) == alone
    assert len(here) <= len(units)


def test_what_a_killed_helper_took_is_read_all_the_same(source: ClaudeSource) -> None:
    units = sorted(source.scan().units)
    this = os.getpid()

    def read(unit: str) -> Reading | None:
        if os.getpid() != this:
            os.kill(os.getpid(), signal.SIGKILL)
        return source.read(unit, None)

    found = dict(read_many(source, units, read, enough=0))
    assert found == {unit: source.read(unit, None) for unit in units}


def test_what_is_gone_by_then_is_nothing(source: ClaudeSource, claude: ClaudeHome) -> None:
    gone = str(claude.project / "gone.jsonl")
    assert [*read_many(source, [gone], lambda unit: source.read(unit, None), enough=0)] == [
        (gone, None)
    ]
    assert [*read_many(source, [], lambda unit: source.read(unit, None), enough=0)] == []


def test_nothing_stays_open_or_running(source: ClaudeSource) -> None:
    units = sorted(source.scan().units)
    files, processes = open_files(), children()
    for _ in range(3):
        assert len([*read_many(source, units, lambda u: source.read(u, None), enough=0)]) == 300
    assert open_files() == files
    assert children() == processes


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (names)


def children() -> set[str]:
    """This process's children, ended ones that nobody waited for included."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {child for task in tasks for child in task.read_text().split()}
