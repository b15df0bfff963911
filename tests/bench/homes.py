"""Homes full of made-up Claude Code sessions: the same seed gives the same bytes.

Session number i is the same in every home, and any run of consecutive sessions has the same spread
of sizes and versions, so homes of different sizes differ in nothing but the number. What was made
is kept in the system's temporary directory, under a digest of the code that made it; the homes that
are measured are trees of hard links into it. Nobody writes to those files: what the bench appends
to, it writes itself. This module must not know what is measured.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import NormalDist

from tests.bench.transcript import Transcript, uuid_of

SEED = 1
BLOCK = 100  # sessions that are made together
MEDIAN_SIZE = 60_000  # bytes; with the spread below sessions have 200 KB on average
SPREAD = 1.5
LARGEST = 6_000_000
PROJECTS = 40
FIRST_MOMENT = 1_780_000_000_000  # ms since the epoch
GOLDEN = (math.sqrt(5) - 1) / 2
PROJECTS_PATH = Path(".claude", "projects")


@dataclass(frozen=True)
class Home:
    """A home directory and what is in it; `size` in bytes, `messages` without subagents' own."""

    path: Path
    sessions: int
    files: int
    size: int
    messages: int

    @property
    def projects(self) -> Path:
        """Where the logs lie."""
        return self.path / PROJECTS_PATH


@dataclass(frozen=True)
class Made:
    """A finished log outside any home, to be linked or copied into one."""

    path: Path
    messages: int

    @property
    def id(self) -> str:
        """The session's id."""
        return self.path.stem

    def link_into(self, home: Home) -> Path:
        """Make the session appear in a home, all at once."""
        path = _project(home, "big") / self.path.name
        path.hardlink_to(self.path)
        return path

    def copy_into(self, home: Home) -> Path:
        """Put a copy that may be written to into a home."""
        path = _project(home, "big") / self.path.name
        shutil.copyfile(self.path, path)
        return path


class Live:
    """A session that grows: each `append` adds one line with one message."""

    def __init__(self, home: Home, name: str, path: Path | None = None, messages: int = 0) -> None:
        rng = _rng("live", name)
        self.id = path.stem if path else uuid_of(rng)
        self.path = path or _project(home, "live") / f"{self.id}.jsonl"
        self.messages = messages
        now = FIRST_MOMENT + 40_000_000_000
        self._transcript = Transcript(rng, self.id, age="middle", project="live", now=now)
        if path is None:
            self.path.write_bytes(b"".join(self._transcript.lines(10_000)))
            self.messages = self._transcript.messages
        self._file = self.path.open("ab", buffering=0)

    def append(self) -> None:
        """Add a line."""
        self._file.write(self._transcript.reply())
        self.messages += 1

    def close(self) -> None:
        """Stop writing."""
        self._file.close()


@dataclass(frozen=True)
class Block:
    """What was written for a run of sessions: names below `projects`, bytes, messages."""

    files: list[str]
    size: int
    messages: int


@contextmanager
def home_of(sessions: int) -> Iterator[Home]:
    """Give a home of that many sessions (a multiple of 100); it is removed afterwards."""
    blocks = [_ensure_block(number) for number in range(sessions // BLOCK)]
    with tempfile.TemporaryDirectory(prefix="home-", dir=_cache()) as directory:
        root = Path(directory)
        for block, manifest in blocks:
            for name in manifest.files:
                target = root / PROJECTS_PATH / name
                try:
                    os.link(block / name, target)
                except FileNotFoundError:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.link(block / name, target)
        yield Home(
            root,
            sessions,
            sum(len(manifest.files) for _, manifest in blocks),
            sum(manifest.size for _, manifest in blocks),
            sum(manifest.messages for _, manifest in blocks),
        )


def big_session(size: int) -> Made:
    """Give one finished session of that many bytes."""
    rng = _rng("big", str(size))
    directory = _cache() / f"big-{size}"
    marker = directory / "messages"
    path = directory / f"{uuid_of(rng)}.jsonl"
    if not marker.exists():
        directory.mkdir(exist_ok=True)
        transcript = Transcript(rng, path.stem, age="middle", project="big", now=FIRST_MOMENT)
        with path.open("wb") as file:
            file.writelines(transcript.lines(size))
        marker.write_text(str(transcript.messages))
    return Made(path, int(marker.read_text()))


def _ensure_block(number: int) -> tuple[Path, Block]:
    directory = _cache() / "blocks" / f"{number:04d}"
    marker = directory / "block.json"
    if not marker.exists():
        shutil.rmtree(directory, ignore_errors=True)
        made = [_write(directory, i) for i in range(number * BLOCK, (number + 1) * BLOCK)]
        block = Block(
            [name for files, _, _ in made for name in files],
            sum(size for _, size, _ in made),
            sum(messages for _, _, messages in made),
        )
        marker.write_text(json.dumps(asdict(block)))
    return directory, Block(**json.loads(marker.read_text()))


def _write(directory: Path, number: int) -> tuple[list[str], int, int]:
    """Write one session with its subagents: the files' names, their bytes, its messages."""
    rng = _rng("session", str(number))
    spread = (number * GOLDEN + 0.5) % 1  # evenly spread over any run of numbers
    size = min(LARGEST, MEDIAN_SIZE * math.exp(SPREAD * NormalDist().inv_cdf(spread or 0.5)))
    age = ("old", "middle", "new", "middle", "new", "middle", "new")[number % 7]
    project = f"project-{rng.randrange(PROJECTS):02d}"
    folder = f"-home-dev-work-{project}"
    session = uuid_of(rng)
    now = FIRST_MOMENT + number * 3_600_000 % 31_536_000_000
    transcript = Transcript(rng, session, age=age, project=project, now=now)
    written = [_log(directory, f"{folder}/{session}.jsonl", transcript, int(size))]
    for _ in range(rng.randrange(1, 4) if number % 8 == 0 and age != "old" else 0):
        agent = f"agent-{rng.getrandbits(32):08x}"
        child = Transcript(rng, agent, age=age, project=project, now=now, parent=session)
        place = f"{folder}/{session}/subagents/{agent}.jsonl"
        written.append(_log(directory, place, child, rng.randrange(5_000, 60_000)))
    return [name for name, _ in written], sum(size for _, size in written), transcript.messages


def _log(directory: Path, name: str, transcript: Transcript, size: int) -> tuple[str, int]:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = b"".join(transcript.lines(size))
    path.write_bytes(data)
    os.utime(path, (transcript.now / 1000, transcript.now / 1000))
    return name, len(data)


def _project(home: Home, name: str) -> Path:
    directory = home.projects / f"-home-dev-work-{name}"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _rng(*names: str) -> Random:
    return Random("/".join((str(SEED), *names)))  # noqa: S311 - made-up sessions are no secrets


def _cache() -> Path:
    """Give the directory where all that is made is kept, one for each state of this code."""
    sources = (Path(__file__), Path(__file__).with_name("transcript.py"))
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    everything = Path(tempfile.gettempdir()) / f"perry-bench-{os.getuid()}"
    directory = everything / digest
    if not directory.exists():
        shutil.rmtree(everything, ignore_errors=True)  # what other states of this code made
        directory.mkdir(parents=True, mode=0o700)
    return directory
