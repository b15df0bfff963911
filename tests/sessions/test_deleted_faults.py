"""A deletion or restoration that is killed, or has no room: the session is whole, or kept whole."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sessions.deletable import HOMES, Tree, kept, remembering, rows, tree
from tests.sessions.deleting import CHECKOUT, begin, ended, minding_modes

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


ON_A_FULL_DISK = """
mount -t tmpfs -o size=1m none "$1/.cache"
"$2" -m tests.sessions.deleting "$1" delete "$3"
find "$1/.cache" -type f ! -name lock
"""

OVER_A_MOUNT = """
project="$1/.claude/projects/-home-dev-proj"
look() {
  cd "$project"
  find . -printf '%p %y %m %T@ %l\\n' | sort
  find . -type f -exec cksum {} + | sort
  cd "$4"
}
cp -a "$project" "$1/copy"
mount -t tmpfs none "$project"
cp -a "$1/copy/." "$project"
look > "$1/before"
"$2" -m tests.sessions.deleting "$1" delete "$3"
! test -e "$project/one.jsonl"
"$2" -m tests.sessions.deleting "$1" restore "$3"
look | diff "$1/before" - && echo all is as it was
"""


def in_a_namespace(script: str, home: Path, session_id: str) -> list[str]:
    """Run a script that mounts what it wants, and give the lines that it printed."""
    words = [script, "sh", str(home), sys.executable, session_id, str(CHECKOUT)]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", *words],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_on_a_full_disk_nothing_is_deleted_and_nothing_half_made_stays(tmp_path: Path) -> None:
    session_id = fill("claude", tmp_path)
    (tmp_path / ".cache").mkdir()
    before = tree(tmp_path)
    begun, told, *left = in_a_namespace(ON_A_FULL_DISK, tmp_path, session_id)
    assert begun == "begun"
    assert told.startswith("SessionNotKept")
    assert "No space left on device" in told
    assert left == []
    assert tree(tmp_path) == before


def test_a_directory_on_another_file_system_is_restored_to(tmp_path: Path) -> None:
    session_id = fill("claude", tmp_path)
    assert in_a_namespace(OVER_A_MOUNT, tmp_path, session_id)[-1] == "all is as it was"
