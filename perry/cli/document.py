"""A whole session as one document that needs nothing else: Markdown to read, or JSON to keep.

Sessions that the session started stand in it too, under their own headings. Both come out piece by
piece, so that a session of any length can be written. Pure functions: messages in, text out; this
module must not print, or ask anybody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from perry.cli.text import harmless, one_line, utc_time
from perry.sessions.models import Message, Session
from perry.sessions.records import epoch

_ROLES = {
    "user": "User",
    "assistant": "Assistant",
    "thinking": "Thinking",
    "system": "System",
    "tool_use": "Tool call",
    "tool_result": "Tool result",
}
_BACKTICKS = re.compile(r"`{3,}")


@dataclass(frozen=True)
class Exported:
    """One session with all its messages, which may be read only once."""

    session: Session
    messages: Iterable[Message]


def as_markdown(workspace: str, exported: Iterable[Exported]) -> Iterator[str]:
    """Yield a document's text; the first session's heading is the document's title."""
    for number, one in enumerate(exported):
        level = "#" if number == 0 else "##"
        yield f"{level} {_plain(one.session.title)}\n\n"
        yield "".join(f"- {name}: {value}\n" for name, value in _facts(workspace, one.session))
        yield "\n"
        for message in one.messages:
            yield _block(message, f"{level}#")


def as_json(workspace: str, exported: Iterable[Exported]) -> Iterator[str]:
    """Yield one JSON object: `workspace`, and `sessions`, each a session with its `messages`."""
    yield f'{{"workspace": {json.dumps(workspace)}, "sessions": ['
    for number, one in enumerate(exported):
        yield "\n" if number == 0 else ",\n"
        yield f'{{"session": {_json(one.session)}, "messages": ['
        for place, message in enumerate(one.messages):
            yield ("\n" if place == 0 else ",\n") + _json(message)
        yield "\n]}"
    yield "\n]}\n"


def _facts(workspace: str, session: Session) -> Iterator[tuple[str, str]]:
    yield "Session", f"`{_plain(session.id)}`"
    yield "Coding agent", session.agent_type
    yield "Workspace", workspace
    facts = {
        "Directory": session.directory,
        "Branch": session.git_branch,
        "Model": session.model,
        "Started": None if session.started_at is None else utc_time(session.started_at),
        "Last activity": utc_time(session.last_activity),
        "Messages": str(session.message_count),
        "Input tokens": session.input_tokens,
        "Output tokens": session.output_tokens,
        "Started by": session.parent_id,
        "Lines that could not be read": session.skipped_lines or None,
    }
    for name, value in facts.items():
        if value not in (None, ""):
            yield name, _plain(str(value))


def _block(message: Message, level: str) -> str:
    role = _ROLES[message.type]
    name = f": {_plain(message.tool_name)}" if message.tool_name else ""
    moment = epoch(message.timestamp)
    told = message.timestamp if moment is None else utc_time(moment)
    when = f" ({_plain(told)})" if told else ""
    heading = f"{level} {role}{name}{when}\n\n"
    if message.type in ("user", "assistant", "system"):
        return f"{heading}{_quoted(harmless(message.content))}\n\n"
    body = message.tool_input if message.type == "tool_use" else message.content
    language = "json" if message.type == "tool_use" else ""
    return f"{heading}{_fenced(harmless(body or message.content), language)}\n\n"


def _quoted(text: str) -> str:
    """Quote a text, so that no heading, fence or comment in it reaches what follows."""
    return "\n".join(f"> {line}".rstrip() for line in text.strip().split("\n"))


def _fenced(text: str, language: str) -> str:
    """Fence a text with more backticks than it holds in a row."""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _plain(text: str) -> str:
    return one_line(text).replace("<", "&lt;")


def _json(value: Any) -> str:  # noqa: ANN401 - any of the wire's structs
    # Titles may hold lone surrogates, which no encoding can print: as escapes they are valid JSON.
    return json.dumps(msgspec.to_builtins(value))
