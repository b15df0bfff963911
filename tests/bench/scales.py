"""What depends on how many sessions there are, measured over homes of several sizes.

Each size gets its own home and its own worker, so that figures of two sizes differ in nothing else.
The rows say which promise they stand for; the last ones compare two sizes, ten times apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.connection import latency
from tests.bench.homes import Home, Live, home_of
from tests.bench.living import appended_to_visible
from tests.bench.table import Row, median, megabytes, seconds, stopwatch
from tests.bench.worker_process import WorkerProcess, environment, worker_over

IMPORTS = "import uvicorn, starlette.applications, watchfiles, msgspec, anyio.to_thread"
ENOUGH = 4.0  # s


@dataclass(frozen=True)
class Scale:
    """The figures of one home; durations in seconds, memory in bytes."""

    home: Home
    floor: float
    first_look: float
    look_peak: float
    is_exact: bool
    cold_start: float
    resident: float
    peak: float
    restart: float
    restart_resident: float
    restart_peak: float
    listing: float
    visible: list[float]


def measure(sessions: int, *, rounds: int, appends: int) -> Scale:
    """Measure one size, at most `rounds` times; floor and first look take turns."""
    with home_of(sessions) as home, tempfile.TemporaryDirectory() as cache:
        _warm(home)
        floors, looks = [], []
        for _ in _repeated(rounds):
            floors.append(fresh("floor", home, home.projects))
            looks.append(fresh("index", home, home.path))
        with worker_over(home, Path(cache)) as worker:
            cold_start, (resident, peak) = worker.started_in, worker.memory()
            listing, visible = _ask(home, worker, appends)
        restarts = []
        for _ in _repeated(rounds):
            with worker_over(home, Path(cache)) as worker:
                restarts.append(worker.started_in)
                restart_resident, restart_peak = worker.memory()
        return Scale(
            home=home,
            floor=median([each["seconds"] for each in floors]),
            first_look=median([each["seconds"] for each in looks]),
            look_peak=max(each["peak"] for each in looks),
            is_exact=looks[0]["messages"] == home.messages == floors[0]["messages"],
            cold_start=cold_start,
            resident=resident,
            peak=peak,
            restart=median(restarts),
            restart_resident=restart_resident,
            restart_peak=restart_peak,
            listing=listing,
            visible=visible,
        )


def rows_of(scales: list[Scale]) -> Iterator[Row]:
    """Tell the figures, a size a row, and one kind after the other."""
    imports = _imports()
    for scale in scales:
        yield _first_look(scale)
    for scale in scales:
        yield _start(scale, "nothing remembered", scale.cold_start, imports, "")
    for scale in scales:
        yield _start(scale, "the second time", scale.restart, imports, "0.4 s for 10,000")
    for scale in scales:
        yield _memory(scale, "the first start", scale.resident, scale.peak)
    for scale in scales:
        yield _memory(scale, "the second", scale.restart_resident, scale.restart_peak)


def growth(small: Scale, large: Scale) -> Iterator[Row]:
    """Compare two sizes."""
    more = large.home.size / small.home.size
    for what, before, after in (
        ("first look", small.first_look, large.first_look),
        ("floor of it", small.floor, large.floor),
        ("second start", small.restart, large.restart),
        ("peak of memory", small.peak / 1e9, large.peak / 1e9),
        ("GET /sessions", small.listing, large.listing),
        ("append to visible", median(small.visible), median(large.visible)),
    ):
        unit = "GB" if "memory" in what else "s"
        yield Row(
            f"{what}, {small.home.sessions:,} to {large.home.sessions:,} sessions",
            f"{after:.4f} {unit}",
            f"{before:.4f} {unit}",
            f"{after / before:.1f} times for {more:.1f} times the bytes",
            "linear or better",
            {"small": before, "large": after, "growth": after / before, "bytes_growth": more},
        )


def fresh(what: str, home: Home, path: Path) -> dict[str, float]:
    """Run one of the measurements of `scan.py` in a process of its own, remembering nothing."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.scan", what, str(path)],
            env=environment(home, Path(cache)),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise SystemExit(f"{what} failed: {done.stderr}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _repeated(rounds: int) -> Iterator[int]:
    """Count rounds, and stop early where they take long: what takes long varies little."""
    began = time.perf_counter()
    for number in range(rounds):
        if number and time.perf_counter() - began > ENOUGH:
            return
        yield number


def _ask(home: Home, worker: WorkerProcess, appends: int) -> tuple[float, list[float]]:
    with worker.connect() as connection:
        listing = median(latency(connection, "/sessions", 15))
    live = Live(home, "scale")
    return listing, appended_to_visible(worker, live, appends)


def _warm(home: Home) -> None:
    """Have all files in the page cache."""
    for path in home.projects.rglob("*.jsonl"):
        path.read_bytes()


def _imports() -> float:
    took: list[float] = []
    for _ in range(5):
        with stopwatch(took):
            subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return median(took)


def _first_look(scale: Scale) -> Row:
    ratio = scale.floor / scale.first_look
    exact = "exact" if scale.is_exact else "WRONG"
    return Row(
        f"first look, {_size(scale)}, counts {exact}",
        seconds(scale.first_look),
        f"{seconds(scale.floor)} msgspec floor",
        f"{ratio:.2f} of its speed, peak {megabytes(scale.look_peak)}",
        "0.7 at least",
        {
            "seconds": scale.first_look,
            "floor": scale.floor,
            "ratio": ratio,
            "peak": scale.look_peak,
            "exact": float(scale.is_exact),
        },
    )


def _start(scale: Scale, how: str, took: float, imports: float, promise: str) -> Row:
    return Row(
        f"start to healthy, {how}, {scale.home.sessions:,}",
        seconds(took),
        f"{seconds(imports)} imports alone",
        f"{took - imports:+.2f} s",
        promise,
        {"seconds": took, "floor": imports},
    )


def _memory(scale: Scale, when: str, resident: float, peak: float) -> Row:
    return Row(
        f"memory after {when}, {scale.home.sessions:,}",
        megabytes(resident),
        "",
        f"peak {megabytes(peak)}",
        "50 MB for 2,000, 90 MB for 10,000, peak",
        {"resident": resident, "peak": peak},
    )


def _size(scale: Scale) -> str:
    return f"{scale.home.sessions:,} sessions of {megabytes(scale.home.size)}"
