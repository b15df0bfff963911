"""What was deleted in a real workspace comes back, through the command line alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from perry.workspace.models import Workspace
from perry.workspace.progress import finish
from tests.conftest import Workspaces
from tests.e2e.command import KILL_WORKER, Perry
from tests.e2e.eventually import eventually
from tests.e2e.test_snapshot import put
from tests.e2e.transcripts import CODEX_ID, GEMINI_ID, every_agents_home

OLD = 1_795_000_000
HOME = "/home/workspace"
PATIENCE = 30.0

SESSIONS = {
    "t": "claude",
    "ses_one": "opencode",
    CODEX_ID: "codex",
    "pi-one": "pi",
    GEMINI_ID: "gemini",
}

LISTING = """
cd ~
/opt/perry/busybox find .claude .codex .pi .gemini ! -type d | /opt/perry/busybox sort |
while read -r file; do
  /opt/perry/busybox stat -c '%n %a %u:%g %Y' "$file"
  /opt/perry/busybox sha256sum "$file"
done
"""


@pytest.fixture
def perry(tmp_path: Path) -> Perry:
    """The command with a home, and a cache, of its own."""
    (tmp_path / "home").mkdir()
    home = str(tmp_path / "home")
    return Perry(tmp_path, {"HOME": home, "XDG_CACHE_HOME": str(tmp_path / "cache")})


@pytest.fixture
def name(workspaces: Workspaces, tmp_path: Path) -> str:
    """A running workspace with sessions of every coding agent, all of them seen by its worker."""
    workspace: Workspace = workspaces.init().workspace
    every_agents_home(tmp_path / "theirs", OLD)
    put(workspaces.engine, workspace.container_id, HOME, tmp_path / "theirs")
    workspaces.run(workspace.name, f"chown -R workspace:workspace {HOME}", user="0")
    with workspaces.manager.connect(workspace) as worker:
        worker.refresh()
    return workspace.name


def listed(perry: Perry, name: str) -> dict[str, Any]:
    sessions = perry.json("session", "list", "-w", name, "--children")["sessions"]
    return {f"{one['agentType']} {one['id']}": one for one in sessions}


def deleted(perry: Perry, name: str) -> list[str]:
    told = perry.json("session", "restore", "--list", "-w", name)["deleted"]
    assert {one["workspace"] for one in told} <= {name}
    return [one["id"] for one in told]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_sessions_of_every_agent_come_back_as_they_were(
    perry: Perry, workspaces: Workspaces, name: str
) -> None:
    before, files = listed(perry, name), workspaces.run(name, LISTING)
    read = {i: digest(perry.ok("session", "show", i, "-w", name, "--json")) for i in SESSIONS}
    for session, agent in SESSIONS.items():
        perry.ok("session", "delete", session, "--agent", agent, "-w", name, "--yes")
    left = listed(perry, name)
    assert not {f"{agent} {session}" for session, agent in SESSIONS.items()} & left.keys()
    assert deleted(perry, name) == [*reversed(SESSIONS)]
    for session in SESSIONS:
        said = perry.ok("session", "restore", session[:6], "-w", name)
        assert said == f"restored {session} to {name}\n"
    eventually(lambda: listed(perry, name), lambda seen: seen == before, within=PATIENCE)
    assert workspaces.run(name, LISTING) == files
    again = {i: digest(perry.ok("session", "show", i, "-w", name, "--json")) for i in SESSIONS}
    assert again == read
    assert deleted(perry, name) == []


def test_what_was_deleted_outlives_the_worker_and_a_stop(
    perry: Perry, workspaces: Workspaces, name: str
) -> None:
    perry.ok("session", "delete", "pi-one", "-w", name, "--yes")
    perry.ok("workspace", "exec", name, *KILL_WORKER)
    assert deleted(perry, name) == ["pi-one"]
    workspaces.manager.stop(name)
    done = perry.run("session", "restore", "pi-one", "-w", name)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{name} is exited" in done.stderr
    done = perry.run("session", "restore", "--list", "-w", name, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, {"deleted": []})
    assert f"{name} is exited" in done.stderr
    finish(workspaces.manager.start(name))
    assert perry.ok("session", "restore", "pi-one") == f"restored pi-one to {name}\n"
    assert "pi pi-one" in listed(perry, name)


def test_where_nothing_can_be_kept_the_session_stays(
    perry: Perry, workspaces: Workspaces, name: str
) -> None:
    workspaces.run(name, "rm -rf ~/.cache/perry/deleted; echo > ~/.cache/perry/deleted")
    done = perry.run("session", "delete", "pi-one", "-w", name, "--yes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--for-good" in done.stderr
    assert "pi pi-one" in listed(perry, name)
    perry.ok("session", "delete", "pi-one", "-w", name, "--yes", "--for-good")
    assert "pi pi-one" not in listed(perry, name)
