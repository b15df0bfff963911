from __future__ import annotations

from pathlib import Path

import pytest

from perry.workspace import cache


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_written_is_read_until_it_is_forgotten() -> None:
    assert cache.read("keys", "../e\0ngine") is None
    cache.write("keys", "../e\0ngine", b"first")
    cache.write("keys", "../e\0ngine", b"second")
    cache.write("keys", "another", b"third")
    assert cache.read("keys", "../e\0ngine") == b"second"
    assert cache.read("accounts", "another") is None
    cache.forget("keys", "../e\0ngine")
    cache.forget("keys", "../e\0ngine")
    assert cache.read("keys", "../e\0ngine") is None
    assert cache.read("keys", "another") == b"third"


def test_only_its_user_can_read_it_and_no_draft_is_left(home: Path) -> None:
    cache.write("keys", "engine", b"secret")
    (folder,) = (home / "perry").iterdir()
    (file,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_cache_that_cannot_be_made_costs_nothing_but_time(home: Path) -> None:
    home.write_text("a file is in its place")
    cache.write("keys", "engine", b"secret")
    assert cache.read("keys", "engine") is None
    cache.forget("keys", "engine")
