"""Messages, packed into blocks: one row for a few dozen, and one row of words for each.

A block is small enough to be unpacked for one message, and large enough to pack well. This module
must not know how sessions change.
"""

from __future__ import annotations

import zlib
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from perry.archive.terms import spaced, text_of
from perry.errors import ArchiveBroken
from perry.sessions.models import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOTS = 32
"""Messages in a block at most; also the numbers that a block has for the rows of its words."""

LARGEST = 256 * 1024
"""Bytes of messages from which on a block takes no more of them."""

TITLE = -1
"""Where the block of a session's title begins; its one message is a `system` one."""

_LEVEL = 6  # of zlib: below it blocks are a fifth larger, above it hardly smaller

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Message, ...]).decode


class Home(msgspec.Struct, frozen=True):
    """What all messages of a session are found under."""

    workspace: str
    agent: str
    directory: str


def pack(messages: Sequence[Message]) -> tuple[int, bytes]:
    """Pack messages; returns how many bytes they were, and the block."""
    body = _encode(messages)
    return len(body), zlib.compress(body, _LEVEL)


def unpack(block: bytes) -> tuple[Message, ...]:
    """Undo `pack`. Raises ArchiveBroken, as SQLite doesn't notice a bit that has fallen over."""
    try:
        return _decode(zlib.decompress(block))
    except (zlib.error, msgspec.DecodeError) as error:
        raise ArchiveBroken(
            f"Messages in the archive are damaged: {error}",
            hint="perry archive path names its file, which lies on a disk that fails.",
        ) from error


def cut(messages: Sequence[Message]) -> list[Sequence[Message]]:
    """Cut messages into runs that fit into a block each."""
    runs: list[list[Message]] = []
    size = LARGEST
    for message in messages:
        if size >= LARGEST or len(runs[-1]) == SLOTS:
            runs.append([])
            size = 0
        runs[-1].append(message)
        size += len(message.content) + len(message.tool_input or "")
    return list(runs)


def words_of(message: Message, home: Home, *, is_title: bool) -> tuple[str, str]:
    """Give the two columns that a message is found by: its text, and its marks.

    The same for the same message, always: what FTS5 is to forget has to be told to it again.
    """
    marks = [
        role_mark("title" if is_title else message.type),
        agent_mark(home.agent),
        workspace_mark(home.workspace),
        directory_mark(home.directory),
    ]
    if message.tool_name:
        marks.append(tool_mark(message.tool_name))
    return spaced(text_of(message)), " ".join(marks)


def role_mark(role: str) -> str:
    """Mark messages of a type."""
    return "r" + role.replace("_", "")


def agent_mark(agent: str) -> str:
    """Mark messages of a coding agent's."""
    return _mark("a", agent)


def workspace_mark(workspace: str) -> str:
    """Mark messages of a workspace."""
    return _mark("w", workspace)


def directory_mark(directory: str) -> str:
    """Mark messages of sessions in a directory."""
    return _mark("d", directory)


def tool_mark(tool: str) -> str:
    """Mark calls of a tool, however its name is capitalised."""
    return _mark("t", tool.lower())


def _mark(kind: str, name: str) -> str:
    """Make one word of a name, whatever it holds."""
    return kind + blake2b(name.encode("utf-8", "replace"), digest_size=6).hexdigest()
