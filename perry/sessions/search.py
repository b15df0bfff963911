"""Finding words in messages, newest sessions first, without an index of words.

A log is first looked through as bytes, which is many times faster than parsing it; only one that
holds all the words is read message by message. Hits come out as they are found, so nothing is kept.
This module must not know any format, beyond that most logs are JSON lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

import msgspec

from perry.errors import SessionError
from perry.sessions.index import SessionIndex
from perry.sessions.models import Message, MessageType, Session

PAGE = 200
"""Messages that are read of a session at a time."""

BEFORE, AFTER = 60, 140
"""Characters of a snippet before its first marked word, and after it."""

_CHUNK = 1 << 20
_VERBATIM = re.compile(rb"[A-Za-z0-9_-]+")  # JSON has no other way to write these
_ELSEWHERE = b"<persisted-output>"  # the whole text lies in another file


class Hit(msgspec.Struct, frozen=True, rename="camel"):
    """One message in which all the words are.

    `position` counts the session's messages from the oldest, 0 first; `snippet` is one line around
    the first word found; `marks` are the words in it, as (start, end) in characters.
    """

    session_id: str
    agent_type: str
    type: MessageType
    position: int
    timestamp: str | None
    snippet: str
    marks: tuple[tuple[int, int], ...]


def words_in(query: str) -> tuple[str, ...]:
    """Split a query into the words that are looked for, without regard to case."""
    return tuple(dict.fromkeys(query.lower().split()))


def search(
    index: SessionIndex,
    words: Sequence[str],
    *,
    agent: str | None = None,
    since: int | None = None,
) -> Iterator[tuple[Session, Hit]]:
    """Yield the messages that hold all the words, newest session first, newest message first.

    Words are those of `words_in`. Child sessions are looked through too. `since` is in milliseconds
    since the epoch; a message without a time counts as its session's last activity.
    """
    if not words:
        return
    for session in index.list(agent=agent, children=True):
        if since is not None and session.last_activity < since:
            return
        if _may_hold(session.file_path, words):
            yield from ((session, hit) for hit in _hits(index, session, words, since))


def _hits(
    index: SessionIndex, session: Session, words: Sequence[str], since: int | None
) -> Iterator[Hit]:
    offset = 0
    while True:
        try:
            page = index.messages(session.id, limit=PAGE, offset=offset, agent=session.agent_type)
        except SessionError:
            return  # gone, or rewritten all the time: there is nothing to show of it
        position = page.total - offset
        for message in reversed(page.messages):
            position -= 1
            hit = _hit(session, message, position, words)
            if hit is not None and (since is None or _time_of(message, session) >= since):
                yield hit
        offset += len(page.messages)
        if not page.messages or position <= 0:
            return


def _hit(session: Session, message: Message, position: int, words: Sequence[str]) -> Hit | None:
    text = _text_of(message)
    lowered = text.lower()
    if not all(word in lowered for word in words):
        return None
    snippet, marks = snippet_of(text, words)
    return Hit(
        session.id,
        session.agent_type,
        message.type,
        position,
        message.timestamp,
        snippet,
        marks,
    )


def snippet_of(text: str, words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Cut one line out of a text around the first of the words, and say where in it they are."""
    pattern = re.compile("|".join(re.escape(word) for word in words), re.IGNORECASE)
    first = pattern.search(text)
    middle = first.start() if first else 0
    start, stop = max(0, middle - BEFORE), middle + AFTER
    line = " ".join(text[start:stop].split())
    snippet = f"{'…' if start else ''}{line}{'…' if stop < len(text) else ''}"
    return snippet, tuple(match.span() for match in pattern.finditer(snippet))


def _text_of(message: Message) -> str:
    parts = (message.content, message.tool_name, message.tool_input)
    return "\n".join(part for part in parts if part)


def _time_of(message: Message, session: Session) -> int:
    if message.timestamp is None:
        return session.last_activity
    return int(datetime.fromisoformat(message.timestamp).timestamp() * 1000)


def _may_hold(path: str, words: Sequence[str]) -> bool:
    """Tell whether a log may hold all the words; True wherever looking at bytes can't tell."""
    wanted = {word.encode("utf-8", "replace") for word in words}
    wanted = {word for word in wanted if _VERBATIM.fullmatch(word)}
    if not wanted or not path.endswith(".jsonl"):
        return True
    longest = max(len(_ELSEWHERE), *(len(word) for word in wanted))
    rest = b""
    try:
        with open(path, "rb") as log:  # noqa: PTH123 - a loop over thousands of files
            while wanted and (chunk := log.read(_CHUNK)):
                block = rest + chunk.lower()
                if _ELSEWHERE in block:
                    return True
                wanted = {word for word in wanted if word not in block}
                rest = block[-longest:]
    except OSError:
        return True  # the reader will say what is wrong with it
    return not wanted
