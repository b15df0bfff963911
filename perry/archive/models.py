"""What goes into the archive, and what comes out of it.

This module must not know SQL, or where sessions come from.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from perry.sessions.models import DeletedSession, Hit, HitType, Message, Session

Key = tuple[str, str, str]
"""A session's workspace (or `host`), coding agent and id: two workspaces may share an id."""

Merged = Literal["same", "taken", "again", "late", "off"]
"""What became of a piece: it was kept already, or is now; the session has to be read from further
back; the session was deleted just now; nothing is taken in.
"""


class Piece(msgspec.Struct, frozen=True):
    """Some of a session's messages, one after the other, as they are now.

    `start` counts from the oldest, 0 first; `is_last` says that the session ends with them, and
    `goes_on` that what comes before was taken in just now. Any other piece repeats some of what is
    kept, so that a session that was rewritten is noticed.
    """

    workspace: str
    session: Session
    start: int
    messages: tuple[Message, ...]
    is_last: bool
    goes_on: bool = False


class Kept(msgspec.Struct, frozen=True):
    """A session as the archive has it: as it was seen last, with as many messages as are kept.

    `deleted_at` is when perry deleted it (ms since the epoch), None otherwise.
    """

    workspace: str
    session: Session
    deleted_at: int | None = None

    @property
    def key(self) -> Key:
        """What names it."""
        return self.workspace, self.session.agent_type, self.session.id

    @property
    def restorable(self) -> DeletedSession | None:
        """How it is listed among what was deleted, if it was; its size isn't known, and 0."""
        if self.deleted_at is None:
            return None
        return DeletedSession.since(self.deleted_at, self.session, 0)


class Filters(msgspec.Struct, frozen=True):
    """Which messages are looked through; None is all. `since` and `until` are ms since the epoch.

    `directory` is the session's, or one above it; `role` a message's type, or `title`.
    """

    workspace: str | None = None
    agent: str | None = None
    directory: str | None = None
    role: HitType | None = None
    tool: str | None = None
    since: int | None = None
    until: int | None = None


class KeptHit(Hit, frozen=True, kw_only=True, rename="camel", gc=False):
    """A hit, and the workspace (or `host`) that its session was in."""

    workspace: str


class Found(msgspec.Struct, frozen=True):
    """A page of hits, and the sessions they are in, each once."""

    hits: tuple[KeptHit, ...]
    sessions: tuple[Kept, ...]


class Statistics(msgspec.Struct, frozen=True, rename="camel"):
    """How much the archive has.

    `size` is what its files take, `content` what the messages would take unpacked (bytes). `oldest`
    is the least recent activity (ms since the epoch); sessions last active before `floor` were
    pruned, and are not taken in again. `is_off` says that nothing is taken in.
    """

    sessions: int
    messages: int
    deleted: int
    content: int
    size: int
    oldest: int | None
    floor: int
    is_off: bool
