"""The fast way through a line of a Claude Code log: what a session is made of, and nothing else.

Almost every line says what it says in the same shape. Such a line is decoded straight into that
shape, strictly, and its messages are counted without being made; bytes that nobody needs are only
passed over. Every other line goes the long way by `claude_content.py`, whose rules decide, and is
brought into the same shape. Both ways must give the same for each line that can go either. This
module must not know files, or the lines before and after.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from perry.sessions.claude_content import Record, messages_of, says_nothing_known
from perry.sessions.records import Undecodable, decode, epoch, token_count

_LONG_WAY = ("", "human", "summary", "tool_result", "tool_use")


Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Block(msgspec.Struct, gc=False):
    """One block of content."""

    type: Literal["text", "thinking", "tool_use", "tool_result"]
    text: str | None = None
    thinking: str | None = None


class Usage(msgspec.Struct, gc=False):
    """The tokens of one answer of the model."""

    input_tokens: int = 0
    output_tokens: int = 0


class Said(msgspec.Struct, gc=False):
    """What somebody said, and which model it was."""

    content: str | list[Block]
    id: str | None = None
    model: str | None = None
    usage: Usage | None = None


class Line(msgspec.Struct, gc=False, rename="camel"):
    """One record in the shape in which almost all are written.

    `type` is empty for what is no record; an old log's `human` is a `user`.
    """

    type: str
    subtype: str | None = None
    uuid: str | None = None
    parent_uuid: str | None = None
    session_id: str | None = None
    agent_id: str | None = None
    is_sidechain: bool | None = None
    is_meta: bool | None = None
    is_compact_summary: bool | None = None
    timestamp: Moment | None = None
    cwd: str | None = None
    git_branch: str | None = None
    message: Said | None = None
    summary: str | None = None
    leaf_uuid: str | None = None
    custom_title: str | None = None
    ai_title: str | None = None


_decode = msgspec.json.Decoder(Line).decode


def read_line(data: bytes) -> tuple[Line, int] | None:
    """Read a line and count its messages; None where it is no record that says anything known."""
    return read_quickly(data) or read_slowly(data)


def read_quickly(data: bytes) -> tuple[Line, int] | None:
    """Read a line and count its messages; None where only the long way can tell."""
    try:
        line = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # not in the shape
    count = _count_of(line)
    return None if count is None else (line, count)


def may_be_typed(line: Line) -> bool:
    """Tell whether this can be what a person typed, as far as the shape tells."""
    if line.type != "user" or line.message is None or line.is_meta:
        return False
    content = line.message.content
    return isinstance(content, str) or all(block.type != "tool_result" for block in content)


def _count_of(line: Line) -> int | None:
    """Count the messages of a decoded line; None where only the long way can tell."""
    kind = line.type
    if kind not in ("user", "assistant"):
        is_told = kind in _LONG_WAY or line.subtype == "local_command" or line.is_compact_summary
        return None if is_told else 0
    if line.message is None or line.is_compact_summary:
        return None
    if line.is_meta:
        return 0
    content = line.message.content
    if isinstance(content, str):
        return 1 if content and not content.isspace() else 0
    for block in content:
        if block.type in ("text", "thinking"):
            text = block.text if block.type == "text" else block.thinking
            if not text or text.isspace():
                return None
    return len(content)


def read_slowly(data: bytes) -> tuple[Line, int] | None:
    """Read a line and count its messages the long way, which is right for every line."""
    try:
        record = decode(data, Record)
    except Undecodable:
        return None
    return None if says_nothing_known(record) else (_shaped(record), len(messages_of(record)))


def _shaped(record: Record) -> Line:
    return Line(
        type=record.kind,
        subtype=_text(record.subtype),
        uuid=_text(record.uuid),
        parent_uuid=_text(record.parent_uuid),
        session_id=_text(record.session_id),
        agent_id=_text(record.agent_id),
        is_sidechain=record.is_sidechain if isinstance(record.is_sidechain, bool) else None,
        is_meta=record.is_meta is True,
        is_compact_summary=record.is_compact_summary is True,
        timestamp=_moment(record.timestamp),
        cwd=_text(record.cwd),
        git_branch=_text(record.git_branch),
        message=_said(record),
        summary=_text(record.summary),
        leaf_uuid=_text(record.leaf_uuid),
        custom_title=_text(record.custom_title),
        ai_title=_text(record.ai_title),
    )


def _said(record: Record) -> Said:
    inner = record.message if isinstance(record.message, dict) else {}
    usage = inner.get("usage")
    if isinstance(usage, dict):
        sent = token_count(usage.get("input_tokens"))
        tokens = Usage(sent, token_count(usage.get("output_tokens")))
    else:
        tokens = None
    return Said("", _text(inner.get("id")), _text(inner.get("model")), tokens)


def _text(value: Any) -> str | None:  # noqa: ANN401  (any JSON value)
    return value if isinstance(value, str) else None


def _moment(value: Any) -> datetime | None:  # noqa: ANN401  (as above)
    milliseconds = epoch(value)
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
