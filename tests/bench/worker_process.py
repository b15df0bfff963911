"""A real worker over a home, as a process whose time, memory and answers can be measured.

Linux tells what a process takes in /proc. This module must not know what is asked of the worker.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perry.protocol import TOKEN_VARIABLE
from tests.bench.connection import Connection
from tests.bench.homes import Home

TOKEN = "a-token-for-the-bench-of-32-characters"
PATIENCE = 300.0  # s; a first scan of 2 GB by a slow index


class WorkerProcess:
    """A running worker: `started_in` seconds from the start of the process to healthy."""

    def __init__(self, home: Home, cache: Path) -> None:
        self.port = free_port()
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "perry.worker", "--host", "127.0.0.1", "--port", str(self.port)],
            env={**environment(home, cache), TOKEN_VARIABLE: TOKEN},
        )
        self._peak = 0
        self._watched = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        self._wait_until_healthy(began)
        self.started_in = time.perf_counter() - began
        self._watched.set()
        self._sampler.join()

    def connect(self) -> Connection:
        """Open a connection that carries the token."""
        return Connection(self.port, TOKEN)

    def memory(self) -> tuple[int, int]:
        """Tell resident memory and its peak so far in bytes, with processes it started."""
        fields = status(self._process.pid)
        return fields["VmRSS"], max(fields["VmHWM"], self._peak)

    def processor_time(self) -> float:
        """Tell the seconds of processor time it has used so far."""
        return processor_time(self._process.pid)

    def stop(self) -> None:
        """End it as its starter would."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_healthy(self, began: float) -> None:
        while time.perf_counter() - began < PATIENCE:
            if self._process.poll() is not None:
                raise SystemExit(f"the worker ended with {self._process.returncode}")
            try:
                with self.connect() as connection:
                    while connection.get("/health")[0] != 200:
                        # Each answer takes time from the scan: ask within 2 % of the moment.
                        time.sleep(max(0.002, (time.perf_counter() - began) / 50))
                    return
            except OSError:
                time.sleep(0.002)  # not listening yet
        raise SystemExit(f"the worker was not healthy after {PATIENCE} s")

    def _sample(self) -> None:
        """Add up the memory of the worker and of processes it starts, while it scans."""
        while not self._watched.wait(0.02):
            family = [self._process.pid, *_children(self._process.pid)]
            if len(family) > 1:
                self._peak = max(self._peak, sum(map(memory_share, family)))


@contextmanager
def worker_over(home: Home, cache: Path | None = None) -> Iterator[WorkerProcess]:
    """Run a worker; `cache` is where it remembers things, by default nothing from before."""
    with tempfile.TemporaryDirectory() as empty:
        worker = WorkerProcess(home, cache or Path(empty))
        try:
            yield worker
        finally:
            worker.stop()


def environment(home: Home, cache: Path) -> dict[str, str]:
    """Make an environment in which a process sees this home, and nothing else of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    return {**kept, "HOME": str(home.path), "XDG_CACHE_HOME": str(cache)}


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def processor_time(pid: int) -> float:
    """Tell the seconds of processor time that a process has used so far."""
    # The clock of another process, as clock_getcpuclockid(3) names it: exact to nanoseconds.
    return time.clock_gettime((~pid << 3) | 2)


def status(pid: int) -> dict[str, int]:
    """Tell what the kernel says of a process's memory, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if line.startswith("Vm"))
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def memory_share(pid: int) -> int:
    """Tell a process's memory, its part only of what it shares with others."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0  # it has just ended
    return 0


def _children(pid: int) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(after_name[1]) == pid:
            found.append(int(process.name))
    return found
