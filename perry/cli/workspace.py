"""`perry workspace`: make, start, stop, enter and remove workspaces.

Each command turns what was typed into one call of the manager and hands the result to the
renderer. How a workspace is made, and how anything looks, is known elsewhere.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perry.cli import render, steps
from perry.cli.connection import connect_manager
from perry.cli.health import workspace_views
from perry.cli.interruption import resumable
from perry.cli.options import examples, workspace_spec
from perry.errors import PerryError, UsageError
from perry.workspace import names

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from perry.workspace.manager import WorkspaceManager
    from perry.workspace.models import Ready, Steps

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Make, start, stop, enter and remove workspaces.",
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The workspace's name.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, progress on stderr.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")]


@app.command(
    epilog=examples(
        "perry workspace init",
        "perry workspace init demo --image python:3.13 --memory 4g",
        "perry workspace init site --clone https://example.org/site.git --publish 8080:80",
        "perry workspace init demo --env EDITOR --env MODE=test --volume ./data:/data:ro",
    )
)
def init(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="The workspace's name; this directory's by default."),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="REF", help="The image, any Linux one; perry's own by default."),
    ] = None,
    clone: Annotated[
        str | None, typer.Option(metavar="URL", help="A git repository to clone into its home.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V", help="A variable to set; K alone takes it from here. Repeatable."
        ),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(metavar="SRC:DST[:ro]", help="A directory or volume to mount. Repeatable."),
    ] = None,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:CONTAINER", help="A port of it to publish on this machine. Repeatable."
        ),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The most memory it may use: 512m, 4g.")
    ] = None,
    cpus: Annotated[
        float | None, typer.Option(metavar="N", help="The most processors it may use: 1.5.")
    ] = None,
    command: Annotated[
        str | None, typer.Option(metavar='"…"', help="The command it runs; nothing by default.")
    ] = None,
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="The engine's network to be in.")
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Keep its root file system from being written.")
    ] = False,
    json: Json = False,
) -> None:
    """Make a workspace and start its worker.

    Called again on a workspace that exists, it makes it right: starts what is stopped, replaces a
    worker that is not this perry's.
    """
    from perry.workspace.options import check  # noqa: PLC0415  # loads Docker, as `init` has to

    chosen = names.from_directory(Path.cwd()) if name is None else names.validate(name)
    spec = workspace_spec(
        chosen,
        os.environ,
        image=image,
        clone=clone,
        env=env or (),
        volumes=volume or (),
        publish=publish or (),
        memory=memory,
        cpus=cpus,
        command=command,
        network=network,
        read_only=read_only,
    )
    check(spec)
    manager = connect_manager()
    again = "the same command" if len(sys.argv) > 4 else f"`perry workspace init {chosen}`"  # noqa: PLR2004  # perry workspace init NAME
    result = _followed(manager, chosen, again, manager.init(spec), json=json)
    if not json:
        render.next_steps(result.workspace.name)


@app.command(
    epilog=examples("perry workspace adopt shop-app-1", "perry workspace adopt 4f2a81 demo")
)
def adopt(
    container: Annotated[
        str, typer.Argument(metavar="CONTAINER", help="Its name or id.", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Without it: made of the container's name."),
    ] = None,
    json: Json = False,
) -> None:
    """Make a workspace of a container that perry didn't make, and start its worker.

    The container itself stays as it is. One that was made with the label perry.workspace=NAME is a
    workspace already. `perry workspace remove NAME` lets go of it again.
    """
    if name is not None:
        names.validate(name)
    manager = connect_manager()
    chosen = name or manager.suggest_name(container)
    again = f"`perry workspace adopt {container} {chosen}`"
    result = _followed(manager, chosen, again, manager.adopt(container, chosen), json=json)
    if not json:
        render.next_steps(result.workspace.name)


def _followed(
    manager: WorkspaceManager, name: str, again: str, work: Steps, *, json: bool
) -> Ready:
    """Show the steps of some work and what they lead to."""
    with resumable(name, again, manager.get):
        result = steps.follow(work, stream=sys.stderr if json else sys.stdout)
    if json:
        render.as_json(result)
        render.without_worker(result)
    else:
        render.ready(result)
    return result


@app.command("list", epilog=examples("perry workspace list", "perry workspace list --json"))
def list_(json: Json = False) -> None:
    """List all workspaces, with the health of their workers."""
    manager = connect_manager()
    found = manager.survey()
    render.overlooked(found.overlooked)
    views = workspace_views(found.workspaces, manager.worker)
    if json:
        render.as_json({"workspaces": views})
    else:
        render.workspaces(views)


@app.command(epilog=examples("perry workspace show demo", "perry workspace show demo --json"))
def show(name: Name, json: Json = False) -> None:
    """Show all that is known of one workspace."""
    names.validate(name)
    manager = connect_manager()
    [view] = workspace_views([manager.get(name)], manager.worker)
    if json:
        render.as_json({"workspace": view})
    else:
        render.workspace(view)


@app.command(epilog=examples("perry workspace start demo"))
def start(name: Name, json: Json = False) -> None:
    """Start a stopped workspace and its worker."""
    names.validate(name)
    manager = connect_manager()
    again = f"`perry workspace start {name}`"
    _followed(manager, name, again, manager.start(name), json=json)


@app.command(epilog=examples("perry workspace stop demo"))
def stop(name: Name) -> None:
    """Stop a workspace; its home stays."""
    names.validate(name)
    connect_manager().stop(name)
    render.line(f"stopped {name}")


@app.command(epilog=examples("perry workspace restart demo"))
def restart(name: Name, json: Json = False) -> None:
    """Stop a workspace and start it again, with its worker."""
    names.validate(name)
    manager = connect_manager()
    again = f"`perry workspace restart {name}`"
    _followed(manager, name, again, manager.restart(name), json=json)


@app.command(epilog=examples("perry workspace sync demo", "perry workspace sync --all"))
def sync(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The workspace's name.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Sync every running workspace.")] = False,
    json: Json = False,
) -> None:
    """Bring a running workspace to this perry's worker."""
    if every == (name is not None):
        raise UsageError("Which workspace to sync?", hint="Give one NAME, or --all.")
    if name is not None:
        names.validate(name)
        manager = connect_manager()
        _followed(manager, name, f"`perry workspace sync {name}`", manager.sync(name), json=json)
    elif not _sync_all(connect_manager(), json=json):
        raise typer.Exit(1)


