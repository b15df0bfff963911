"""`perry session restore`: bring back what was deleted, or tell what can be brought back.

What was deleted is kept where it was, so every place is asked; one that doesn't run can't answer.
What a place keeps nothing of, or is gone with its place, the archive may show again. This module
must not know how either keeps it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from perry.cli import render
from perry.cli.archived import Sources
from perry.cli.fleet import (
    PATIENCE,
    Archived,
    Found,
    Gathered,
    ask_each,
    resolved,
    short_ids,
    whereabouts,
)
from perry.cli.host import Host
from perry.cli.options import Agent, InWorkspace, Json, examples
from perry.cli.text import Column, ago, local_time, one_line
from perry.errors import PerryError, SessionNotFound, UsageError, WorkspaceNotRunning
from perry.sessions.models import DeletedSession

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perry.archive.models import Kept
    from perry.cli.fleet import Fleet, Place

EPILOG = examples(
    "perry session restore --list",
    "perry session restore 4f2a",
    "perry session restore 4f2a -w demo",
    "perry session restore --list --json | jq -r '.deleted[].id'",
)

ONLY_THERE = "nothing else keeps anything of it"

OneOrNone = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID]", help="The session's id, or the start of it.", show_default=False
    ),
]


@dataclass(frozen=True)
class Restorable:
    """A deleted session, and the place that it goes back to; with Archived, the archive alone."""

    deleted: DeletedSession
    place: Place | Archived


def restore(
    session_id: OneOrNone = None,
    workspace: InWorkspace = None,
    agent: Agent = None,
    listed: Annotated[
        bool, typer.Option("--list", help="List what can be restored, and until when.")
    ] = False,
    json: Json = False,
) -> None:
    """Bring back a deleted session, as it was and where it was.

    What perry deleted is kept for 30 days, in the workspace, which must run, or on the host. Of
    what only the archive has left, the archive's copy is brought back.
    """
    if listed == (session_id is not None):
        raise UsageError("Give either the ID of a session, or --list.")
    if json and not listed:
        raise UsageError("--json: it goes with --list only.")
    with Sources(workspace) as sources:
        fleet = sources.places
        found, failures = gather(fleet, agent)
        found = with_archived(found, sources.deleted(agent, failures))
        if workspace is not None and not found:
            for error in fleet.missing.values():
                raise error
        if listed:
            _show(fleet, found, failures, json=json)
        else:
            bring_back(sources, pick(session_id or "", found, failures))


def gather(
    fleet: Fleet, agent: str | None = None
) -> tuple[Sequence[Restorable], Mapping[str, PerryError]]:
    """Ask all places what can be restored, what was deleted last first; and who can't answer."""

    def kept(place: Place) -> Sequence[DeletedSession]:
        if not isinstance(place, Host) and not place.is_running:
            raise _stopped(place.name, place.state)
        with fleet.connect(place) as client:
            return client.list_deleted()

    answers, failures = ask_each(fleet.places, kept, PATIENCE)
    found = [
        Restorable(deleted, place)
        for place in fleet.places
        for deleted in answers.get(place.name, ())
        if agent in (None, deleted.session.agent_type)
    ]
    found.sort(key=lambda one: one.deleted.deleted_at, reverse=True)
    return found, {**fleet.missing, **failures}


def with_archived(found: Sequence[Restorable], kept: Sequence[Kept]) -> Sequence[Restorable]:
    """Add what only the archive can bring back, what was deleted last first."""
    there = {
        (one.place.name, one.deleted.session.agent_type, one.deleted.session.id) for one in found
    }
    archived = [
        Restorable(one.restorable, Archived(one.workspace, ONLY_THERE))
        for one in kept
        if one.key not in there and one.restorable is not None
    ]
    return sorted([*found, *archived], key=lambda one: one.deleted.deleted_at, reverse=True)


