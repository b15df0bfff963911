"""The design that perry replaced: no index, every file parsed anew for every answer.

Written as well as that design allows: the fast decoder, one pass, nothing kept. It must not use
perry's readers, and it cares for no subtlety of the format that costs time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec


def list_sessions(projects: Path) -> bytes:
    """Parse all files, and give what `GET /sessions` answers."""
    sessions: list[dict[str, Any]] = []
    for path in projects.glob("*/*.jsonl"):
        messages, title, last = 0, "", ""
        for record in _records(path):
            messages += sum(1 for _ in _blocks(record))
            title = record.get("customTitle") or record.get("aiTitle") or title
            last = max(last, record.get("timestamp") or "")
        sessions.append(
            {"id": path.stem, "title": title, "messageCount": messages, "lastActivity": last}
        )
    sessions.sort(key=lambda session: session["lastActivity"], reverse=True)
    return msgspec.json.encode({"sessions": sessions})


def list_messages(path: Path, limit: int) -> bytes:
    """Parse one file, and give the newest messages of it."""
    found = [block for record in _records(path) for block in _blocks(record)]
    return msgspec.json.encode({"messages": found[-limit:], "total": len(found)})


def _records(path: Path) -> Iterator[dict[str, Any]]:
    decode = msgspec.json.decode
    with path.open("rb") as file:
        for line in file:
            try:
                record = decode(line)
            except msgspec.DecodeError:
                continue  # half a character: that design lost the line
            yield record


def _blocks(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if record.get("type") not in ("user", "assistant"):
        return
    content = record["message"]["content"]
    yield from [{"type": "text", "text": content}] if isinstance(content, str) else content
