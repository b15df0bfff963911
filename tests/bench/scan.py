"""`python -m tests.bench.scan WHAT PATH`: one measurement in a process of its own.

A process that has done nothing else shows what one thing costs, its peak of memory above all;
imports are apart from the time. It prints one JSON object. `index` and `pages` measure perry's
index, `floor` what msgspec takes for the same bytes, `list` and `messages` the replaced design.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.bench import baseline

if TYPE_CHECKING:
    from perry.sessions.index import SessionIndex

PAGE = 50  # messages


class Usage(msgspec.Struct, gc=False):
    input_tokens: int = 0
    output_tokens: int = 0


class Block(msgspec.Struct, gc=False):
    type: str = ""


class Inner(msgspec.Struct, gc=False):
    content: str | list[Block]
    id: str | None = None
    model: str | None = None
    usage: Usage | None = None


class Line(msgspec.Struct, gc=False, rename="camel"):
    """The fields that exact counts and a session's description need."""

    type: str
    uuid: str | None = None
    session_id: str | None = None
    is_sidechain: bool = False
    is_meta: bool = False
    is_compact_summary: bool = False
    timestamp: str | None = None
    cwd: str | None = None
    git_branch: str | None = None
    message: Inner | None = None
    summary: str | None = None
    leaf_uuid: str | None = None
    custom_title: str | None = None
    ai_title: str | None = None


def floor(projects: Path) -> dict[str, float]:
    """Decode every line of every log into a Struct of the needed fields, and count messages."""
    decoder = msgspec.json.Decoder(Line)
    messages = 0
    for path in projects.rglob("*.jsonl"):
        child = path.parent.name == "subagents"
        for record in _decoded(decoder, path.read_bytes()):
            if record.message is not None and not child:
                content = record.message.content
                messages += 1 if isinstance(content, str) else len(content)
    return {"messages": messages}


def _decoded(decoder: msgspec.json.Decoder[Line], data: bytes) -> list[Line]:
    try:
        return decoder.decode_lines(data)  # the fastest that msgspec has
    except msgspec.DecodeError:
        # Half a character somewhere: the few logs with one are read a second time.
        return [_decoded_line(decoder, line) for line in data.splitlines()]


def _decoded_line(decoder: msgspec.json.Decoder[Line], line: bytes) -> Line:
    try:
        return decoder.decode(line)
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(line), Line)


def index_of(home: Path) -> SessionIndex:
    from perry.sessions.index import SessionIndex  # noqa: PLC0415 - not for the floor

    return SessionIndex.of_home(home, dict(os.environ))


def index(home: Path) -> dict[str, float]:
    """Let the index look at all files for the first time."""
    sessions = index_of(home)
    # What it imports while it is made is not what is measured, what it does in refresh is.
    began = time.perf_counter()
    sessions.refresh()
    took = time.perf_counter() - began
    found = sessions.list()
    messages = sum(session.message_count for session in found)
    return {"seconds": took, "sessions": len(found), "messages": messages}


def pages(home: Path) -> dict[str, float]:
    """Ask for the last messages of each session in turn, without HTTP: seconds by id."""
    sessions = index_of(home)
    sessions.refresh()
    result: dict[str, list[float]] = {session.id: [] for session in sessions.list()}
    for _ in range(100):
        for session, took in result.items():
            began = time.perf_counter()
            msgspec.json.encode(sessions.messages(session, limit=PAGE, offset=0))
            took.append(time.perf_counter() - began)
    return {session: sorted(took)[len(took) // 2] for session, took in result.items()}


def listed(projects: Path) -> dict[str, float]:
    """Answer `GET /sessions` as the replaced design did."""
    return {"size": len(baseline.list_sessions(projects))}


def messages(path: Path) -> dict[str, float]:
    """Answer with the last messages as the replaced design did."""
    return {"size": len(baseline.list_messages(path, PAGE))}


WHAT: dict[str, Callable[[Path], dict[str, float]]] = {
    "floor": floor,
    "index": index,
    "pages": pages,
    "list": listed,
    "messages": messages,
}


def main(what: str, path: Path) -> None:
    """Measure, and print."""
    began = time.perf_counter()
    result = {"seconds": 0.0, **WHAT[what](path)}
    result["seconds"] = result["seconds"] or time.perf_counter() - began
    own, others = (resource.getrusage(who) for who in (0, resource.RUSAGE_CHILDREN))
    result["peak"] = (own.ru_maxrss + others.ru_maxrss) * 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
