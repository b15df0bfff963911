"""Programs that tests need and a bare Debian lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.own_engine import as_root

POLICY = Path("/usr/sbin/policy-rc.d")
"""Says whether a package that is installed may start its service."""


def require(program: str, package: str) -> str:
    """Return where a program is, installing its Debian package where it isn't."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if shutil.which(program, path=path) is None:
        with _no_services():
            _run("apt-get", "update", "-qq")
            _run("apt-get", "install", "--yes", "-qq", "--no-install-recommends", package)
    found = shutil.which(program, path=path)
    assert found is not None, f"{program} is missing: apt-get install {package}"
    return found


@contextmanager
def _no_services() -> Iterator[None]:
    if POLICY.exists():
        yield
        return
    _run("install", "-m", "755", "/bin/false", str(POLICY))
    try:
        yield
    finally:
        _run("rm", str(POLICY))


def _run(*words: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(
        [*as_root(), *words],
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=environment,
    )
