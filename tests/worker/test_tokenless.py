"""A worker that somebody starts by hand: no token, this machine only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from perry.errors import UsageError
from perry.protocol import DIGEST_VARIABLE, TOKEN_VARIABLE, UNBUNDLED, WORKER_PORT
from perry.worker.config import WorkerConfig
from tests.worker.running import ClaudeHome, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    home = ClaudeHome(tmp_path_factory.mktemp("home"))
    home.session("one", session_id="mine")
    with WorkerProcess(home.home, token=None) as running:
        yield running


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:7392", "[::1]:80", "[::1]", "LOCALHOST"])
def test_this_machine_needs_no_token(worker: WorkerProcess, host: str) -> None:
    answer = worker.http.get("/sessions", headers={"Host": host})
    assert [each["id"] for each in answer.json()["sessions"]] == ["mine"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7392", "localhost.evil.example", "127.0.0.1.nip.io", ""]
)
@pytest.mark.parametrize("path", ["/sessions", "/health", "/nothing"])
def test_a_name_rebound_to_loopback_is_refused(worker: WorkerProcess, host: str, path: str) -> None:
    answer = worker.http.get(path, headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json().keys() == {"error"}


def test_there_is_nothing_to_prove(worker: WorkerProcess) -> None:
    assert "proof" not in worker.json("/health", challenge="n0nce")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104 - refused
def test_another_host_than_loopback_needs_a_token(host: str) -> None:
    with pytest.raises(UsageError, match=TOKEN_VARIABLE):
        WorkerConfig.from_environment({"HOME": "/home/x"}, host=host)


def test_an_empty_token_is_none() -> None:
    config = WorkerConfig.from_environment({"HOME": "/home/x", TOKEN_VARIABLE: ""})
    assert config.token is None
    assert config.host == "127.0.0.1"


def test_the_token_leaves_the_environment_and_is_never_shown(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), TOKEN_VARIABLE: "secret", DIGEST_VARIABLE: "d"}
    config = WorkerConfig.from_environment(environ)
    assert config.token == "secret"
    assert config.digest == "d"
    assert config.home == tmp_path
    assert config.host == "::"
    assert config.port == WORKER_PORT
    assert TOKEN_VARIABLE not in environ
    assert TOKEN_VARIABLE not in config.env
    assert "secret" not in repr(config)


def test_a_worker_of_no_bundle_says_so() -> None:
    assert WorkerConfig.from_environment({"HOME": "/home/x"}).digest == UNBUNDLED


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_is_in_range(port: int) -> None:
    with pytest.raises(UsageError, match="port"):
        WorkerConfig.from_environment({"HOME": "/home/x"}, port=port)
