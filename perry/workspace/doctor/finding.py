"""Findings: what a check saw, how bad it is, and the one thing to do.

A check is a function that looks at one thing and judges it; a table of them by name is gone through
for each subject. A check that fails is a finding too, so that no failure hides the others. This
module must not know what is looked at, or how findings are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec

from perry.errors import PerryError

Level = Literal["ok", "warning", "failure"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "failure")

T = TypeVar("T")


@dataclass(frozen=True)
class About:
    """What findings are about; `workspace` is the name of one, None for the others."""

    subject: Literal["host", "engine", "workspace"]
    workspace: str | None = None


HOST = About("host")
ENGINE = About("engine")


@dataclass(frozen=True)
class Verdict:
    """What a check has to say; `advice` is empty where nothing is to be done."""

    level: Level
    found: str
    advice: str = ""


class Finding(msgspec.Struct, frozen=True):
    """What the check called `name` found, in one line, and what to do about it, in another.

    `workspace` names the workspace where that is the subject, else it is None; `advice` is empty
    where nothing is to be done.
    """

    name: str
    subject: Literal["host", "engine", "workspace"]
    workspace: str | None
    level: Level
    found: str
    advice: str


Check = Callable[[T], Verdict | None]
"""Judges one thing of what it is given; None where there is nothing to say."""


def ok(found: str) -> Verdict:
    """Judge that all is well."""
    return Verdict("ok", found)


def warning(found: str, advice: str) -> Verdict:
    """Judge that perry works, and something should be done."""
    return Verdict("warning", found, advice)


def failure(found: str, advice: str) -> Verdict:
    """Judge that something of perry's doesn't work."""
    return Verdict("failure", found, advice)


def finding(about: About, name: str, verdict: Verdict) -> Finding:
    """Make a finding of a verdict, each of its texts on one line."""
    found, advice = (" ".join(text.split()) for text in (verdict.found, verdict.advice))
    return Finding(name, about.subject, about.workspace, verdict.level, found, advice)


def findings(about: About, checks: Mapping[str, Check[T]], looked_at: T) -> Iterator[Finding]:
    """Go through a table of checks and yield what each one found, its own failure included."""
    for name, check in checks.items():
        verdict = _verdict(check, looked_at)
        if verdict is not None:
            yield finding(about, name, verdict)


def worst(found: Iterable[Finding]) -> Level:
    """Return the worst level of findings; `ok` of none."""
    return max((one.level for one in found), key=LEVELS.index, default="ok")


def _verdict(check: Check[T], looked_at: T) -> Verdict | None:
    try:
        return check(looked_at)
    except PerryError as error:
        return failure(error.message, error.hint)
    except Exception as error:  # noqa: BLE001 - a check that breaks must not hide the others
        words = f"this check itself broke: {type(error).__name__}: {error}"
        return failure(words, "That is a mistake in perry: please report it, with this line.")
