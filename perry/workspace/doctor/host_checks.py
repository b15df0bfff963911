"""What may be wrong on this machine: its Python, perry's directories, the agent daemon.

None of it needs an engine. Who asks the daemon is handed in, for its token lies further up. It must
not know workspaces.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs

import perry
from perry.client.agent_client import AgentStatus
from perry.workspace.doctor import space
from perry.workspace.doctor.finding import Check, Verdict, failure, ok, warning

LEAST_PYTHON = (3, 11)

AskDaemon = Callable[[], AgentStatus | None]
"""Asks this user's agent daemon how it is; None where none runs. Raises AgentError."""


@dataclass(frozen=True)
class ThisMachine:
    """What is looked at: perry's two directories need not exist."""

    daemon: AskDaemon
    python: tuple[int, ...] = tuple(sys.version_info[:3])
    cache: Path = field(default_factory=lambda: Path(platformdirs.user_cache_dir("perry")))
    state: Path = field(default_factory=lambda: Path(platformdirs.user_state_dir("perry")))


def python(machine: ThisMachine) -> Verdict:
    """Judge the version of Python that perry runs on."""
    version, least = (".".join(map(str, it)) for it in (machine.python, LEAST_PYTHON))
    if machine.python < LEAST_PYTHON:
        return failure(
            f"Python {version}, and perry needs {least}", "Install perry with a newer Python."
        )
    return ok(f"Python {version}, perry {perry.__version__}")


def cache(machine: ThisMachine) -> Verdict:
    """Judge the directory of what is kept to save asking; without it perry works, but slower."""
    judged = _directory(machine.cache, "XDG_CACHE_HOME")
    return warning(judged.found, judged.advice) if judged.advice else judged


def state(machine: ThisMachine) -> Verdict:
    """Judge the directory of what the agent daemon keeps."""
    return _directory(machine.state, "XDG_STATE_HOME")


def daemon(machine: ThisMachine) -> Verdict:
    """Judge the agent daemon; that none runs is as well."""
    found = machine.daemon()
    if found is None:
        return ok("none runs")
    if found.version != perry.__version__:
        return warning(
            f"it runs perry {found.version}, and this is {perry.__version__}",
            "perry agent stop, then perry agent serve",
        )
    if not found.engine.reachable:
        return warning(
            f"it can't reach its engine: {found.engine.error}",
            "Start its engine, or the daemon again with another DOCKER_HOST.",
        )
    return ok(f"runs as process {found.pid}, for {len(found.places)} places")


CHECKS: Mapping[str, Check[ThisMachine]] = {
    "python": python,
    "cache": cache,
    "state": state,
    "daemon": daemon,
}


def _directory(directory: Path, variable: str) -> Verdict:
    # not Path.exists, which raises where a directory above can't be looked into
    there = next(it for it in (directory, *directory.parents) if os.path.exists(it))  # noqa: PTH110
    try:
        with tempfile.TemporaryFile(dir=there):
            found = space.here(there)
    except OSError as error:
        return failure(
            f"{directory} can't be written: {error.strerror}",
            f"Make it writable for you, or set {variable} to a directory that is.",
        )
    return found.judge(f"{directory} can be written; its disk", f"Make room on it (df -h {there}).")
