"""Changes to files show without anybody asking for a refresh."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from perry.sessions.index import SessionIndex
from perry.worker import notifier as notifier_module
from perry.worker import watcher as watcher_module
from perry.worker.notifier import Batch, Notifier, native_notifier
from perry.worker.watcher import Watcher
from tests.worker.running import ClaudeHome, WorkerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SLOWER_THAN_EVENTS = 1.0  # s; sweeps come later than that, so what is faster came by an event

Watching = tuple[SessionIndex, Watcher]


OPENCODE = """
CREATE TABLE session(id TEXT PRIMARY KEY, project_id TEXT, parent_id TEXT, slug TEXT,
  directory TEXT, title TEXT, version TEXT, time_created INTEGER, time_updated INTEGER);
CREATE TABLE message(id TEXT PRIMARY KEY, session_id TEXT, time_created INTEGER,
  time_updated INTEGER, data TEXT);
CREATE TABLE part(id TEXT PRIMARY KEY, message_id TEXT, session_id TEXT, time_created INTEGER,
  time_updated INTEGER, data TEXT);
INSERT INTO session VALUES ('ses_1', 'p', NULL, 's', '/srv/app', 'Title', '1.2', 1, 1);
"""


def say(agent: sqlite3.Connection, number: int) -> None:
    """Write one prompt, as OpenCode does."""
    agent.execute(
        "INSERT INTO message VALUES (?, 'ses_1', ?, ?, ?)",
        (f"msg_{number}", number, number, '{"role":"user"}'),
    )
    agent.execute(
        "INSERT INTO part VALUES (?, ?, 'ses_1', ?, ?, ?)",
        (f"prt_{number}", f"msg_{number}", number, number, '{"type":"text","text":"hello"}'),
    )


@pytest.fixture
def home(tmp_path: Path) -> ClaudeHome:
    return ClaudeHome(tmp_path)


@pytest.fixture
def watch(home: ClaudeHome) -> Iterator[Callable[..., Watching]]:
    started: list[Watcher] = []

    def start(open_notifier: Callable[[Sequence[str]], Notifier] = native_notifier) -> Watching:
        index = SessionIndex.of_home(home.home, {})
        watcher = Watcher(index, open_notifier=open_notifier)
        started.append(watcher)
        watcher.start()
        assert watcher.ready.wait(10)
        return index, watcher

    yield start
    for watcher in started:
        watcher.stop()


def count(index: SessionIndex, session_id: str) -> int:
    return {each.id: each.message_count for each in index.list()}.get(session_id, 0)


def test_an_appended_line_shows_at_once(home: ClaudeHome, watch: Callable[..., Watching]) -> None:
    path = home.session("one", session_id="mine")
    index, _ = watch()
    for expected in range(2, 8):
        home.append(path, "more")
        took = eventually(lambda n=expected: count(index, "mine") == n, "the line shows")  # type: ignore[misc] # mypy infers no type for a lambda's default
        assert took < SLOWER_THAN_EVENTS


def test_where_proc_does_not_tell_an_append_shows_all_the_same(
    home: ClaudeHome, watch: Callable[..., Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier_module, "HANDLES", "/nowhere")
    path = home.session("one", session_id="mine")
    index, _ = watch()
    home.append(path, "two")
    assert eventually(lambda: count(index, "mine") == 2, "the line shows") < SLOWER_THAN_EVENTS


def test_where_no_signal_comes_appends_show_all_the_same(
    home: ClaudeHome, watch: Callable[..., Watching]
) -> None:
    path = home.session("one", session_id="mine")
    opened: list[Notifier] = []

    def open_elsewhere(paths: Sequence[str]) -> Notifier:
        # The signals are for the thread that opens it, and that one has ended.
        thread = threading.Thread(target=lambda: opened.append(native_notifier(paths)))
        thread.start()
        thread.join()
        return opened[-1]

    index, _ = watch(open_elsewhere)
    for expected in range(2, 5):
        home.append(path, "more")
        took = eventually(lambda n=expected: count(index, "mine") == n, "the line shows")  # type: ignore[misc] # as above
        assert took < SLOWER_THAN_EVENTS


def test_with_nothing_to_do_a_worker_sleeps(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    home.session("one", session_id="mine")
    with WorkerProcess(tmp_path) as worker:
        time.sleep(3)  # until the sweeps of the start are over
        before = times_woken(worker)
        time.sleep(2)
        assert times_woken(worker) - before < 80  # looking every 20 ms, it was 120 and more


def times_woken(worker: WorkerProcess) -> int:
    """Count how often the threads of a worker have gone to sleep so far."""
    tasks = Path(f"/proc/{worker.process.pid}/task").iterdir()
    lines = (line for task in tasks for line in (task / "status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))


def test_an_append_shows_over_http(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    path = home.session("one", session_id="mine")
    with WorkerProcess(tmp_path) as worker:
        home.append(path, "two")
        took = eventually(
            lambda: worker.json("/sessions/mine")["session"]["messageCount"] == 2, "the line shows"
        )
    assert took < SLOWER_THAN_EVENTS


def test_a_write_to_a_database_shows_at_once(
    home: ClaudeHome, watch: Callable[..., Watching]
) -> None:
    data = home.home / ".local" / "share" / "opencode"
    data.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(data / "opencode.db", isolation_level=None)) as agent:
        agent.execute("PRAGMA journal_mode=WAL")
        agent.executescript(OPENCODE)
        say(agent, 1)
        index, _ = watch()
        assert count(index, "ses_1") == 1
        say(agent, 2)
        took = eventually(lambda: count(index, "ses_1") == 2, "the message shows")
    assert took < SLOWER_THAN_EVENTS


def test_a_root_that_appears_later_is_watched(
    home: ClaudeHome, watch: Callable[..., Watching]
) -> None:
    index, watcher = watch()
    assert list(home.home.iterdir()) == []
    path = home.session("one", session_id="mine")
    eventually(lambda: count(index, "mine") == 1, "the first session shows")
    home.append(path, "two")
    took = eventually(lambda: count(index, "mine") == 2, "an append to it shows")
    assert took < SLOWER_THAN_EVENTS
    assert watcher.mode == "native"


def test_a_root_that_is_replaced_is_watched_again(
    home: ClaudeHome, watch: Callable[..., Watching]
) -> None:
    home.session("one", session_id="old")
    index, _ = watch()
    (home.home / ".claude").rename(home.home / ".claude-before")
    eventually(lambda: index.list() == [], "the old sessions are forgotten")
    path = home.session("one", session_id="new")
    eventually(lambda: count(index, "new") == 1, "the new sessions show")
    home.append(path, "two")
    assert eventually(lambda: count(index, "new") == 2, "an append shows") < SLOWER_THAN_EVENTS


def test_nothing_is_created_in_the_home(home: ClaudeHome, watch: Callable[..., Watching]) -> None:
    index, _ = watch()
    index.refresh()
    assert list(home.home.iterdir()) == []


def test_directories_that_nest_quickly_hide_nothing(
    home: ClaudeHome, watch: Callable[..., Watching]
) -> None:
    home.projects.mkdir(parents=True)
    index, _ = watch()
    for number in range(300):
        home.session("one", session_id=f"s{number}", project=f"-srv-{number}")
    eventually(lambda: len(index.list()) == 300, "all 300 show", within=20)
    assert {each.message_count for each in index.list()} == {1}


def test_hundreds_of_files_changed_at_once_are_all_right_at_the_end(
    home: ClaudeHome, watch: Callable[..., Watching]
) -> None:
    paths = [home.session("one", session_id=f"s{number}") for number in range(400)]
    index, _ = watch()
    for _ in range(3):
        for path in paths:
            home.append(path, "more")
    for path in paths[:50]:
        path.unlink()
    eventually(lambda: len(index.list()) == 350, "the deleted are gone", within=20)
    eventually(lambda: {s.message_count for s in index.list()} == {4}, "all are whole", within=20)


def test_a_session_moved_away_is_gone_and_back_again(
    home: ClaudeHome, watch: Callable[..., Watching]
) -> None:
    path = home.session("one", session_id="mine")
    index, _ = watch()
    away = home.home / "away.jsonl"
    path.rename(away)
    eventually(lambda: count(index, "mine") == 0, "it is gone")
    away.rename(path)
    eventually(lambda: count(index, "mine") == 1, "it is back")


def test_a_directory_deleted_takes_its_sessions_along(
    home: ClaudeHome, watch: Callable[..., Watching]
) -> None:
    path = home.session("one", session_id="mine", project="-srv-gone")
    home.session("one", session_id="other")
    index, _ = watch()
    path.unlink()
    path.parent.rmdir()
    eventually(lambda: [each.id for each in index.list()] == ["other"], "only the other is left")


def test_what_happens_during_the_first_scan_is_not_lost(home: ClaudeHome) -> None:
    path = home.session("one", session_id="mine")

    class SlowIndex(SessionIndex):
        """Has its first scan disturbed after it looked."""

        disturbed = False

        def refresh(self) -> None:
            super().refresh()
            if not self.disturbed:
                self.disturbed = True
                home.append(path, "two")

    index = SlowIndex.of_home(home.home, {})
    watcher = Watcher(index)
    watcher.start()
    try:
        took = eventually(lambda: count(index, "mine") == 2, "the line shows")
    finally:
        watcher.stop()
    assert took < SLOWER_THAN_EVENTS


@pytest.mark.parametrize(
    "refusal",
    [
        # as watchfiles words the kernel's ENOSPC for a watch and EMFILE for an instance
        OSError('OS file watch limit reached. about ["/x"]'),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error creating recommended watcher: Too many open files (os error 24)"),
    ],
)
def test_without_a_notifier_it_polls_and_says_so(
    home: ClaudeHome, watch: Callable[..., Watching], refusal: Exception
) -> None:
    def refuse(_: Sequence[str]) -> Notifier:
        raise refusal

    path = home.session("one", session_id="mine")
    index, watcher = watch(refuse)
    eventually(lambda: watcher.mode == "polling", "the refusal shows")
    home.append(path, "two")
    eventually(lambda: count(index, "mine") == 2, "polling finds it")


def test_a_notifier_that_breaks_is_opened_again(
    home: ClaudeHome, watch: Callable[..., Watching]
) -> None:
    opened: list[Notifier] = []

    class Broken:
        """Fails at once, as watchfiles does after an error in its own thread."""

        def watch(self, *_: object) -> Batch | Literal["signal", "stop", "timeout"]:
            raise RuntimeError("error in underlying watcher")

        def close(self) -> None:
            return

    def break_once(paths: Sequence[str]) -> Notifier:
        opened.append(native_notifier(paths) if opened else Broken())
        return opened[-1]

    path = home.session("one", session_id="mine")
    index, watcher = watch(break_once)
    eventually(lambda: len(opened) == 2, "it is opened again")
    home.append(path, "two")
    eventually(lambda: count(index, "mine") == 2, "an append shows")
    assert watcher.mode == "native"


def test_what_no_event_told_is_found_by_the_sweep(
    home: ClaudeHome, watch: Callable[..., Watching], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf:
        """Tells of nothing, like a kernel whose queue overflowed."""

        def watch(
            self, _debounce: int, _step: int, timeout: int, stop: threading.Event | None
        ) -> Literal["timeout"]:
            assert stop is not None
            stop.wait(timeout / 1000)
            return "timeout"

        def close(self) -> None:
            return

    monkeypatch.setattr(watcher_module, "SWEEP_WHEN_IDLE", 0.5)
    path = home.session("one", session_id="mine")
    index, _ = watch(lambda _: Deaf())
    home.append(path, "two")
    eventually(lambda: count(index, "mine") == 2, "the sweep finds it")


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_a_kernel_that_refuses_is_polled(home: ClaudeHome, limit: str) -> None:
    path = home.session("one", session_id="mine")
    # A user namespace has limits of its own; where none can be made there is nothing to test with.
    script = f'echo 0 > /proc/sys/user/{limit} && exec "$@"'
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"]
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        return
    with WorkerProcess(home.home, prefix=prefix) as worker:
        assert worker.json("/health")["watch"] == "polling"
        home.append(path, "two")
        eventually(
            lambda: worker.json("/sessions/mine")["session"]["messageCount"] == 2,
            "polling finds it",
        )
