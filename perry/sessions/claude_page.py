"""The messages of one line of a Claude Code log, quickly where it is written as almost all are.

What a line says is settled in `claude_content.py`; here the same is made of the common shapes in
half the time, and everything else is handed on to there. This module must not know files.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from perry.sessions.claude_content import Record, WholeResult, messages_of, text_of_result
from perry.sessions.models import Message
from perry.sessions.records import decode, iso, json_text


class _Block(msgspec.Struct, gc=False):
    type: Literal["text", "thinking", "tool_use", "tool_result"]
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: Any = msgspec.field(default_factory=dict)
    tool_use_id: str = ""
    content: Any = None


class _Said(msgspec.Struct, gc=False):
    content: str | list[_Block]


class _Line(msgspec.Struct, gc=False, rename="camel"):
    type: Literal["user", "assistant"]
    message: _Said
    timestamp: str | None = None
    is_meta: Literal[False] | None = None
    is_compact_summary: Literal[False] | None = None


_decode = msgspec.json.Decoder(_Line).decode


def messages_in(data: bytes, whole: WholeResult | None = None) -> list[Message]:
    """List the messages of one line, as `messages_of` does. Raises Undecodable."""
    quickly = _quickly(data, whole)
    return messages_of(decode(data, Record), whole) if quickly is None else quickly


def _quickly(data: bytes, whole: WholeResult | None) -> list[Message] | None:
    """List the messages of one line; None where only the long way can tell."""
    try:
        line = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # not in the shape
    stamp = iso(line.timestamp)
    content = line.message.content
    if isinstance(content, str):
        return [] if _is_blank(content) else [Message(line.type, content, stamp)]
    found = []
    for block in content:
        message = _message(block, line.type, stamp, whole)
        if message is None:
            return None
        found.append(message)
    return found


def _message(
    block: _Block,
    speaker: Literal["user", "assistant"],
    stamp: str | None,
    whole: WholeResult | None,
) -> Message | None:
    match block.type:
        case "text":
            return None if _is_blank(block.text) else Message(speaker, block.text, stamp)
        case "thinking":
            said = block.thinking
            return None if _is_blank(said) else Message("thinking", said, stamp)
        case "tool_use":
            if _is_blank(block.name) or _is_blank(block.id):
                return None
            given = json_text(block.input)
            return Message("tool_use", block.name, stamp, block.name, block.id, given)
        case "tool_result":
            tool = block.tool_use_id
            if _is_blank(tool):
                return None
            return Message(
                "tool_result", text_of_result(block.content, tool, whole), stamp, None, tool
            )


def _is_blank(text: str) -> bool:
    return not text or text.isspace()
