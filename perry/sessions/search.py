"""Finding words in titles and messages, newest sessions first, without an index of words.

A log is first looked through as bytes, which is many times faster than parsing it; only one that
may hold all the words is read message by message. Hits come out as they are found, so no more is
kept than is asked for. This module must not know any format, beyond that a `.jsonl` file is JSON
and holds all that its sessions say but for a few words that readers add and texts kept elsewhere.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterator, Sequence

from perry.errors import SessionError
from perry.sessions.index import SessionIndex
from perry.sessions.models import Hit, Message, MessagePage, SearchPage, Session
from perry.sessions.records import epoch, iso

log = logging.getLogger(__name__)

DEFAULT_HITS = 100
MOST_HITS = 1000
"""Hits in a page where the caller names no limit, and at most."""

LONGEST_QUERY = 1000
"""Characters of a question."""

PAGE = 100
"""Messages that are read of a session at a time."""

BEFORE, AFTER = 60, 140
"""Characters of a snippet before the word it is around, and after it."""

_CANDIDATES = 50  # places in a message that are looked at for the best snippet
_CHUNK = 128 * 1024  # bytes: what is done with them at a time takes well under a millisecond
_VERBATIM = re.compile("[a-z0-9_-]+")  # JSON writes these as they are, or as _ESCAPED
_ESCAPED = re.compile(rb"\\u0(?:0[2-7]|130)")
_DOTTED_I = "\u0130".encode()  # is found by an i
_ELSEWHERE = b"<persisted-output>"  # the whole text lies in another file
_ADDED = "[image image/png] [file]"  # what readers put in place of what isn't text


def always() -> bool:
    """Go on searching, whatever it takes."""
    return True


def words_in(query: str) -> tuple[str, ...]:
    """Split a query into the words that are looked for, without regard to case."""
    return tuple(dict.fromkeys(_fold(query).split()))


def search(
    index: SessionIndex,
    words: Sequence[str],
    *,
    agent: str | None = None,
    since: int | None = None,
    go_on: Callable[[], bool] = always,
) -> Iterator[tuple[Session, Hit]]:
    """Yield what holds all the words, newest session first: its title, its newest messages first.

    A title is left out where the first prompt has all the words as well: that message is found.
    Words are those of `words_in`. Child sessions are looked through too. `since` is in milliseconds
    since the epoch; a message without a time counts as its session's last activity. `go_on` is
    asked every few milliseconds, and ends the search where it says no.
    """
    if not words:
        return
    logs = _Logs(words, go_on)
    for session in index.list(agent=agent, children=True):
        if not go_on() or (since is not None and session.last_activity < since):
            return
        if (titled := _title_hit(index, session, words)) is not None:
            yield session, titled
        if logs.may_hold(index.located(session)):
            for hit in _hits(index, session, words, go_on):
                if since is None or _time_of(hit, session) >= since:
                    yield session, hit


def search_page(
    index: SessionIndex,
    words: Sequence[str],
    *,
    agent: str | None = None,
    since: int | None = None,
    limit: int = DEFAULT_HITS,
    offset: int = 0,
    go_on: Callable[[], bool] = always,
) -> SearchPage:
    """Give `limit` hits (MOST_HITS at most) after the first `offset`, as `search` finds them."""
    found = search(index, words, agent=agent, since=since, go_on=go_on)
    page = list(itertools.islice(found, offset, offset + min(limit, MOST_HITS)))
    sessions = {(session.agent_type, session.id): session for session, _ in page}
    return SearchPage(tuple(sessions.values()), tuple(hit for _, hit in page))


def snippet_of(text: str, words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Cut one line out of a text where most of the words are, and say where in it they are."""
    folded = _fold(text)
    rarest = max(words, key=len)
    windows = [
        (max(0, place - BEFORE), place + len(rarest) + AFTER)
        for place in itertools.islice(_places(folded, rarest), _CANDIDATES)
    ]
    start, stop = max(
        windows or [(0, BEFORE + AFTER)],
        key=lambda window: sum(word in folded[slice(*window)] for word in words),
    )
    line = " ".join(text[start:stop].split())
    snippet = f"{'…' if start else ''}{line}{'…' if stop < len(text) else ''}"
    return snippet, _marks(_fold(snippet), words)


def _title_hit(index: SessionIndex, session: Session, words: Sequence[str]) -> Hit | None:
    """Make the hit of a title; it is as young as its session, so `since` has been looked at."""
    if not _has_all(session.title, words) or _is_asked(index, session, words):
        return None
    snippet, marks = snippet_of(session.title, words)
    active = iso(session.last_activity)
    return Hit(session.id, session.agent_type, "title", 0, active, snippet, marks)


