"""The archive: every session as it was seen last, kept when its workspace has it no more.

What comes in is compared with what is kept, so taking in the same twice changes nothing, whoever
does it: only what is new is written, and a session that was rewritten is kept as it is now. What
perry itself deletes is hidden, and gone for good after a while. This module must not know where
sessions come from.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import platformdirs

from perry.archive.bounds import prune, purge, put_together, remove
from perry.archive.database import Database
from perry.archive.models import Statistics
from perry.archive.search import search
from perry.archive.shelf import Shelf, kept, read
from perry.errors import SessionNotFound
from perry.sessions.models import KEPT_FOR, MessagePage, Session

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from perry.archive.models import Filters, Found, Kept, Key, Merged, Piece
    from perry.archive.terms import Query

LATE = 60
"""Seconds after its deletion in which a session may still be told of; later, it was put back."""

_LISTED = "SELECT workspace, shown, messages, deleted_at FROM session WHERE messages > 0"


def archive_path() -> Path:
    """Name the file of this user's archive."""
    return Path(platformdirs.user_data_dir("perry"), "archive.sqlite")


class Archive:
    """The archive in a file, made where there is none; may be used from any thread and process.

    Raises, as everything here does, ArchiveBroken and ArchiveUnusable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = Database(path)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def merge(self, pieces: Iterable[Piece]) -> list[Merged]:
        """Take in pieces, all or none; says of each what became of it."""
        with self._database.writing() as connection:
            is_off = _fact(connection, "off") is not None
            return ["off" if is_off else self._merge(connection, piece) for piece in pieces]

    def stale(self, workspace: str, sessions: Iterable[Session]) -> list[Session]:
        """Return those of a workspace's sessions that aren't kept as they are now."""
        left = {(one.agent_type, one.id): one for one in sessions}
        late = _now() - LATE * 1000
        query = "SELECT agent, id, body, deleted_at FROM session WHERE workspace = ?"
        with self._database.reading() as connection:
            floor = _floor(connection)
            for agent, name, body, deleted_at in connection.execute(query, (workspace,)):
                one = left.get((agent, name))
                if one is None:
                    continue
                is_kept = deleted_at is None and body == msgspec.json.encode(one)
                if is_kept or (deleted_at is not None and deleted_at >= late):
                    del left[agent, name]
        return [one for one in left.values() if one.last_activity >= floor]

    @property
    def floor(self) -> int:
        """Sessions last active before it (ms since the epoch) were pruned."""
        with self._database.reading() as connection:
            return _floor(connection)

    def held(self, key: Key) -> int:
        """Return how many messages of a session are kept."""
        with self._database.reading() as connection:
            query = "SELECT messages FROM session WHERE workspace = ? AND agent = ? AND id = ?"
            row = connection.execute(query, key).fetchone()
        return 0 if row is None else int(row[0])

    def workspaces(self) -> list[str]:
        """Name the places that sessions are kept of."""
        query = "SELECT DISTINCT workspace FROM session WHERE messages > 0 AND deleted_at IS NULL"
        with self._database.reading() as connection:
            return sorted(name for [name] in connection.execute(query))

    def sessions(self, workspace: str | None = None, *, deleted: bool = False) -> list[Kept]:
        """List what is kept, newest activity first; or what was deleted and can be restored."""
        query = f"{_LISTED} AND (deleted_at IS NOT NULL) = ? AND workspace = ifnull(?, workspace)"
        with self._database.reading() as connection:
            rows = connection.execute(f"{query} ORDER BY last_activity DESC", (deleted, workspace))
            return [kept(*row) for row in rows]

    def session(self, key: Key) -> Kept:
        """Get one session. Raises SessionNotFound."""
        query = f"{_LISTED} AND deleted_at IS NULL AND workspace = ? AND agent = ? AND id = ?"
        with self._database.reading() as connection:
            row = connection.execute(query, key).fetchone()
        if row is None:
            raise _not_found(key)
        return kept(*row)

    def find(self, workspace: str, session_id: str, agent: str | None = None) -> Kept | None:
        """Find a session by its id, the most recent where coding agents share it; or None."""
        query = (
            f"{_LISTED} AND deleted_at IS NULL AND workspace = ? AND agent = ifnull(?, agent)"
            " AND id = ? ORDER BY last_activity DESC"
        )
        with self._database.reading() as connection:
            row = connection.execute(query, (workspace, agent, session_id)).fetchone()
        return None if row is None else kept(*row)

    def messages(self, key: Key, *, limit: int, offset: int = 0) -> MessagePage:
        """Get a page in time order, `offset` counted from the newest. Raises SessionNotFound."""
        query = (
            "SELECT number, messages FROM session WHERE workspace = ? AND agent = ? AND id = ?"
            " AND deleted_at IS NULL AND messages > 0"
        )
        with self._database.reading() as connection:
            row = connection.execute(query, key).fetchone()
            if row is None:
                raise _not_found(key)
            number, total = row
            stop = max(0, total - offset)
            page = read(connection, number, max(0, stop - limit), stop)
        return MessagePage(key[2], tuple(page), total)

    def search(self, query: Query, filters: Filters, *, limit: int, offset: int = 0) -> Found:
        """Find messages that have all of the query's terms; see `perry.archive.search`."""
        with self._database.reading() as connection:
            return search(connection, query, filters, limit=limit, offset=offset)

    def delete(self, key: Key, *, for_good: bool = False) -> None:
        """Hide a session and those it started; a while later, or `for_good`, they are gone.

        One that isn't kept counts as deleted as well, should it be told of late.
        """
        with self._database.writing() as connection:
            now = _now()
            doomed = _family(connection, key, "TRUE" if for_good else "deleted_at IS NULL")
            for number, _ in doomed if for_good else ():
                remove(connection, number)
            for name in {key[2], *(name for _, name in doomed)}:
                connection.execute(_TOMBSTONE, (*key[:2], name, now))
        if for_good:
            put_together(self._database)

    def hidden(self, workspace: str, session_id: str, agent: str | None = None) -> Key | None:
        """Find what was deleted last under an id, whether it was kept or not; or None."""
        query = (
            "SELECT agent FROM session WHERE workspace = ? AND id = ? AND agent = ifnull(?, agent)"
            " AND deleted_at IS NOT NULL ORDER BY deleted_at DESC"
        )
        with self._database.reading() as connection:
            row = connection.execute(query, (workspace, session_id, agent)).fetchone()
        return None if row is None else (workspace, row[0], session_id)

    def restore(self, key: Key) -> None:
        """Undo `delete`. Raises SessionNotFound where nothing is kept; it may come in again, then.

        What was deleted before it, of those that it started, stays deleted.
        """
        query = (
            "SELECT deleted_at, messages FROM session WHERE workspace = ? AND agent = ? AND id = ?"
            " AND deleted_at IS NOT NULL"
        )
        with self._database.writing() as connection:
            row = connection.execute(query, key).fetchone()
            for number, _ in _family(connection, key, "deleted_at = ?4", row[0]) if row else ():
                shown = "UPDATE session SET deleted_at = NULL WHERE number = ?"
                connection.execute(shown, (number,))
            connection.execute("DELETE FROM session WHERE deleted_at IS NULL AND messages = 0")
        if row is None or not row[1]:
            raise _not_found(key)

    def prune(self, *, oldest: int | None = None, largest: int | None = None) -> int:
        """Remove what is beyond the bounds, and what was deleted long ago; returns how much.

        That are sessions last active before `oldest` (ms since the epoch), and the oldest ones
        until all takes `largest` bytes.
        """
        removed = purge(self._database, _now() - KEPT_FOR * 1000)
        return removed + prune(self._database, oldest=oldest, largest=largest)

    def set_aside(self) -> Path | None:
        """Close a broken archive and rename its file; None where another process has done so."""
        return self._database.set_aside()

    @property
    def is_off(self) -> bool:
        """Whether nothing is to be taken in."""
        with self._database.reading() as connection:
            return _fact(connection, "off") is not None

    def turn(self, *, on: bool) -> None:
        """Have new messages taken in, or not; what is kept stays."""
        with self._database.writing() as connection:
            if on:
                connection.execute("DELETE FROM fact WHERE name = 'off'")
            else:
                connection.execute("INSERT OR REPLACE INTO fact VALUES ('off', '1')")

    def statistics(self) -> Statistics:
        """Tell how much there is."""
        query = """
            SELECT count(*), ifnull(sum(messages), 0), count(deleted_at), ifnull(sum(content), 0),
            min(last_activity) FROM session WHERE messages > 0
        """
        with self._database.reading() as connection:
            sessions, messages, deleted, content, oldest = connection.execute(query).fetchone()
            floor, is_off = _floor(connection), _fact(connection, "off") is not None
        files = (self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm"))
        size = sum(file.stat().st_size for file in files if file.exists())
        return Statistics(
            sessions - deleted, messages, deleted, content, size, oldest, floor, is_off
        )

    @staticmethod
    def _merge(connection: sqlite3.Connection, piece: Piece) -> Merged:
        key = (piece.workspace, piece.session.agent_type, piece.session.id)
        shelf = Shelf.find(connection, key)
        if shelf is not None and _now() - (shelf.deleted_at or 0) < LATE * 1000:
            return "late"
        if not piece.messages and not piece.goes_on:  # what was emptied stays as it was
            return "again" if piece.start else "same"
        if shelf is None or shelf.is_empty:
            if piece.start:
                return "again"
            shelf = Shelf.make(connection, piece.workspace, piece.session)
        return shelf.merge(piece)


_TOMBSTONE = """
    INSERT INTO session (workspace, agent, id, deleted_at, directory, last_activity, shown)
    VALUES (?, ?, ?, ?, '', 0, '')
    ON CONFLICT (workspace, agent, id) DO UPDATE SET deleted_at = excluded.deleted_at
    WHERE deleted_at IS NULL
"""
"""Marks a session as deleted, whether it is kept or not."""


def _family(
    connection: sqlite3.Connection, key: Key, which: str, *more: int
) -> list[tuple[int, str]]:
    """Return the numbers and ids of a session and of its descendants, where `which` holds."""
    query = f"""
        WITH RECURSIVE family (number, id) AS (
            SELECT number, id FROM session
            WHERE workspace = ?1 AND agent = ?2 AND id = ?3 AND {which}
            UNION SELECT child.number, child.id FROM session AS child, family
            WHERE workspace = ?1 AND agent = ?2 AND parent = family.id AND {which}
        ) SELECT number, id FROM family
    """  # noqa: S608 - constants
    return connection.execute(query, (*key, *more)).fetchall()


def _fact(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def _floor(connection: sqlite3.Connection) -> int:
    return int(_fact(connection, "floor") or 0)


def _now() -> int:
    return int(time.time() * 1000)


def _not_found(key: Key) -> SessionNotFound:
    workspace, _, name = key
    return SessionNotFound(
        f"The archive has no session {name!r} of {workspace}.",
        hint="`perry session list --archived` lists what it has.",
        workspace=workspace,
    )
