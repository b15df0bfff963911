"""The worker as a process: how it starts, what it logs, how it ends."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from perry.errors import PerryError, UsageError
from perry.protocol import TOKEN_VARIABLE
from perry.worker.logfile import LARGEST, log_path, log_to
from perry.worker.serve import listen
from tests.worker.running import TOKEN, ClaudeHome, WorkerProcess, eventually

if TYPE_CHECKING:
    from pathlib import Path

FOREIGN = ("docker", "typer", "httpx", "rich", "tenacity", "requests", "perry.client")


def python(*arguments: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={"HOME": str(home), "PATH": os.environ["PATH"], **more},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def ask_in_thread(worker: WorkerProcess, method: str, path: str) -> threading.Thread:
    """Ask without waiting for the answer, on a connection of its own; returns once it is sent."""
    connection = socket.create_connection(("127.0.0.1", worker.port))
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    connection.sendall(head.encode())

    def read() -> None:
        # The end of the worker may reset the connection: no answer either.
        with connection, contextlib.suppress(ConnectionResetError):
            while connection.recv(65536):
                pass

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def test_the_worker_imports_nothing_of_the_hosts_side(tmp_path: Path) -> None:
    code = (
        "import sys, perry.worker.serve, perry.worker.watcher, watchfiles._rust_notify;"
        f"print([name for name in {FOREIGN} if name in sys.modules])"
    )
    assert python("-c", code, home=tmp_path).stdout == "[]\n"


def test_check_says_that_everything_is_there(tmp_path: Path) -> None:
    done = python("-m", "perry.worker", "--check", home=tmp_path)
    assert (done.stdout, done.returncode) == (f"ok {platform.python_version()}\n", 0)
    assert list(tmp_path.iterdir()) == []


def test_sigterm_ends_it_within_a_second_with_an_idle_connection(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker:
        assert worker.json("/sessions") == {"sessions": []}  # its connection is kept
        assert worker.terminate() < 1
        assert worker.process.returncode == 0


def test_sigterm_ends_it_within_a_second_with_a_request_half_sent(tmp_path: Path) -> None:
    with (
        WorkerProcess(tmp_path) as worker,
        socket.create_connection(("127.0.0.1", worker.port)) as connection,
    ):
        connection.sendall(b"GET /sessions HTTP/1.1\r\nHost: x\r\n")
        assert worker.terminate() < 1


def test_sigterm_ends_it_within_a_second_with_an_answer_half_read(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    home.session("x" * 30_000_000, session_id="big")
    with (
        WorkerProcess(tmp_path) as worker,
        socket.create_connection(("127.0.0.1", worker.port)) as connection,
    ):
        connection.sendall(
            b"GET /sessions/big/messages HTTP/1.1\r\nHost: x\r\n"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert worker.terminate() < 1
        assert worker.process.returncode == 0


def test_while_it_scans_it_says_so_and_can_be_ended(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    for _ in range(40):
        home.session(*["a prompt of some length " * 20] * 5000)
    worker = WorkerProcess(tmp_path)
    try:
        answer = worker.http.get("/health", params={"challenge": "n"})
        assert answer.status_code == 503
        assert answer.json().keys() == {"status", "proof"}
        assert worker.http.get("/health").json() == {"status": "starting"}
        refused = worker.http.get("/sessions")
        assert refused.status_code == 503
        assert refused.json().keys() == {"error"}
        waiting = ask_in_thread(worker, "POST", "/refresh")  # waits for the scan
        assert worker.terminate() < 1
        assert worker.process.returncode == 0
        waiting.join(5)
        assert not waiting.is_alive()
    finally:
        worker.__exit__()


def test_it_answers_on_both_families(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker:
        try:
            connection = socket.create_connection(("::1", worker.port), 5)
        except OSError:
            assert not os.path.exists("/proc/net/if_inet6")  # noqa: PTH110 - no IPv6 here
            return
        connection.close()


def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = python("-m", "perry.worker", "--port", port, home=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"Port {port} is in use by another process.\n"
        "Stop that process, or choose another port with --port.\n"
    )
    assert done.stderr in (tmp_path / ".cache/perry/worker.log").read_text()


def test_a_host_of_another_machine_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", 0)


def test_a_taken_port_of_both_families_is_a_clear_error() -> None:
    with listen("::", 0) as taken, pytest.raises(PerryError, match="in use"):
        listen("::", taken.getsockname()[1])


def test_an_open_worker_without_a_token_is_refused(tmp_path: Path) -> None:
    done = python("-m", "perry.worker", "--host", "0.0.0.0", home=tmp_path)  # noqa: S104 - refused
    assert done.returncode == 2
    assert TOKEN_VARIABLE in done.stderr


def test_the_token_is_in_no_argument_and_no_log(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker:
        worker.json("/sessions")
        proc = f"/proc/{worker.process.pid}"
        with open(f"{proc}/cmdline", "rb") as file:  # noqa: PTH123 - not a path of ours
            arguments = file.read()
        with open(f"{proc}/comm") as file:  # noqa: PTH123 - as above
            assert file.read() == "perry-worker\n"
        assert b"perry.worker" in arguments
        assert TOKEN.encode() not in arguments
        assert TOKEN not in worker.log.read_text()


def test_the_log_is_the_users_alone(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker:
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (worker.log, worker.log.parent)]
    assert modes == [0o600, 0o700]


def test_a_large_log_is_moved_aside(tmp_path: Path) -> None:
    log = tmp_path / ".cache" / "perry" / "worker.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * (LARGEST + 1))
    python("-m", "perry.worker", "--port", "99999", home=tmp_path)
    assert log.with_name("worker.log.1").stat().st_size == LARGEST + 1
    assert b"99999 is no port" in log.read_bytes()


def test_a_log_that_grows_is_moved_aside_while_it_runs(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker:
        with worker.log.open("ab") as file:
            file.write(b"x" * LARGEST)
        worker.terminate()
        assert worker.log.with_name("worker.log.1").stat().st_size > LARGEST
        assert "ended" in worker.log.read_text()


def test_a_log_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    link = tmp_path / "worker.log"
    link.symlink_to(target)
    assert log_to(str(link)) is False
    assert target.read_text() == "precious"


def test_without_a_place_for_the_log_it_serves_all_the_same(tmp_path: Path) -> None:
    (tmp_path / ".cache").write_text("not a directory")
    done = python("-m", "perry.worker", "--port", "99999", home=tmp_path)
    assert "99999 is no port" in done.stderr


def test_the_log_goes_where_the_cache_is() -> None:
    assert log_path({"HOME": "/h"}) == "/h/.cache/perry/worker.log"
    assert log_path({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == "/c/perry/worker.log"
    assert log_path({"HOME": "/h", "XDG_CACHE_HOME": "c"}) == "/h/.cache/perry/worker.log"


def test_its_end_leaves_no_session_file_behind_or_changed(tmp_path: Path) -> None:
    path = ClaudeHome(tmp_path).session("one")
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    with WorkerProcess(tmp_path) as worker:
        eventually(lambda: worker.ids() == {path.stem}, "it is listed")
        worker.terminate()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert {each.name for each in tmp_path.iterdir()} == {".claude", ".cache"}
