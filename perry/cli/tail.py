"""`perry session tail`: what happens in sessions, at the moment it happens.

What was printed is remembered just as far as is needed to go on after a lost connection or a
restarted worker with nothing missing and nothing twice. How several workspaces are listened to at
once, and how workers are reached and revived, is known elsewhere.
"""

from __future__ import annotations

import json as json_module
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from perry.cli import render
from perry.cli.connection import connect_fleet, running_workspaces
from perry.cli.listening import Ended, merged
from perry.cli.options import Agent, InWorkspace, examples
from perry.cli.text import counted, one_line, shortened, width
from perry.errors import (
    EngineError,
    SessionNotFound,
    WorkerError,
    WorkspaceNotRunning,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perry.cli.fleet import Fleet, Found, Place
    from perry.client.follow import Follower
    from perry.sessions.models import Message, Session

PASSING = (WorkerError, WorkspaceNotRunning, EngineError)
"""What is over in a moment when a worker, a container or an engine is restarted."""

EPILOG = examples(
    "perry session tail",
    "perry session tail 4f2a --lines 50",
    "perry session tail --json | jq -r '.session.title'",
)


def tail(
    session_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="The session's id, or the start of it.", show_default=False
        ),
    ] = None,
    workspace: InWorkspace = None,
    agent: Agent = None,
    lines: Annotated[
        int,
        typer.Option("--lines", "-n", metavar="N", min=0, help="Begin with the N newest messages."),
    ] = 10,
    full: Annotated[
        bool, typer.Option("--full", help="Print tool calls and results whole.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON: an object a line.")] = False,
) -> None:
    """Print what is new, as it happens, until Ctrl-C.

    With ID the messages of that session, without it a line for each change of any session, on the
    host and in all workspaces, those that are started later too.
    """
    fleet = connect_fleet(workspace, watched=True)
    if session_id is not None:
        found, _ = fleet.find(session_id, agent=agent)
        tail_session(fleet, found, lines=lines, full=full, json=json)
        return
    for error in fleet.missing.values():
        render.failed(error)
    if workspace is None and len(fleet.places) == 1 and not fleet.missing:
        told = "no workspace is running yet; listening to the host, and for one to start"
        render.line(told, stream=sys.stderr)
    tail_all(fleet, agent=agent, json=json, more=None if workspace else running_workspaces)


# One session


@dataclass(frozen=True)
class Rewritten:
    """The session has fewer messages than were printed: `count`."""

    count: int


@dataclass(frozen=True)
class Gone:
    """The session was deleted."""


def tail_session(fleet: Fleet, found: Found, *, lines: int, full: bool, json: bool) -> None:
    """Print the newest messages of a session and all that come, until it is deleted.

    Raises what ends the workspace's events.
    """
    told = _messages(fleet, found, lines)
    if not json:
        render.conversation(told, full=full)
        return
    where = {"workspace": found.place.name, "id": found.session.id}
    for message in told:
        _json_line({**where, "message": msgspec.to_builtins(message)})


def _messages(fleet: Fleet, found: Found, lines: int) -> Iterator[Message]:
    """Give a session's messages, and say on stderr what else happens to it."""

    def heard(place: Place) -> Iterator[Message | Rewritten | Gone]:
        return new_messages(follower(fleet, place), found.session, lines)

    name = one_line(found.session.id)
    places = [place for place in fleet.places if place.name == found.place.name]
    for item in merged(places, heard, idle=sys.stdout.flush):
        if isinstance(item, Ended):
            raise item.error
        if isinstance(item, Rewritten):
            render.warn(f"session {name} was rewritten: {counted(item.count, 'message')} now")
        elif isinstance(item, Gone):
            render.warn(f"session {name} was deleted")
        else:
            yield item


def new_messages(
    follower: Follower, session: Session, lines: int
) -> Iterator[Message | Rewritten | Gone]:
    """Give a session's `lines` newest messages and then each new one, until it is gone."""
    key = _key(session)
    seen: int | None = None
    for event in follower:
        about_it = event.kind == "reset" or (event.agent_type, event.session_id) == key
        if seen is not None and not about_it:
            continue
        client = follower.client
        try:
            # Asked, not taken from the event: what was printed last may be newer than that.
            count = client.get_session(session.id, agent=session.agent_type).message_count
            if seen is None:
                seen = max(0, count - lines)
            elif count < seen:
                seen = count
                yield Rewritten(count)
            new = client.iterate_messages(session.id, agent=session.agent_type, start=seen)
            for message in new:
                seen += 1
                yield message
        except SessionNotFound:
            yield Gone()
            return
        except WorkerError as error:
            follower.again(error)


