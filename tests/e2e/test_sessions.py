"""From a line written in a workspace to the answer on the host, through everything real."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import httpx
import msgspec
import pytest
from testcontainers.core.container import DockerContainer

from perry.client.worker_client import WorkerClient
from perry.errors import SessionNotFound, WorkerUntrusted
from perry.sessions.models import Message, Session
from perry.workspace.engine import Engine
from perry.workspace.manager import WorkspaceManager
from perry.workspace.models import Workspace
from tests.conftest import Workspaces
from tests.e2e.command import Perry
from tests.e2e.eventually import eventually
from tests.e2e.labels import LABEL
from tests.e2e.transcripts import (
    CLAUDE_DIRECTORY,
    add_opencode_session,
    claude_line,
    claude_session,
    opencode_database,
)


@pytest.fixture
def workspace(workspaces: Workspaces) -> Workspace:
    ready = workspaces.init()
    assert ready.worker is not None, ready.warning
    return ready.workspace


@pytest.fixture
def worker(workspaces: Workspaces, workspace: Workspace) -> Iterator[WorkerClient]:
    with workspaces.manager.connect(workspace) as client:
        yield client


def write(workspaces: Workspaces, workspace: Workspace, path: str, text: str) -> None:
    """Write a file in a workspace as its user, with the directories it needs."""
    workspaces.run(
        workspace.name,
        f"mkdir -p \"$(dirname ~/'{path}')\"; cat >> ~/'{path}' <<'EOF'\n{text.rstrip()}\nEOF",
    )


def sessions_once(worker: WorkerClient, count: int) -> tuple[Session, ...]:
    return eventually(worker.list_sessions, lambda found: len(found) == count)


def test_sessions_in_directories_that_did_not_exist_appear_without_a_refresh(
    workspaces: Workspaces, workspace: Workspace, worker: WorkerClient
) -> None:
    assert worker.list_sessions() == ()
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/s.jsonl", claude_session())
    (session,) = sessions_once(worker, 1)
    assert session.title == session.first_prompt == "Why is the cart empty?"
    assert (session.agent_type, session.directory, session.git_branch) == (
        "claude", "/home/dev/shop", "main",
    )  # fmt: skip
    assert session.message_count == 6
    assert [message.type for message in worker.list_messages("s").messages] == [
        "user", "assistant", "tool_use", "tool_result", "assistant", "user",
    ]  # fmt: skip


def test_an_appended_line_is_seen_within_a_second_of_the_writing(
    workspaces: Workspaces, workspace: Workspace, worker: WorkerClient
) -> None:
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/s.jsonl", claude_session())
    sessions_once(worker, 1)
    line = claude_line("assistant", "Filled.", uuid="u-07")
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/s.jsonl", line)
    written = time.monotonic()
    eventually(lambda: worker.get_session("s").message_count, lambda count: count == 7)
    assert time.monotonic() - written < 1


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7, 100])
def test_paging_with_any_limit_gives_the_same_sequence(
    workspaces: Workspaces, workspace: Workspace, worker: WorkerClient, limit: int
) -> None:
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/s.jsonl", claude_session())
    sessions_once(worker, 1)
    whole = worker.list_messages("s", limit=1000)
    paged: list[object] = []
    for offset in range(0, whole.total, limit):
        paged = [*worker.list_messages("s", limit=limit, offset=offset).messages, *paged]
    assert tuple(paged) == whole.messages
    assert len(paged) == whole.total == worker.get_session("s").message_count


def test_an_opencode_database_in_wal_mode_is_read_without_changing_it(
    workspaces: Workspaces, tmp_path: Path
) -> None:
    """The host's own writer keeps its log open, as a running OpenCode does."""
    data = tmp_path / "opencode"
    with contextlib.closing(opencode_database(data / "opencode.db")) as database:
        tmp_path.chmod(0o755)
        for file in data.iterdir():
            file.chmod(0o644)
        before = {file.name: file.read_bytes() for file in data.iterdir()}
        ready = workspaces.init(volumes=(f"{data}:/home/workspace/.local/share/opencode",))
        with workspaces.manager.connect(ready.workspace) as worker:
            (session,) = sessions_once(worker, 1)
            assert (session.title, session.message_count) == ("Rename the module", 2)
            texts = [message.content for message in worker.list_messages(session.id).messages]
            assert texts == ["Rename it", "Renamed"]
            assert {file.name: file.read_bytes() for file in data.iterdir()} == before
            add_opencode_session(database, "ses_two", "Another one")
            assert sessions_once(worker, 2)


