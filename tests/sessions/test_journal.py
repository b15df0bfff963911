"""What the journal promises: from any position every change, or None, and bounded memory."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from perry.sessions.index import SessionIndex
from perry.sessions.journal import CAPACITY, WEIGHT, Change, Journal, changes_between, weight
from perry.sessions.models import Session
from perry.sessions.source import Entry
from tests.sessions.homes import user

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.sessions.homes import ClaudeHome

Counts = dict[str, int]
"""How many messages each session has."""


def entries(counts: Counts) -> dict[str, Entry]:
    return {
        name: Entry(Session(name, "claude", name, "/", "/f", count, None, count), "/f", name)
        for name, count in counts.items()
    }


def journal_of(capacity: int = CAPACITY, **more: Any) -> Journal[Session]:
    return Journal(capacity, weigh=weight, **more)


def record(journal: Journal[Session], *states: Counts) -> None:
    for before, after in itertools.pairwise(states):
        journal.add(changes_between("claude", entries(before), entries(after)))


def told(
    journal: Journal[Session], position: int, limit: int = 1000
) -> list[tuple[str, str, int | None]]:
    unread = journal.since(position, limit)
    assert unread is not None
    return [
        (one.kind, one.key[-1], one.now.message_count if one.now else None)
        for one in unread.changes
    ]


def test_a_session_is_created_updated_and_deleted() -> None:
    journal = journal_of()
    record(journal, {}, {"a": 1}, {"a": 2}, {})
    assert journal.position == 3
    assert told(journal, 2) == [("deleted", "a", None)]
    assert told(journal, 3) == []


def test_a_session_without_messages_does_not_exist() -> None:
    journal = journal_of()
    record(journal, {}, {"a": 0}, {"a": 1}, {"a": 0}, {})
    assert journal.position == 2
    assert told(journal, 1) == [("deleted", "a", None)]


def test_what_is_as_before_is_no_change() -> None:
    journal = journal_of()
    record(journal, {}, {"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 2})
    assert told(journal, 2) == [("updated", "b", 2)]


def test_every_change_is_told_as_it_was() -> None:
    journal = journal_of()
    record(journal, {}, {"a": 1}, {"a": 2, "b": 1}, {"a": 3, "b": 1}, {"b": 1})
    assert told(journal, 0) == [
        ("created", "a", 1),
        ("updated", "a", 2),
        ("created", "b", 1),
        ("updated", "a", 3),
        ("deleted", "a", None),
    ]


def test_a_batch_ends_where_the_next_begins() -> None:
    journal = journal_of()
    record(journal, {}, {f"s{number}": 1 for number in range(10)})
    position, seen = 0, []
    while (unread := journal.since(position, 3)) and unread.changes:
        assert len(unread.changes) <= 3
        position = unread.position
        seen += [change.key[-1] for change in unread.changes]
    assert seen == [f"s{number}" for number in range(10)]


def test_positions_that_fell_out_or_never_were_are_told_apart_from_no_change() -> None:
    journal = journal_of(capacity=3)
    record(journal, {}, {f"s{number}": 1 for number in range(5)})
    assert journal.since(1) is None
    assert told(journal, 2) == [("created", f"s{number}", 1) for number in (2, 3, 4)]
    assert told(journal, 5) == []
    assert journal.since(6) is None


def test_a_journal_that_was_kept_goes_on_where_it_was() -> None:
    kept: list[Change[Session]] = []
    first = journal_of(keep=kept.extend)
    record(first, {}, {"a": 1}, {"a": 2}, {"a": 2, "b": 1})
    second = journal_of(run=first.run, known=kept[1:], position=first.position)
    record(second, {"a": 2}, {})
    assert told(second, 1) == [("updated", "a", 2), ("created", "b", 1), ("deleted", "a", None)]
    assert second.since(0) is None


def test_long_texts_are_forgotten_sooner_than_many_changes() -> None:
    journal = journal_of()
    for number in range(8):
        prompt = str(number) * (WEIGHT // 4)
        session = Session("a", "claude", "a", "/", "/f", number, prompt, number)
        journal.add([("updated", ("claude", "a"), session)])
    assert journal.since(4) is None
    assert told(journal, 5) == [("updated", "a", number) for number in (5, 6, 7)]


def test_listeners_are_called_after_the_change_until_they_leave() -> None:
    journal = journal_of()
    positions: list[int] = []

    def listener() -> None:
        positions.append(journal.position)

    journal.listen(listener)
    record(journal, {}, {"a": 1}, {"a": 1}, {"a": 2})
    journal.unlisten(listener)
    journal.unlisten(listener)
    record(journal, {"a": 2}, {"a": 3})
    assert positions == [1, 2]


def applied(state: Mapping[str, Session], change: Change[Session]) -> dict[str, Session]:
    rest = {name: session for name, session in state.items() if name != change.key[-1]}
    return rest if change.now is None else {**rest, change.key[-1]: change.now}


@settings(max_examples=1000)
@given(
    st.lists(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3)), max_size=12),
    st.lists(st.integers(0, 12), max_size=6),
    st.integers(1, 8),
    st.integers(1, 4),
)
def test_whoever_applies_what_is_told_has_what_the_index_has(
    states: list[Counts], reads: list[int], capacity: int, limit: int
) -> None:
    journal = journal_of(capacity)
    mirror: dict[str, Session] = {}
    position, before = 0, dict[str, Entry]()
    for number, state in enumerate(states):
        after = entries(state)
        journal.add(changes_between("claude", before, after))
        before = after
        if number not in reads and number != len(states) - 1:
            continue
        listed = {name: one.session for name, one in after.items() if one.session.message_count}
        while (unread := journal.since(position, limit)) and unread.position > position:
            for change in unread.changes:
                mirror = applied(mirror, change)
            position = unread.position
        if unread is None:
            mirror, position = listed, journal.position
        assert mirror == listed


def test_the_index_tells_what_it_shows(claude: ClaudeHome) -> None:
    index = SessionIndex.of_home(claude.home, {})
    index.refresh()
    path = claude.write("one.jsonl", [user("a")])
    index.apply([path])
    claude.append("one.jsonl", [user("b")])
    start = index.journal.position
    index.apply([path])
    assert told(index.journal, 0) == [("created", "one", 1), ("updated", "one", 2)]
    index.delete("one")
    assert told(index.journal, start) == [("updated", "one", 2), ("deleted", "one", None)]
