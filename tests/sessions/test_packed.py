"""What is kept in few bytes is what was put in, however often it is packed in between."""

from __future__ import annotations

import subprocess
import sys

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from perry.sessions.packed import Counts, Keys, Numbers, Sums, hash_of, hashes_of, pack, unpack

NUMBER = st.integers(0, 2**64 - 1) | st.integers(0, 9)
KEY = st.uuids().map(str) | st.sampled_from(["a", "b", "1-1", "11", "", "ä\ud800"]) | st.text()


class State(msgspec.Struct, array_like=True):
    numbers: Numbers
    counts: Counts
    keys: Keys
    sums: Sums


def again(state: State) -> State:
    return unpack(pack(state), State)


def new() -> State:
    return State(Numbers(), Counts(), Keys(), Sums())


@given(st.lists(st.lists(NUMBER, max_size=5), max_size=5))
def test_numbers_come_back(runs: list[list[int]]) -> None:
    state = new()
    for run in runs:
        state = again(state)
        state.numbers.extend(run)
    whole = [number for run in runs for number in run]
    assert [state.numbers[place] for place in range(len(state.numbers))] == whole
    if whole:
        state.numbers[0] = 2**64 - 1
        assert again(state).numbers[0] == 2**64 - 1


@given(st.lists(st.lists(st.integers(1, 3) | st.just(2**33), max_size=5), max_size=5))
def test_counts_come_back_and_are_searched(runs: list[list[int]]) -> None:
    state, whole = new(), list[int]()
    for run in runs:
        state = again(state)
        added: list[int] = []
        for step in run:
            whole.append((whole[-1] if whole else 0) + step)
            added.append(whole[-1])
        state.counts.extend(added)
    found = again(state).counts
    assert [found[place] for place in range(len(found))] == whole
    for number in (0, 1, 5, 2**34):
        assert found.after(number) == sum(one <= number for one in whole)


def test_counting_by_one_takes_no_space() -> None:
    counts = Counts()
    counts.extend(range(1, 1000))
    assert len(counts.packed()) < 10


@given(st.lists(st.lists(KEY, max_size=6), max_size=6))
def test_keys_keep_their_places(runs: list[list[str]]) -> None:
    state, places = new(), dict[str, int]()
    for run in runs:
        state = again(state)
        for key in run:
            is_new = key not in places
            assert state.keys.put(key) == (places.setdefault(key, len(places)), is_new)
        assert len(state.keys) == len(places)
    assert all(key in again(state).keys for key in places)
    assert "something else" not in state.keys


def test_keys_are_found_when_many_are_looked_for() -> None:
    keys = Keys()
    for number in range(1000):
        keys.put(str(number))
    kept = Keys(keys.packed())
    assert [kept.put(str(number)) for number in range(1000)] == [(n, False) for n in range(1000)]
    assert kept.put("new") == (1000, True)


@given(st.lists(st.lists(st.tuples(KEY, NUMBER, NUMBER), max_size=5), max_size=5))
def test_sums_count_only_the_last_pair_of_a_key(
    runs: list[list[tuple[str, int, int]]],
) -> None:
    state, last = new(), dict[str, tuple[int, int]]()
    for run in runs:
        state = again(state)
        for key, left, right in run:
            last[key] = left >> 16, right >> 16  # so that the sums fit, too
            state.sums.put(key, *last[key])
    pairs = last.values()
    expected = sum(left for left, _ in pairs), sum(right for _, right in pairs)
    assert state.sums.both() == expected
    assert again(state).sums.both() == expected


@given(st.lists(KEY, max_size=5))
def test_many_hashes_are_those_of_each(keys: list[str]) -> None:
    assert list(hashes_of(keys)) == [hash_of(key) for key in keys]


def test_another_process_makes_the_same_hashes() -> None:
    code = "from perry.sessions.packed import hash_of; print(hash_of('a-key'))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == hash_of("a-key")
