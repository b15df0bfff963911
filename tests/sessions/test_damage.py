"""Whatever became of the bytes: no reader is defeated, and all counts agree.

Logs are damaged as disks, editors and kills do it, and what the OpenCode client stores holds what
nobody would store. Each is read twice with a change in between, and must be as a fresh index has
it.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from perry.sessions.index import SessionIndex
from perry.sessions.search import search, words_in
from tests.sessions.fuzzing import examples
from tests.sessions.homes import Home, as_bytes, assert_invariant, every_message
from tests.sessions.test_growth import JSON, LINE, PLACES, RECORDS, TURN, WHOLE
from tests.sessions.test_opencode import SCHEMA, Database

if TYPE_CHECKING:
    from pathlib import Path

Damage = tuple[str, int, int, bytes]

DAMAGES = st.lists(
    st.tuples(
        st.sampled_from(["cut", "flip", "insert", "repeat", "end"]),
        st.integers(0, 2000),
        st.integers(1, 40),
        st.binary(min_size=1, max_size=8)
        | st.sampled_from(
            [b"\n", b"\\ud83d", b"\\u0000", b'"', b"{", b"}", b"[", b"1e999", b"\xef\xbb\xbf"]
        ),
    ),
    max_size=5,
)
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def damaged(data: bytes, damages: list[Damage]) -> bytes:
    for kind, at, length, extra in damages:
        place = at % (len(data) + 1)
        before, after = data[:place], data[place:]
        match kind:
            case "cut":
                data = before + after[length:]
            case "flip":
                data = before + bytes(letter ^ extra[0] for letter in after[:1]) + after[1:]
            case "insert":
                data = before + extra + after
            case "repeat":
                data = before + after[:length] * 2 + after[length:]
            case "end":
                data = before
    return data


def assert_reads_as_fresh(index: SessionIndex, home: Path) -> None:
    """Compare an index that followed with one that begins, and ask both for everything."""
    fresh = SessionIndex.of_home(home, {})
    fresh.refresh()
    assert fresh.unreadable() == {}
    assert_invariant(index)
    assert fresh.list(children=True) == index.list(children=True)
    assert fresh.skipped_lines() == index.skipped_lines()
    assert msgspec.json.encode(fresh.list(children=True))
    for session in fresh.list(children=True):
        messages = every_message(fresh, session.id)
        assert messages == every_message(index, session.id)
        assert msgspec.json.encode(messages)


def replace(path: Path, data: bytes) -> None:
    """Put another file in a file's place, as clients do; one changed in place may look the same."""
    other = path.with_name("other.tmp")
    other.write_bytes(data)
    other.replace(path)


def emptied(home: Path) -> Path:
    for left in home.iterdir():
        shutil.rmtree(left)
    return home


@pytest.mark.parametrize("agent", PLACES)
@settings(max_examples=examples(80), deadline=None, suppress_health_check=QUIET)
@given(first=DAMAGES, then=DAMAGES, grows=st.booleans(), cut=st.integers(0, 2000))
def test_a_damaged_log_is_read_as_far_as_it_can_be(
    tmp_path: Path, agent: str, first: list[Damage], then: list[Damage], grows: bool, cut: int
) -> None:
    home = Home(emptied(tmp_path))
    whole = damaged(as_bytes(WHOLE[agent]), first)
    path = home.write(PLACES[agent], [whole[:cut]])
    index = home.index()
    if grows:
        with path.open("ab") as file:
            file.write(whole[cut:])
    else:
        replace(path, damaged(whole, then))
    index.refresh()
    assert_reads_as_fresh(index, tmp_path)


DOCUMENT = st.fixed_dictionaries(
    {"sessionId": st.just("one") | JSON},
    optional={
        "messages": st.lists(TURN | JSON, max_size=4) | JSON,
        "startTime": JSON,
        "lastUpdated": JSON,
        "projectHash": JSON,
        "summary": JSON,
        "directories": JSON,
    },
)


@settings(max_examples=examples(80), deadline=None, suppress_health_check=QUIET)
@given(first=DOCUMENT | JSON, then=DOCUMENT | JSON, damages=DAMAGES)
def test_whatever_a_gemini_document_says_the_counts_agree(
    tmp_path: Path, first: object, then: object, damages: list[Damage]
) -> None:
    path = emptied(tmp_path) / ".gemini/tmp/p/chats/session-one.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(first))
    index = Home(tmp_path).index()
    replace(path, damaged(json.dumps(then).encode(), damages))
    index.refresh()
    assert_reads_as_fresh(index, tmp_path)


TIME = JSON | st.fixed_dictionaries(
    {}, optional={"created": JSON, "updated": JSON, "start": JSON, "end": JSON}
)
STATE = JSON | st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["completed", "error", "running"]) | JSON,
        "input": JSON, "output": JSON, "error": JSON, "time": TIME,
        "attachments": JSON | st.lists(st.fixed_dictionaries({"mime": JSON}), max_size=2),
    },
)  # fmt: skip
STORED_PART = JSON | st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "reasoning", "tool", "file", "subtask", "odd"])},
    optional={
        "text": st.text(max_size=8) | JSON, "synthetic": st.booleans() | JSON, "tool": JSON,
        "callID": JSON, "state": STATE, "mime": JSON, "filename": JSON, "prompt": JSON,
        "time": TIME,
    },
)  # fmt: skip
STORED_MESSAGE = JSON | st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]) | JSON},
    optional={"time": TIME, "modelID": JSON, "path": JSON, "tokens": JSON, "summary": JSON},
)
STORED_SESSION = JSON | st.fixed_dictionaries(
    {},
    optional={
        "id": JSON, "title": JSON, "directory": JSON, "parentID": JSON, "time": TIME,
    },
)  # fmt: skip
NAME = st.sampled_from("ab")
FILE = (
    st.tuples(NAME.map("session/p/ses_{}.json".format), STORED_SESSION)
    | st.tuples(
        st.builds("message/ses_{}/msg_{}.json".format, NAME, NAME),
        STORED_MESSAGE,
    )
    | st.tuples(
        st.builds("part/msg_{}/prt_{}.json".format, NAME, NAME),
        STORED_PART,
    )
)
FILES = st.lists(st.tuples(FILE, DAMAGES | st.just([])), max_size=8)


