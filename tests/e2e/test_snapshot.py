"""Sessions of containers in which no worker can be asked, read through a real archive API."""

from __future__ import annotations

import io
import secrets
import sqlite3
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import docker
import pytest

from perry.client.worker_client import WorkerClient
from perry.errors import EngineFailure, SessionError, SessionNotFound, WorkspaceNotFound
from perry.sessions.index import SOURCES, SessionIndex
from perry.sessions.models import Message, Session
from perry.workspace.engine import Engine
from perry.workspace.models import Workspace
from perry.workspace.replica import Limits
from perry.workspace.snapshot import Snapshot, Snapshots
from tests.conftest import Workspaces
from tests.e2e.labels import LABEL
from tests.e2e.transcripts import (
    CLAUDE_DIRECTORY,
    add_opencode_session,
    claude_line,
    claude_session,
    every_agents_home,
    opencode_database,
)

OLD = 1_795_000_000
COUNT = 40
HOME = "/home/workspace"
Told = list[tuple[Session, list[Message]]]
Plain = Callable[..., Workspace]


@pytest.fixture
def snapshots(engine: Engine, tmp_path: Path) -> Snapshots:
    return Snapshots(engine, tmp_path / "snapshots")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with sessions of every coding agent, on the host."""
    home = tmp_path / "root" / HOME[1:]
    every_agents_home(home, OLD)
    return home


@pytest.fixture
def plain(client: docker.DockerClient, engine: Engine, runtime_image: str) -> Iterator[Plain]:
    """Make containers that know nothing of perry, and whose home is no volume."""
    made = []

    def make(home: Path | None = None, **environment: str) -> Workspace:
        container = client.containers.create(
            runtime_image,
            entrypoint=["/runtime/busybox", "sleep", "600"],
            environment={"HOME": HOME, **environment},
            labels={LABEL: "1"},
            name=f"test-plain-{secrets.token_hex(4)}",
        )
        made.append(container)
        if home is not None:
            put(engine, str(container.id), "/", home.parent.parent)
        return workspace_of(engine, str(container.id))

    yield make
    for container in made:
        engine.remove_container(str(container.id))


def workspace_of(engine: Engine, container_id: str) -> Workspace:
    found = engine.get_container(container_id)
    assert found is not None
    return Workspace(
        found.name, found.id, found.image, found.state, found.created_at, found.started_at,
        user="", home="/root", home_volume=None, addresses=(), ports=(),
    )  # fmt: skip


def put(engine: Engine, container_id: str, place: str, directory: Path) -> None:
    """Put what is in a directory into a container, times included."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(directory, arcname=".")
    engine.write_archive(container_id, place, buffer.getvalue())


def sh(engine: Engine, workspace: Workspace, script: str) -> None:
    box = "/runtime/busybox"
    whole = f'b() {{ {box} "$@"; }}; {script}'
    done = engine.run(workspace.container_id, [box, "sh", "-euc", whole])
    assert done.exit_code == 0, done.output


def told(index: SessionIndex) -> Told:
    sessions = index.list(children=True)
    return [(it, [*index.messages(it.id, limit=10_000, offset=0).messages]) for it in sessions]


def told_by(worker: WorkerClient) -> Told:
    return [(it, [*worker.iterate_messages(it.id)]) for it in worker.list_sessions(children=True)]


def told_on_host(home: Path) -> Told:
    root = home.parent.parent.parent / "root"
    index = SessionIndex([make(home, {"HOME": HOME}) for make in SOURCES], root=str(root))
    index.refresh()
    return told(index)


def everything_kept(snapshots: Path) -> str:
    return "\n".join(path.read_bytes().decode(errors="replace") for path in files(snapshots))


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_a_stopped_workspace_tells_what_its_worker_told(
    workspaces: Workspaces, snapshots: Snapshots, home: Path, tmp_path: Path
) -> None:
    workspace = workspaces.init().workspace
    put(workspaces.engine, workspace.container_id, HOME, home)
    with workspaces.manager.connect(workspace) as worker:
        worker.refresh()
        by_worker = told_by(worker)
    workspaces.manager.stop(workspace.name)
    snapshot = snapshots.take(workspaces.manager.get(workspace.name))
    assert told(snapshot.index) == by_worker
    assert {session.agent_type for session, _ in by_worker} == {
        "claude", "opencode", "codex", "pi", "gemini",
    }  # fmt: skip
    assert len(by_worker) == 7
    assert snapshot.problems == {}
    assert 0 <= snapshot.age < 30
    assert "secret" not in everything_kept(tmp_path / "snapshots")
    kept = {path.stat().st_mode & 0o777 for path in (tmp_path / "snapshots").rglob("*")}
    assert kept <= {0o600, 0o700}


