"""How the workers of workspaces are, as `perry workspace list` and `show` tell it.

It must not know how a worker is asked, or print anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from perry.cli.fleet import ask_each
from perry.workspace import revivals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perry.errors import PerryError
    from perry.workspace.models import Worker, Workspace

PATIENCE = 3.0
"""Seconds that the workers of all workspaces together are waited for."""


def workspace_views(
    workspaces: Sequence[Workspace], worker: Callable[[str], Worker | None]
) -> list[dict[str, Any]]:
    """Join workspaces with the state of their workers, which are asked all at once.

    A view has the keys of Workspace and `health` (`healthy`, `none`, `unreachable`, `stopped`),
    `worker` (the keys of Worker, or None), `problem` (why it didn't answer, or None) and `revival`
    (when and why the worker was started again, or None).
    """
    running = [one for one in workspaces if one.is_running]
    answers, failures = ask_each(running, lambda one: worker(one.name), PATIENCE)
    return [_view(one, answers.get(one.name), failures.get(one.name)) for one in workspaces]


def _view(
    workspace: Workspace, worker: Worker | None, failure: PerryError | None
) -> dict[str, Any]:
    health = "healthy" if worker else "unreachable" if failure else "none"
    view: dict[str, Any] = msgspec.to_builtins(workspace)
    view["health"] = health if workspace.is_running else "stopped"
    view["worker"] = msgspec.to_builtins(worker)
    view["problem"] = failure.message if failure else None
    view["revival"] = msgspec.to_builtins(revivals.last(workspace.container_id))
    return view
