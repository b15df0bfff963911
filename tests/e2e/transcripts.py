"""Small sessions as coding agents write them, for putting into workspaces."""

from __future__ import annotations

import json
import os
import shutil
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


CODEX_LOG = ".codex/sessions/2026/11/20/rollout-2026-11-20T10-00-00-{0}.jsonl"
CODEX_ID = "01a20c24-5510-7403-9152-3188c446ebf5"
PI_LOG = ".pi/agent/sessions/--home-dev-shop--/2026-11-20T10-00-00-000Z_pi-one.jsonl"
GEMINI_LOG = ".gemini/tmp/shop/chats/session-2026-11-20T10-00-4d339ce1.jsonl"
GEMINI_ID = "4d339ce1-3438-4b3f-9526-78bd5d181725"
_MOMENT = "2026-11-20T10:00:00.000Z"


def every_agents_home(home: Path, modified: int) -> None:
    """Write sessions of every coding agent, two of which share an id, and secrets beside them.

    All files were changed at `modified` (seconds since the epoch).
    """
    texts = {
        f"{CLAUDE_DIRECTORY}/s.jsonl": claude_session(),
        f"{CLAUDE_DIRECTORY}/t.jsonl": claude_session("Who empties it?"),
        ".claude/projects/-home-dev-copy/s.jsonl": claude_line("user", "A copy", uuid="u-01"),
        CODEX_LOG.format(CODEX_ID): _lines(*_codex()),
        PI_LOG: _lines(*_pi()),
        GEMINI_LOG: _lines(*_gemini()),
        ".gemini/projects.json": json.dumps({"projects": {"/home/dev/shop": "shop"}}),
        ".codex/auth.json": "secret",
        ".local/share/opencode/auth.json": "secret",
        ".claude/.credentials.json": "secret",
    }
    for name, text in texts.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    _opencode_left_open(home / ".local/share/opencode/opencode.db")
    for path in home.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (modified, modified))


def _opencode_left_open(path: Path) -> None:
    """Leave a database as a client that was killed does: all that it holds is in its log."""
    draft = path.with_name("draft.db")
    database = opencode_database(draft)
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{draft}{suffix}", f"{path}{suffix}")
    database.close()
    draft.unlink()


def _codex() -> list[dict[str, Any]]:
    meta = {"id": CODEX_ID, "timestamp": _MOMENT, "cwd": "/home/dev/shop"}
    said = [("user", "input_text", "Sort it"), ("assistant", "output_text", "Sorted")]
    messages = [
        {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
        for role, kind, text in said
    ]
    payloads = [("session_meta", meta), *(("response_item", message) for message in messages)]
    return [{"timestamp": _MOMENT, "type": kind, "payload": it} for kind, it in payloads]


def _pi() -> list[dict[str, Any]]:
    common = {"timestamp": _MOMENT, "parentId": None}
    header = {"type": "session", "version": 3, "id": "pi-one", "cwd": "/home/dev/shop", **common}
    said = [("user", "Paint it"), ("assistant", [{"type": "text", "text": "Painted"}])]
    return [
        header,
        *(
            {"type": "message", "id": role, "message": {"role": role, "content": text}, **common}
            for role, text in said
        ),
    ]


def _gemini() -> list[dict[str, Any]]:
    times = {"startTime": _MOMENT, "lastUpdated": _MOMENT}
    header = {"sessionId": GEMINI_ID, "projectHash": "h", **times}
    said = [("1", "user", [{"text": "Weigh it"}]), ("2", "gemini", "Weighed")]
    return [
        header,
        *({"id": i, "type": kind, "timestamp": _MOMENT, "content": text} for i, kind, text in said),
    ]


def _lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)
