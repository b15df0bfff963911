"""What a search found, as lines to read: grouped by session, the words marked.

A hit is one line, cut around its first mark so that the mark can be seen on any terminal. Workers
may send anything, so marks are checked and texts made harmless. Pure functions: the colours come in
as a function, the lines go out, and this module must not print.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec

from perry.cli.fleet import short_ids
from perry.cli.text import ago, harmless, one_line, shortened, width
from perry.cli.transcript import BOLD, DIM
from perry.sessions.records import epoch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perry.archive.models import KeptHit
    from perry.client.agent_client import AgentFound, AgentSession
    from perry.sessions.models import Hit, SearchPage, Session

    Letters = Sequence[tuple[str, bool]]
    Paint = Callable[[str, str], str]

INDENT = "  "
ROLES = {"tool_use": "tool call", "tool_result": "tool result"}
ROLE_COLUMNS = len("tool result")
TIME_COLUMNS = len("23 hours ago")
LEAST = 20
"""Columns that a snippet has at least, however narrow the terminal is."""


def lines(
    workspace: str, page: SearchPage, *, now: float, columns: int | None, paint: Paint
) -> Iterator[str]:
    """Yield a page's lines: a head for each session and its hits below, empty lines between them.

    `now` is in seconds since the epoch; `columns` is the terminal's width, None for a pipe, where
    ids and snippets are whole; `paint` colours a text.
    """
    sessions = {(one.agent_type, one.id): one for one in page.sessions}
    told = short_ids([one.id for one in page.sessions])
    groups = itertools.groupby(page.hits, key=lambda hit: (hit.agent_type, hit.session_id))
    for number, (key, hits) in enumerate(groups):
        if number:
            yield ""
        session = sessions.get(key)
        agent, identifier = key
        shown = identifier if columns is None else told.get(identifier, identifier)
        title = identifier if session is None else session.title
        yield _head((shown, workspace, agent), title, columns, paint)
        for hit in hits:
            yield _hit(hit, session, now, columns, paint)


def ranked(found: AgentFound, *, now: float, columns: int | None, paint: Paint) -> Iterator[str]:
    """Yield the lines of an answer of the agent daemon, which has put the best first.

    A session stands where its first hit is, with all of its hits; the rest is as for `lines`.
    """
    told = short_ids([one.id for one in found.sessions])
    for number, (session, hits) in enumerate(_by_session(found)):
        if number:
            yield ""
        shown = session.id if columns is None else told[session.id]
        stands = () if session.standing == "live" else (session.standing,)
        facts = (shown, session.workspace, session.agent_type, *stands)
        yield _head(facts, session.title, columns, paint)
        for hit in hits:
            yield _hit(hit, session, now, columns, paint)


def _by_session(found: AgentFound) -> Iterator[tuple[AgentSession, list[KeptHit]]]:
    sessions = {(one.workspace, one.agent_type, one.id): one for one in found.sessions}
    groups: dict[tuple[str, str, str], list[KeptHit]] = {}
    for hit in found.hits:
        groups.setdefault((hit.workspace, hit.agent_type, hit.session_id), []).append(hit)
    for key, hits in groups.items():
        if key in sessions:
            yield sessions[key], hits


def _head(facts: Sequence[str], title: str, columns: int | None, paint: Paint) -> str:
    head, title = "  ".join(one_line(fact) for fact in facts), one_line(title)
    if columns is not None:
        title = shortened(title, max(LEAST, columns - width(head) - 2))
    return f"{head}  {paint(title, BOLD)}"


def views(workspace: str, page: SearchPage) -> Iterator[dict[str, Any]]:
    """Give the keys of each hit as JSON: those on the wire, `workspace` and `title`."""
    titles = {(one.agent_type, one.id): one.title for one in page.sessions}
    for hit in page.hits:
        title = titles.get((hit.agent_type, hit.session_id), hit.session_id)
        yield {"workspace": workspace, "title": title, **msgspec.to_builtins(hit)}


def ranked_views(found: AgentFound) -> Iterator[dict[str, Any]]:
    """Give the keys of each hit as JSON, as `views` does, and `standing`."""
    for session, hits in _by_session(found):
        for hit in hits:
            told = {"title": session.title, "standing": session.standing}
            yield {**msgspec.to_builtins(hit), **told}


def _hit(hit: Hit, session: Session | None, now: float, columns: int | None, paint: Paint) -> str:
    moment = epoch(hit.timestamp)
    if moment is None and session is not None:
        moment = session.last_activity
    when = "" if moment is None else ago(moment, now)
    role = ROLES.get(hit.type, hit.type)
    head = f"{INDENT}{role:<{ROLE_COLUMNS}}  {paint(f'{when:<{TIME_COLUMNS}}', DIM)}  "
    used = len(INDENT) + ROLE_COLUMNS + 2 + TIME_COLUMNS + 2
    room = None if columns is None else max(LEAST, columns - used)
    return head + marked(hit.snippet, hit.marks, room, paint)


def marked(
    snippet: str, marks: Sequence[tuple[int, int]], columns: int | None, paint: Paint
) -> str:
    """Put a snippet on one line of so many columns, its marks bold and the first one in sight."""
    inside = {
        place for start, end in marks for place in range(max(0, start), min(end, len(snippet)))
    }
    letters = [
        (" " if letter.isspace() else harmless(letter), place in inside)
        for place, letter in enumerate(snippet)
    ]
    if columns is not None and _width(letters) > columns:
        letters = _cut(letters, columns)
    runs = itertools.groupby(letters, key=lambda letter: letter[1])
    texts = ((is_marked, "".join(text for text, _ in run)) for is_marked, run in runs)
    return "".join(paint(text, BOLD) if is_marked else text for is_marked, text in texts)


def _cut(letters: Letters, columns: int) -> list[tuple[str, bool]]:
    """Keep what is around the first mark, with an ellipsis where something was cut off."""
    start = next((place for place, (_, is_marked) in enumerate(letters) if is_marked), 0)
    before = max(columns // 3, columns - 1 - _width(letters[start:]))
    while start and (before := before - width(letters[start - 1][0])) > 0:
        start -= 1
    kept = [("…", False)] if start else []
    room = columns - len(kept)
    if _width(letters[start:]) <= room:
        return [*kept, *letters[start:]]
    for letter in letters[start:]:
        room -= width(letter[0])
        if room < 1:
            break
        kept.append(letter)
    return [*kept, ("…", False)]


def _width(letters: Letters) -> int:
    return sum(width(text) for text, _ in letters)
