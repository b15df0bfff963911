"""What a person typed, turned into what the manager takes.

The shapes that `docker run` has taught people (`K=V`, `SRC:DST`, `HOST:CONTAINER`, `512m`) are
checked here, so that a slip is a usage error before the engine is even asked. This module must not
know an engine.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from perry.errors import UsageError
from perry.workspace.models import WorkspaceSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MEMORY = re.compile(r"\d+[bkmg]?", re.IGNORECASE)
_PUBLISH = re.compile(
    r"(?:(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]+\]):)?(\d+):(\d+)(?:/(?:tcp|udp))?"
)
LAST_PORT = 65535


def workspace_spec(
    name: str,
    environment: Mapping[str, str],
    *,
    image: str | None = None,
    clone: str | None = None,
    env: Iterable[str] = (),
    volumes: Iterable[str] = (),
    publish: Iterable[str] = (),
    memory: str | None = None,
    cpus: float | None = None,
    command: str | None = None,
    network: str | None = None,
    read_only: bool = False,
) -> WorkspaceSpec:
    """Read the options of `workspace init`; `environment` is what a bare `--env K` reads.

    Raises UsageError, which names the option.
    """
    if memory is not None and not _MEMORY.fullmatch(memory):
        raise UsageError(f"--memory {memory}: not a size.", hint="Such as 512m or 4g.")
    if cpus is not None and not cpus > 0:
        raise UsageError(f"--cpus {cpus:g}: a workspace needs more than none.")
    return WorkspaceSpec(
        name=name,
        image=image,
        clone=clone,
        env=dict(_variable(text, environment) for text in env),
        volumes=tuple(_volume(text) for text in volumes),
        publish=tuple(_published(text) for text in publish),
        memory=memory,
        cpus=cpus,
        command=_split(command),
        network=network,
        read_only=read_only,
    )


def _variable(text: str, environment: Mapping[str, str]) -> tuple[str, str]:
    name, given, value = text.partition("=")
    if not name:
        raise UsageError(f"--env {text}: it has no name.", hint="Give K=V, or K alone.")
    if given:
        return name, value
    if name not in environment:
        raise UsageError(f"--env {name}: not set here.", hint=f"Give its value: --env {name}=…")
    return name, environment[name]


def _volume(text: str) -> str:
    """Check `SRC:DST[:ro]`; a source that begins with `.` or `~` is a path of this machine."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target.startswith("/") or mode not in {"", "ro", "rw"}:
        raise UsageError(
            f"--volume {text}: not SRC:DST[:ro].", hint="DST is a whole path: --volume ./data:/data"
        )
    if source.startswith(("./", "../", "~")) or source in {".", ".."}:
        source = str(Path(source).expanduser().resolve())
    return f"{source}:{rest}"


def _published(text: str) -> str:
    ports = _PUBLISH.fullmatch(text)
    if not ports or not all(0 < int(port) <= LAST_PORT for port in ports.groups()):
        raise UsageError(
            f"--publish {text}: not HOST:CONTAINER.", hint="Such as --publish 8080:80."
        )
    return text


def _split(command: str | None) -> tuple[str, ...]:
    if command is None:
        return ()
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError(f"--command {command}: {error}") from error
    if not words:
        raise UsageError("--command: it is empty.")
    return words


def examples(*commands: str) -> str:
    """Set examples below a command's help, kept line for line."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)
