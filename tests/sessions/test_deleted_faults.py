"""A deletion or restoration that is killed, or has no room: the session is whole, or kept whole."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.sessions.deletable import HOMES, Tree, kept, remembering, rows, tree
from tests.sessions.deleting import begin, ended, minding_modes

KILLS = int(os.environ.get("PERRY_KILLS", "8"))
"""Kills of each kind for each home."""

KILLED = ("claude", "opencode_both")


def timeless(found: Tree) -> Tree:
    """Leave out the times of directories, which are only given back where nothing went wrong."""
    return {
        name: what[:3] + what[3 if what[4] is not None else 4 :] for name, what in found.items()
    }


def fill(name: str, home: Path) -> str:
    """Make a home whose session takes a while to delete."""
    session_id = HOMES[name](home)
    rng = random.Random(1)  # noqa: S311  (no secret)
    large = {
        "claude": ".claude/projects/-home-dev-proj/one/tool-results/{}.txt",
        "opencode_both": ".local/share/opencode/storage/part/msg_10/prt_9{}.json",
    }[name]
    for number in range(40):
        (home / large.format(number)).write_bytes(rng.randbytes(50_000))
    return session_id


@pytest.mark.parametrize("name", KILLED)
@pytest.mark.parametrize("what", ["delete", "restore"])
def test_killed_at_any_moment_the_session_is_whole_or_can_be_restored(
    name: str, what: str, tmp_path: Path
) -> None:
    home, template = tmp_path / "home", tmp_path / "template"
    session_id = fill(name, home)
    before, stored = timeless(tree(home)), rows(home)
    if what == "restore":
        remembering(home).delete(session_id)
    home.rename(template)
    whole = restorable = broken_off = 0
    took = 0.0
    for trial in range(KILLS + 1):
        subprocess.run(["cp", "-a", template, home], check=True)
        process = begin(home, what, session_id)
        if trial == 0:
            took = float(ended(process).removeprefix("done "))
            shutil.rmtree(home)
            continue
        time.sleep(random.uniform(0, took * 1.1))  # noqa: S311  (no secret)
        process.kill()
        process.wait(10)
        broken_off += any("." in path.name for path in kept(home))
        index = remembering(home)
        if any(session.id == session_id for session in index.list()):
            whole += 1
        else:
            index.restore(session_id)
            restorable += 1
        assert timeless(tree(home)) == before
        assert rows(home) == stored
        assert kept(home) == []
        index.delete(session_id)
        assert session_id not in {session.id for session in index.list(children=True)}
        shutil.rmtree(home)
    told = f"{whole} whole, {restorable} restorable, {broken_off} of all broken off"
    print(f"{name}: {KILLS} kills within {took:.3f} s of a {what}: {told}")  # noqa: T201  (with -rP)


@pytest.mark.parametrize("name", KILLED)
def test_without_room_to_keep_it_nothing_is_deleted(name: str, tmp_path: Path) -> None:
    session_id = fill(name, tmp_path)
    before, stored = tree(tmp_path), rows(tmp_path)
    told = ended(begin(tmp_path, "delete", session_id, "1000000"))
    assert told.startswith("SessionNotKept")
    assert "File too large" in told
    assert (tree(tmp_path), rows(tmp_path)) == (before, stored)
    assert kept(tmp_path) == []


@pytest.mark.parametrize("name", KILLED)
def test_without_room_to_restore_it_nothing_is_restored(name: str, tmp_path: Path) -> None:
    session_id = fill(name, tmp_path)
    remembering(tmp_path).delete(session_id)
    before, stored = tree(tmp_path), rows(tmp_path)
    told = ended(begin(tmp_path, "restore", session_id, "40000"))
    assert told.startswith("SessionError")
    assert (tree(tmp_path), rows(tmp_path)) == (before, stored)
    assert remembering(tmp_path).deleted()[0].session.id == session_id


@pytest.mark.parametrize("name", KILLED)
def test_what_cannot_be_deleted_whole_is_put_back(name: str, tmp_path: Path) -> None:
    session_id = HOMES[name](tmp_path)
    stuck = next(path for path in tmp_path.rglob("*") if path.name in {"subagents", "msg_10"})
    stuck.chmod(0o555)
    before, stored = timeless(tree(tmp_path)), rows(tmp_path)
    told = ended(begin(tmp_path, "delete", session_id, prefix=minding_modes()))
    assert told.startswith("SessionError")
    assert (timeless(tree(tmp_path)), rows(tmp_path)) == (before, stored)
    assert kept(tmp_path) == []
