"""`perry worker`: the HTTP server that reads a machine's sessions, started by hand.

In a workspace perry starts it by itself; by hand it serves the sessions of whoever runs it. What
it serves, and when it refuses, is known to the worker.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from perry.cli.options import examples
from perry.protocol import WORKER_PORT

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def worker() -> None:
    """Serve the sessions of this machine over HTTP."""


@app.command(
    epilog=examples(
        "perry worker serve",
        "perry worker serve --port 8000",
        "PERRY_WORKER_TOKEN=… perry worker serve --host 0.0.0.0",
    )
)
def serve(
    port: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, max=65535, help="The port to listen on; 0 takes a free one."
        ),
    ] = WORKER_PORT,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="The address to listen on; any but this machine's own needs a token.",
        ),
    ] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; stderr says where."""
    from perry.worker.config import WorkerConfig  # noqa: PLC0415  # loads a server
    from perry.worker.serve import run  # noqa: PLC0415  # as above

    run(WorkerConfig.from_environment(os.environ, host=host, port=port))
