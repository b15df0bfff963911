"""`perry image`: perry's workspace image, made ahead of the first workspace.

How an image is made is known to the workspace package.
"""

from __future__ import annotations

import typer

from perry.cli import render, steps
from perry.cli.connection import connect_engine
from perry.cli.interruption import Interrupted
from perry.cli.options import examples

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def image() -> None:
    """Build perry's workspace image."""


@app.command(epilog=examples("perry image build"))
def build() -> None:
    """Build the default workspace image, and the runtime of all workers.

    The first `perry workspace init` does it too, where the image is missing.
    """
    from perry.workspace.image import ensure_runtime, ensure_workspace_image  # noqa: PLC0415  # loads Docker

    engine = connect_engine()
    try:
        for what, work in (
            ("workspace image", ensure_workspace_image(engine)),
            ("bundle's runtime image", ensure_runtime(engine)),
        ):
            render.line(f"{what}: {steps.follow(work).id}")
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted: the image isn't built yet; what was finished of it is kept.",
            hint="Go on with `perry image build`.",
        ) from None
