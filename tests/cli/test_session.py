"""The session commands' questions, put to real workers on loopback."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from perry.cli import render
from perry.cli.fleet import Fleet, Place
from perry.cli.session import session_view
from perry.cli.snapshots import Taken
from perry.client.worker_client import WorkerClient
from perry.errors import SessionAmbiguous, WorkerUnreachable
from perry.workspace.models import Workspace

ONE = "aaaa1111-0000-4000-8000-000000000001"
TWO = "aaaa2222-0000-4000-8000-000000000002"
OTHER = "bbbb3333-0000-4000-8000-000000000003"


def record(session: str, kind: str, content: Any, second: int) -> str:
    return json.dumps(
        {
            "type": kind,
            "sessionId": session,
            "uuid": f"{session}-{second}",
            "timestamp": f"2026-01-02T03:04:{second:02}.000Z",
            "cwd": "/home/workspace/site",
            "message": {"role": kind, "content": content},
        }
    )


def write_session(home: Path, session: str, prompt: str, second: int) -> None:
    call = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "a\nb"}
    lines = [
        record(session, "user", prompt, second),
        record(session, "assistant", [call], second + 1),
        record(session, "user", [result], second + 2),
        record(session, "assistant", [{"type": "text", "text": "Two files."}], second + 3),
    ]
    folder = home / ".claude" / "projects" / "-home-workspace-site"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{session}.jsonl").write_text("\n".join(lines) + "\n")


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """Run `perry worker serve` for a home; gives its URL once the first scan is whole."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    worker = subprocess.Popen(
        [sys.executable, "-m", "perry", "worker", "serve", "--port", "0"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stderr is not None
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    stderr = worker.stderr

    def read() -> None:
        for line in stderr:
            lines.put(line)

    threading.Thread(target=read, daemon=True).start()
    try:
        url = ""
        while True:
            line = lines.get(timeout=30)
            if found := re.search(r"listening on (\S+)", line):
                url = found[1]
            if "first scan took" in line:
                break
        yield url
    finally:
        worker.terminate()
        worker.wait(10)


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    demo, site = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("site")
    write_session(demo, ONE, "Fix the login", 1)
    write_session(site, TWO, "Look around", 10)
    write_session(site, OTHER, "Write the docs", 20)
    with serving(demo) as first, serving(site) as second:
        yield {"demo": first, "site": second}


@pytest.fixture
def make_fleet(
    urls: dict[str, str], make_workspace: Callable[..., Workspace]
) -> Callable[..., Fleet]:
    def make(*names: str) -> Fleet:
        def connect(workspace: Place) -> WorkerClient:
            if workspace.name not in urls:
                raise WorkerUnreachable("nothing answers", workspace=workspace.name)
            return WorkerClient(urls[workspace.name], workspace=workspace.name)

        return Fleet([make_workspace(name=name) for name in names], connect)

    return make


def test_sessions_of_all_workspaces_come_newest_first(make_fleet: Callable[..., Fleet]) -> None:
    gathered = make_fleet("demo", "site").sessions()
    told = [(one.place.name, one.session.id) for one in gathered.found]
    assert told == [("site", OTHER), ("site", TWO), ("demo", ONE)]
    assert [one.session.id for one in make_fleet("demo", "site").sessions(limit=2).found] == [
        OTHER,
        TWO,
    ]


def test_a_workspace_that_cannot_be_asked_hides_no_other(
    make_fleet: Callable[..., Fleet],
) -> None:
    gathered = make_fleet("demo", "broken").sessions()
    assert [one.session.id for one in gathered.found] == [ONE]
    assert list(gathered.failures) == ["broken"]
    assert not gathered.nobody_answered
    assert make_fleet("broken").sessions().nobody_answered


def test_sessions_are_kept_to_one_coding_agent(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet("demo", "site")
    assert len(fleet.sessions(agent="claude").found) == 3
    assert fleet.sessions(agent="opencode").found == ()


def test_a_prefix_is_found_over_all_workspaces(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet("demo", "site")
    found, _ = fleet.find("aaaa2")
    assert (found.place.name, found.session.id) == ("site", TWO)
    with pytest.raises(SessionAmbiguous) as raised:
        fleet.find("aaaa")
    assert sorted(raised.value.candidates) == [ONE, TWO]
    assert "demo" in raised.value.hint
    assert "Fix the login" in raised.value.hint


def test_the_only_workspace_asked_says_itself_why_it_cannot_answer(
    make_fleet: Callable[..., Fleet],
) -> None:
    with pytest.raises(WorkerUnreachable):
        make_fleet("broken").find("aaaa")


def test_session_json_has_the_session_s_keys_and_its_workspace(
    make_fleet: Callable[..., Fleet],
) -> None:
    view = session_view(make_fleet("demo").find(ONE)[0])
    always = {
        "workspace", "id", "agentType", "title", "directory", "filePath", "messageCount",
        "firstPrompt", "lastActivity",
    }  # fmt: skip
    optional = {
        "gitBranch", "model", "startedAt", "parentId", "inputTokens", "outputTokens",
        "skippedLines",
    }  # fmt: skip
    assert always <= set(view) <= always | optional
    assert (view["workspace"], view["id"], view["messageCount"]) == ("demo", ONE, 4)


def test_session_json_tells_of_a_snapshot_in_two_more_keys(
    make_fleet: Callable[..., Fleet],
) -> None:
    found, _ = make_fleet("demo").find(ONE)
    copied = dataclasses.replace(found, taken=Taken("exited", 1_700_000_000_000))
    told = {"via": "snapshot", "asOf": 1_700_000_000_000}
    assert session_view(copied) == {**session_view(found), **told}


def test_what_was_read_from_a_snapshot_is_told_of_each_session_and_each_place(
    make_fleet: Callable[..., Fleet],
) -> None:
    taken = {"site": Taken("exited", 5), "broken": Taken("exited", 6)}
    fleet = dataclasses.replace(make_fleet("demo", "site", "broken"), taken=taken)
    gathered = fleet.sessions()
    assert {one.place.name: one.taken for one in gathered.found} == {
        "demo": None,
        "site": taken["site"],
    }
    assert gathered.taken == {"site": taken["site"]}


def test_a_session_is_shown_readably(
    make_fleet: Callable[..., Fleet],
    capsys: pytest.CaptureFixture[str],
    set_zone: Callable[[str], None],
) -> None:
    set_zone("UTC0")
    fleet = make_fleet("demo")
    found, _ = fleet.find(ONE)
    with fleet.connect(fleet.places[0]) as client:
        render.session_head(found, [])
        render.line()
        render.conversation(client.iterate_messages(ONE), full=False)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "Fix the login"
    assert told[1].startswith("claude · demo · ~/site · 4 messages · ")
    assert told[3:] == [
        "",
        "USER  2026-01-02 03:04:01 UTC",
        "Fix the login",
        "",
        "  → Bash  command: ls",
        "  ← a  (+1 line)",
        "",
        "ASSISTANT  2026-01-02 03:04:04",
        "Two files.",
    ]
