"""What a record of a Gemini CLI log says: its messages, and whether it is a prompt.

The documents of 0.20 and the logs of 0.61 hold the same messages, as texts or as parts of the
API's own shape. This module must not know files, or how a log is replayed.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from typing import Any

import msgspec

from perry.sessions.models import Message, MessageType
from perry.sessions.records import iso, json_text, text_or_none

CONTEXT = ("<session_context>", "This is the Gemini CLI. We are setting up the context")
"""Beginnings of user texts that the client put in."""

_FILES = "\n--- Content from referenced files ---"
_DIRECTORY = re.compile(
    r"Workspace Directories:\**\s*\n\s*- ([^\n]+)"
    r"|(?:working directory: |working in the directory: ?)([^\n]+)"
)


class Record(msgspec.Struct, rename="camel"):
    """The fields of one record: a message, a session's description, or a change to the log."""

    id: Any = None
    type: Any = None
    timestamp: Any = None
    content: Any = None
    display_content: Any = None
    tool_calls: Any = None
    thoughts: Any = None
    tokens: Any = None
    model: Any = None
    session_id: Any = None
    project_hash: Any = None
    start_time: Any = None
    last_updated: Any = None
    summary: Any = msgspec.UNSET
    kind: Any = None
    directories: Any = None
    messages: Any = None
    change: Any = msgspec.field(default=None, name="$set")
    rewind_to: Any = msgspec.field(default=None, name="$rewindTo")


def messages_of(record: Record, answered: Container[str] = ()) -> list[Message]:
    """List the messages of one record: thoughts, content, then each call with its result.

    Results in the content whose call is `answered` are left out: the call's record has them.
    """
    stamp = iso(record.timestamp)
    if record.type not in ("user", "gemini"):
        return _said("system", _plain(record.content), stamp)
    speaker: MessageType = "user" if record.type == "user" else "assistant"
    calls = _dicts(record.tool_calls)
    own = {call["id"] for call in calls if isinstance(call.get("id"), str)}
    messages = [m for thought in _items(record.thoughts) for m in _thought(thought, stamp)]
    for part in _parts(record.content):
        messages += _of_part(part, speaker, stamp, own, answered)
    return [*messages, *(message for call in calls for message in _called(call, stamp))]


def results_of(record: Record) -> tuple[str, ...]:
    """Name the calls whose results stand in the content."""
    if record.type not in ("user", "gemini"):
        return ()
    found = [result for part in _parts(record.content) if (result := _result_in(part)) is not None]
    return tuple(result["id"] for result in found if isinstance(result.get("id"), str))


def answers_of(record: Record) -> tuple[str, ...]:
    """Name the calls of this record that have their result with them."""
    calls = _dicts(record.tool_calls) if record.type in ("user", "gemini") else []
    return tuple(c["id"] for c in calls if isinstance(c.get("id"), str) and _answer(c) is not None)


def prompt_of(record: Record) -> str | None:
    """Give the text that a person typed, without what the client appended to it; else None."""
    if record.type != "user":
        return None
    for content in (record.display_content, record.content):
        texts = []
        for part in _parts(content):
            text = part.get("text")
            if isinstance(text, str) and text.startswith(_FILES):
                break
            if isinstance(text, str) and not _is_context(text):
                texts.append(text.strip())
        typed = "\n".join(text for text in texts if text)
        if typed:
            return typed
    return None


def directory_of(record: Record) -> str | None:
    """Give the working directory that the injected context names, else None."""
    if record.type != "user":
        return None
    for part in _parts(record.content):
        text = part.get("text")
        if isinstance(text, str) and _is_context(text) and (found := _DIRECTORY.search(text)):
            return (found.group(1) or found.group(2)).strip() or None
    return None


def _of_part(
    part: dict[str, Any],
    speaker: MessageType,
    stamp: str | None,
    own: Container[str],
    answered: Container[str],
) -> list[Message]:
    call, result = part.get("functionCall"), _result_in(part)
    if isinstance(call, dict):
        repeated = isinstance(call.get("id"), str) and call["id"] in own
        return [] if repeated else [_call(call, stamp)]
    if result is not None:
        known = isinstance(result.get("id"), str) and result["id"] in answered
        return [] if known else [_result(result, _part_text(part), stamp)]
    text = _part_text(part)
    if speaker == "user" and _is_context(text):
        return []
    return _said("thinking" if part.get("thought") is True else speaker, text, stamp)


def _result_in(part: dict[str, Any]) -> dict[str, Any] | None:
    result = part.get("functionResponse")
    return result if isinstance(result, dict) and "functionCall" not in part else None


def _called(call: dict[str, Any], stamp: str | None) -> list[Message]:
    own = iso(call.get("timestamp")) or stamp
    answer = _answer(call)
    if answer is None:
        return [_call(call, own)]
    return [_call(call, own), _result(call, answer, own)]


def _call(call: dict[str, Any], stamp: str | None) -> Message:
    name = text_or_none(call.get("name"))
    return Message(
        "tool_use",
        name or "",
        stamp,
        tool_name=name,
        tool_id=text_or_none(call.get("id")),
        tool_input=json_text(call.get("args", {})),
    )


def _result(call: dict[str, Any], content: str, stamp: str | None) -> Message:
    name, tool_id = text_or_none(call.get("name")), text_or_none(call.get("id"))
    return Message("tool_result", content, stamp, tool_name=name, tool_id=tool_id)


def _answer(call: dict[str, Any]) -> str | None:
    """Give the text of a call's result, or what was shown of it; None while there is none."""
    result = call.get("result")
    if result is not None and result != []:
        return _plain(result)
    return text_or_none(call.get("resultDisplay"))


def _thought(thought: object, stamp: str | None) -> list[Message]:
    if not isinstance(thought, dict):
        return _said("thinking", thought if isinstance(thought, str) else "", stamp)
    said = (text_or_none(thought.get(name)) for name in ("subject", "description", "text"))
    own = iso(thought.get("timestamp")) or stamp
    return _said("thinking", "\n".join(text for text in said if text), own)


def _said(speaker: MessageType, text: str, stamp: str | None) -> list[Message]:
    return [Message(speaker, text, stamp)] if text.strip() else []


def _is_context(text: str) -> bool:
    return text.lstrip().startswith(CONTEXT)


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in _items(value) if isinstance(item, dict)]


def _parts(content: object) -> Iterator[dict[str, Any]]:
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, dict):
            yield part
        elif isinstance(part, str):
            yield {"text": part}


def _plain(content: object) -> str:
    """Write content as one text: parts stand below each other."""
    return "\n".join(_part_text(part) for part in _parts(content))


def _part_text(part: dict[str, Any]) -> str:
    text = part.get("text")
    if isinstance(text, str):
        return text
    for name in ("inlineData", "fileData"):
        data = part.get(name)
        if isinstance(data, dict):
            media = text_or_none(data.get("mimeType"))
            kind = "image" if media is None or media.startswith("image/") else "file"
            return f"[{kind} {media}]" if media else f"[{kind}]"
    result = part.get("functionResponse")
    return json_text(part) if not isinstance(result, dict) else _response(result)


def _response(result: dict[str, Any]) -> str:
    response = result.get("response")
    media = [_part_text(part) for part in _dicts(result.get("parts"))]
    if not isinstance(response, dict):
        return "\n".join([_plain(response), *media]) if media else _plain(response)
    said = next((v for k in ("output", "error") if (v := response.get(k)) is not None), response)
    return "\n".join([said if isinstance(said, str) else json_text(said), *media])
