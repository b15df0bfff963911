"""Why no engine answers, and what to do about it, in words.

What libraries say of a failed connection is long and says nothing to do. It must not know how an
engine is asked.
"""

from __future__ import annotations

import os

from perry.errors import EngineUnreachable
from perry.workspace.ssh import SshFailed


def unreachable(error: Exception, base_url: str | None) -> EngineUnreachable:
    """Say of an engine at an address, None for the default one, why it can't be talked to."""
    where = base_url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    where = where.replace("http+docker://", "unix://")
    words = str(error)
    if where.startswith("ssh://"):
        return EngineUnreachable(
            f"The Docker engine at {where} can't be reached: {_words_of_ssh(error) or words}",
            hint="Check that ssh gets there and finds Docker: ssh HOST docker version",
        )
    if "PermissionError" in words or "Permission denied" in words:
        return EngineUnreachable(
            f"No permission to use the Docker engine's socket {where}",
            hint="Add yourself to its group and log in again: sudo usermod -aG docker $USER",
        )
    if any(sign in words for sign in ("FileNotFoundError", "Connection refused", "No such file")):
        return EngineUnreachable(
            f"No Docker engine answers at {where}",
            hint="Start it (sudo systemctl start docker), or set DOCKER_HOST to another engine.",
        )
    return EngineUnreachable(
        f"The Docker engine at {where} can't be used: {words}",
        hint="Check that it runs (docker version), or set DOCKER_HOST to another engine.",
    )


def _words_of_ssh(error: BaseException | None) -> str:
    while error is not None and not isinstance(error, SshFailed):
        error = error.__context__
    return str(error or "")
