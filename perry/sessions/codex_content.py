"""What a line of a Codex log says: its messages, and whether it is a prompt.

Three ages of the format wrap the same items differently (bare, in a payload, with marks of where
each text came from), so every rule about the inside of one line stands here. Messages come from
response items only: events repeat them. This module must not know files, or the lines before and
after.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from perry.sessions.models import Message, MessageType
from perry.sessions.records import Undecodable, decode, iso, json_text, text_or_none

INJECTED = ("<environment_context>", "# AGENTS.md", "<user_instructions>")
"""Beginnings of user texts that the client put in."""

_NO_PROMPT = (
    "<user_shell_command>",
    "<turn_aborted>",
    "<subagent_notification>",
    "<skill>",
    "<image",
    "</image>",
)
_DIRECTORY = re.compile(r"<cwd>(.*?)</cwd>|^Current working directory: ([^\n]*)", re.MULTILINE)
_MEDIA = re.compile(r"data:([\w.+-]+/[\w.+-]+)")
_WRAPPERS = ("session_meta", "event_msg", "turn_context", "compacted", "response_item")
_SILENT = ("ghost_snapshot", "compaction", "compaction_summary", "context_compaction")


class Line(msgspec.Struct):
    """One line as it stands: with a payload since 0.30, else the item itself."""

    type: Any = None
    timestamp: Any = None
    payload: Any = None
    record_type: Any = None
    id: Any = None
    role: Any = None
    instructions: Any = None
    git: Any = None
    cwd: Any = None
    content: Any = None
    summary: Any = None
    name: Any = None
    arguments: Any = None
    input: Any = None
    action: Any = None
    call_id: Any = None
    output: Any = None
    internal_chat_message_metadata_passthrough: Any = None

    @property
    def kind(self) -> str:
        """The age's own type of line, in the words of the newer ages; empty where unknown."""
        if isinstance(self.payload, dict):
            return self.type if isinstance(self.type, str) else ""
        if self.type is None and self.record_type is None and isinstance(self.id, str):
            return "session_meta"
        if isinstance(self.type, str) and self.type not in _WRAPPERS:
            return "response_item"
        return "state" if isinstance(self.record_type, str) else ""

    @property
    def body(self) -> dict[str, Any]:
        """What the line holds, with or without its wrapping."""
        if isinstance(self.payload, dict):
            return self.payload
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value}


def messages_of(line: Line) -> list[Message]:
    """List the messages of one line, one a content block."""
    stamp = iso(line.timestamp)
    if line.kind == "compacted":
        return _said("system", text_or_none(line.body.get("message")), stamp)
    return _of_item(line.body, stamp) if line.kind == "response_item" else []


def prompt_of(line: Line) -> str | None:
    """Give the text that a person typed, else None."""
    item = line.body if line.kind == "response_item" else {}
    if _type(item) != "message" or item.get("role") != "user":
        return None
    texts = (_text(block) for block in _typed(item))
    kept = (text.strip() for text in texts if text and not text.lstrip().startswith(_NO_PROMPT))
    return "\n".join(text for text in kept if text) or None


def directory_of(line: Line) -> str | None:
    """Give the working directory that an injected environment context names, else None."""
    item = line.body if line.kind == "response_item" else {}
    for block in _blocks(item.get("content")):
        text = _text(block) or ""
        if text.startswith("<environment_context>") and (found := _DIRECTORY.search(text)):
            return text_or_none((found.group(1) or found.group(2) or "").strip())
    return None


def _of_item(item: dict[str, Any], stamp: str | None) -> list[Message]:
    kind = _type(item)
    if kind == "message":
        return _of_message(item, stamp)
    if kind == "reasoning":
        thoughts = [*_texts(item.get("summary")), *_texts(item.get("content"))]
        return _said("thinking", "\n\n".join(thoughts), stamp)
    if kind.endswith("_output"):
        return [_result(item, stamp)]
    if kind.endswith("_call"):
        return _call(item, kind, stamp)
    if kind in _SILENT:
        return []
    speaker: MessageType = "user" if item.get("role") == "user" else "assistant"
    return [m for text in _texts(item.get("content")) for m in _said(speaker, text, stamp)]