def _is_asked(index: SessionIndex, session: Session, words: Sequence[str]) -> bool:
    """Tell whether the first prompt has all the words, in a message that shows them."""
    if not _has_all(session.first_prompt or "", words):
        return False
    page = _page(index, session, max(0, session.message_count - PAGE))
    return page is not None and any(_has_all(_text_of(one), words) for one in page.messages)


def _hits(
    index: SessionIndex, session: Session, words: Sequence[str], go_on: Callable[[], bool]
) -> Iterator[Hit]:
    """Read a session from its end to its start; what is added meanwhile is left out."""
    offset, unread = 0, session.message_count
    while unread > 0 and go_on():
        page = _page(index, session, offset)
        if page is None:
            return
        start = max(0, page.total - offset - len(page.messages))
        for position, message in reversed([*enumerate(page.messages, start)]):
            if position < unread and _has_all(_text_of(message), words):
                yield _hit(session, message, position, words)
        if not page.messages:
            return
        unread = min(unread, start)
        offset = page.total - unread


def _page(index: SessionIndex, session: Session, offset: int) -> MessagePage | None:
    try:
        return index.messages(session.id, limit=PAGE, offset=offset, agent=session.agent_type)
    except SessionError:
        return None  # gone, or rewritten all the time: there is nothing to show of it
    except Exception:  # one that defeats its reader must not hide all the others
        log.exception("session %s can't be searched", session.id)
        return None


def _has_all(text: str, words: Sequence[str]) -> bool:
    folded = _fold(text)
    return all(word in folded for word in words)


def _hit(session: Session, message: Message, position: int, words: Sequence[str]) -> Hit:
    snippet, marks = snippet_of(_text_of(message), words)
    return Hit(
        session.id,
        session.agent_type,
        message.type,
        position,
        message.timestamp,
        snippet,
        marks,
    )


def _text_of(message: Message) -> str:
    parts = (message.tool_name, message.tool_input, message.content)
    # A call's content is but the name of its tool.
    return "\n".join(dict.fromkeys(part for part in parts if part))


def _time_of(hit: Hit, session: Session) -> int:
    moment = epoch(hit.timestamp)
    return session.last_activity if moment is None else moment


def _fold(text: str) -> str:
    """Make upper and lower case the same; a character stays one character.

    But for the capital I with a dot, only ASCII becomes ASCII: lower() would make k of the Kelvin
    sign, and two characters of that I. The Greek small sigma has two forms, of which one is kept.
    """
    if text.isascii():
        return text.lower()
    kept = text.replace("\u0130", "i").replace("\u212a", "\uff4b")
    return kept.lower().replace("\u03c2", "\u03c3")


def _places(text: str, word: str) -> Iterator[int]:
    place = text.find(word)
    while place >= 0:
        yield place
        place = text.find(word, place + len(word))


def _marks(text: str, words: Sequence[str]) -> tuple[tuple[int, int], ...]:
    spans = sorted((place, place + len(word)) for word in words for place in _places(text, word))
    marks: list[tuple[int, int]] = []
    for start, end in spans:
        if marks and start <= marks[-1][1]:
            marks[-1] = (marks[-1][0], max(end, marks[-1][1]))
        else:
            marks.append((start, end))
    return tuple(marks)


class _Logs:
    """Looks logs through as bytes, each once, however many sessions are in it."""

    def __init__(self, words: Sequence[str], go_on: Callable[[], bool]) -> None:
        pieces = {piece for word in words for piece in _VERBATIM.findall(word)}
        # The longest first: it is most likely to be missing, and then the others don't matter.
        wanted = sorted((piece for piece in pieces if piece not in _ADDED), key=len, reverse=True)
        self._wanted = tuple(piece.encode() for piece in wanted)
        self._go_on = go_on
        self._known: dict[str, bool] = {}

    def may_hold(self, path: str) -> bool:
        """Tell whether a log may hold all the words; True where looking at bytes can't tell."""
        if not self._wanted or not path.endswith(".jsonl"):
            return True
        if path not in self._known:
            try:
                self._known[path] = all(self._may_hold(path, word) for word in self._wanted)
            except OSError:
                return True  # the reader will say what is wrong with it
        return self._known[path]

    def _may_hold(self, path: str, word: bytes) -> bool:
        overlap = max(len(_ELSEWHERE), len(word))
        rest = b""
        with open(path, "rb", buffering=0) as log:  # noqa: PTH123 - a loop over thousands of files
            while chunk := log.read(_CHUNK):
                block = rest + chunk.lower()
                if word in block or _is_unclear(block) or not self._go_on():
                    return True
                rest = block[-overlap:]
        return False


def _is_unclear(block: bytes) -> bool:
    """Tell whether a text may be written otherwise here, or stand elsewhere."""
    if _ELSEWHERE in block or _DOTTED_I in block:
        return True
    return b"\\u0" in block and _ESCAPED.search(block) is not None
