"""Finding messages in the archive by their words.

Matches are taken in rounds of a hundred, those first that came in last; in a round, the best come
first. So the first page costs the same whether a hundred messages match or a million, and what is
found for a rare word is ranked as a whole. A match is the better the oftener its message has the
words, the shorter it is (as BM25 counts both), and the nearer it is to what a person said. This
module must not know how sessions come in.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import msgspec

from perry.archive.blocks import (
    SLOTS,
    TITLE,
    agent_mark,
    directory_mark,
    role_mark,
    tool_mark,
    unpack,
    workspace_mark,
)
from perry.archive.models import Found, KeptHit
from perry.archive.shelf import sessions_of
from perry.archive.terms import Finder, text_of
from perry.sessions.records import epoch, iso

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from perry.archive.models import Filters, Kept
    from perry.archive.terms import Query
    from perry.sessions.models import HitType, Message

ROUND = 100
"""Matches that are ranked together."""

MOST_DIRECTORIES = 500
"""Directories below the one asked for that are looked into, the most recently used first."""

WEIGHTS: dict[HitType, float] = {
    "title": 2.0,
    "user": 1.6,
    "assistant": 1.3,
    "system": 1.0,
    "thinking": 0.9,
    "tool_use": 0.8,
    "tool_result": 0.7,
}
"""What a match counts for by where it is: what people and coding agents said, before output."""

SATURATION, SHORTNESS, USUAL = 1.2, 0.75, 800
"""BM25's k1 and b, with their usual values, and the usual length of a message in characters."""

LONGEST = 200_000  # characters of a message that are looked at

MOST_COUNTED = 20  # occurrences of a term: more say nothing more


class _Match(msgspec.Struct, frozen=True):
    """A message that matches, and where it is."""

    kept: Kept
    message: Message
    position: int

    @property
    def type(self) -> HitType:
        return "title" if self.position == TITLE else self.message.type

    @property
    def moment(self) -> int:
        """When it was written (ms since the epoch), else when its session was last active."""
        written = epoch(self.message.timestamp)
        return self.kept.session.last_activity if written is None else written


def search(
    connection: sqlite3.Connection, query: Query, filters: Filters, *, limit: int, offset: int
) -> Found:
    """Find messages that have all terms, as the module says, from `offset` on, at most `limit`."""
    if not query.terms:
        return Found((), ())
    finder = Finder(query)
    found = _rounds(connection, _match(connection, query, filters), filters.since)
    rounds = (_ranked(matches, finder) for matches in found)
    fitting = (match for match in itertools.chain.from_iterable(rounds) if _fits(match, filters))
    matches = list(itertools.islice(fitting, offset, offset + limit))
    sessions = {match.kept.key: match.kept for match in matches}
    return Found(tuple(_hit(match, finder) for match in matches), tuple(sessions.values()))


def _match(connection: sqlite3.Connection, query: Query, filters: Filters) -> str:
    """Write the query and the filters that FTS5 can apply as it takes them."""
    marks = []
    if filters.workspace is not None:
        marks.append(workspace_mark(filters.workspace))
    if filters.agent is not None:
        marks.append(agent_mark(filters.agent))
    if filters.role is not None:
        marks.append(role_mark(filters.role))
    if filters.tool is not None:
        marks.append(tool_mark(filters.tool))
    wanted = [f"text : ({query.match})", *(f"mark : {mark}" for mark in marks)]
    if filters.directory is not None:
        below = " OR ".join(map(directory_mark, _directories(connection, filters.directory)))
        wanted.append(f"mark : ({below})")
    return " AND ".join(wanted)


def _directories(connection: sqlite3.Connection, directory: str) -> list[str]:
    top = directory.rstrip("/") or "/"
    below = top.rstrip("/") + "/"
    query = """
        SELECT directory FROM session WHERE directory = ? OR substr(directory, 1, ?) = ?
        GROUP BY directory ORDER BY max(last_activity) DESC LIMIT ?
    """
    found = connection.execute(query, (top, len(below), below, MOST_DIRECTORIES))
    return [name for [name] in found] or [top]


def _rounds(
    connection: sqlite3.Connection, match: str, since: int | None
) -> Iterator[list[_Match]]:
    """Give the messages that match, newest first, as many at a time as are ranked together."""
    rows = connection.execute(
        "SELECT rowid FROM word WHERE word MATCH ? ORDER BY rowid DESC", (match,)
    )
    while found := rows.fetchmany(ROUND):
        yield _messages(connection, [row for [row] in found], since or 0)


def _messages(connection: sqlite3.Connection, rows: list[int], since: int) -> list[_Match]:
    """Read the messages of rows of words, leaving out sessions that were over before `since`."""
    numbers = list(dict.fromkeys(row // SLOTS for row in rows))
    holes = ", ".join("?" * len(numbers))
    query = f"SELECT number, session, start FROM block WHERE number IN ({holes})"  # noqa: S608
    blocks = {number: where for number, *where in connection.execute(query, numbers)}
    sessions = sessions_of(connection, list({session for session, _ in blocks.values()}))
    matches: list[_Match] = []
    unpacked: tuple[int, tuple[Message, ...]] = (0, ())
    for row in rows:
        number, slot = divmod(row, SLOTS)
        session, start = blocks[number]
        kept = sessions.get(session)
        if kept is None or kept.session.last_activity < since:
            continue
        if unpacked[0] != number:  # the rows of one block follow each other
            unpacked = (number, _block(connection, number))
        matches.append(_Match(kept, _shortened(unpacked[1][slot]), start + slot))
    return matches


def _block(connection: sqlite3.Connection, number: int) -> tuple[Message, ...]:
    [body] = connection.execute("SELECT body FROM block WHERE number = ?", (number,)).fetchone()
    return unpack(body)


def _shortened(message: Message) -> Message:
    """Keep of a message what is ranked and shown of it: some are as large as a book."""
    if len(message.content) <= LONGEST:
        return message
    return msgspec.structs.replace(message, content=message.content[:LONGEST])


def _fits(match: _Match, filters: Filters) -> bool:
    since, until = filters.since, filters.until
    return (since is None or match.moment >= since) and (until is None or match.moment < until)


def _ranked(matches: list[_Match], finder: Finder) -> list[_Match]:
    """Put the best first; of equals, the newest."""
    return sorted(matches, key=lambda match: (-_score(match, finder), -match.moment))


def _score(match: _Match, finder: Finder) -> float:
    text = text_of(match.message)
    length = 1 - SHORTNESS + SHORTNESS * len(text) / USUAL
    counts = finder.counts(text, MOST_COUNTED)
    found = math.fsum(count * (SATURATION + 1) / (count + SATURATION * length) for count in counts)
    return WEIGHTS[match.type] * found


def _hit(match: _Match, finder: Finder) -> KeptHit:
    session = match.kept.session
    snippet, marks = finder.snippet(text_of(match.message))
    is_title = match.position == TITLE
    return KeptHit(
        session.id,
        session.agent_type,
        match.type,
        0 if is_title else match.position,
        iso(session.last_activity) if is_title else match.message.timestamp,
        snippet,
        marks,
        workspace=match.kept.workspace,
    )
