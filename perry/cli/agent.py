"""`perry agent`: the daemon that shows everything in one place and keeps every worker alive.

What it serves is known elsewhere; here it is started, asked and ended.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from perry.cli import render
from perry.cli.options import Json, examples
from perry.errors import AgentUnreachable
from perry.protocol import AGENT_PORT

if TYPE_CHECKING:
    from perry.agent.serve import Listening
    from perry.client.agent_client import AgentClient

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="The daemon that shows all sessions in one place and keeps every worker alive.",
)

LOOPBACK = "127.0.0.1"

Port = Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="The port it listens on.")]


@app.command(epilog=examples("perry agent serve", "perry agent serve --port 8000"))
def serve(
    port: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, max=65535, help="The port to listen on; 0 takes a free one."
        ),
    ] = AGENT_PORT,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="The address to listen on; this machine alone by default."
        ),
    ] = LOOPBACK,
) -> None:
    """Serve until SIGTERM or Ctrl-C; logs go to stderr.

    At a terminal the link is printed that lets a browser in. Whoever has it may do anything on
    this engine.
    """
    from perry.agent.serve import run  # noqa: PLC0415  # loads a server

    run(host, port, env=os.environ, on_listening=_greet)


def _greet(listening: Listening) -> None:
    render.line(f"agent daemon at {listening.url}")
    # What isn't a terminal is a log, which others may read.
    link = listening.login if sys.stdout.isatty() else "perry agent token --link shows the link"
    render.line(f"  in a browser: {link}")
    render.line("  Ctrl-C ends it; workspaces and workers go on")
    sys.stdout.flush()


@app.command(epilog=examples("perry agent status", "perry agent status --json"))
def status(port: Port = AGENT_PORT, json: Json = False) -> None:
    """Show how the daemon is, and how it knows each workspace's sessions."""
    with connect(port) as client:
        found = client.status()
    if json:
        render.as_json(msgspec.to_builtins(found))
    else:
        render.agent(found, f"http://{LOOPBACK}:{port}")


@app.command(epilog=examples("perry agent stop"))
def stop(port: Port = AGENT_PORT) -> None:
    """End the daemon; workspaces and workers go on. One that isn't there counts as ended."""
    try:
        with connect(port) as client:
            client.stop()
    except AgentUnreachable:
        render.line("no agent daemon of yours runs")
        return
    render.line("stopped the agent daemon")


@app.command(
    epilog=examples(
        "perry agent token --link",
        'curl -H "Authorization: Bearer $(perry agent token)" localhost:7391/api/status',
    )
)
def token(
    link: Annotated[
        bool, typer.Option("--link", help="Print the link that lets a browser in.")
    ] = False,
    port: Port = AGENT_PORT,
) -> None:
    """Print the daemon's token. Whoever has it may do anything on this engine."""
    from perry.agent.access import ensure_token, login_link, state_directory  # noqa: PLC0415  # a library

    found = ensure_token(state_directory())
    render.line(login_link(f"http://{LOOPBACK}:{port}", found) if link else found)


def connect(port: int) -> AgentClient:
    """Make a client of this user's daemon. Raises AgentUnreachable where none ever ran."""
    from perry.agent.access import read_token, state_directory  # noqa: PLC0415  # a library
    from perry.client.agent_client import AgentClient  # noqa: PLC0415  # loads HTTP

    url = f"http://{LOOPBACK}:{port}"
    token = read_token(state_directory())
    if token is None:
        raise AgentUnreachable(
            "No agent daemon of yours has run yet", hint="perry agent serve starts one."
        )
    return AgentClient(url, token)
