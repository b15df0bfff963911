"""The homes that the session tests read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sessions.homes import ClaudeHome, Home

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def claude(tmp_path: Path) -> ClaudeHome:
    return ClaudeHome(tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)
