"""What a worker read is there for the next one."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.worker.running import ClaudeHome, WorkerProcess, eventually

PROMPTS = [f"{number} " + "x" * 100_000 for number in range(100)]
"""Ten megabytes of a session."""


def bytes_read(worker: WorkerProcess) -> int:
    """What the process has asked files for since its start."""
    counters = Path(f"/proc/{worker.process.pid}/io").read_text().split()
    return int(counters[counters.index("rchar:") + 1])


def remembered(home: Path) -> list[Path]:
    return sorted((home / ".cache/perry").glob("sessions-*"))


@pytest.fixture
def read_once(tmp_path: Path) -> ClaudeHome:
    """A home whose sessions a worker has read, and that worker's end."""
    home = ClaudeHome(tmp_path)
    home.session(*PROMPTS, session_id="large")
    with WorkerProcess(tmp_path) as worker:
        assert bytes_read(worker) > 10_000_000
        worker.process.terminate()
        worker.process.wait(5)
    return home


def test_the_next_worker_looks_at_files_instead_of_reading_them(read_once: ClaudeHome) -> None:
    (kept,) = remembered(read_once.home)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with WorkerProcess(read_once.home) as worker:
        # Python reads some megabytes of its own at its start
        assert bytes_read(worker) < 10_000_000
        (session,) = worker.json("/sessions")["sessions"]
        assert session["messageCount"] == len(PROMPTS)


def test_it_goes_on_from_where_the_last_one_stopped(read_once: ClaudeHome) -> None:
    (path,) = read_once.projects.glob("*/large.jsonl")
    read_once.append(path, "one more")
    with WorkerProcess(read_once.home) as worker:
        assert bytes_read(worker) < 10_000_000
        assert worker.json("/sessions/large")["session"]["messageCount"] == len(PROMPTS) + 1


def test_a_damaged_memory_is_no_memory(read_once: ClaudeHome) -> None:
    (kept,) = remembered(read_once.home)
    kept.write_bytes(kept.read_bytes()[:-7] + b"garbage")
    with WorkerProcess(read_once.home) as worker:
        assert worker.json("/sessions/large")["session"]["messageCount"] == len(PROMPTS)


def test_it_is_kept_while_the_worker_runs(tmp_path: Path) -> None:
    """Killed without a word, the worker has still kept its first scan."""
    ClaudeHome(tmp_path).session("hello", session_id="s")
    with WorkerProcess(tmp_path):
        eventually(lambda: bool(remembered(tmp_path)), "the first scan is kept")
