"""Steps with their durations: how the verbs that take a while tell what they do.

A verb is a generator that yields steps and returns its result. It must not know who listens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from time import monotonic
from typing import TypeVar

from perry.workspace.models import Step, StepName

T = TypeVar("T")


def timed(
    name: StepName, work: Generator[Step, None, T], describe: Callable[[T], str]
) -> Generator[Step, None, T]:
    """Do one step's work between its beginning and its end, and return what came of it."""
    began = monotonic()
    yield Step(name, "begun")
    result = yield from work
    yield Step(name, "done", describe(result), monotonic() - began)
    return result


def at_once(work: Callable[[], T]) -> Generator[Step, None, T]:
    """Make work of a call that has nothing to tell before it is done."""
    yield from ()
    return work()


def finish(work: Generator[Step, None, T]) -> T:
    """Do the work with nobody listening, and return what came of it."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
