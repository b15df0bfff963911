"""The kernel's limits on watching files, against what workers need.

The kernel counts by user, and the users of all containers are its own: so all workers of one
user's id share these. One that is refused polls, which is slower. It must not know workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from perry.workspace.doctor.finding import Verdict, ok, warning

INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")

SPARE_INSTANCES, SPARE_WATCHES = 64, 4096
"""What coding agents, editors and desktops of the same user take besides."""

ENOUGH = {INSTANCES.name: 1024, WATCHES.name: 524288}
"""What most machines do with, however many workspaces there are."""

WATCHES_EACH = 1024
"""A workspace's directories with sessions in them: many have fewer."""


def limits(instances: Path, watches: Path, workspaces: int) -> Verdict:
    """Judge the limits in two files of the kernel for so many workspaces that run.

    Raises OSError and ValueError where a file isn't one of them.
    """
    wanted = {
        instances: workspaces + SPARE_INSTANCES,
        watches: workspaces * WATCHES_EACH + SPARE_WATCHES,
    }
    found = {path: int(path.read_text()) for path in wanted}
    told = ", ".join(f"{path.name} {limit:,}" for path, limit in found.items())
    running = f"{workspaces} running workspace{'' if workspaces == 1 else 's'}"
    low = {path.name: wanted[path] for path in wanted if found[path] < wanted[path]}
    if low:
        return warning(f"{told}: too few for {running}", raising(low))
    return ok(f"{told}: enough for {running}")


def raising(wanted: Mapping[str, int]) -> str:
    """Return the command that raises limits to twice what is wanted, and to what most do with."""
    settings = [
        f"fs.inotify.{name}={max(2 * least, ENOUGH[name])}" for name, least in wanted.items()
    ]
    return f"sudo sysctl {' '.join(settings)} (to keep it: a file in /etc/sysctl.d)"
