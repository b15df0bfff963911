"""`perry image`: perry's own images, made ahead of the first workspace.

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
    """Build perry's own images."""


@app.command(epilog=examples("perry image build"))
def build() -> None:
    """Build the default workspace image, the runtime of all workers, and the agent daemon's image.

    The first `perry workspace init` builds the first two, where they are missing; the last is for
    compose.yaml.
    """
    from perry.workspace.agent_image import ensure_agent_image  # noqa: PLC0415  # loads Docker
    from perry.workspace.image import ensure_runtime, ensure_workspace_image  # noqa: PLC0415  # loads Docker

    engine = connect_engine()
    try:
        for what, work in (
            ("workspace image", ensure_workspace_image(engine)),
            ("bundle's runtime image", ensure_runtime(engine)),
            ("agent daemon's image", ensure_agent_image(engine)),
        ):
            render.line(f"{what}: {steps.follow(work).id}")
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted: the image isn't built yet; what was finished of it is kept.",
            hint="Go on with `perry image build`.",
        ) from None
