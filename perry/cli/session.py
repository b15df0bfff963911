"""`perry session`: the sessions of the host and all workspaces, or of one of them.

Each command asks the fleet and hands what it found to the renderer. How workers are reached, and
how anything looks, is known elsewhere.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from perry.cli import render, snapshots
from perry.cli.archived import Sources
from perry.cli.export import EPILOG as EXPORT_EPILOG
from perry.cli.export import export
from perry.cli.options import Agent, FromArchive, Id, InWorkspace, Json, examples
from perry.cli.restore import EPILOG as RESTORE_EPILOG
from perry.cli.restore import restore
from perry.cli.search import EPILOG as SEARCH_EPILOG
from perry.cli.search import search
from perry.cli.tail import EPILOG as TAIL_EPILOG
from perry.cli.tail import tail
from perry.cli.text import counted, one_line, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perry.cli.fleet import Found, Gathered
    from perry.client.session_client import SessionClient
    from perry.sessions.models import Message

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="List, read, search, follow, delete and restore sessions.",
)


@app.command(
    "list",
    epilog=examples(
        "perry session list",
        "perry session list --workspace demo --agent claude --limit 10",
        "perry session list --workspace host",
        "perry session list --archived",
        "perry session list --json | jq -r '.sessions[].title'",
    ),
)
def list_(
    workspace: InWorkspace = None,
    agent: Agent = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="List only the N last active ones.")
    ] = None,
    children: Annotated[
        bool, typer.Option("--children", help="List also sessions that a session started.")
    ] = False,
    archived: Annotated[
        bool,
        typer.Option(
            "--archived", help="List also what only the archive has, and how each stands."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """List sessions, the last active ones first.

    Those of the host and of all workspaces, unless --workspace names one. A workspace that doesn't
    run is read from a snapshot of its files, and stderr says how old that is. With --archived, each
    session is live, stopped (read from a snapshot) or archived: its workspace has it no more.
    """
    with Sources(workspace) as sources:
        ask = sources.all_sessions if archived else sources.sessions
        gathered = ask(agent=agent, children=children, limit=limit)
    if json:
        render.asides(gathered)
        views = [session_view(one, standing=archived) for one in gathered.found]
        render.as_json({"sessions": views})
    else:
        render.sessions(gathered, everywhere=workspace is None, standing=archived)
    if gathered.nobody_answered and not gathered.found:
        raise typer.Exit(1)


def session_view(found: Found, *, standing: bool = False) -> dict[str, Any]:
    """Give a session's keys on the wire, and `workspace`.

    Of one that was read from a snapshot also `via` and `asOf` (ms since the epoch); of one that is
    archived, and of all where it is asked for, `standing`.
    """
    session = msgspec.to_builtins(found.session)
    view = {"workspace": found.place.name, **session, **snapshots.view(found.taken)}
    if standing or found.standing == "archived":
        view["standing"] = found.standing
    return view


@app.command(
    epilog=examples(
        "perry session show 4f2a",
        "perry session show 4f2a --full | less",
        "perry session show 4f2a --limit 20 --json",
    )
)
def show(
    session_id: Id,
    workspace: InWorkspace = None,
    agent: Agent = None,
    full: Annotated[
        bool, typer.Option("--full", help="Print tool calls and results whole.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Print only the N newest messages.")
    ] = None,
    archived: FromArchive = False,
    json: Json = False,
) -> None:
    """Read a session.

    A tool's call and its result are a line each, unless --full says otherwise. One that is nowhere
    else any more is read from the archive.
    """
    with Sources(workspace, archived=archived) as sources:
        found, gathered = sources.find(session_id, agent=agent)
        render.read_from(found)
        with sources.connect(found) as client:
            if json:
                messages = list(_messages(client, found, limit))
                render.as_json({"session": session_view(found), "messages": messages})
            else:
                _show(client, found, gathered, full=full, limit=limit)


def _show(
    client: SessionClient, found: Found, gathered: Gathered, *, full: bool, limit: int | None
) -> None:
    session = found.session
    children = [
        one.session
        for one in gathered.found
        if one.session.parent_id == session.id and one.place.name == found.place.name
    ]
    render.session_head(found, children)
    render.line()
    hidden = session.message_count - (limit or session.message_count)
    if hidden > 0:
        render.line(f"({counted(hidden, 'earlier message')} left out by --limit)\n")
    render.conversation(_messages(client, found, limit), full=full)


def _messages(client: SessionClient, found: Found, limit: int | None) -> Iterable[Message]:
    session = found.session
    if limit is None:
        return client.iterate_messages(session.id, agent=session.agent_type)
    return client.list_messages(session.id, limit=limit, agent=session.agent_type).messages


app.command("search", epilog=SEARCH_EPILOG)(search)
app.command("tail", epilog=TAIL_EPILOG)(tail)
app.command("export", epilog=EXPORT_EPILOG)(export)
app.command("restore", epilog=RESTORE_EPILOG)(restore)


@app.command(
    epilog=examples(
        "perry session delete 4f2a",
        "perry session delete 4f2a -w demo --yes",
        "perry session restore 4f2a",
    )
)
def delete(
    session_id: Id,
    workspace: InWorkspace = None,
    agent: Agent = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking.")] = False,
    for_good: Annotated[
        bool, typer.Option("--for-good", help="Keep nothing of it: it can't be restored.")
    ] = False,
) -> None:
    """Delete a session from its workspace, which must run, or from the host.

    Its files go, and those of the sessions that it started; so does what the archive has of them.
    All is kept for 30 days, so that `perry session restore` can bring it back.
    """
    with Sources(workspace) as sources:
        found, _ = sources.find(session_id, agent=agent)
        session = found.session
        title, where = shortened(one_line(session.title), 40), sources.where(found)
        render.confirm(
            f"Delete session {one_line(session.id)} of {where}, '{title}',"
            f" {counted(session.message_count, 'message')}{', for good' if for_good else ''}",
            yes=yes or found.taken is not None,  # which is refused, so there is nothing to ask
        )
        sources.delete(found, for_good=for_good)
    render.line(f"deleted {one_line(session.id)} from {where}")
    if not for_good:
        again = f"perry session restore {shlex.quote(session.id)} -w {found.place.name}"
        render.note(f"for 30 days this brings it back: {again}")
