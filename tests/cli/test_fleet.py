from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perry.cli.fleet import Found, Gathered, Place, ask_each, resolved, running, short_ids
from perry.errors import (
    SessionAmbiguous,
    SessionNotFound,
    WorkerUnreachable,
    WorkspaceNotRunning,
)
from perry.sessions.models import Session
from perry.workspace.models import Workspace

Sessions = Callable[..., Session]
Workspaces = Callable[..., Workspace]


@pytest.fixture
def gather(make_session: Sessions, make_workspace: Workspaces) -> Callable[..., Gathered]:
    def make(*ids: str) -> Gathered:
        """Make sessions of `id@workspace`."""
        pairs = [one.split("@") for one in ids]
        found = tuple(
            Found(make_session(id=one), make_workspace(name=place)) for one, place in pairs
        )
        return Gathered(found, {}, tuple({place for _, place in pairs}))

    return make


def test_a_unique_prefix_is_enough(gather: Callable[..., Gathered]) -> None:
    assert resolved("ab", gather("abc@one", "b@two")).session.id == "abc"


def test_a_whole_id_wins_over_longer_ones_that_begin_with_it(
    gather: Callable[..., Gathered],
) -> None:
    assert resolved("ab", gather("ab@one", "abc@one")).session.id == "ab"


def test_an_ambiguous_prefix_lists_the_candidates_with_workspace_and_title(
    gather: Callable[..., Gathered],
) -> None:
    with pytest.raises(SessionAmbiguous) as raised:
        resolved("ab", gather("abc@one", "abd@two", "x@two"))
    assert raised.value.candidates == ("abc", "abd")
    assert "abc  one  claude  Fix the login\n" in raised.value.hint
    assert "abd  two  claude  Fix the login\n" in raised.value.hint


def test_a_copied_session_is_ambiguous_between_its_workspaces(
    gather: Callable[..., Gathered],
) -> None:
    with pytest.raises(SessionAmbiguous):
        resolved("abc", gather("abc@one", "abc@two"))


@pytest.mark.parametrize(
    ("ids", "advice"),
    [
        (("abc@one", "abc@two"), "Give --workspace."),
        (("abc@one", "abd@one"), "Give more of the id."),
        (("abc@one", "abd@two"), "Give more of the id, or --workspace."),
    ],
)
def test_advice_is_only_given_that_can_help(
    gather: Callable[..., Gathered], ids: tuple[str, ...], advice: str
) -> None:
    with pytest.raises(SessionAmbiguous) as raised:
        resolved("ab", gather(*ids))
    assert raised.value.hint.splitlines()[-1] == advice


def test_one_id_of_two_coding_agents_is_told_apart_by_them(
    make_session: Sessions, make_workspace: Workspaces
) -> None:
    found = [Found(make_session(agent_type=agent), make_workspace()) for agent in ("pi", "codex")]
    with pytest.raises(SessionAmbiguous) as raised:
        resolved("4f2a", Gathered(tuple(found), {}, ("demo",)))
    assert raised.value.hint.splitlines()[-1] == "Give --agent."


def test_many_candidates_are_counted_and_not_all_listed(gather: Callable[..., Gathered]) -> None:
    with pytest.raises(SessionAmbiguous, match=r"fits 25 sessions") as raised:
        resolved("a", gather(*(f"a{n}@one" for n in range(25))))
    assert "and 15 more" in raised.value.hint


@pytest.mark.parametrize("prefix", ["", "y", "../abc", "%2e"])
def test_an_id_of_no_session_is_not_found(gather: Callable[..., Gathered], prefix: str) -> None:
    with pytest.raises(SessionNotFound):
        resolved(prefix, gather("abc@one"))


def test_not_found_names_who_could_not_be_asked_and_why(
    gather: Callable[..., Gathered],
) -> None:
    gathered = Gathered(gather("abc@one").found, {"two": WorkerUnreachable("gone")}, ("one", "two"))
    with pytest.raises(SessionNotFound) as raised:
        resolved("y", gathered)
    assert raised.value.hint.splitlines()[1:] == ["  two: gone"]


def test_workspaces_are_asked_at_once_and_failures_are_kept_apart(
    make_workspace: Workspaces,
) -> None:
    workspaces = [make_workspace(name=name) for name in ("a", "b", "c")]
    together = threading.Barrier(3, timeout=10)

    def question(workspace: Place) -> str:
        together.wait()
        if workspace.name == "b":
            raise WorkerUnreachable("gone")
        return workspace.name.upper()

    answers, failures = ask_each(workspaces, question, seconds=10)
    assert answers == {"a": "A", "c": "C"}
    assert list(failures) == ["b"]


def test_a_workspace_that_is_too_slow_does_not_hold_up_the_others(
    make_workspace: Workspaces,
) -> None:
    never = threading.Event()
    workspaces = [make_workspace(name="slow"), make_workspace(name="quick")]
    began = time.monotonic()
    try:
        answers, failures = ask_each(
            workspaces, lambda one: one.name == "quick" or never.wait(30), seconds=0.3
        )
    finally:
        never.set()
    assert time.monotonic() - began < 5
    assert answers == {"quick": True}
    assert "has not answered within 0.3 s" in failures["slow"].message


def test_a_stopped_workspace_that_takes_too_long_is_told_of_as_one(
    make_workspace: Workspaces,
) -> None:
    never = threading.Event()
    stopped = make_workspace(name="big", state="exited")
    try:
        _, failures = ask_each([stopped], lambda _: never.wait(30), seconds=0.1)
    finally:
        never.set()
    assert "big (exited) were not copied within 0.1 s" in failures["big"].message
    assert "perry workspace start big" in failures["big"].hint


def test_an_error_that_nobody_foresaw_is_not_swallowed(make_workspace: Workspaces) -> None:
    def question(_: Place) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask_each([make_workspace()], question, seconds=10)


def test_only_running_workspaces_are_asked(make_workspace: Workspaces) -> None:
    there = [make_workspace(name="a"), make_workspace(name="b", state="exited")]
    assert [one.name for one in running(there, None)] == ["a"]
    with pytest.raises(WorkspaceNotRunning, match="exited"):
        running(there[1:], "b")


def test_short_ids_have_8_characters_or_what_tells_them_apart() -> None:
    assert short_ids(["0123456789", "abcdefghi1", "abcdefghi2"]) == {
        "0123456789": "01234567",
        "abcdefghi1": "abcdefghi1",
        "abcdefghi2": "abcdefghi2",
    }


@given(st.lists(st.text("ab", min_size=1, max_size=14), unique=True))
def test_a_short_id_finds_its_session_again(ids: list[str]) -> None:
    for whole, short in short_ids(ids).items():
        fitting = [one for one in ids if one == short] or [
            one for one in ids if one.startswith(short)
        ]
        assert fitting == [whole]