def _of_message(item: dict[str, Any], stamp: str | None) -> list[Message]:
    role = item.get("role")
    if role == "developer":
        return []
    if role == "user":
        blocks: list[dict[str, Any]] | Iterator[dict[str, Any]] = _typed(item)
        speaker: MessageType = "user"
    else:
        blocks = _blocks(item.get("content"))
        speaker = "system" if role == "system" else "assistant"
    return [m for block in blocks for m in _said(speaker, _block_text(block), stamp)]


def _typed(item: dict[str, Any]) -> list[dict[str, Any]]:
    """List the blocks that the user gave: newer clients mark them, others are told by their text.

    Where a mark says nothing (`unknown`), the text tells too.
    """
    blocks = list(_blocks(item.get("content")))
    passed = item.get("internal_chat_message_metadata_passthrough")
    kinds = passed.get("content_item_kinds") if isinstance(passed, dict) else None
    if not isinstance(kinds, list) or not kinds:
        return [block for block in blocks if not _is_injected(block)]
    marks = [str(kind) for kind in kinds]
    if len(marks) != len(blocks):
        marks = [next((m for m in marks if m.startswith("user.")), marks[0])] * len(blocks)
    return [
        block
        for block, mark in zip(blocks, marks, strict=True)
        if mark.startswith("user.") or (mark == "unknown" and not _is_injected(block))
    ]


def _is_injected(block: dict[str, Any]) -> bool:
    return (_text(block) or "").lstrip().startswith(INJECTED)


def _call(item: dict[str, Any], kind: str, stamp: str | None) -> list[Message]:
    name = text_or_none(item.get("name")) or kind.removesuffix("_call")
    tool_id = text_or_none(item.get("call_id")) or text_or_none(item.get("id"))
    called = Message(
        "tool_use", name, stamp, tool_name=name, tool_id=tool_id, tool_input=_input(item)
    )
    made = item.get("result")
    if kind != "image_generation_call" or not made:
        return [called]
    return [called, Message("tool_result", "[image image/png]", stamp, tool_id=tool_id)]


def _input(item: dict[str, Any]) -> str:
    """Write a call's input as JSON text: arguments hold such a text, or the values themselves."""
    arguments = item.get("arguments")
    if isinstance(arguments, str):
        try:
            decode(arguments.encode("utf-8", "replace"), msgspec.Raw)
        except Undecodable:
            return json_text(arguments)
        return arguments
    for value in (arguments, item.get("input"), item.get("action"), item.get("revised_prompt")):
        if value is not None:
            return json_text(value)
    return "{}"


def _result(item: dict[str, Any], stamp: str | None) -> Message:
    output = item.get("output")
    if output is None:
        output = item.get("tools")
    if isinstance(output, dict) and "content" in output:
        output = output["content"]
    if output is None or isinstance(output, str | list):
        content = "\n".join(_block_text(block) for block in _blocks(output))
    else:
        content = json_text(output)
    return Message("tool_result", content, stamp, tool_id=text_or_none(item.get("call_id")))


def _type(item: dict[str, Any]) -> str:
    kind = item.get("type")
    if kind is None and "role" in item:
        return "message"
    return kind if isinstance(kind, str) else ""


def _said(speaker: MessageType, text: str | None, stamp: str | None) -> list[Message]:
    return [Message(speaker, text, stamp)] if text and text.strip() else []


def _blocks(content: object) -> Iterator[dict[str, Any]]:
    if isinstance(content, str):
        yield {"type": "input_text", "text": content}
    elif isinstance(content, list):
        for block in content:
            if isinstance(block, dict):
                yield block
            elif isinstance(block, str):
                yield {"type": "input_text", "text": block}


def _texts(content: object) -> list[str]:
    texts = (_text(block) for block in _blocks(content))
    return [text for text in texts if text and text.strip()]


def _text(block: dict[str, Any]) -> str | None:
    for name in ("text", "refusal"):
        text = block.get(name)
        if isinstance(text, str):
            return text
    return None


def _block_text(block: dict[str, Any]) -> str:
    text = _text(block)
    if text is not None:
        return text
    if block.get("type") in ("input_image", "image", "local_image"):
        url = block.get("image_url")
        media = _MEDIA.match(url) if isinstance(url, str) else None
        return f"[image {media.group(1)}]" if media else "[image]"
    return json_text(block)
