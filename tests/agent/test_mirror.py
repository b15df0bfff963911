"""What the mirror and its ledger promise: what is told is kept, and survives the daemon."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perry.agent.ledger import Ledger
from perry.agent.mirror import Mirror
from perry.agent.models import Place, PlacedSession
from perry.errors import LedgerUnwritable
from perry.sessions.models import Session

HERE = Place("demo", "running", "worker")


def session(name: str, count: int = 1) -> Session:
    return Session(name, "claude", name, "/", "/f", count, None, count)


def listed(mirror: Mirror) -> dict[tuple[str, str], int]:
    return {(one.workspace, one.id): one.message_count for one in mirror.sessions(children=True)}


def told(ledger: Ledger, position: int) -> list[tuple[str, str]]:
    unread = ledger.journal.since(position)
    assert unread is not None
    return [(change.kind, change.key[-1]) for change in unread.changes]


def test_a_place_is_listed_newest_first_and_its_changes_are_told(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    mirror = Mirror(ledger)
    mirror.replace(HERE, [session("a", 1), session("b", 2)])
    assert [one.id for one in mirror.sessions()] == ["b", "a"]
    position = ledger.journal.position
    mirror.put("demo", session("a", 3))
    mirror.put("demo", session("a", 3))
    mirror.drop("demo", "claude", "b")
    mirror.drop("demo", "claude", "never")
    assert [one.id for one in mirror.sessions()] == ["a"]
    assert told(ledger, position) == [("updated", "a"), ("deleted", "b")]


def test_what_was_told_has_the_same_place_after_a_restart(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "ledger")
    mirror = Mirror(first)
    mirror.replace(HERE, [session("a"), session("b"), session("c")])
    position = first.journal.position
    mirror.put("demo", session("a", 5))
    mirror.drop("demo", "claude", "b")
    first.close()

    second = Ledger(tmp_path / "ledger")
    again = Mirror(second)
    assert second.journal.run == first.journal.run
    assert told(second, position) == [("updated", "a"), ("deleted", "b")]
    assert listed(again) == {("demo", "a"): 5, ("demo", "c"): 1}
    assert again.place("demo") == Place("demo", "running", "memory", 0)
    after = second.journal.position
    again.replace(HERE, [session("a", 5), session("d")])
    assert told(second, after) == [("created", "d"), ("deleted", "c"), ("updated", "demo")]


def test_a_killed_daemon_has_kept_all_that_it_told(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from perry.agent.ledger import Ledger
from perry.agent.mirror import Mirror
from perry.sessions.models import Session
ledger = Ledger(Path(sys.argv[1]))
mirror = Mirror(ledger)
for number in range(50):
    mirror.put("demo", Session(f"s{number}", "claude", "t", "/", "/f", 1, None, number))
print(ledger.journal.run, ledger.journal.position, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "ledger")],
        capture_output=True,
        text=True,
        check=False,
    )
    run, position = killed.stdout.split()
    ledger = Ledger(tmp_path / "ledger")
    assert (ledger.journal.run, ledger.journal.position) == (run, int(position))
    assert len(listed(Mirror(ledger))) == 50


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_broken_ledger_is_set_aside_and_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger"
    first = Ledger(path)
    Mirror(first).put("demo", session("a"))
    first.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(f"ledger{suffix}").unlink(missing_ok=True)
    path.write_bytes(content)
    ledger = Ledger(path)
    assert listed(Mirror(ledger)) == {}
    Mirror(ledger).put("demo", session("b"))
    ledger.close()
    assert len(Ledger(path).things()) == 1
    kept = [one.read_bytes() for one in tmp_path.glob("ledger.broken-*")]
    assert kept == ([content] if content else [])


def test_what_cannot_be_kept_is_neither_told_nor_shown(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    mirror = Mirror(ledger)
    mirror.replace(HERE, [session("a")])
    position = ledger.journal.position
    big = Session("big", "claude", "x" * 100_000, "/", "/f", 1, None, 9)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(LedgerUnwritable, match="can't write"):
            mirror.put("demo", big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert told(ledger, position) == []
    assert listed(mirror) == {("demo", "a"): 1}
    mirror.put("demo", big)
    assert told(ledger, position) == [("created", "big")]


def test_a_ledger_that_another_daemon_uses_is_left_alone(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "ledger")
    with pytest.raises(LedgerUnwritable, match="locked"):
        Ledger(tmp_path / "ledger")
    Mirror(first).put("demo", session("a"))
    first.close()
    assert len(Ledger(tmp_path / "ledger").things()) == 1


def test_a_forgotten_place_takes_its_sessions_along(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    mirror = Mirror(ledger)
    mirror.replace(HERE, [session("a")])
    position = ledger.journal.position
    mirror.forget("demo")
    assert told(ledger, position) == [("deleted", "a"), ("deleted", "demo")]
    assert mirror.places() == ()
    ledger.close()
    assert listed(Mirror(Ledger(tmp_path / "ledger"))) == {}


Counts = dict[str, int]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["one", "two"]),
            st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3)),
        ),
        max_size=10,
    ),
    st.sets(st.integers(0, 10)),
)
def test_a_reader_that_comes_back_after_restarts_has_what_is_listed(
    tmp_path_factory: pytest.TempPathFactory,
    states: list[tuple[str, Counts]],
    restarts: set[int],
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger"
    ledger = Ledger(path)
    mirror, position, copy = Mirror(ledger), 0, dict[tuple[str, str], int]()
    for number, (place, state) in enumerate(states):
        mirror.replace(Place(place, "running", "worker"), map(session, state, state.values()))
        if number in restarts:
            ledger.close()
            ledger = Ledger(path)
            mirror = Mirror(ledger)
            continue
        while (unread := ledger.journal.since(position, 2)) and unread.position > position:
            for change in unread.changes:
                if isinstance(change.now, PlacedSession):
                    copy[change.now.workspace, change.now.id] = change.now.message_count
                elif len(change.key) > 1:
                    copy.pop((change.key[0], change.key[2]), None)
            position = unread.position
        assert copy == listed(mirror)
    ledger.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["one", "two"]),
            st.sampled_from("abcdef"),
            st.integers(0, 4),
            st.sampled_from([None, "a"]),
        ),
        max_size=30,
    )
)
def test_a_list_that_follows_each_change_is_the_list_made_anew(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[str, str, int, str | None]],
) -> None:
    """A session without messages stands for one that goes."""
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger")
    mirror = Mirror(ledger)
    for place, name, count, parent in changes:
        if count:
            mirror.put(place, msgspec.structs.replace(session(name, count), parent_id=parent))
        else:
            mirror.drop(place, "claude", name)
        for children in (True, False):
            kept = mirror.sessions(children=children)
            assert [one.last_activity for one in kept] == sorted(
                (one.last_activity for one in kept), reverse=True
            )
            there = {(one.workspace, one.id): one for one in kept}
            assert len(there) == len(kept)
            assert there == {
                (one.workspace, one.id): one
                for where in ("one", "two")
                for one in mirror.sessions(workspace=where, children=True)
                if children or one.parent_id is None
            }
    ledger.close()
