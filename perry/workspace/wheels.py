"""Dependencies of what runs in containers: pinned wheels, resolved on the host.

A container may have no way out, and has no pip. It must not know what the wheels are for.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from perry.errors import BuildError

IMAGE_PYTHON = "3.13"
"""The Python of the images' base, for which wheels are resolved."""

_PLATFORMS = ("manylinux_2_17", "manylinux2014", "manylinux_2_28")
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""The architectures that there is a worker for, in Docker's words and in those of wheels."""


def resolve_wheels(lock: Path, site: Path, architecture: str) -> None:
    """Unpack the wheels that a lock pins, built for the images' Python, into a folder.

    `architecture` is the engine's. Raises BuildError.
    """
    machine = MACHINES.get(architecture)
    if machine is None:
        raise BuildError(
            f"perry has no worker for an engine of architecture {architecture}",
            hint=f"It has one for {' and '.join(sorted(MACHINES))}.",
        )
    if importlib.util.find_spec("pip") is None:
        raise BuildError(
            "Images can't be built here: this perry has no pip, as in the agent daemon's container",
            hint="Run perry image build on the engine's machine.",
        )
    platforms = [f"--platform={platform}_{machine}" for platform in _PLATFORMS]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    target = [f"--target={site}", f"--python-version={IMAGE_PYTHON}", "--implementation=cp"]
    strict = ["--only-binary=:all:", "--no-deps", "--no-compile", "--require-hashes"]
    resolved = subprocess.run(
        [*pip, *target, *platforms, *strict, "--requirement", str(lock)],
        capture_output=True,
        text=True,
        check=False,
    )
    if resolved.returncode != 0:
        raise BuildError(
            f"pip could not fetch what {lock.name} pins: {resolved.stderr.strip()[-500:]}",
            hint="Check that this machine reaches its Python package index.",
        )
