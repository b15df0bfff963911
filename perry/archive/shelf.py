"""One session in the archive: what is kept of it, and how that becomes what it is now.

Its rows are changed inside the caller's transaction. This module must not know what else is kept.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from perry.archive.blocks import LARGEST, SLOTS, TITLE, Home, cut, pack, unpack, words_of
from perry.archive.models import Kept
from perry.archive.terms import fold
from perry.sessions.models import Message, Session

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from perry.archive.models import Merged, Piece

_ROW = """
    SELECT number, directory, messages, content, shown, deleted_at FROM session
    WHERE workspace = ? AND agent = ? AND id = ?
"""
_LAST_BLOCKS = """
    SELECT number, start, size, body FROM block
    WHERE session = ? AND start >= 0 AND start + count > ? ORDER BY start DESC LIMIT 50
"""
_FORGET = "INSERT INTO word (word, rowid, text, mark) VALUES ('delete', ?, ?, ?)"
_INDEX = "INSERT INTO word (rowid, text, mark) VALUES (?, ?, ?)"


class Shelf:
    """The rows of one session; `content` is the bytes that its messages take unpacked."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        number: int,
        home: Home,
        messages: int,
        content: int,
        title: Message | None,
        deleted_at: int | None,
    ) -> None:
        self._connection = connection
        self._number = number
        self._home = home
        self._messages = messages
        self._content = content
        self._title = title
        self.deleted_at = deleted_at

    @classmethod
    def of(cls, connection: sqlite3.Connection, workspace: str, session: Session) -> Shelf:
        """Find a session's shelf, or make one."""
        key = (workspace, session.agent_type, session.id)
        row = connection.execute(_ROW, key).fetchone()
        if row is None:
            made = connection.execute(
                "INSERT INTO session (workspace, agent, id, directory, last_activity, shown)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (*key, session.directory, session.last_activity, msgspec.json.encode(session)),
            )
            number = made.lastrowid
            assert number is not None  # noqa: S101 - there was an insertion
            home = Home(workspace, session.agent_type, session.directory)
            return cls(connection, number, home, 0, 0, None, None)
        number, directory, messages, content, shown, deleted_at = row
        home = Home(workspace, session.agent_type, directory)
        title = _title(msgspec.json.decode(shown, type=Session)) if messages else None
        return cls(connection, number, home, messages, content, title, deleted_at)

    @classmethod
    def numbered(cls, connection: sqlite3.Connection, number: int) -> Shelf:
        """Find the shelf of a session that there is."""
        query = (
            "SELECT workspace, agent, directory, messages, content, shown, deleted_at"
            " FROM session WHERE number = ?"
        )
        workspace, agent, directory, messages, content, shown, deleted_at = connection.execute(
            query, (number,)
        ).fetchone()
        title = _title(msgspec.json.decode(shown, type=Session)) if messages else None
        home = Home(workspace, agent, directory)
        return cls(connection, number, home, messages, content, title, deleted_at)

    def merge(self, piece: Piece) -> Merged:
        """Bring what is kept in line with a piece of the session as it is now."""
        start, end = piece.start, piece.start + len(piece.messages)
        if start > self._messages:
            return "again"
        kept = read(self._connection, self._number, start, min(end, self._messages))
        same = sum(
            1 for _ in itertools.takewhile(_are_alike, zip(kept, piece.messages, strict=False))
        )
        if same < len(kept):
            if not same and start and not piece.goes_on:
                return "again"  # what comes before may have changed as well
            self.cut_from(start + same)
        if self._messages < end:
            self._append(piece.messages[self._messages - start :])
        elif piece.is_last and self._messages > end:
            self.cut_from(end)
        self._show(piece.session, is_whole=piece.is_last)
        return "taken"

    def cut_from(self, position: int) -> None:
        """Forget the messages from a position on, a few at a time: there may be a million."""
        while rows := self._connection.execute(_LAST_BLOCKS, (self._number, position)).fetchall():
            for number, start, size, body in rows:
                messages = unpack(body)
                left = max(0, position - start)
                self._forget(number, messages, left)
                self._content -= size
                if left:
                    self._replace(number, messages[:left])
                else:
                    self._connection.execute("DELETE FROM block WHERE number = ?", (number,))
        self._messages = min(self._messages, position)

    def drop_title(self) -> None:
        """Forget the title."""
        if self._title is not None:
            [number] = self._connection.execute(
                "SELECT number FROM block WHERE session = ? AND start = ?", (self._number, TITLE)
            ).fetchone()
            self._forget(number, (self._title,), 0, is_title=True)
            self._connection.execute("DELETE FROM block WHERE number = ?", (number,))
            self._title = None

    def _append(self, fresh: Sequence[Message]) -> None:
        last = self._connection.execute(
            "SELECT number, size, body FROM block WHERE session = ? AND start >= 0"
            " AND count < ? AND size < ? AND start + count = ?",
            (self._number, SLOTS, LARGEST, self._messages),
        ).fetchone()
        if last is not None:
            number, size, body = last
            before = unpack(body)
            whole = cut([*before, *fresh])[0]
            self._content -= size
            self._replace(number, whole)
            self._index(number, whole, len(before))
            fresh = fresh[len(whole) - len(before) :]
            self._messages += len(whole) - len(before)
        for run in cut(fresh):
            self._index(self._add(self._messages, run), run, 0)
            self._messages += len(run)

    def _add(self, start: int, messages: Sequence[Message]) -> int:
        size, body = pack(messages)
        self._content += size
        added = self._connection.execute(
            "INSERT INTO block (session, start, count, size, body) VALUES (?, ?, ?, ?, ?)",
            (self._number, start, len(messages), size, body),
        )
        assert added.lastrowid is not None  # noqa: S101 - there was an insertion
        return added.lastrowid

    def _replace(self, number: int, messages: Sequence[Message]) -> None:
        size, body = pack(messages)
        self._content += size
        self._connection.execute(
            "UPDATE block SET count = ?, size = ?, body = ? WHERE number = ?",
            (len(messages), size, body, number),
        )

    def _index(
        self, number: int, messages: Sequence[Message], start: int, *, is_title: bool = False
    ) -> None:
        self._connection.executemany(_INDEX, self._words(number, messages, start, is_title))

    def _forget(
        self, number: int, messages: Sequence[Message], start: int, *, is_title: bool = False
    ) -> None:
        self._connection.executemany(_FORGET, self._words(number, messages, start, is_title))

    def _words(
        self, number: int, messages: Sequence[Message], start: int, is_title: bool
    ) -> Iterable[tuple[int, str, str]]:
        for slot, message in enumerate(messages[start:], start):
            yield (
                number * SLOTS + slot,
                *words_of(message, self._home, is_title=is_title),
            )

    def _show(self, session: Session, *, is_whole: bool) -> None:
        title = _title(session)
        if title != self._title:
            self.drop_title()
            if title is not None:
                self._index(self._add(TITLE, (title,)), (title,), 0, is_title=True)
                self._title = title
        shown = msgspec.json.encode(session)
        self._connection.execute(
            "UPDATE session SET last_activity = ?, parent = ?, messages = ?, content = ?,"
            " deleted_at = NULL, body = ?, shown = ? WHERE number = ?",
            (
                session.last_activity,
                session.parent_id,
                self._messages,
                self._content,
                shown if is_whole else None,
                shown,
                self._number,
            ),
        )


