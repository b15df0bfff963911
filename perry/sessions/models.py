"""What a session is, whichever coding agent wrote it.

The two shapes that cross every boundary: read from files, served by the worker, decoded by the
client, printed by the command line. Field names on the wire are camelCase and fixed. This module
must not know how any coding agent stores anything.
"""

from __future__ import annotations

from typing import Literal, Self

import msgspec

KEPT_FOR = 30 * 24 * 3600
"""Seconds for which what was deleted can be restored."""

MessageType = Literal["user", "assistant", "thinking", "tool_use", "tool_result", "system"]
HitType = Literal["title", MessageType]


class Message(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """One content block that a reader would show.

    `timestamp` is ISO 8601 or None; `tool_input` is the JSON text of a call's input; a call and
    its result share `tool_id`.
    """

    type: MessageType
    content: str
    timestamp: str | None
    tool_name: str | None = None
    tool_id: str | None = None
    tool_input: str | None = None


class Session(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """One conversation of a coding agent.

    `agent_type` is the coding agent's id; `title` is never empty; `message_count` equals the
    number of messages that paging returns; `last_activity` and `started_at` are milliseconds since
    the epoch; `parent_id` names the session that started this one.
    """

    id: str
    agent_type: str
    title: str
    directory: str
    file_path: str
    message_count: int
    first_prompt: str | None
    last_activity: int
    git_branch: str | None = None
    model: str | None = None
    started_at: int | None = None
    parent_id: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    skipped_lines: int = 0


class SessionList(msgspec.Struct, frozen=True):
    """What `GET /sessions` answers, newest activity first."""

    sessions: tuple[Session, ...]


class SessionAnswer(msgspec.Struct, frozen=True):
    """What `GET /sessions/{id}` answers."""

    session: Session


class MessagePage(msgspec.Struct, frozen=True):
    """What `GET /sessions/{id}/messages` answers.

    The page in time order; `total` is the number of messages in the whole session.
    """

    id: str
    messages: tuple[Message, ...]
    total: int


class Hit(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """One message in which all the words of a search are, or a session's title.

    `type` is the message's, or `title`; `position` counts the session's messages from the oldest,
    0 first, and is 0 for a title, whose `timestamp` is the session's last activity. `snippet` is
    one line of the text, and `marks` are the words in it, as (start, end) in Unicode characters,
    in order and apart from each other.
    """

    session_id: str
    agent_type: str
    type: HitType
    position: int
    timestamp: str | None
    snippet: str
    marks: tuple[tuple[int, int], ...]


class SearchPage(msgspec.Struct, frozen=True):
    """What `GET /sessions?q=` answers: a page of hits, and the sessions they are in, each once."""

    sessions: tuple[Session, ...]
    hits: tuple[Hit, ...]


class DeletedSession(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A session that was deleted and can be restored, as it was.

    `deleted_at` and `until` are in milliseconds since the epoch: until then it is kept, in `size`
    bytes.
    """

    session: Session
    deleted_at: int
    until: int
    size: int

    @classmethod
    def since(cls, deleted_at: int, session: Session, size: int) -> Self:
        """Tell of a session that was deleted at some time (ms since the epoch)."""
        return cls(session, deleted_at, deleted_at + KEPT_FOR * 1000, size)


class DeletedList(msgspec.Struct, frozen=True):
    """What `GET /deleted` answers, what was deleted last first."""

    deleted: tuple[DeletedSession, ...]
