"""`perry uninstall`: take away what perry itself put on an engine.

Workspaces are their owners' and are removed one by one; this is for the bundle, the key and the
image, which perry makes again whenever it needs them.
"""

from __future__ import annotations

from typing import Annotated

import typer

from perry.cli import render
from perry.cli.connection import connect_manager
from perry.cli.options import examples

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command(epilog=examples("perry uninstall", "perry uninstall --yes"))
def uninstall(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was removed as JSON.")] = False,
) -> None:
    """Remove perry's own volumes and images from the engine.

    Workspaces must be removed first.
    """
    manager = connect_manager()
    there = manager.installed()
    if any((there.containers, there.volumes, there.images)):
        if not yes:
            render.installation(there)
        render.confirm("Remove all of it from the engine", yes=yes)
        there = manager.uninstall()
    if json:
        render.as_json(there)
    else:
        render.uninstalled(there)
