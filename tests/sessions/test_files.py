"""What readers say that they read: whoever copies a home for them copies that and nothing else."""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perry.sessions.index import SOURCES, SessionIndex
from perry.sessions.source import Files
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_line, every_agents_home

OPENED: list[str] = []


def note(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("open", "sqlite3.connect") and isinstance(arguments[0], str):
        OPENED.append(arguments[0])


@pytest.fixture(scope="module", autouse=True)
def _watch() -> Iterator[None]:
    sys.addaudithook(note)  # stays to the end of the process, and does no harm
    yield
    OPENED.clear()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def is_declared(files: Files, path: Path) -> bool:
    near = path.parent == files.directory
    below = files.below and path.is_relative_to(files.directory)
    return (near or below) and any(fnmatch.fnmatchcase(path.name, name) for name in files.names)


def test_readers_open_nothing_that_they_do_not_declare(tmp_path: Path) -> None:
    every_agents_home(tmp_path, 1_795_000_000)
    preview = "<persisted-output>\nsaved to: /x/tool-results/r1.txt\n</persisted-output>"
    result = [{"type": "tool_result", "tool_use_id": "r1", "content": preview}]
    folder = tmp_path / CLAUDE_DIRECTORY
    write(folder / "u.jsonl", claude_line("user", result, uuid="u-01"))
    write(folder / "u/tool-results/r1.txt", "the whole text")
    write(folder / "u/subagents/agent-a.jsonl", claude_line("user", "go", uuid="u-02"))
    storage = tmp_path / ".local/share/opencode/storage"
    write(storage / "session/p/ses_old.json", '{"id":"ses_old","title":"t","time":{"created":1}}')
    write(storage / "message/ses_old/msg_1.json", '{"id":"msg_1","role":"user"}')
    write(storage / "part/msg_1/prt_1.json", '{"id":"prt_1","type":"text","text":"x"}')
    write(tmp_path / ".codex/session_index.jsonl", "")
    write(tmp_path / ".gemini/tmp/shop/.project_root", "/home/dev/shop")
    sources = [make(tmp_path, {}) for make in SOURCES]
    index = SessionIndex(sources)
    OPENED.clear()
    index.refresh()
    texts = [
        message.content
        for session in index.list(children=True)
        for message in index.messages(session.id, limit=100, offset=0).messages
    ]
    assert "the whole text" in texts
    opened = {Path(path) for path in OPENED if path.startswith(f"{tmp_path}{os.sep}")}
    declared = [files for source in sources for files in source.files]
    logs = {path for path in opened if path.name.endswith(("-wal", "-journal"))}
    assert [p for p in opened - logs if not any(is_declared(files, p) for files in declared)] == []
    assert len(opened - logs) >= 15
    assert {path.with_name(path.name.rpartition("-")[0]) for path in logs} <= opened