def pick(
    prefix: str, found: Sequence[Restorable], failures: Mapping[str, PerryError]
) -> Restorable:
    """Pick the one session whose id is `prefix`, or else begins with it, as it was deleted last.

    Raises SessionNotFound and SessionAmbiguous.
    """
    last: dict[tuple[str, str, str], Restorable] = {}
    for one in found:
        session = one.deleted.session
        last.setdefault((one.place.name, session.agent_type, session.id), one)
    sessions = tuple(Found(one.deleted.session, one.place) for one in last.values())
    try:
        picked = resolved(prefix, Gathered(sessions, {}, ()))
    except SessionNotFound as error:
        raise SessionNotFound(
            f"No deleted session has the id {prefix!r}.", hint=_unasked(failures)
        ) from error
    return last[picked.place.name, picked.session.agent_type, picked.session.id]


def restorable_view(one: Restorable) -> dict[str, Any]:
    """Give a deleted session's keys: those it has where sessions are listed, and three more.

    `deletedAt` and `until` are in ms since the epoch, `size` is in bytes. Of one that only the
    archive has, `standing` says so; its size isn't known, and 0.
    """
    kept = msgspec.to_builtins(one.deleted)
    view = {"workspace": one.place.name, **kept.pop("session"), **kept}
    return view | ({"standing": "archived"} if isinstance(one.place, Archived) else {})


def bring_back(sources: Sources, one: Restorable) -> None:
    """Restore a session where it was and in the archive, and say so. Raises PerryError."""
    session, name = one.deleted.session, one.place.name
    key = name, session.agent_type, session.id
    if isinstance(one.place, Archived):
        if not sources.restore(key):
            raise SessionNotFound(
                f"The archive of {name} has no deleted session {one_line(session.id)} any more.",
                hint="`perry session restore --list` shows what can be restored.",
                workspace=name,
            )
        render.line(f"restored {one_line(session.id)} to the archive of {name}")
        return
    with sources.fleet.connect(one.place) as client:
        client.restore_session(session.id, agent=session.agent_type)
    render.line(f"restored {one_line(session.id)} to {name}")
    sources.restore(key)


def _show(
    fleet: Fleet,
    found: Sequence[Restorable],
    failures: Mapping[str, PerryError],
    *,
    json: bool,
) -> None:
    for name, error in sorted(failures.items()):
        render.warn(error.message if name in error.message else f"{name}: {error.message}")
    if json:
        render.as_json({"deleted": [restorable_view(one) for one in found]})
    elif found:
        _print(found)
    elif not failures:
        where = whereabouts([place.name for place in fleet.places])
        render.note(f"nothing can be restored {where}")
    if fleet.places and {place.name for place in fleet.places} <= failures.keys():
        raise typer.Exit(1)


def _print(found: Sequence[Restorable]) -> None:
    now = time.time()
    ids = [one.deleted.session.id for one in found]
    told = short_ids(ids) if render.room() else dict(zip(ids, ids, strict=True))
    columns = [
        Column("ID"),
        Column("WORKSPACE", least=9),
        Column("AGENT"),
        Column("TITLE", least=14),
        Column("MSGS", right=True),
        Column("DELETED"),
        Column("UNTIL"),
    ]
    rows = [
        (
            told[one.deleted.session.id],
            one.place.name,
            one.deleted.session.agent_type,
            one.deleted.session.title,
            str(one.deleted.session.message_count),
            ago(one.deleted.deleted_at, now),
            local_time(one.deleted.until)[0][:16],
        )
        for one in found
    ]
    render.print_table(columns, rows)


def _stopped(name: str, state: str) -> WorkspaceNotRunning:
    return WorkspaceNotRunning(
        f"{name} is {state}: what was deleted there is known once it runs.",
        hint=f"Start it: perry workspace start {name}",
        workspace=name,
    )


def _unasked(failures: Mapping[str, PerryError]) -> str:
    told = "`perry session restore --list` shows what can be restored."
    lines = [f"  {name}: {error.message}" for name, error in sorted(failures.items())]
    return "\n".join([told, "Not asked, because they can't answer:", *lines]) if lines else told
