from __future__ import annotations

from collections.abc import Generator

import pytest

from perry.workspace.models import Step
from perry.workspace.progress import at_once, finish, timed


def work() -> Generator[Step, None, int]:
    yield Step("image", "progress", "half")
    return 7


def test_a_step_begins_tells_how_far_it_is_and_ends_with_its_duration() -> None:
    running = timed("image", work(), lambda result: f"got {result}")
    steps = [next(running) for _ in range(3)]
    with pytest.raises(StopIteration) as end:
        next(running)
    assert end.value.value == 7
    assert [(step.name, step.state, step.detail) for step in steps] == [
        ("image", "begun", ""), ("image", "progress", "half"), ("image", "done", "got 7"),
    ]  # fmt: skip
    assert steps[-1].seconds is not None
    assert steps[-1].seconds >= 0


def test_a_step_that_fails_is_never_done() -> None:
    def fail() -> int:
        raise LookupError("no")

    seen = timed("start", at_once(fail), str)
    assert next(seen).state == "begun"
    with pytest.raises(LookupError):
        next(seen)


def test_work_at_once_begins_when_it_is_listened_to() -> None:
    done = []
    generator = at_once(lambda: done.append(1))
    assert done == []
    assert list(generator) == []
    assert done == [1]


def test_finish_gives_the_result_with_nobody_listening() -> None:
    assert finish(timed("image", work(), str)) == 7
    assert finish(at_once(lambda: "x")) == "x"
