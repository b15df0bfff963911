"""The host's own sessions beside those of a real workspace."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Workspaces
from tests.e2e.command import Perry
from tests.e2e.eventually import eventually
from tests.e2e.test_sessions import Lines
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_line, claude_session


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one session, in the directory that a coding agent made."""
    made = tmp_path / "home"
    (made / CLAUDE_DIRECTORY).mkdir(parents=True)
    (made / CLAUDE_DIRECTORY / "mine.jsonl").write_text(claude_session("Asked on the host"))
    return made


@pytest.fixture
def perry(tmp_path: Path, home: Path) -> Perry:
    return Perry(tmp_path, {"HOME": str(home)})


@pytest.fixture
def name(workspaces: Workspaces) -> str:
    """A workspace with one session."""
    made = workspaces.init().workspace.name
    directory = f"~/{CLAUDE_DIRECTORY}"
    text = claude_session("Asked in the workspace")
    workspaces.run(made, f"mkdir -p {directory}; cat > {directory}/theirs.jsonl <<'EOF'\n{text}EOF")
    return made


def listed(perry: Perry, *arguments: str) -> set[tuple[str, str]]:
    sessions = perry.json("session", "list", *arguments)["sessions"]
    return {(session["workspace"], session["id"]) for session in sessions}


def test_host_and_workspaces_are_listed_searched_and_shown_together(
    perry: Perry, name: str
) -> None:
    both = {("host", "mine"), (name, "theirs")}
    eventually(lambda: listed(perry), lambda found: both <= found)
    assert listed(perry, "--workspace", "host") == {("host", "mine")}
    assert listed(perry, "--workspace", name) == {(name, "theirs")}
    hits: list[dict[str, Any]] = perry.json("session", "search", "asked")["hits"]
    assert both <= {(hit["workspace"], hit["sessionId"]) for hit in hits}
    assert perry.ok("session", "show", "mine").startswith("Asked on the host\nclaude · host · ")
    exported = perry.ok("session", "export", "mine", "--format", "json")
    assert json.loads(exported)["workspace"] == "host"
    perry.ok("session", "delete", "mine", "--yes")
    assert {("host", "mine"), (name, "theirs")} & listed(perry) == {(name, "theirs")}


def test_a_tail_hears_the_host_and_the_workspace(
    perry: Perry, home: Path, workspaces: Workspaces, name: str
) -> None:
    tail = perry.start("session", "tail", "--json")
    told = Lines(tail)
    heard: set[str] = set()
    log = f"{CLAUDE_DIRECTORY}/new.jsonl"
    try:
        for number in range(90):
            line = claude_line("user", f"line {number}", uuid=f"u-{number:02d}")
            with (home / log).open("a") as file:
                file.write(line)
            workspaces.run(name, f"cat >> ~/{log} <<'EOF'\n{line}EOF")
            while not told.queue.empty():
                heard.add(json.loads(told.line())["workspace"])
            if {"host", name} <= heard:
                break
        assert {"host", name} <= heard
    finally:
        tail.send_signal(signal.SIGINT)
        assert tail.wait(10) == 130
