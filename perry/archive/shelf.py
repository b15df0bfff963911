"""One session in the archive: what is kept of it, and how that becomes what it is now.

Its rows are changed inside the caller's transaction. This module must not know what else is kept.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec

from perry.archive.blocks import LARGEST, SLOTS, TITLE, Home, cut, pack, unpack, words_of
from perry.archive.models import Kept
from perry.archive.terms import fold
from perry.sessions.models import Message, Session

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from perry.archive.models import Key, Merged, Piece

_ROW = """
    SELECT number, workspace, agent, directory, messages, content, deleted_at FROM session
"""
_LAST_BLOCKS = """
    SELECT number, start, size, body FROM block
    WHERE session = ? AND start >= 0 AND start + count > ? ORDER BY start DESC LIMIT 50
"""
_FORGET = "INSERT INTO word (word, rowid, text, mark) VALUES ('delete', ?, ?, ?)"
_INDEX = "INSERT INTO word (rowid, text, mark) VALUES (?, ?, ?)"


RECENT = 64
"""Blocks from the newest on that may still be filled: what lies further back is found later."""

LAST_MOMENT = 2**53  # ms since the epoch; a workspace may say anything


class Shelf:
    """The rows of one session; `content` is the bytes that its messages take unpacked."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        number: int,
        home: Home,
        messages: int,
        content: int,
        deleted_at: int | None,
    ) -> None:
        self._connection = connection
        self._number = number
        self._home = home
        self._messages = messages
        self._content = content
        self.deleted_at = deleted_at

    @classmethod
    def find(cls, connection: sqlite3.Connection, key: Key) -> Shelf | None:
        """Find a session's shelf, None where it has none."""
        query = f"{_ROW} WHERE workspace = ? AND agent = ? AND id = ?"
        return cls._of(connection, connection.execute(query, key).fetchone())

    @classmethod
    def numbered(cls, connection: sqlite3.Connection, number: int) -> Shelf | None:
        """Find the shelf of a number, None where it was removed."""
        query = f"{_ROW} WHERE number = ?"
        return cls._of(connection, connection.execute(query, (number,)).fetchone())

    @classmethod
    def make(cls, connection: sqlite3.Connection, workspace: str, session: Session) -> Shelf:
        """Make a shelf for a session that has none, or an empty one."""
        made = connection.execute(
            "INSERT OR REPLACE INTO session (workspace, agent, id, directory, last_activity, shown)"
            " VALUES (?, ?, ?, ?, 0, '')",
            (workspace, session.agent_type, session.id, session.directory),
        )
        assert made.lastrowid is not None  # noqa: S101 - there was an insertion
        home = Home(workspace, session.agent_type, session.directory)
        return cls(connection, made.lastrowid, home, 0, 0, None)

    @classmethod
    def _of(cls, connection: sqlite3.Connection, row: Any) -> Shelf | None:  # noqa: ANN401 - a row
        if row is None:
            return None
        number, workspace, agent, directory, messages, content, deleted_at = row
        home = Home(workspace, agent, directory)
        return cls(connection, number, home, messages, content, deleted_at)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept, but that it was deleted."""
        return not self._messages

    def merge(self, piece: Piece) -> Merged:
        """Bring what is kept in line with a piece of the session as it is now."""
        start, end = piece.start, piece.start + len(piece.messages)
        if start > self._messages:
            return "again"
        kept = read(self._connection, self._number, start, min(end, self._messages))
        pairs = zip(kept, piece.messages, strict=False)
        same = sum(1 for _ in itertools.takewhile(_are_alike, pairs))
        if same < len(kept):
            if not same and start and not piece.goes_on:
                return "again"  # what comes before may have changed as well
            self.cut_from(start + same)
        merged: Merged = "same" if same == len(piece.messages) else "taken"
        if self._messages < end:
            self._append(piece.messages[self._messages - start :])
        elif piece.is_last and self._messages > end:
            self.cut_from(end)
        self._show(piece.session, is_whole=piece.is_last)
        return merged

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
        if (found := self._titled()) is not None:
            number, size, title = found
            self._forget(number, (title,), 0, is_title=True)
            self._content -= size
            self._connection.execute("DELETE FROM block WHERE number = ?", (number,))

    def _titled(self) -> tuple[int, int, Message] | None:
        """Return the number of the title's block, its size and the title; None without one."""
        query = "SELECT number, size, body FROM block WHERE session = ? AND start = ?"
        row = self._connection.execute(query, (self._number, TITLE)).fetchone()
        return None if row is None else (row[0], row[1], unpack(row[2])[0])

    def _append(self, fresh: Sequence[Message]) -> None:
        last = self._connection.execute(
            "SELECT number, size, body FROM block WHERE session = ? AND start >= 0"
            " AND count < ? AND size < ? AND start + count = ?"
            " AND number > (SELECT max(number) FROM block) - ?",
            (self._number, SLOTS, LARGEST, self._messages, RECENT),
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
        title, found = _title(session), self._titled()
        if title != (found and found[2]):
            self.drop_title()
            if title is not None:
                self._index(self._add(TITLE, (title,)), (title,), 0, is_title=True)
        shown = msgspec.json.encode(session)
        self._connection.execute(
            "UPDATE session SET last_activity = ?, parent = ?, messages = ?, content = ?,"
            " deleted_at = NULL, body = ?, shown = ? WHERE number = ?",
            (
                min(session.last_activity, LAST_MOMENT),
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