def test_a_deleted_session_is_gone_from_the_list_and_the_disk(
    workspaces: Workspaces, workspace: Workspace, worker: WorkerClient
) -> None:
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/s.jsonl", claude_session())
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/t.jsonl", claude_session("Other"))
    sessions_once(worker, 2)
    worker.delete_session("s")
    assert [session.id for session in worker.list_sessions()] == ["t"]
    assert workspaces.run(workspace.name, f"ls ~/{CLAUDE_DIRECTORY}") == "t.jsonl\n"
    with pytest.raises(SessionNotFound):
        worker.delete_session("s")


def test_after_a_restart_of_the_container_the_next_question_is_answered(
    workspaces: Workspaces, workspace: Workspace, worker: WorkerClient
) -> None:
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/s.jsonl", claude_session())
    sessions_once(worker, 1)
    workspaces.manager.stop(workspace.name)
    workspaces.engine.start_container(workspace.container_id)
    with workspaces.manager.connect(workspaces.manager.get(workspace.name)) as again:
        assert [session.id for session in again.list_sessions()] == ["s"]


def test_a_killed_worker_is_revived_by_the_next_question(
    workspaces: Workspaces, workspace: Workspace
) -> None:
    workspaces.run(workspace.name, "pkill -KILL -f ^/opt/perry/layers")
    with workspaces.manager.connect(workspace) as worker:
        assert worker.list_sessions() == ()


def test_many_questions_at_once_revive_one_worker_and_all_are_answered(
    workspaces: Workspaces, workspace: Workspace
) -> None:
    """Each asks as a command of its own would: with a manager that knows of no other."""
    for _ in range(3):
        workspaces.run(workspace.name, "pkill -KILL -f ^/opt/perry/layers")
        managers = [WorkspaceManager(Engine.connect()) for _ in range(4)]

        def ask(manager: WorkspaceManager) -> int:
            with manager.connect(workspace) as worker:
                return len(worker.list_sessions())

        with ThreadPoolExecutor(len(managers)) as pool:
            assert list(pool.map(ask, managers)) == [0] * len(managers)
        # the others find the port taken, and end
        eventually(
            lambda: workspaces.run(workspace.name, "pgrep -f ^/opt/perry/layers").split(),
            lambda running: len(running) == 1,
        )


def test_two_workspaces_do_not_mix(workspaces: Workspaces, workspace: Workspace) -> None:
    other = workspaces.init().workspace
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/one.jsonl", claude_session("One"))
    write(workspaces, other, f"{CLAUDE_DIRECTORY}/two.jsonl", claude_session("Two"))
    for each, title in ((workspace, "One"), (other, "Two")):
        with workspaces.manager.connect(each) as worker:
            assert [session.title for session in sessions_once(worker, 1)] == [title]


def test_one_workspaces_token_opens_no_other(workspaces: Workspaces, workspace: Workspace) -> None:
    other = workspaces.init().workspace
    stranger = WorkerClient(
        f"http://{other.addresses[0]}:7392",
        workspaces.manager.token(workspace),
        workspace=workspace.name,
    )
    with stranger, pytest.raises(WorkerUntrusted):
        stranger.list_sessions()


