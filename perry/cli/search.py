"""`perry session search`: words in the sessions of the host and all workspaces.

Where an agent daemon runs, it answers out of the archive. Where none does, each place searches for
itself, at the same time as the others, and what it found is printed at the moment that it answers.
How a hit looks, and how workers are reached, is known elsewhere.
"""

from __future__ import annotations

import re
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perry.cli import findings, indexed, render, snapshots
from perry.cli.connection import connect_fleet
from perry.cli.listening import Ended, merged
from perry.cli.options import Agent, InWorkspace, examples
from perry.cli.text import DAY, HOUR, MINUTE, counted, harmless
from perry.errors import UsageError
from perry.protocol import AGENT_PORT
from perry.sessions.models import HitType
from perry.sessions.records import epoch, milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perry.archive.models import Filters
    from perry.cli.fleet import Fleet, Place
    from perry.client.agent_client import AgentFound
    from perry.sessions.models import SearchPage

MOST = 1000
"""Hits that a worker gives at most."""

UNITS = {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}
_AGE = re.compile(r"(\d{1,9})([smhdw])")

EPILOG = examples(
    "perry session search empty cart",
    """perry session search '"the cart is empty"' 'reload*' --role user""",
    "perry session search TypeError --since 3d --until 1d --agent claude",
    "perry session search login --json | jq -r '.hits[].sessionId'",
)


def search(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORDS...", help="Words to look for: all of them, in any case and order."
        ),
    ],
    workspace: InWorkspace = None,
    agent: Agent = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="Nothing older: 2h, 3d, 2026-11-20, or ISO 8601."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Nothing that new; told like --since.")
    ] = None,
    directory: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Only sessions in that directory, or below."),
    ] = None,
    role: Annotated[
        HitType | None,
        typer.Option(
            metavar="ROLE",
            help="Only user, assistant, thinking, tool_use, tool_result, system or title.",
        ),
    ] = None,
    tool: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only calls and results of that tool.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=MOST, help="At most N finds.")] = 50,
    port: Annotated[
        int, typer.Option(metavar="N", min=1, max=65535, help="The agent daemon's port.")
    ] = AGENT_PORT,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON: one object, when all have answered.")
    ] = False,
) -> None:
    """Find the messages and the titles that hold all of some words.

    Where an agent daemon runs it answers at once, from the archive too: the best of the newest
    come first, "phrases in quotes" and prefixes* are found as well, and --until, --directory,
    --role and --tool narrow the search. Where none does, each workspace looks itself, for words
    alone: the newest sessions come first, N finds of each workspace, printed when it answers.

    Nothing found is said on stderr, and is no failure; exit code 1 means that nobody answered.
    """
    query = " ".join(words)
    if not query.strip():
        raise UsageError("There are no words to look for.", hint="perry session search empty cart")
    from perry.archive.models import Filters  # noqa: PLC0415  # loads a library

    moments = {
        name: None if text is None else moment_of(text, time.time(), f"--{name}")
        for name, text in (("since", since), ("until", until))
    }
    filters = Filters(workspace, agent, directory, role, tool, **moments)
    found = indexed.ask(query, filters, limit, port)
    if found is None:
        _by_workers(query, filters, limit, json=json)
    else:
        _by_daemon(found, filters, limit, json=json)


def _by_daemon(found: AgentFound, filters: Filters, limit: int, *, json: bool) -> None:
    indexed.asides(found, limit)
    if json:
        indexed.as_json(found)
    else:
        indexed.as_lines(found)
    if found.hits:
        return
    if found.failures:
        raise typer.Exit(1)
    where = "anywhere" if filters.workspace is None else f"in {filters.workspace}"
    render.line(f"nothing found {where}", stream=sys.stderr)


def _by_workers(query: str, filters: Filters, limit: int, *, json: bool) -> None:
    fleet = connect_fleet(filters.workspace)
    asked = Asked(fleet, query, filters.agent, filters.since, limit)
    hits = asked.as_json() if json else asked.as_lines()
    if asked.nobody_answered:
        raise typer.Exit(1)
    if not hits:
        where = tuple(place.name for place in fleet.places)
        told = render.nothing("nothing found", where, everywhere=filters.workspace is None)
        render.line(told, stream=sys.stderr)


class Asked:
    """A question to all places; `failed` counts those that couldn't answer it."""

    def __init__(
        self, fleet: Fleet, query: str, agent: str | None, since: int | None, limit: int
    ) -> None:
        self.failed = 0
        self._fleet = fleet
        self._query = query
        self._agent = agent
        self._since = since
        self._limit = limit

    @property
    def nobody_answered(self) -> bool:
        """Whether there was somebody to ask, and none of them answered."""
        return 0 < self.failed == len(self._fleet.places)

    def as_lines(self) -> int:
        """Print hits as they come, for people; returns how many there were."""
        found = 0
        for workspace, page in self.pages():
            if found and page.hits:
                render.line()
            told = findings.lines(
                workspace, page, now=time.time(), columns=render.room(), paint=render.styled
            )
            for line in told:
                render.line(line)
            found += len(page.hits)
        return found

    def as_json(self) -> int:
        """Print all hits as one JSON object, newest first; returns how many there were."""
        views: list[dict[str, Any]] = []
        for workspace, page in self.pages():
            told = snapshots.view(self._fleet.taken.get(workspace))
            views += [view | told for view in findings.views(workspace, page)]
        views.sort(key=lambda view: epoch(view["timestamp"]) or 0, reverse=True)
        render.as_json({"hits": views})
        return len(views)

    def pages(self) -> Iterator[tuple[str, SearchPage]]:
        """Give what each place found, as they answer; who can't is told on stderr."""
        for error in self._fleet.missing.values():
            render.failed(error)

        def heard(place: Place) -> Iterator[tuple[str, SearchPage]]:
            with self._fleet.connect(place) as client:
                yield (
                    place.name,
                    client.search(
                        self._query, agent=self._agent, since=self._since, limit=self._limit
                    ),
                )

        for item in merged(self._fleet.places, heard, idle=sys.stdout.flush):
            if isinstance(item, Ended):
                self.failed += 1
                render.failed(item.error)
                continue
            name, page = item
            render.taken(name, self._fleet.taken.get(name))
            yield item
            if len(page.hits) >= self._limit:
                told = counted(len(page.hits), "hit")
                render.line(
                    harmless(f"only {told} of {name}; --limit shows more"), stream=sys.stderr
                )


def moment_of(text: str, now: float, option: str = "--since") -> int:
    """Read `2h`, `3d`, a date or a time as ISO 8601: milliseconds since the epoch.

    Times without a zone are local. `now` is in seconds. Raises UsageError.
    """
    age = _AGE.fullmatch(text.strip().lower())
    if age:
        return max(0, int((now - int(age[1]) * UNITS[age[2]]) * 1000))
    try:
        return max(0, milliseconds(datetime.fromisoformat(text.strip()).astimezone()))
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"{option} {text}: not a time.", hint="Such as 2h, 3d, 2026-11-20 or 2026-11-20T10:00."
        ) from error
