"""The client against a real worker over real files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perry.client.worker_client import WorkerClient
from perry.errors import WorkerFailure, WorkerUntrusted
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