def test_a_neighbour_without_the_token_gets_401_everywhere_but_at_health(
    workspace: Workspace, workspace_image: str
) -> None:
    """The neighbour is a container that perry didn't make, on the same network."""
    address = f"http://{workspace.addresses[0]}:7392"
    neighbour = (
        DockerContainer(workspace_image).with_command("sleep 60").with_kwargs(labels={LABEL: "1"})
    )
    with neighbour:

        def status(path: str) -> str:
            code, output = neighbour.exec(
                [
                    "curl",
                    "-s",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    "--path-as-is",
                    address + path,
                ]
            )
            assert code == 0
            return str(output.decode())

        assert status("/health") == "200"
        for path in (
            "/sessions",
            "/sessions/s",
            "/sessions/s/messages",
            "/nothing",
            "/sessions/../x",
        ):
            assert status(path) == "401", path


def test_the_token_shows_in_no_process_list_no_label_and_no_log(
    workspaces: Workspaces, workspace: Workspace
) -> None:
    token = workspaces.manager.token(workspace)
    container = workspaces.engine.get_container(workspace.container_id)
    assert container is not None
    assert token not in str(container.raw)
    assert token not in "".join(workspaces.engine.list_processes(workspace.container_id))
    assert token not in workspaces.manager.worker_log(workspace.name)


@pytest.mark.parametrize(
    "session_id", ["..", ".", "a/b", "../../etc/passwd", "%2e%2e", "", "x" * 5000]
)
def test_an_id_of_no_session_is_not_found_and_never_another_path(
    worker: WorkerClient, session_id: str
) -> None:
    with pytest.raises(SessionNotFound):
        worker.get_session(session_id)


def test_broken_lines_are_counted_and_the_rest_is_served(
    workspaces: Workspaces, workspace: Workspace, worker: WorkerClient
) -> None:
    lines = claude_session().splitlines(keepends=True)
    bad = 'not json\n{"half": \n[1,2]\n'
    surrogate = claude_line("assistant", "a lone \ud83d here", uuid="u-08")
    text = "".join([*lines[:3], bad, *lines[3:], surrogate])
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/s.jsonl", text)
    workspaces.run(
        workspace.name, f'printf \'\\377\\376\\n{{"type":"us\' >> ~/{CLAUDE_DIRECTORY}/s.jsonl'
    )
    session = eventually(
        lambda: {session.id: session for session in worker.list_sessions()}.get("s"),
        lambda found: found is not None and found.skipped_lines == 4,
    )
    assert session is not None
    assert session.message_count == 7
    assert len(list(worker.iterate_messages("s"))) == 7


def test_words_are_found_in_all_workspaces(
    workspaces: Workspaces, workspace: Workspace, perry: Perry
) -> None:
    other = workspaces.init().workspace
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/one.jsonl", claude_session("A Haystack"))
    write(workspaces, other, f"{CLAUDE_DIRECTORY}/two.jsonl", claude_session("The haystack-needle"))
    mine = {workspace.name, other.name}

    def found(*arguments: str) -> set[tuple[str, str]]:
        hits = perry.json("session", "search", *arguments)["hits"]
        return {(hit["workspace"], hit["title"]) for hit in hits if hit["workspace"] in mine}

    both = {(workspace.name, "A Haystack"), (other.name, "The haystack-needle")}
    assert eventually(lambda: found("HAYSTACK"), lambda hits: len(hits) == 2) == both
    assert found("needle", "the") == {(other.name, "The haystack-needle")}
    assert found("haystack", "--workspace", workspace.name) == {(workspace.name, "A Haystack")}
    assert found("haystack", "--since", "2026-11-21") == set()
    lines = perry.ok("session", "search", "haystack", "-w", other.name).splitlines()
    assert lines[0] == f"two  {other.name}  claude  The haystack-needle"
    assert lines[1].split()[0] == "user"
    nothing = perry.run("session", "search", "no-such-word", "-w", other.name)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert nothing.stderr == "nothing found in 1 workspace\n"