def _sync_all(manager: WorkspaceManager, *, json: bool) -> bool:
    """Sync one running workspace after the other; one that fails doesn't stop the rest."""
    running = [one.name for one in manager.list() if one.is_running]
    done: list[Ready] = []
    stream = sys.stderr if json else sys.stdout
    for name in running:
        try:
            with resumable(name, "`perry workspace sync --all`", manager.get):
                render.line(f"{name}:", stream=stream)
                done.append(steps.follow(manager.sync(name), stream=stream))
        except PerryError as error:
            if error.exit_code > 1:
                raise
            render.failed(error)
        else:
            (render.without_worker if json else render.ready)(done[-1])
    if json:
        render.as_json({"workspaces": done})
    elif not running:
        render.line("no workspace is running")
    return len(done) == len(running)


@app.command(
    epilog=examples("perry workspace remove demo", "perry workspace remove a b --yes --keep-volume")
)
def remove(
    workspaces: Annotated[list[str], typer.Argument(metavar="NAME", show_default=False)],
    yes: Yes = False,
    keep_volume: Annotated[
        bool, typer.Option("--keep-volume", help="Keep the home, for a workspace of that name.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove workspaces, and their homes with all that is in them.

    An adopted one is only let go of: its container, volumes and sessions stay. What is gone already
    counts as removed.
    """
    wanted = [names.validate(name) for name in dict.fromkeys(workspaces)]
    if not yes:
        render.require_somebody(f"Remove {', '.join(wanted)}")
    manager, removed, failed = connect_manager(), [], False
    if not yes:
        adopted = {one.name for one in manager.list() if one.adopted}
        render.confirm(_removal(wanted, adopted, keep_volume=keep_volume), yes=yes)
    for name in wanted:
        try:
            removed.append(manager.remove(name, keep_volume=keep_volume))
        except PerryError as error:
            render.failed(error)
            failed = True
        else:
            if not json:
                render.removed(removed[-1])
    if json:
        render.as_json({"removed": removed})
    if failed:
        raise typer.Exit(1)


def _removal(wanted: Sequence[str], adopted: Collection[str], *, keep_volume: bool) -> str:
    """Say what would be lost, and what would only be let go of."""
    ours = [name for name in wanted if name not in adopted]
    others = [name for name in wanted if name in adopted]
    homes = "keep the home" if keep_volume else "all that is in the home"
    parts = []
    if ours:
        parts.append(f"Remove {', '.join(ours)} ({homes}{'s' if len(ours) > 1 else ''})")
    if others:
        stays = "the container, its volumes and its sessions stay"
        parts.append(f"{'let' if ours else 'Let'} go of {', '.join(others)} ({stays})")
    return " and ".join(parts)


@app.command(
    epilog=examples("perry workspace logs demo --follow", "perry workspace logs demo --worker")
)
def logs(
    name: Name,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on printing as the log grows.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Print only the last N lines.")
    ] = None,
    worker: Annotated[
        bool, typer.Option("--worker", help="Print its worker's log instead.")
    ] = False,
) -> None:
    """Print what a workspace's own command, or its worker, has logged."""
    names.validate(name)
    if worker and follow:
        raise UsageError("The worker's log can't be followed.", hint="Leave out --follow.")
    manager = connect_manager()
    if worker:
        lines = manager.worker_log(name).splitlines()
        for one in lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]:
            render.line(one)
        return
    for chunk in manager.logs(name, follow=follow, tail=tail):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


@app.command(
    "exec",
    context_settings={"allow_interspersed_args": False},
    epilog=examples(
        "perry workspace exec demo ls -la",
        "tar c . | perry workspace exec demo tar x -C /home/workspace",
    ),
)
def exec_(
    name: Name,
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND", help="The command to run, and its arguments.")
    ],
    user: Annotated[str | None, typer.Option("--user", "-u", help="The user to run it as.")] = None,
    no_tty: Annotated[bool, typer.Option("--no-tty", help="Run it without a terminal.")] = False,
    no_stdin: Annotated[
        bool, typer.Option("--no-stdin", "-n", help="Run it without input.")
    ] = False,
) -> None:
    """Run a command in a workspace, and end with its exit code.

    It has a terminal where this one is a terminal, and reads what is piped in.
    """
    names.validate(name)
    argv = command[1:] if command[0] == "--" else command
    if not argv:
        raise UsageError(
            "There is no command to run.", hint=f"For a shell: perry workspace shell {name}"
        )
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and not no_tty and not no_stdin
    _run(connect_manager(), name, tuple(argv), tty=terminal, stdin=not no_stdin, user=user)


@app.command(epilog=examples("perry workspace shell demo", "perry workspace shell demo -u root"))
def shell(
    name: Name,
    user: Annotated[
        str | None, typer.Option("--user", "-u", help="The user whose shell it is.")
    ] = None,
) -> None:
    """Open a shell in a workspace."""
    names.validate(name)
    manager = connect_manager()
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    _run(manager, name, manager.shell_argv(name), tty=terminal, stdin=True, user=user)


def _run(
    manager: WorkspaceManager,
    name: str,
    argv: tuple[str, ...],
    *,
    tty: bool,
    stdin: bool,
    user: str | None,
) -> None:
    from perry.cli import terminal  # noqa: PLC0415  # only a command that is joined needs it

    session = manager.exec_command(name, argv, tty=tty, stdin=stdin, user=user)
    try:
        code = terminal.join(session, tty_wanted=tty, stdin=sys.stdin.fileno() if stdin else None)
    finally:
        session.close()
    raise typer.Exit(code)
