"""What an entry of a Pi log says: its messages, and whether it is a prompt.

The first version of the format has no ids and another name for messages of extensions; both are
read alike. This module must not know files, or the entries before and after.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from perry.sessions.models import Message, MessageType
from perry.sessions.records import iso, json_text, text_or_none

_SUMMARIES = ("compaction", "branch_summary", "compactionSummary", "branchSummary")
_EXTENSIONS = ("custom", "hookMessage", "custom_message")


class Entry(msgspec.Struct, rename="camel"):
    """The fields of one line that the reader needs."""

    type: Any = None
    id: Any = None
    timestamp: Any = None
    cwd: Any = None
    message: Any = None
    summary: Any = None
    content: Any = None
    display: Any = None
    name: Any = None
    model_id: Any = None

    @property
    def body(self) -> dict[str, Any]:
        """The message inside, or nothing."""
        return self.message if isinstance(self.message, dict) else {}

    @property
    def stamp(self) -> str | None:
        """The entry's time, else its message's, as ISO 8601."""
        return iso(self.timestamp) or iso(self.body.get("timestamp"))


def messages_of(entry: Entry) -> list[Message]:
    """List the messages of one entry, one a content block."""
    if entry.type == "message":
        return _of_message(entry.body, entry.stamp)
    if entry.type in _SUMMARIES:
        return _said("system", text_or_none(entry.summary), entry.stamp)
    if entry.type == "custom_message" and entry.display is not False:
        return _said("system", _plain(entry.content), entry.stamp)
    return []


def prompt_of(entry: Entry) -> str | None:
    """Give the text that a person typed, else None."""
    if entry.type != "message" or entry.body.get("role") != "user":
        return None
    texts = (text_or_none(block.get("text")) for block in _blocks(entry.body.get("content")))
    return "\n".join(text.strip() for text in texts if text) or None


def _of_message(body: dict[str, Any], stamp: str | None) -> list[Message]:
    role = body.get("role")
    if role in ("user", "assistant"):
        speaker: MessageType = "user" if role == "user" else "assistant"
        blocks = _blocks(body.get("content"))
        return [message for block in blocks for message in _of_block(block, speaker, stamp)]
    if role == "toolResult":
        name, call = text_or_none(body.get("toolName")), text_or_none(body.get("toolCallId"))
        content = _plain(body.get("content"))
        return [Message("tool_result", content, stamp, tool_name=name, tool_id=call)]
    if role == "bashExecution":
        return _said("user", _command(body), stamp)
    if role in _SUMMARIES:
        return _said("system", text_or_none(body.get("summary")), stamp)
    if role in _EXTENSIONS and body.get("display") is False:
        return []  # an extension's context for the model, shown to nobody
    return _said("system", _plain(body.get("content")), stamp)


def _of_block(block: dict[str, Any], speaker: MessageType, stamp: str | None) -> list[Message]:
    kind = block.get("type")
    if kind == "thinking":
        thought = text_or_none(block.get("thinking")) or text_or_none(block.get("text"))
        return _said("thinking", thought, stamp)
    if kind == "toolCall":
        name = text_or_none(block.get("name"))
        called = Message(
            "tool_use",
            name or "",
            stamp,
            tool_name=name,
            tool_id=text_or_none(block.get("id")),
            tool_input=json_text(block.get("arguments", {})),
        )
        return [called]
    return _said(speaker, _block_text(block), stamp)


def _said(speaker: MessageType, text: str | None, stamp: str | None) -> list[Message]:
    return [Message(speaker, text, stamp)] if text and text.strip() else []


def _command(body: dict[str, Any]) -> str:
    """Write a command that the user ran with `!`, and what it printed."""
    command, output = text_or_none(body.get("command")), text_or_none(body.get("output"))
    return "\n".join([*([f"$ {command}"] if command else []), *([output] if output else [])])


def _blocks(content: object) -> Iterator[dict[str, Any]]:
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    elif isinstance(content, list):
        for block in content:
            if isinstance(block, dict):
                yield block
            elif isinstance(block, str):
                yield {"type": "text", "text": block}


def _plain(content: object) -> str:
    """Write content as one text: blocks stand below each other."""
    if content is None or isinstance(content, str | list):
        return "\n".join(_block_text(block) for block in _blocks(content))
    return json_text(content)


def _block_text(block: dict[str, Any]) -> str:
    text = block.get("text")
    if isinstance(text, str):
        return text
    if block.get("type") == "image":
        media = text_or_none(block.get("mimeType"))
        return f"[image {media}]" if media else "[image]"
    return json_text(block)