# All sessions


@dataclass(frozen=True)
class Change:
    """What happened to a session of a workspace; `session` as it is now, or last was."""

    workspace: str
    kind: str
    session: Session


def tail_all(
    fleet: Fleet,
    *,
    agent: str | None,
    json: bool,
    more: Callable[[], Sequence[Place]] | None = None,
) -> None:
    """Print a line for each change of a session in any place.

    A place that ends is told on stderr, and the others go on. `more` lists the workspaces that are
    there by then; without it, this ends with exit code 1 when no place is left.
    """

    def heard(place: Place) -> Iterator[Change]:
        return changes(follower(fleet, place), place.name, agent)

    columns = max((width(one.name) for one in fleet.places), default=0)
    for item in merged(fleet.places, heard, idle=sys.stdout.flush, more=more):
        if isinstance(item, Ended):
            render.failed(item.error)
        elif json:
            _json_line(change_view(item))
        else:
            columns = max(columns, width(item.workspace))
            render.line(change_line(item, time.strftime("%H:%M:%S"), columns, render.room()))
    raise typer.Exit(1)


def changes(follower: Follower, workspace: str, agent: str | None) -> Iterator[Change]:
    """Give the changes of a workspace's sessions, those included that no event told.

    After a reset the sessions are listed, and what is not as it was is a change.
    """
    known: dict[tuple[str, str], Session] | None = None
    for event in follower:
        if event.kind in {"ready", "reset"}:
            if known is not None and event.kind == "ready":
                continue  # a connection that goes on where the last one broke
            try:
                listed = follower.client.list_sessions(agent=agent, children=True)
            except WorkerError as error:
                follower.again(error)
                continue
            now = {_key(session): session for session in listed}
            yield from _differences(workspace, now if known is None else known, now)
            known = now
        elif known is not None and agent in {None, event.agent_type}:
            key = (event.agent_type or "", event.session_id or "")
            after = {} if event.session is None else {key: event.session}
            before = {key: known[key]} if key in known else {}
            yield from _differences(workspace, before, after)
            known.pop(key, None)
            known |= after


def _differences(
    workspace: str,
    before: dict[tuple[str, str], Session],
    after: dict[tuple[str, str], Session],
) -> Iterator[Change]:
    for key, session in before.items():
        if key not in after:
            yield Change(workspace, "deleted", session)
    for key, session in sorted(after.items(), key=lambda item: item[1].last_activity):
        if key not in before:
            yield Change(workspace, "created", session)
        elif session != before[key]:
            yield Change(workspace, "updated", session)


def change_line(change: Change, moment: str, columns: int, room: int | None) -> str:
    """Tell a change on one line; `columns` is the width of the longest workspace's name."""
    session = change.session
    name = one_line(change.workspace)
    facts = [
        moment,
        name + " " * (columns - width(name)),
        f"{one_line(session.agent_type):<8}",
        change.kind,
        f"{counted(session.message_count, 'message'):>12}",
        one_line(session.title),
    ]
    told = "  ".join(facts)
    return told if room is None else shortened(told, room)


def change_view(change: Change) -> dict[str, Any]:
    """Give the keys of a change as JSON."""
    session = msgspec.to_builtins(change.session)
    return {"workspace": change.workspace, "event": change.kind, "session": session}


def follower(fleet: Fleet, place: Place) -> Follower:
    """Listen to a place; a worker is reached anew, and revived, whenever it is lost."""
    from perry.client.follow import Follower  # noqa: PLC0415  # loads slowly, see connection.py

    return Follower(lambda: fleet.connect(place), passing=PASSING)


def _key(session: Session) -> tuple[str, str]:
    return session.agent_type, session.id


def _json_line(value: object) -> None:
    # Escapes throughout: what a lone surrogate needs, and no line end can be among them.
    render.line(json_module.dumps(value))
