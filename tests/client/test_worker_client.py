"""The client against a real worker over real files."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from perry.client.worker_client import WorkerClient
from perry.errors import SessionNotFound, WorkerFailure, WorkerUntrusted
from perry.protocol import is_proof
from tests.worker.running import DIGEST, TOKEN, ClaudeHome, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMPTS = tuple(f"prompt {number}" for number in range(25))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> ClaudeHome:
    made = ClaudeHome(tmp_path_factory.mktemp("home"))
    made.session(*PROMPTS, session_id="long")
    made.session("hello", session_id="%2e")
    return made


@pytest.fixture(scope="module")
def worker(home: ClaudeHome) -> Iterator[WorkerProcess]:
    with WorkerProcess(home.home) as running:
        yield running


@pytest.fixture
def client(worker: WorkerProcess) -> Iterator[WorkerClient]:
    with connect(worker) as made:
        yield made


def connect(worker: WorkerProcess, token: str | None = TOKEN) -> WorkerClient:
    return WorkerClient(f"http://127.0.0.1:{worker.port}", token, workspace="ws")


def test_health_is_typed(client: WorkerClient) -> None:
    health = client.health("n0nce", verbose=True)
    assert (health.status, health.digest, health.session_count) == ("ok", DIGEST, 2)
    assert (health.skipped_lines, health.unreadable) == (0, {})
    assert health.proof is not None
    assert is_proof(TOKEN, "n0nce", health.proof)


def test_sessions_are_typed(client: WorkerClient) -> None:
    assert {each.id for each in client.list_sessions()} == {"long", "%2e"}
    assert len(client.list_sessions(limit=1)) == 1
    assert client.list_sessions(offset=2) == ()
    assert client.list_sessions(agent="opencode") == ()
    assert len(client.list_sessions(agent="claude", children=True)) == 2
    session = client.get_session("long", agent="claude")
    assert (session.agent_type, session.message_count) == ("claude", 25)
    assert session in client.list_sessions()


def test_messages_are_typed(client: WorkerClient) -> None:
    page = client.list_messages("long", limit=3, offset=1)
    assert (page.id, page.total) == ("long", 25)
    assert [each.content for each in page.messages] == list(PROMPTS[21:24])


@pytest.mark.parametrize("page", [1, 2, 7, 24, 25, 26, 100])
def test_all_messages_come_in_order_whatever_the_page(client: WorkerClient, page: int) -> None:
    got = [each.content for each in client.iterate_messages("long", page=page)]
    assert got == list(PROMPTS)


def test_what_is_written_while_it_is_read_comes_too(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    path = home.session(*PROMPTS, session_id="mine")
    with WorkerProcess(tmp_path) as worker, connect(worker) as client:
        got = []
        for message in client.iterate_messages("mine", page=4):
            got.append(message.content)
            if len(got) in {3, 11, 12, 20}:
                home.append(path, f"late {len(got)}")
                client.refresh()
    assert got == [*PROMPTS, "late 3", "late 11", "late 12", "late 20"]


def test_an_id_of_percent_signs_stays_itself(client: WorkerClient) -> None:
    assert client.get_session("%2e").first_prompt == "hello"


@pytest.mark.parametrize(
    "session_id",
    [
        "",
        ".",
        "..",
        "../health",
        "a/b",
        "gone",
        "%2e%2e",
        "a?b",
        "a#b",
        "\x00",
        "\udcff",
        "x" * 9999,
    ],
)
def test_an_id_of_no_session_is_not_found(client: WorkerClient, session_id: str) -> None:
    for ask in (client.get_session, client.list_messages, client.delete_session):
        with pytest.raises(SessionNotFound) as caught:
            ask(session_id)
        assert caught.value.workspace == "ws"
        assert "perry session list" in caught.value.hint
    with pytest.raises(SessionNotFound):
        list(client.iterate_messages(session_id))


def test_a_deleted_session_is_gone(tmp_path: Path) -> None:
    path = ClaudeHome(tmp_path).session("one", session_id="mine")
    with WorkerProcess(tmp_path) as worker, connect(worker) as client:
        client.delete_session("mine")
        assert not path.exists()
        with pytest.raises(SessionNotFound):
            client.delete_session("mine")


def test_refresh_is_over_when_it_returns(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker, connect(worker) as client:
        ClaudeHome(tmp_path).session("one", session_id="mine")
        client.refresh()
        assert [each.id for each in client.list_sessions()] == ["mine"]


def test_a_worker_of_another_workspace_is_not_trusted(worker: WorkerProcess) -> None:
    with connect(worker, "the token of another workspace") as client:
        with pytest.raises(WorkerUntrusted, match="ws"):
            client.list_sessions()
        with pytest.raises(WorkerUntrusted):
            client.authenticate()
        with pytest.raises(WorkerUntrusted):
            client.health(verbose=True)


def test_a_worker_that_wants_a_token_says_so(worker: WorkerProcess) -> None:
    with connect(worker, None) as client, pytest.raises(WorkerFailure, match="token") as caught:
        client.list_sessions()
    assert caught.value.status == 401


def test_a_worker_without_a_token_is_asked_without(tmp_path: Path) -> None:
    ClaudeHome(tmp_path).session("one", session_id="mine")
    with WorkerProcess(tmp_path, token=None) as worker, connect(worker, None) as client:
        assert client.get_session("mine").message_count == 1


def test_bad_numbers_are_the_workers_to_refuse(client: WorkerClient) -> None:
    with pytest.raises(WorkerFailure, match="limit must be") as caught:
        client.list_sessions(limit=-1)
    assert caught.value.status == 400


def test_a_restarted_worker_is_asked_for_a_new_proof(tmp_path: Path) -> None:
    ClaudeHome(tmp_path).session("one", session_id="mine")
    with WorkerProcess(tmp_path) as first, connect(first) as client:
        assert len(client.list_sessions()) == 1
        first.terminate()
        with WorkerProcess(tmp_path, port=first.port):
            assert len(client.list_sessions()) == 1


def test_a_worker_that_starts_is_waited_for(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    for number in range(10):
        home.session(*["a prompt of some length " * 20] * 3000, session_id=f"s{number}")
    starting = WorkerProcess(tmp_path)
    try:
        with connect(starting) as client:
            assert len(client.list_sessions()) == 10
    finally:
        starting.__exit__()


def test_threads_can_share_a_client(client: WorkerClient) -> None:
    got: list[int] = []

    def read() -> None:
        got.extend(len(list(client.iterate_messages("long", page=5))) for _ in range(5))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert got == [25] * 20
