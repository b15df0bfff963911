"""What a person types: the arguments that commands share, and words turned into a specification.

Variables are looked up and a command is split as a shell would; whether a workspace can be so is
known to the workspace package. This module must not know an engine.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from perry.errors import UsageError
from perry.workspace.models import WorkspaceSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="The session's id, or the start of it.", show_default=False),
]
InWorkspace = Annotated[
    str | None,
    typer.Option(
        "--workspace", "-w", metavar="NAME", help="Only that workspace, or the host: host."
    ),
]


def _known_agent(name: str | None) -> str | None:
    """Return a coding agent's id; raises UsageError for one that there is no reader for."""
    if name is None:
        return None
    from perry.sessions.index import coding_agents  # noqa: PLC0415  # loads all readers

    if name not in coding_agents():
        raise UsageError(
            f"--agent {name}: there is no such coding agent.",
            hint=f"One of these: {', '.join(coding_agents())}.",
        )
    return name


Agent = Annotated[
    str | None,
    typer.Option(
        "--agent",
        metavar="AGENT",
        callback=_known_agent,
        help="Only that coding agent: claude, opencode, codex, pi or gemini.",
    ),
]
FromArchive = Annotated[
    bool,
    typer.Option("--archived", help="Read what the archive has, and ask no workspace."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON in place of text.")]


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
    return WorkspaceSpec(
        name=name,
        image=image,
        clone=clone,
        env=dict(_variable(text, environment) for text in env),
        volumes=tuple(volumes),
        publish=tuple(publish),
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
