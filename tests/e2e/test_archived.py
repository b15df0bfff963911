"""A session stands live, stopped and archived, as its workspace runs, stops and goes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from perry.archive.archive import Archive
from perry.archive.models import Piece
from tests.conftest import Workspaces
from tests.e2e.command import Perry
from tests.e2e.test_sessions import write
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_session


def test_a_session_outlives_its_workspace_in_the_archive(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    perry = Perry(tmp_path, {**own, "XDG_DATA_HOME": str(tmp_path / "data")})
    workspace = workspaces.init().workspace
    name = workspace.name
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/4f2a.jsonl", claude_session("Keep this"))
    with workspaces.manager.connect(workspace) as worker:
        worker.refresh()
        [session] = worker.list_sessions()
        messages = worker.list_messages(session.id).messages
    with contextlib.closing(Archive(tmp_path / "data" / "perry" / "archive.sqlite")) as archive:
        archive.merge([Piece(name, session, 0, messages, is_last=True)])

    def told() -> dict[str, Any]:
        done = perry.run("session", "list", "--archived", "--json", "-w", name)
        [one] = json.loads(done.stdout)["sessions"]
        return {key: one[key] for key in ("workspace", "id", "title", "messageCount", "standing")}

    kept = {
        "workspace": name,
        "id": session.id,
        "title": session.title,
        "messageCount": len(messages),
    }
    assert told() == {**kept, "standing": "live"}
    workspaces.manager.stop(name)
    assert told() == {**kept, "standing": "stopped"}
    workspaces.manager.remove(name)
    assert told() == {**kept, "standing": "archived"}
    shown = perry.run("session", "show", "4f2a", "--json")
    assert json.loads(shown.stdout)["session"]["standing"] == "archived"
    assert f"from the archive: the workspace '{name}' is gone" in shown.stderr
    listed = perry.run("session", "list", "-w", name)
    assert listed.returncode == 1
    assert f"perry session list --archived --workspace {name}" in listed.stderr
    assert perry.run("session", "delete", "4f2a", "-w", name, "--yes").returncode == 0
    assert perry.run("session", "show", "4f2a").returncode == 1
    again = perry.run("session", "restore", "4f2a", "-w", name)
    assert again.stdout == f"restored {session.id} to the archive of {name}\n"
    assert told() == {**kept, "standing": "archived"}
