"""What the engine says of a workspace's container, as the noun that perry hands on.

It must not know how a workspace is found, made or changed.
"""

from __future__ import annotations

from perry.workspace import names
from perry.workspace.account import read_home
from perry.workspace.address import shown_ports
from perry.workspace.engine import Engine
from perry.workspace.models import Workspace
from perry.workspace.roster import Member


def workspace_of(engine: Engine, member: Member) -> Workspace:
    """Return a workspace as its container is now."""
    container = member.container
    config = container.raw["Config"]
    variables = dict(item.partition("=")[::2] for item in config.get("Env") or ())
    # perry's own have the variable, if nobody took it away
    home = read_home(engine, container) if member.adopted else variables.get("HOME", "/root")
    return Workspace(
        name=member.name,
        container_id=container.id,
        image=container.image,
        state=container.state,
        created_at=container.created_at,
        started_at=container.started_at,
        user=config.get("User") or "",
        home=home,
        home_volume=_home_volume(member, home),
        addresses=container.addresses,
        ports=shown_ports(container),
        adopted=member.adopted,
    )


def _home_volume(member: Member, home: str) -> str | None:
    """Name the volume of the home; of an adopted one, what is mounted there."""
    mounts = member.container.raw.get("Mounts") or ()
    if member.adopted:
        found = (it.get("Name") for it in mounts if it.get("Destination") == home)
        return next(found, None)
    volume = names.home_volume(member.name)
    return volume if volume in [it.get("Name") for it in mounts] else None