def test_tail_goes_on_over_a_killed_worker_and_a_restarted_container(
    workspaces: Workspaces, workspace: Workspace, perry: Perry
) -> None:
    path = f"{CLAUDE_DIRECTORY}/s.jsonl"
    write(workspaces, workspace, path, claude_session())
    eventually(
        lambda: perry.json("session", "list", "-w", workspace.name)["sessions"],
        lambda found: len(found) == 1,
    )
    tail = perry.start("session", "tail", "s", "-w", workspace.name, "-n", "1", "--json")
    told = Lines(tail)
    try:
        assert told.content() == "Then fill it."
        write(workspaces, workspace, path, claude_line("user", "one", uuid="u-07"))
        assert told.content() == "one"
        workspaces.run(workspace.name, "pkill -KILL -f ^/opt/perry/layers")
        write(workspaces, workspace, path, claude_line("user", "two", uuid="u-08"))
        assert told.content() == "two"
        workspaces.manager.stop(workspace.name)
        workspaces.engine.start_container(workspace.container_id)
        write(workspaces, workspace, path, claude_line("user", "three", uuid="u-09"))
        assert told.content() == "three"
        assert told.queue.empty()
    finally:
        tail.send_signal(signal.SIGINT)
        assert tail.wait(10) == 130


def test_tail_without_an_id_hears_a_workspace_that_is_made_later(
    workspaces: Workspaces, workspace: Workspace, perry: Perry
) -> None:
    del workspace  # one that is there from the beginning
    tail = perry.start("session", "tail", "--json")
    told = Lines(tail)
    try:
        later = workspaces.init().workspace
        number = 0
        while told.queue.empty():
            number += 1
            text = claude_session(f"Prompt {number}")
            write(workspaces, later, f"{CLAUDE_DIRECTORY}/s{number}.jsonl", text)
            assert number < 200, "nothing is heard"
        change = json.loads(told.line())
        assert change["workspace"] == later.name
        assert change["event"] in {"created", "updated"}
    finally:
        tail.send_signal(signal.SIGINT)
        assert tail.wait(10) == 130


def test_an_export_has_what_paging_returns(
    workspaces: Workspaces, workspace: Workspace, worker: WorkerClient, perry: Perry
) -> None:
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/s.jsonl", claude_session())
    child = claude_line("user", "Look", uuid="c-01", isSidechain=True, agentId="a1")
    write(workspaces, workspace, f"{CLAUDE_DIRECTORY}/s/subagents/agent-a1.jsonl", child)
    listed = eventually(lambda: worker.list_sessions(children=True), lambda found: len(found) == 2)
    given = ("session", "export", "s", "-w", workspace.name)
    exported = json.loads(perry.ok(*given, "--format", "json"))
    assert exported["workspace"] == workspace.name
    assert exported["sessions"][0]["session"]["id"] == "s"
    for one in exported["sessions"]:
        session = msgspec.convert(one["session"], Session)
        assert session in listed
        messages = msgspec.convert(one["messages"], list[Message])
        assert messages == list(worker.iterate_messages(session.id))
        assert len(messages) == session.message_count
    assert len(exported["sessions"]) == 2
    path = perry.directory / "s.md"
    assert perry.ok(*given, "--output", str(path)) == ""
    assert path.read_text() == perry.ok(*given)
    assert "> Why is the cart empty?" in path.read_text()


class Lines:
    """What a process prints, line by line, with a deadline for each."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.queue.put(line)

    def line(self) -> str:
        return self.queue.get(timeout=30)

    def content(self) -> str:
        return str(json.loads(self.line())["message"]["content"])


def test_bad_numbers_are_400(workspaces: Workspaces, workspace: Workspace) -> None:
    headers = {"Authorization": f"Bearer {workspaces.manager.token(workspace)}"}
    base = f"http://{workspace.addresses[0]}:7392"
    for query in ("limit=-1", "offset=abc", "limit=1.5", "offset=-0x1"):
        answer = httpx.get(f"{base}/sessions/s/messages?{query}", headers=headers)
        assert answer.status_code == 400, query
        assert "error" in answer.json()
