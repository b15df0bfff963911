"""A workspace without a worker, whose files are made to lead whoever reads them somewhere else."""

from __future__ import annotations

import time
from pathlib import Path

from docker.models.containers import Container

from tests.e2e.command import BUSYBOX
from tests.e2e.eventually import eventually
from tests.e2e.faults.doing import LIVE, shell, write
from tests.e2e.faults.table import TABLE
from tests.e2e.running_agent import RunningAgent
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_line


def test_links_in_a_stopped_workspace_lead_the_daemon_nowhere(
    agent: RunningAgent, workspace: Container, tmp_path: Path
) -> None:
    secret = claude_line("user", "the host's own secret", uuid="u-1", session="secret")
    on_the_host = tmp_path / "secret"
    on_the_host.mkdir()
    (on_the_host / "secret.jsonl").write_text(secret)
    write(workspace, "s", 4)
    place = f"$HOME/{CLAUDE_DIRECTORY}"
    shell(
        workspace,
        f"""
        {BUSYBOX} ln -s {on_the_host}/secret.jsonl {place}/file.jsonl
        {BUSYBOX} ln -s {on_the_host} $HOME/.claude/projects/directory
        {BUSYBOX} ln -s / $HOME/.claude/projects/root
        {BUSYBOX} mkfifo {place}/pipe.jsonl
        {BUSYBOX} mkdir -p $HOME/.codex
        {BUSYBOX} ln -s ../../../../../../../..{on_the_host} $HOME/.codex/sessions
        """,
    )
    workspace.kill()
    killed = time.monotonic()
    eventually(
        lambda: agent.place("work"), lambda it: bool(it and it["via"] == "snapshot"), within=LIVE
    )
    took = time.monotonic() - killed
    assert agent.counts("work") == {"s": 4}
    assert agent.ask("GET", "/api/workspaces/work/sessions/secret/messages").status_code == 404
    [cache] = (agent.directory / "home/.cache/perry").glob("snapshots*")
    kept = [*cache.rglob("*")]
    assert [path.name for path in kept if path.suffix == ".jsonl"] == ["s.jsonl"]
    assert not [path for path in kept if path.is_symlink()]
    TABLE.add("an archive with links out of it", took, "none followed, none kept; 4 messages read")