def test_a_container_that_never_ran_and_has_no_volume_is_read_too(
    plain: Plain, snapshots: Snapshots, home: Path
) -> None:
    snapshot = snapshots.take(plain(home))
    assert told(snapshot.index) == told_on_host(home)
    assert len(snapshot.index.list()) == 7


def test_the_containers_environment_moves_directories(
    plain: Plain, snapshots: Snapshots, engine: Engine, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "moved" / "data" / "claude" / "projects" / "p"
    elsewhere.mkdir(parents=True)
    (elsewhere / "s.jsonl").write_text(claude_session())
    workspace = plain(CLAUDE_CONFIG_DIR="/data/claude", CODEX_HOME="../../../..")
    put(engine, workspace.container_id, "/", tmp_path / "moved")
    snapshot = snapshots.take(workspace)
    (session,) = snapshot.index.list()
    assert session.file_path == "/data/claude/projects/p/s.jsonl"
    assert len(snapshot.problems) == 1


def test_without_a_home_in_the_environment_the_users_own_is_read(
    plain: Plain, snapshots: Snapshots, engine: Engine, tmp_path: Path
) -> None:
    place = tmp_path / "files"
    (place / "srv/it/.claude/projects/p").mkdir(parents=True)
    (place / "srv/it/.claude/projects/p/s.jsonl").write_text(claude_session())
    (place / "etc").mkdir()
    (place / "etc/passwd").write_text("root:x:0:0:root:/srv/it:/bin/sh\n")
    workspace = plain(HOME="")
    put(engine, workspace.container_id, "/", place)
    assert [session.id for session in snapshots.take(workspace).index.list()] == ["s"]


def test_only_what_changed_between_two_looks_is_copied(
    workspaces: Workspaces, snapshots: Snapshots, home: Path
) -> None:
    workspace = workspaces.init().workspace
    put(workspaces.engine, workspace.container_id, HOME, home)
    workspaces.manager.stop(workspace.name)
    first = snapshots.take(workspaces.manager.get(workspace.name))
    assert first.copied == 9  # seven sessions, of which one is a database with its log; projects
    workspaces.engine.start_container(workspace.container_id)
    line = claude_line("assistant", "Filled.", uuid="u-07")
    append = f"cat >> ~/{CLAUDE_DIRECTORY}/s.jsonl <<'EOF'\n{line}EOF"
    workspaces.run(workspace.name, append, user="0")
    workspaces.manager.stop(workspace.name)
    second = snapshots.take(workspaces.manager.get(workspace.name))
    assert second.copied == 1
    assert second.received == len(claude_session() + line)
    longer = max(second.index.list(agent="claude"), key=lambda session: session.message_count)
    assert longer.message_count == 7
    assert second.taken_at > first.taken_at


def test_a_container_that_stays_stopped_is_not_looked_at_again_unless_told_to(
    plain: Plain, snapshots: Snapshots, engine: Engine, home: Path, tmp_path: Path
) -> None:
    workspace = plain(home)
    first = snapshots.take(workspace)
    again = snapshots.take(workspace)
    assert again.taken_at == first.taken_at
    assert again.index is first.index
    elsewhere = Snapshots(engine, tmp_path / "snapshots").take(workspace)  # as another process
    assert elsewhere.taken_at == first.taken_at
    assert told(elsewhere.index) == told(first.index)
    afresh = snapshots.take(workspace, afresh=True)
    assert afresh.taken_at > first.taken_at
    assert (first.copied, again.copied, elsewhere.copied, afresh.copied) == (9, 0, 0, 0)


def test_links_that_point_out_of_the_home_are_left_out_and_told(
    plain: Plain, snapshots: Snapshots, engine: Engine, home: Path
) -> None:
    workspace = plain(home)
    engine.start_container(workspace.container_id)
    place = f"{HOME}/{CLAUDE_DIRECTORY}"
    sh(
        engine,
        workspace,
        f"b ln -s /etc/passwd {place}/link.jsonl; b ln -s / {HOME}/.claude/projects/root; "
        f"b ln {place}/t.jsonl {place}/u.jsonl; b mkfifo {place}/pipe.jsonl; "
        f"b ln -s ../../../../../../../../../etc {HOME}/.codex/sessions/etc",
    )
    snapshot = snapshots.take(workspace)
    assert told(snapshot.index) == told_on_host(home)
    assert set(snapshot.problems) == {
        f"{place}/link.jsonl", f"{HOME}/.claude/projects/root", f"{place}/u.jsonl",
        f"{place}/pipe.jsonl", f"{HOME}/.codex/sessions/etc",
    }  # fmt: skip
    copied = files(Path(snapshot.index.located(snapshot.index.list()[0])).parent.parent)
    assert not [path for path in copied if path.is_symlink()]


def test_a_session_in_a_snapshot_cannot_be_deleted(
    plain: Plain, snapshots: Snapshots, home: Path
) -> None:
    index = snapshots.take(plain(home)).index
    (session,) = index.list(agent="pi")
    with pytest.raises(SessionError, match="snapshot") as caught:
        index.delete(session.id)
    assert "perry workspace start" in caught.value.hint
    assert index.get(session.id) == session
    with pytest.raises(SessionNotFound):
        index.delete("nobody")


def test_what_was_deleted_in_the_container_is_gone_at_the_next_look(
    plain: Plain, snapshots: Snapshots, engine: Engine, home: Path
) -> None:
    workspace = plain(home)
    snapshots.take(workspace)
    engine.start_container(workspace.container_id)
    sh(engine, workspace, f"b rm -r {HOME}/.claude {HOME}/.local")
    index = snapshots.take(workspace).index
    assert {session.agent_type for session in index.list()} == {"codex", "pi", "gemini"}


def test_of_a_removed_workspace_nothing_is_kept(
    plain: Plain, snapshots: Snapshots, engine: Engine, home: Path, tmp_path: Path
) -> None:
    one, two, three = plain(home), plain(home), plain(home)
    for workspace in (one, two):
        snapshots.take(workspace)
        engine.remove_container(workspace.container_id)
    with pytest.raises(WorkspaceNotFound):
        snapshots.take(one)
    assert {path.name for path in (tmp_path / "snapshots").iterdir()} == {two.container_id}
    snapshots.take(three)  # the next chance
    assert {path.name for path in (tmp_path / "snapshots").iterdir()} == {three.container_id}
    snapshots.forget(three.container_id)
    assert list((tmp_path / "snapshots").iterdir()) == []


def look_on(snapshots: Snapshots, workspace: Workspace, *, sessions: int) -> NoReturn:
    while True:
        assert len(snapshots.take(workspace, afresh=True).index.list()) == sessions


@pytest.mark.parametrize("attempt", range(3))
def test_a_container_that_is_being_removed_is_an_error_and_never_an_empty_home(
    plain: Plain, snapshots: Snapshots, engine: Engine, home: Path, attempt: int
) -> None:
    workspace = plain(home)
    engine.start_container(workspace.container_id)
    index = snapshots.take(workspace).index
    removing = threading.Timer(0.02 * attempt, engine.remove_container, [workspace.container_id])
    removing.start()
    with pytest.raises((EngineFailure, WorkspaceNotFound)):
        look_on(snapshots, workspace, sessions=7)
    assert len(index.list()) == 7
    removing.join()


def test_many_questions_at_once_are_answered_from_one_look(
    plain: Plain, snapshots: Snapshots, home: Path
) -> None:
    workspace = plain(home)
    answers: list[Snapshot] = []
    threads = [
        threading.Thread(target=lambda: answers.append(snapshots.take(workspace))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.taken_at for answer in answers}) == 1
    assert sorted(answer.copied for answer in answers) == [0] * 7 + [9]


def test_a_terabyte_of_nothing_costs_no_more_than_the_deadline(
    plain: Plain, engine: Engine, home: Path, tmp_path: Path
) -> None:
    workspace = plain(home)
    engine.start_container(workspace.container_id)
    sh(engine, workspace, f"b truncate -s 1099511627776 {HOME}/.pi/agent/sessions/zero.jsonl")
    snapshots = Snapshots(engine, tmp_path / "snapshots", limits=Limits(seconds=2.0))
    began = time.monotonic()
    snapshot = snapshots.take(workspace)
    assert time.monotonic() - began < 10
    assert {session.agent_type for session in snapshot.index.list()} >= {"claude", "codex"}
    assert f"{HOME}/.pi/agent/sessions" in snapshot.problems


GROW = """
while IFS= read -r line; do
  half=${line%????????????????????}
  printf '%s' "$half" >> "$1"
  printf '%s\\n' "${line#"$half"}" >> "$1"
  "$0" usleep 2000
done < "$2"
"""


def test_a_growing_session_is_a_whole_beginning_of_itself_at_every_look(
    plain: Plain, snapshots: Snapshots, engine: Engine, tmp_path: Path
) -> None:
    """The writer puts every line down in two halves, so most looks find half a line."""
    count = 1500
    place = tmp_path / "files"
    (place / HOME[1:] / CLAUDE_DIRECTORY).mkdir(parents=True)
    lines = [claude_line("user", f"line {n}", uuid=f"uuid-{n}-00") for n in range(count)]
    (place / "lines").write_text("".join(lines))
    workspace = plain()
    put(engine, workspace.container_id, "/", place)
    engine.start_container(workspace.container_id)
    log = f"{HOME}/{CLAUDE_DIRECTORY}/s.jsonl"
    exec_id = engine.launch(
        workspace.container_id,
        ["/runtime/busybox", "sh", "-euc", GROW, "/runtime/busybox", log, "/lines"],
        env={},
    )
    seen = [0]
    while engine.exec_exit_code(exec_id) is None:
        snapshot = snapshots.take(workspace, afresh=True)
        seen.append(check_prefix(snapshot.index, seen[-1]))
        assert snapshot.problems == {}
    assert engine.exec_exit_code(exec_id) == 0
    assert len(set(seen)) > 10
    assert check_prefix(snapshots.take(workspace, afresh=True).index, seen[-1]) == count


def check_prefix(index: SessionIndex, before: int) -> int:
    if not index.list():
        assert before == 0
        return 0
    (session,) = index.list()
    messages = index.messages("s", limit=10_000, offset=0).messages
    assert [message.content for message in messages] == [f"line {n}" for n in range(len(messages))]
    assert session.message_count == len(messages) >= before
    assert session.skipped_lines == 0
    return len(messages)


def test_a_database_in_use_is_copied_whole_or_not_at_all(
    client: docker.DockerClient, engine: Engine, snapshots: Snapshots, runtime_image: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Titles are numbers that follow each other, and each change makes the lowest the highest.

    Every session has a page of its own, so a change that a copy lacks leaves a gap.
    """
    data = tmp_path / "opencode"
    container = client.containers.run(
        runtime_image,
        entrypoint=["/runtime/busybox", "sleep", "600"],
        environment={"HOME": "/root"},
        volumes=[f"{data}:/root/.local/share/opencode"],
        labels={LABEL: "1"},
        detach=True,
    )
    stop = threading.Event()
    with closing(opencode_database(data / "opencode.db")) as database:
        for number in range(COUNT):
            add_opencode_session(database, f"ses_{number}", str(number))
        database.execute("UPDATE session SET directory = ?", ("x" * 3000,))
        database.commit()
    writer = threading.Thread(target=change_titles, args=(data / "opencode.db", stop))
    writer.start()
    seen: set[int] = set()
    try:
        workspace = workspace_of(engine, str(container.id))
        deadline = time.monotonic() + 60
        while len(seen) < 10:
            assert time.monotonic() < deadline, seen
            snapshot = snapshots.take(workspace, afresh=True)
            titles = sorted(int(s.title) for s in snapshot.index.list() if s.id != "ses_one")
            assert snapshot.index.unreadable() == {}
            if titles or not snapshot.problems:
                assert titles == [*range(titles[0], titles[0] + COUNT)]
                seen.add(titles[0])
    finally:
        stop.set()
        writer.join()
        engine.remove_container(str(container.id))


def change_titles(path: Path, stop: threading.Event) -> None:
    """Change a title again and again, with a checkpoint and a new log every few times."""
    with closing(sqlite3.connect(path, timeout=10)) as database:
        database.execute("PRAGMA wal_autocheckpoint = 50")
        number = COUNT
        while not stop.is_set():
            values = (str(number), f"ses_{number % COUNT}")
            database.execute("UPDATE session SET title = ? WHERE id = ?", values)
            database.commit()
            number += 1
            stop.wait(0.01)
