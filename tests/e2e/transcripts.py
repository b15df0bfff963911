"""Small sessions as coding agents write them, for putting into workspaces."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

CLAUDE_DIRECTORY = ".claude/projects/-home-dev-shop"


def claude_line(kind: str, content: object, *, uuid: str, session: str = "s", **more: Any) -> str:
    """One record of a Claude Code session, as a line."""
    record = {
        "type": kind,
        "uuid": uuid,
        "sessionId": session,
        "cwd": "/home/dev/shop",
        "gitBranch": "main",
        "timestamp": f"2026-11-20T10:00:{int(uuid[-2:], 16) % 60:02d}.000Z",
        "message": {"role": kind, "content": content},
        **more,
    }
    return json.dumps(record) + "\n"


def claude_session(prompt: str = "Why is the cart empty?") -> str:
    """A session of six messages: string and array content on both sides, a tool and its result."""
    call = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "cart.py"}
    return "".join(
        (
            claude_line("user", prompt, uuid="u-01"),
            claude_line("assistant", [{"type": "text", "text": "Let me look."}], uuid="u-02"),
            claude_line("assistant", [call], uuid="u-03"),
            claude_line("user", [result], uuid="u-04"),
            claude_line("assistant", "It is never filled.", uuid="u-05"),
            claude_line("user", [{"type": "text", "text": "Then fill it."}], uuid="u-06"),
        )
    )


def opencode_database(path: Path) -> sqlite3.Connection:
    """Make an OpenCode database with one session of two messages, in WAL mode, and keep it open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    database.executescript(
        """
        PRAGMA journal_mode = WAL;
        CREATE TABLE session (id TEXT PRIMARY KEY, project_id TEXT, parent_id TEXT, slug TEXT,
          directory TEXT, title TEXT, version TEXT, time_created INTEGER, time_updated INTEGER,
          time_archived INTEGER);
        CREATE TABLE message (id TEXT PRIMARY KEY, session_id TEXT REFERENCES session(id)
          ON DELETE CASCADE, time_created INTEGER, time_updated INTEGER, data TEXT);
        CREATE TABLE part (id TEXT PRIMARY KEY, message_id TEXT REFERENCES message(id)
          ON DELETE CASCADE, session_id TEXT, time_created INTEGER, time_updated INTEGER,
          data TEXT);
        """
    )
    add_opencode_session(database, "ses_one", "Rename the module")
    return database


def add_opencode_session(database: sqlite3.Connection, session: str, title: str) -> None:
    """Write a session with a question and an answer."""
    database.execute(
        "INSERT INTO session VALUES (?, 'p', NULL, 's', ?, ?, '1.2', 1000, 2000, NULL)",
        (session, "/home/dev/shop", title),
    )
    for number, (role, text) in enumerate((("user", "Rename it"), ("assistant", "Renamed"))):
        message = f"msg_{session}_{number}"
        time = 1000 + number
        data = json.dumps({"role": role, "time": {"created": time}})
        part = json.dumps({"type": "text", "text": text})
        database.execute(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?)", (message, session, time, time, data)
        )
        database.execute(
            "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)",
            (f"prt_{message}", message, session, time, time, part),
        )
    database.commit()
