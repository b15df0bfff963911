"""A workspace's home: the volume that outlives its container.

It must not know how a container is made, beyond whose home it is.
"""

from __future__ import annotations

from contextlib import ExitStack

from perry.errors import EngineFailure, WorkspaceConflict
from perry.workspace import archive, names
from perry.workspace.account import Account
from perry.workspace.engine import CONFLICT, Engine
from perry.workspace.helper import helper


def ensure_home(
    engine: Engine, workspace: str, account: Account, *, helper_image: str, undo: ExitStack
) -> str:
    """Make sure that a workspace has its home volume, owned by its user, and return its name.

    A fresh volume gets what the image has at that place, owner included, from the engine; where
    the image has no such home, or the volume was kept from a workspace of another user, it is given
    to the user here. What was made anew is undone through `undo`. Raises WorkspaceConflict where a
    volume of that name isn't perry's.
    """
    volume = names.home_volume(workspace)
    present = [it.name for it in engine.list_volumes(f"{names.LABEL}={workspace}")]
    if volume not in present:
        created = engine.create_volume(volume, {names.LABEL: workspace})
        if created.labels.get(names.LABEL) != workspace:
            raise WorkspaceConflict(
                f"There is a volume '{volume}' that isn't perry's",
                hint="Choose another name for the workspace; perry leaves that volume alone.",
                workspace=workspace,
            )
        undo.callback(_remove_unused, engine, volume)
    if account.uid != 0 and (volume in present or not account.owns_home):
        _give(engine, workspace, account, helper_image)
    return volume


def _give(engine: Engine, workspace: str, account: Account, helper_image: str) -> None:
    """Set the owner of a volume's root, through a container that never starts.

    The engine passes over a tar's own root, so the volume is unpacked to from one level up.
    """
    volume = names.home_volume(workspace)
    mount = {"Type": "volume", "Source": volume, "Target": "/volumes/home"}
    owned = archive.directory("home", account.uid, account.gid, 0o755)
    config = {"host_config": {"mounts": [mount]}}
    with helper(engine, "home", helper_image, workspace=workspace, config=config) as container:
        engine.write_archive(container, "/volumes", owned)


def _remove_unused(engine: Engine, volume: str) -> None:
    try:
        engine.remove_volume(volume)
    except EngineFailure as failure:
        if failure.status != CONFLICT:  # then another perry's container has it by now
            raise
