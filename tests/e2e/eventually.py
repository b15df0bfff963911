"""Waiting in tests: with a deadline, and saying what was seen last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], wanted: Callable[[T], bool], *, within: float = 5.0) -> T:
    """Look again and again until what is seen is what is wanted."""
    deadline = time.monotonic() + within
    while True:
        seen = look()
        if wanted(seen):
            return seen
        assert time.monotonic() < deadline, f"after {within:g} s still {seen!r}"
        time.sleep(0.02)
