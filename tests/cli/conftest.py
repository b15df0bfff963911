"""Sessions and workspaces as plain data, and `perry` as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perry.sessions.models import Session
from perry.workspace.models import Workspace

SESSION = Session(
    id="4f2a0000-1111-4222-8333-444455556666",
    agent_type="claude",
    title="Fix the login",
    directory="/home/workspace/site",
    file_path="/home/workspace/.claude/projects/-home-workspace-site/4f2a.jsonl",
    message_count=12,
    first_prompt="Fix the login",
    last_activity=1_700_000_000_000,
)

WORKSPACE = Workspace(
    name="demo",
    container_id="c0ffee" * 10,
    image="perry-workspace:0123456789ab",
    state="running",
    created_at="2023-11-14T22:13:20Z",
    started_at="2023-11-14T22:13:21Z",
    user="workspace",
    home="/home/workspace",
    home_volume="workspace-demo-home",
    addresses=("172.17.0.2",),
    ports=(),
)


@pytest.fixture
def make_session() -> Callable[..., Session]:
    def make(**changes: Any) -> Session:
        return msgspec.structs.replace(SESSION, **changes)

    return make


@pytest.fixture
def make_workspace() -> Callable[..., Workspace]:
    def make(**changes: Any) -> Workspace:
        return msgspec.structs.replace(WORKSPACE, **changes)

    return make


@pytest.fixture
def set_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Put this process and those it starts into a time zone (as POSIX writes it)."""

    def to(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield to
    monkeypatch.undo()
    time.tzset()


Perry = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def perry(tmp_path: Path) -> Perry:
    """Run `python -m perry` in an empty directory, with no engine to be found."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "perry", *arguments],
            cwd=tmp_path,
            env={
                **os.environ,
                "HOME": str(tmp_path),
                "DOCKER_HOST": f"unix://{tmp_path}/no.sock",
                "COLUMNS": "80",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
