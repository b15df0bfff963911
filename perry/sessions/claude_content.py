"""What a Claude Code record says: its messages, and whether it is a prompt.

Formats differ by version (content as a string or as blocks, inside `message` or at the top), so
every rule about the inside of one record stands here. This module must not know files, or the
records before and after.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from perry.sessions.models import Message, MessageType
from perry.sessions.records import iso, json_text, text_or_none

INJECTED = (
    "<local-command-stdout>",
    "<local-command-caveat>",
    "<session-start-hook>",
    "<tick>",
    "<goal>",
    "<bash-input>",
    "<bash-stdout>",
    "Caveat:",
    "<task-notification>",
    "[Request interrupted by user",
)
"""Beginnings of user texts that nobody typed as a prompt."""

_IDE = re.compile(r"<(ide_opened_file|ide_selection)>.*?(</\1>|$)", re.DOTALL)
_COMMAND = re.compile(r"<command-(name|args)>(.*?)</command-\1>", re.DOTALL)
_IMAGE_TYPES = ("image", "document")

WholeResult = Callable[[str, str | None], str]
"""Gives the whole text of a result that was moved out of the log (preview, tool id)."""


class Record(msgspec.Struct, rename="camel"):
    """The fields of one line that any reader needs; everything else is skipped unread."""

    type: Any = None
    uuid: Any = None
    parent_uuid: Any = None
    session_id: Any = None
    agent_id: Any = None
    is_sidechain: Any = None
    is_meta: Any = None
    is_compact_summary: Any = None
    timestamp: Any = None
    cwd: Any = None
    git_branch: Any = None
    subtype: Any = None
    message: Any = None
    content: Any = None
    summary: Any = None
    leaf_uuid: Any = None
    custom_title: Any = None
    ai_title: Any = None
    tool_use_result: Any = None
    tool_use_id: Any = None
    tool_use_id_old: Any = msgspec.field(default=None, name="tool_use_id")
    name: Any = None
    input: Any = None
    output: Any = None

    @property
    def kind(self) -> str:
        """The type, with the oldest logs' `human` read as `user`."""
        return "user" if self.type == "human" else self.type if isinstance(self.type, str) else ""

    @property
    def is_summary(self) -> bool:
        """Whether it holds the summary that a compaction left."""
        return self.is_compact_summary is True or (self.kind == "summary" and self.body is not None)

    @property
    def body(self) -> Any:  # noqa: ANN401  (a string, a list, or whatever the log holds)
        """The content, inside the message or at the top; None where there is none."""
        inner = self.message.get("content") if isinstance(self.message, dict) else None
        return inner if inner is not None else self.content


def says_nothing_known(record: Record) -> bool:
    """Tell whether what somebody said in this record can't be read."""
    if not record.kind:
        return True
    return record.kind in ("user", "assistant") and not isinstance(record.body, str | list)


def messages_of(record: Record, whole: WholeResult | None = None) -> list[Message]:
    """List the messages of one record, one a content block.

    `whole` fetches results that the log only previews; counting does without.
    """
    stamp = iso(record.timestamp)
    match "meta" if record.is_meta is True else "summary" if record.is_summary else record.kind:
        case "summary":
            return _said("system", _plain(record.body), stamp)
        case "user" | "assistant" as speaker:
            blocks = _blocks(record.body)
            return [m for block in blocks for m in _message(block, speaker, stamp, whole)]
        case "tool_result":
            return [_result(_old_result(record), stamp, whole)]
        case "tool_use":
            call = {"id": _old_id(record), "name": record.name, "input": record.input}
            return [_call(call, stamp)]
        case "system" if record.subtype == "local_command" and isinstance(record.content, str):
            return _said("system", record.content, stamp)
    return []


def prompt_of(record: Record) -> str | None:
    """Give the text of a record that a person typed as a prompt, else None."""
    text = _typed(record)
    if not text or text.startswith(INJECTED) or _is_command(text):
        return None
    return text


