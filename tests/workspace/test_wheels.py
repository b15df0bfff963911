"""Wheels for what runs in containers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from perry.errors import BuildError
from perry.workspace.wheels import resolve_wheels


def test_an_architecture_that_perry_has_no_worker_for_is_said(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="architecture riscv64"):
        resolve_wheels(tmp_path / "lock", tmp_path / "site", "riscv64")


def test_a_requirement_without_a_hash_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("idna==3.20\n")
    with pytest.raises(BuildError, match=r"what lock\.txt pins"):
        resolve_wheels(lock, tmp_path / "site", "amd64")
    assert not (tmp_path / "site").exists()


def test_a_perry_without_pip_says_where_images_can_be_built() -> None:
    """As in the agent daemon's container."""
    program = """
import sys
sys.modules["pip"] = None
from pathlib import Path
from perry.errors import BuildError
from perry.workspace.wheels import resolve_wheels
try:
    resolve_wheels(Path("lock"), Path("site"), "amd64")
except BuildError as error:
    print(error.message, error.hint)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert "no pip" in done.stdout
    assert "perry image build" in done.stdout
