"""What OpenCode's messages and their parts say, in whichever layout they were stored.

The JSON layouts and the database hold the same values, so every rule about the inside of a message
stands here. This module must not know files or databases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from perry.sessions.models import Message, MessageType, Session
from perry.sessions.records import epoch, iso, json_text, text_or_none, title_of, token_count

_NO_TITLE = re.compile(r"(New|Child) session - \d{4}-\d\d-\d\dT[\d:.]+Z?\Z")
_QUOTED = re.compile(r'"([^"]*)"\Z')


class Turn(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One stored message, reduced to what its session is described by.

    `created` is in milliseconds since the epoch; `count` is how many messages its parts make.
    """

    id: str
    created: int
    count: int
    prompt: str | None = None
    model: str | None = None
    directory: str | None = None
    tokens: tuple[int, int] | None = None


class Info(msgspec.Struct, frozen=True):
    """What the session's own record says; times in milliseconds since the epoch."""

    id: str
    title: str | None
    directory: str | None
    parent: str | None
    created: int | None
    updated: int | None
    model: str | None = None
    tokens: tuple[int, int] | None = None


def messages_of(data: dict[str, Any], parts: Iterable[dict[str, Any]]) -> list[Message]:
    """List the messages that the parts of one stored message make, in their order."""
    speaker: MessageType = "user" if data.get("role") == "user" else "assistant"
    if speaker == "assistant" and data.get("summary") is True:
        speaker = "system"
    stamp = iso(_time(data).get("created"))
    return [message for part in parts for message in _message(part, speaker, stamp)]


def turn_of(
    identifier: str, created: int, data: dict[str, Any], parts: list[dict[str, Any]]
) -> Turn:
    """Reduce one stored message to what its session needs."""
    is_user = data.get("role") == "user"
    path = data.get("path")
    tokens = data.get("tokens")
    return Turn(
        id=identifier,
        created=created,
        count=len(messages_of(data, parts)),
        prompt=_prompt(parts) if is_user else None,
        model=None if is_user else text_or_none(data.get("modelID")),
        directory=text_or_none(path.get("cwd")) if isinstance(path, dict) else None,
        tokens=_tokens(tokens) if isinstance(tokens, dict) and not is_user else None,
    )


def session_of(info: Info, turns: list[Turn], file_path: str, skipped: int) -> Session:
    """Describe a session by its own record and its messages."""
    prompt = next((turn.prompt for turn in turns if turn.prompt), None)
    title = info.title if info.title and not _NO_TITLE.match(info.title) else None
    counted = [turn.tokens for turn in turns if turn.tokens is not None]
    summed = (sum(t[0] for t in counted), sum(t[1] for t in counted)) if counted else None
    tokens = info.tokens if info.tokens and any(info.tokens) else summed
    newest = max((turn.created for turn in turns), default=0)
    models = [turn.model for turn in turns if turn.model]
    directory = next((turn.directory for turn in turns if turn.directory), None)
    return Session(
        id=info.id,
        agent_type="opencode",
        title=title_of(title or prompt or info.id),
        directory=info.directory or directory or "",
        file_path=file_path,
        message_count=sum(turn.count for turn in turns),
        first_prompt=prompt,
        last_activity=max(info.updated or info.created or 0, newest),
        model=models[-1] if models else info.model,
        started_at=info.created if info.created is not None else _first(turns),
        parent_id=info.parent,
        input_tokens=tokens[0] if tokens else None,
        output_tokens=tokens[1] if tokens else None,
        skipped_lines=skipped,
    )


def info_of(identifier: str, data: dict[str, Any]) -> Info:
    """Read a session's record as the JSON layouts store it."""
    time = _time(data)
    return Info(
        id=identifier,
        title=text_or_none(data.get("title")),
        directory=text_or_none(data.get("directory")),
        parent=text_or_none(data.get("parentID")),
        created=epoch(time.get("created")),
        updated=epoch(time.get("updated")),
    )


def created_of(data: dict[str, Any]) -> int:
    """Tell when a message was made, in milliseconds since the epoch; 0 where it doesn't say."""
    return epoch(_time(data).get("created")) or 0


def span(turns: Iterable[Turn], start: int, stop: int) -> list[tuple[Turn, int]]:
    """Name the turns that hold the messages from `start` up to `stop`, each with its first one."""
    found = []
    first = 0
    for turn in turns:
        if first < stop and first + turn.count > start:
            found.append((turn, first))
        first += turn.count
    return found


def _first(turns: list[Turn]) -> int | None:
    return turns[0].created if turns and turns[0].created else None


def _time(data: dict[str, Any]) -> dict[str, Any]:
    time = data.get("time")
    return time if isinstance(time, dict) else {}


def _tokens(tokens: dict[str, Any]) -> tuple[int, int]:
    return token_count(tokens.get("input")), token_count(tokens.get("output"))


def _prompt(parts: list[dict[str, Any]]) -> str | None:
    """Join what was typed; `opencode run` stores its argument in literal quotes."""
    typed = [
        part["text"].strip()
        for part in parts
        if part.get("type") == "text"
        and part.get("synthetic") is not True
        and isinstance(part.get("text"), str)
    ]
    text = "\n".join(part for part in typed if part)
    quoted = _QUOTED.match(text)
    return (quoted.group(1) if quoted else text) or None


def _message(part: dict[str, Any], speaker: MessageType, stamp: str | None) -> list[Message]:
    kind = part.get("type")
    own = iso(_time(part).get("start")) or stamp
    if kind == "text":
        text = text_or_none(part.get("text"))
        said: MessageType = "system" if part.get("synthetic") is True else speaker
        return [Message(said, text, own)] if text else []
    if kind == "reasoning":
        thought = text_or_none(part.get("text"))
        return [Message("thinking", thought, own)] if thought else []
    if kind == "tool":
        return _tool(part, stamp)
    if kind == "file":
        return [Message(speaker, _file(part), own)]
    if kind == "subtask":
        asked = text_or_none(part.get("prompt"))
        return [Message(speaker, asked, own)] if asked else []
    return []


def _tool(part: dict[str, Any], stamp: str | None) -> list[Message]:
    """Make the call, and its result where there is one: both stand in one part."""
    state = part.get("state")
    state = state if isinstance(state, dict) else {}
    time = _time(state)
    name, call = text_or_none(part.get("tool")), text_or_none(part.get("callID"))
    called = Message(
        "tool_use",
        name or "",
        iso(time.get("start")) or stamp,
        tool_name=name,
        tool_id=call,
        tool_input=json_text(state.get("input", {})),
    )
    output = _output(state)
    if output is None:
        return [called]
    ended = iso(time.get("end")) or called.timestamp
    return [called, Message("tool_result", output, ended, tool_name=name, tool_id=call)]


def _output(state: dict[str, Any]) -> str | None:
    output = state.get("output")
    if output is None:
        output = state.get("error")
    if output is None:
        if state.get("status") not in ("completed", "error"):
            return None
        output = ""
    text = output if isinstance(output, str) else json_text(output)
    attached = state.get("attachments")
    files = (
        [_file(f) for f in attached if isinstance(f, dict)] if isinstance(attached, list) else []
    )
    return "\n".join([text, *files]) if files else text


def _file(part: dict[str, Any]) -> str:
    media = text_or_none(part.get("mime"))
    if media and media.startswith("image/"):
        return f"[image {media}]"
    name = text_or_none(part.get("filename")) or media
    return f"[file {name}]" if name else "[file]"