def command_of(record: Record) -> str | None:
    """Give the slash command that a record stands for, as it was typed, else None."""
    text = _typed(record)
    if not text or not _is_command(text):
        return None
    found = dict(_COMMAND.findall(text))
    return " ".join(part.strip() for part in (found.get("name"), found.get("args")) if part) or None


def _is_command(text: str) -> bool:
    return text.startswith(("<command-name>", "<command-message>"))


def _typed(record: Record) -> str | None:
    if record.kind != "user" or record.is_meta is True or record.is_compact_summary is True:
        return None
    blocks = list(_blocks(record.body))
    if any(block.get("type") == "tool_result" for block in blocks):
        return None
    texts = (block["text"] for block in blocks if isinstance(block.get("text"), str))
    kept = (_IDE.sub("", text).strip() for text in texts)
    return "\n".join(text for text in kept if text)


def _blocks(body: object) -> Iterator[dict[str, Any]]:
    if isinstance(body, str):
        yield {"type": "text", "text": body}
    elif isinstance(body, list):
        for block in body:
            if isinstance(block, dict):
                yield block
            elif isinstance(block, str):
                yield {"type": "text", "text": block}


def _said(speaker: MessageType, text: str, stamp: str | None) -> list[Message]:
    return [Message(speaker, text, stamp)] if text.strip() else []


def _message(
    block: dict[str, Any], speaker: MessageType, stamp: str | None, whole: WholeResult | None
) -> list[Message]:
    kind = block.get("type")
    if kind == "thinking":
        thought = text_or_none(block.get("thinking")) or text_or_none(block.get("text"))
        return _said("thinking", thought or "", stamp)
    if kind == "redacted_thinking":
        return []
    if isinstance(kind, str) and kind.endswith("tool_use"):
        return [_call(block, stamp)]
    if isinstance(kind, str) and kind.endswith("tool_result"):
        return [_result(block, stamp, whole)]
    return _said(speaker, _block_text(block), stamp)


def _call(block: dict[str, Any], stamp: str | None) -> Message:
    name = text_or_none(block.get("name"))
    return Message(
        "tool_use",
        name or "",
        stamp,
        tool_name=name,
        tool_id=text_or_none(block.get("id")),
        tool_input=json_text(block.get("input", {})),
    )


def _result(block: dict[str, Any], stamp: str | None, whole: WholeResult | None) -> Message:
    tool_id = text_or_none(block.get("tool_use_id"))
    content = text_of_result(block.get("content"), tool_id, whole)
    return Message("tool_result", content, stamp, tool_id=tool_id)


def text_of_result(content: object, tool_id: str | None, whole: WholeResult | None) -> str:
    """Write a result as one text, the whole one where the log only previews it."""
    text = _plain(content)
    if whole is not None and text.lstrip().startswith("<persisted-output>"):
        return whole(text, tool_id)
    return text


def _old_result(record: Record) -> dict[str, Any]:
    for block in _blocks(record.body):
        if block.get("type") == "tool_result":
            return block
    content = record.body
    if content is None:
        content = record.output if record.output is not None else record.tool_use_result
    return {"tool_use_id": _old_id(record), "content": content}


def _old_id(record: Record) -> object:
    inner = record.message if isinstance(record.message, dict) else {}
    return record.tool_use_id_old or record.tool_use_id or inner.get("tool_use_id")


def _plain(content: object) -> str:
    """Write content as one text: blocks stand below each other."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_block_text(block) for block in _blocks(content))
    return "" if content is None else json_text(content)


def _block_text(block: dict[str, Any]) -> str:
    text = block.get("text")
    if isinstance(text, str):
        return text
    kind = block.get("type")
    if kind in _IMAGE_TYPES:
        source = block.get("source")
        media = source.get("media_type") if isinstance(source, dict) else None
        return f"[{kind} {media}]" if isinstance(media, str) else f"[{kind}]"
    return json_text(block)
