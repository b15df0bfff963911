"""How hits look: lines that fit, words in sight, nothing of a worker's that could do harm."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perry.cli.findings import lines, marked, views
from perry.cli.text import width
from perry.sessions.models import Hit, SearchPage, Session

NOW = 1_700_000_000.0
MakeSession = Callable[..., Session]


def star(text: str, style: str) -> str:
    return f"*{text}*" if style == "1" else text


def plain(text: str, _: str) -> str:
    return text


def hit(session: str = "4f2a0000-1", **changes: object) -> Hit:
    made = {
        "session_id": session,
        "agent_type": "claude",
        "type": "user",
        "position": 3,
        "timestamp": "2023-11-14T21:13:20Z",
        "snippet": "the cart is empty",
        "marks": ((4, 8),),
    }
    return Hit(**{**made, **changes})  # type: ignore[arg-type]  # Hit's own keywords


def test_hits_stand_below_their_session(make_session: MakeSession) -> None:
    sessions = (make_session(id="4f2a0000-1"), make_session(id="beef0000-2", title="Other"))
    hits = (hit(), hit(type="tool_result", timestamp=None), hit("beef0000-2"))
    told = list(lines("demo", SearchPage(sessions, hits), now=NOW, columns=80, paint=star))
    assert told == [
        "4f2a0000  demo  claude  *Fix the login*",
        "  user         1 hour ago    the *cart* is empty",
        "  tool result  just now      the *cart* is empty",
        "",
        "beef0000  demo  claude  *Other*",
        "  user         1 hour ago    the *cart* is empty",
    ]


def test_a_title_is_shown_as_what_was_found(make_session: MakeSession) -> None:
    found = hit(type="title", position=0, snippet="Fix the login", marks=((8, 13),))
    page = SearchPage((make_session(id="4f2a0000-1"),), (found,))
    assert list(lines("demo", page, now=NOW, columns=80, paint=star)) == [
        "4f2a0000  demo  claude  *Fix the login*",
        "  title        1 hour ago    Fix the *login*",
    ]


def test_in_a_pipe_ids_and_snippets_are_whole_and_plain(make_session: MakeSession) -> None:
    page = SearchPage((make_session(),), (hit(make_session().id, snippet="x " * 200 + "cart"),))
    head, line = lines("demo", page, now=NOW, columns=None, paint=plain)
    assert head.startswith(make_session().id)
    assert line.endswith("x " * 200 + "cart")


@pytest.mark.parametrize("columns", [20, 40, 51])
@pytest.mark.parametrize("before", ["", "a " * 10, "a " * 100, "漢" * 60])
@pytest.mark.parametrize("after", ["", " b" * 10, " b" * 100, "字" * 60])
def test_a_line_fits_and_shows_its_first_mark(columns: int, before: str, after: str) -> None:
    place = len(before)
    told = marked(f"{before}cart{after}", ((place, place + 4),), columns, star)
    assert "*cart*" in told
    assert width(told) - 2 <= columns


@pytest.mark.parametrize(
    "marks", [((-5, 2),), ((2, 900),), ((9, 3),), ((0, 3), (1, 4), (0, 1)), ((70, 80),)]
)
def test_marks_that_make_no_sense_do_no_harm(marks: tuple[tuple[int, int], ...]) -> None:
    assert marked("some words", marks, 40, plain) == "some words"


def test_control_characters_are_shown_and_not_obeyed(make_session: MakeSession) -> None:
    bad = "a\x1b[2J\nb\x07"
    session = make_session(id="4f2a0000-1\x1b", title=bad)
    page = SearchPage((session,), (hit(session.id, snippet=bad, marks=((0, 99),)),))
    for columns in (None, 80):
        told = list(lines("de\x1bmo", page, now=NOW, columns=columns, paint=plain))
        assert len(told) == 2
        assert all(line.isprintable() for line in told)


def test_hits_of_a_session_that_was_not_sent_are_shown(make_session: MakeSession) -> None:
    del make_session
    head, line = lines("demo", SearchPage((), (hit(),)), now=NOW, columns=80, paint=plain)
    assert head == "4f2a0000-1  demo  claude  4f2a0000-1"
    assert "cart" in line


def test_the_json_of_a_hit_has_the_pinned_keys(make_session: MakeSession) -> None:
    (view,) = views("demo", SearchPage((make_session(id="4f2a0000-1"),), (hit(),)))
    assert view == {
        "workspace": "demo",
        "title": "Fix the login",
        "sessionId": "4f2a0000-1",
        "agentType": "claude",
        "type": "user",
        "position": 3,
        "timestamp": "2023-11-14T21:13:20Z",
        "snippet": "the cart is empty",
        "marks": ((4, 8),),
    }