def store(home: Path, files: list[tuple[tuple[str, object], list[Damage]]]) -> list[Path]:
    paths = []
    for (name, value), damages in files:
        path = home / ".local/share/opencode/storage" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, damaged(json.dumps(value).encode(), damages))
        paths.append(path)
    return paths


@settings(max_examples=examples(80), deadline=None, suppress_health_check=QUIET)
@given(first=FILES, then=FILES, by_name=st.booleans())
def test_whatever_opencodes_files_say_the_counts_agree(
    tmp_path: Path,
    first: list[tuple[tuple[str, object], list[Damage]]],
    then: list[tuple[tuple[str, object], list[Damage]]],
    by_name: bool,
) -> None:
    store(emptied(tmp_path), first)
    index = Home(tmp_path).index()
    changed = store(tmp_path, then)
    if by_name:
        index.apply(changed)
    else:
        index.refresh()
    assert_reads_as_fresh(index, tmp_path)


CELL = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=6).filter(lambda text: "\x00" not in text)
    | st.binary(max_size=6)
)
STORED = JSON.map(json.dumps) | STORED_PART.map(json.dumps) | STORED_MESSAGE.map(json.dumps) | CELL
LETTER = st.sampled_from("abc")
ROW = st.one_of(
    st.tuples(st.just("session"), st.tuples(LETTER | CELL, LETTER | CELL, CELL, CELL, CELL, CELL)),
    # The message of a letter is in the session of that letter, as are its parts.
    st.tuples(
        st.just("message"),
        LETTER.flatmap(
            lambda key: st.tuples(
                st.just(key) | CELL, st.just(key), CELL, STORED_MESSAGE.map(json.dumps) | CELL
            )
        ),
    ),
    st.tuples(
        st.just("part"),
        LETTER.flatmap(
            lambda key: st.tuples(LETTER | CELL, st.just(key), st.just(key), CELL, STORED)
        ),
    ),
)
COLUMNS = {
    "session": "id, parent_id, directory, title, time_created, time_updated",
    "message": "id, session_id, time_created, data, time_updated",
    "part": "id, message_id, session_id, time_created, data, time_updated",
}
LOOSE = SCHEMA.replace(" NOT NULL", "")
"""The client's tables without its promises: SQLite keeps any type in any column, and no key."""

Row = tuple[str, tuple[Any, ...]]


@settings(max_examples=examples(80), deadline=None, suppress_health_check=QUIET)
@given(first=st.lists(ROW, max_size=8), then=st.lists(ROW, max_size=4))
@example(
    first=[("session", ("a", None, None, None, 1, 1)), ("message", ("a", "a", 1, '{"role":1}'))],
    then=[("message", (None, "a", 2, "{}")), ("part", ("p", "a", "a", 1, '{"type":"tool"}'))],
)
def test_whatever_opencodes_rows_say_the_counts_agree(
    tmp_path: Path, first: list[Row], then: list[Row]
) -> None:
    database = Database(emptied(tmp_path))
    database.run(schema=LOOSE)
    fill(database, first, at=1)
    index = database.index()
    fill(database, then, at=100)
    index.refresh()
    assert_reads_as_fresh(index, tmp_path)


def fill(database: Database, rows: list[Row], at: int) -> None:
    """Put rows in, which the client stamps with the time, `at` and later."""
    with closing(sqlite3.connect(database.path)) as connection:
        for moment, (table, values) in enumerate(rows, at):
            row = values if table == "session" else (*values, moment)
            marks = ", ".join("?" * len(row))
            into = f"INSERT OR REPLACE INTO {table} ({COLUMNS[table]})"
            connection.execute(f"{into} VALUES ({marks})", row)
        connection.commit()


LOGS = {
    "claude": LINE,
    **{name: line.map(lambda one: json.dumps(one).encode()) for name, line in RECORDS.items()},
}


@pytest.mark.parametrize("agent", LOGS)
@settings(max_examples=examples(40), deadline=None, suppress_health_check=QUIET)
@given(data=st.data())
def test_every_word_of_every_title_and_message_is_found(
    tmp_path: Path, agent: str, data: st.DataObject
) -> None:
    lines = data.draw(st.lists(LOGS[agent], max_size=5))
    written = b"\n".join(lines)
    index = Home(emptied(tmp_path))
    index.write(PLACES[agent], [written + b"\n"])
    found = index.index()
    for session in found.list(children=True):
        for place, message in enumerate(every_message(found, session.id)):
            for word in words_in(message.content)[:3]:
                hits = [hit.position for one, hit in search(found, [word]) if one == session]
                assert place in hits, word
        for word in words_in(session.title)[:3]:
            assert session in {one for one, _ in search(found, [word])}, word
