"""Session files made by hand, one quirk at a time, and the questions every test asks of an index.

Nothing here reads samples from outside the repository.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from perry.sessions.index import SessionIndex
from perry.sessions.models import Message

Lines = Iterable[Mapping[str, object] | bytes]


def as_bytes(lines: Lines) -> bytes:
    return b"".join(
        line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines
    )


def every_message(index: SessionIndex, session_id: str, limit: int = 1000) -> list[Message]:
    """Page through a session; each page must tell the total that the list tells."""
    count = index.get(session_id).message_count
    found: list[Message] = []
    while True:
        page = index.messages(session_id, limit=limit, offset=len(found))
        assert page.total == count
        if not page.messages:
            break
        found = [*page.messages, *found]
    assert len(found) == count
    return found


def assert_invariant(index: SessionIndex) -> None:
    for session in index.list(children=True):
        whole = every_message(index, session.id)
        for limit in (1, 2, 3):
            assert every_message(index, session.id, limit) == whole


class Home:
    """A home directory with files of any coding agent."""

    def __init__(self, home: Path, **env: str) -> None:
        self.home = home
        self.env = env

    def write(self, name: str, lines: Lines | dict[str, Any]) -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = json.dumps(lines, indent=2).encode() if isinstance(lines, dict) else as_bytes(lines)
        path.write_bytes(whole)
        return path

    def append(self, name: str, lines: Lines) -> Path:
        path = self.home / name
        with path.open("ab") as file:
            file.write(as_bytes(lines))
        return path

    def index(self) -> SessionIndex:
        index = SessionIndex.of_home(self.home, self.env)
        index.refresh()
        return index


def shape(index: SessionIndex, session_id: str) -> list[tuple[str, str]]:
    return [(m.type, m.content) for m in every_message(index, session_id)]


class ClaudeHome:
    """A home directory with Claude Code sessions in one project."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.project = home / ".claude" / "projects" / "-home-dev-proj"

    def write(self, name: str, lines: Lines) -> Path:
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_bytes(lines))
        return path

    def append(self, name: str, lines: Lines) -> Path:
        path = self.project / name
        with path.open("ab") as file:
            file.write(as_bytes(lines))
        return path

    def index(self) -> SessionIndex:
        index = SessionIndex.of_home(self.home, {})
        index.refresh()
        return index


def user(content: object, **more: Any) -> dict[str, Any]:
    return {
        "type": "user",
        "cwd": "/home/dev/proj",
        "sessionId": "one",
        "timestamp": "2026-01-02T03:04:05.000Z",
        "message": {"role": "user", "content": content},
        **more,
    }


def assistant(
    content: object, *, inner: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    message = {"role": "assistant", "model": "claude-x", "content": content, **(inner or {})}
    return {
        "type": "assistant",
        "sessionId": "one",
        "timestamp": "2026-01-02T03:04:06.000Z",
        "message": message,
        **more,
    }