def read(connection: sqlite3.Connection, number: int, start: int, stop: int) -> list[Message]:
    """Read a session's messages from `start` up to `stop`, counted from the oldest."""
    rows = connection.execute(
        "SELECT start, body FROM block WHERE session = ? AND start >= 0"
        " AND start > ? AND start < ? AND start + count > ? ORDER BY start",
        (number, start - SLOTS, stop, start),
    )
    found: list[Message] = []
    for first, body in rows:
        found += unpack(body)[max(0, start - first) : stop - first]
    return found


def kept(workspace: str, shown: bytes, messages: int, deleted_at: int | None) -> Kept:
    """Make a kept session of its row."""
    session = msgspec.json.decode(shown, type=Session)
    counted = msgspec.structs.replace(session, message_count=messages)
    return Kept(workspace, counted, deleted_at)


def sessions_of(connection: sqlite3.Connection, numbers: Sequence[int]) -> dict[int, Kept]:
    """Get sessions by their numbers, those that were deleted not among them."""
    holes = ", ".join("?" * len(numbers))
    query = f"""
        SELECT number, workspace, shown, messages, deleted_at FROM session
        WHERE deleted_at IS NULL AND number IN ({holes})
    """  # noqa: S608 - question marks
    return {number: kept(*row) for number, *row in connection.execute(query, list(numbers))}


def _title(session: Session) -> Message | None:
    """Give a title that is found by itself; None where the first prompt says the same."""
    asked = fold(session.first_prompt or "")
    if asked.startswith(fold(session.title).rstrip("…. ")) or session.title == session.id:
        return None
    return Message("system", session.title, None)


def _are_alike(pair: tuple[Message, Message]) -> bool:
    return pair[0] == pair[1]
