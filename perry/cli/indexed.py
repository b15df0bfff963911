"""A search that the agent daemon answers out of the archive, whose index has everything at once.

Where no daemon runs the workers look for themselves, which is `perry.cli.search`'s to know. This
module must not know how the archive finds anything.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from perry.cli import findings, render
from perry.cli.agent import connect
from perry.cli.text import counted, one_line
from perry.errors import AgentRefusal, AgentUnreachable, PerryError, UsageError

if TYPE_CHECKING:
    from perry.archive.models import Filters
    from perry.client.agent_client import AgentFound

NOT_FOUND = 404

BY_ARCHIVE = ("directory", "role", "tool", "until")
"""Filters that only the archive knows."""


def ask(words: str, filters: Filters, limit: int, port: int) -> AgentFound | None:
    """Have the daemon search; None where none runs, or none that knows the workspace.

    Raises UsageError where nobody else could answer, and AgentError.
    """
    only = next((name for name in BY_ARCHIVE if getattr(filters, name) is not None), None)
    try:
        with connect(port) as client:
            return client.search(words, filters, limit=limit)
    except AgentUnreachable as error:
        if only is None:
            return None
        raise UsageError(
            f"--{only} is for a search of the archive, and no agent daemon of yours runs.",
            hint="perry agent serve starts one.",
        ) from error
    except AgentRefusal as error:
        if error.status == NOT_FOUND and only is None:
            return None  # a workspace that was made a moment ago, or one of another engine
        raise


def as_lines(found: AgentFound) -> None:
    """Print what was found for people."""
    told = findings.ranked(found, now=time.time(), columns=render.room(), paint=render.styled)
    for line in told:
        render.line(line)


def as_json(found: AgentFound) -> None:
    """Print what was found as one JSON object."""
    views: list[dict[str, Any]] = [*findings.ranked_views(found)]
    render.as_json({"hits": views, "pending": found.pending})


def asides(found: AgentFound, limit: int) -> None:
    """Say on stderr what the answer lacks."""
    for one in found.failures:
        render.failed(PerryError(one.error, hint=one.hint or ""))
    if found.pending:
        told = f"the archive has yet to take in {counted(found.pending, 'session')}"
        render.line(told, stream=sys.stderr)
    if found.hits and len(found.hits) >= limit:
        told = one_line(f"only {counted(len(found.hits), 'hit')}; --limit shows more")
        render.line(told, stream=sys.stderr)
