"""A worker is awaited with a deadline, and whoever waits in vain is told why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from perry.client.worker_client import WorkerClient
from perry.errors import WorkerCannotRun, WorkerFailure, WorkerUntrusted
from perry.protocol import Health
from perry.workspace.address import Way
from perry.workspace.wait import HealthyWorker, wait_for_container, wait_for_first_scan
from tests.client.answering import Answering, http, proving
from tests.workspace.engine_answers import container, engine_of

TOKEN = "t"
Reply = Callable[[str, int], bytes | None]
RUNS = {"Running": True, "ExitCode": None}


class Waiting:
    """Makes waits for workers that answer as a test says, beside an engine that does too."""

    def __init__(self) -> None:
        self._opened = ExitStack()
        self.program: dict[str, Any] = dict(RUNS)
        self.explained = 0
        self._engine = self._opened.enter_context(
            engine_of(
                {
                    "/exec/e1/json": lambda: (200, self.program),
                    "/containers/c1/json": lambda: (200, container()),
                }
            )
        )

    def for_workers(self, *replies: Reply | None, timeout: float = 5.0) -> HealthyWorker:
        """Await workers, each at a port of its own; None is a port where nothing listens."""
        clients = {}
        for number, reply in enumerate(replies):
            url = "http://127.0.0.1:1"
            if reply is not None:
                url = self._opened.enter_context(Answering(reply)).url
            client = WorkerClient(url, TOKEN, workspace="a", timeout=1)
            clients[Way("address", f"address-{number}")] = self._opened.enter_context(client)
        return HealthyWorker(
            self._engine, "a", "c1", "e1", "wanted", clients, self._explain, timeout
        )

    def _explain(self) -> str:
        self.explained += 1
        return "its own words"

    def close(self) -> None:
        self._opened.close()


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    made = Waiting()
    yield made
    made.close()


def health(target: str, digest: str = "wanted", status: str = "ok", token: str = TOKEN) -> bytes:
    proof = proving(token, target).rpartition(b"\r\n")[2] if "challenge" in target else b"{}"
    body = {"status": status, "digest": digest}
    if b"proof" in proof:
        body["proof"] = proof.decode().split('"proof": "')[1].split('"')[0]
    return http(503 if status == "starting" else 200, body)


def test_a_worker_that_starts_late_is_awaited(waiting: Waiting) -> None:
    wait = waiting.for_workers(
        lambda target, number: health(target, status="starting" if number < 5 else "ok")
    )
    way, answer = wait.wait()
    assert way.address == "address-0"
    assert (answer.status, answer.digest) == ("ok", "wanted")
    assert waiting.explained == 0


def test_the_first_address_that_answers_is_the_one(waiting: Waiting) -> None:
    wait = waiting.for_workers(None, lambda target, _: health(target))
    assert wait.wait()[0].address == "address-1"


def test_a_worker_of_another_digest_is_not_the_one_awaited(waiting: Waiting) -> None:
    wait = waiting.for_workers(lambda target, _: health(target, digest="older"), timeout=0.3)
    with pytest.raises(WorkerCannotRun, match="digest 'older'") as caught:
        wait.wait()
    assert "not healthy within 0.3 s" in caught.value.message


def test_a_stranger_that_does_not_know_the_token_is_not_the_one(waiting: Waiting) -> None:
    wait = waiting.for_workers(lambda target, _: health(target, token="other"), timeout=0.3)
    with pytest.raises(WorkerCannotRun):
        wait.wait()


def test_waiting_ends_at_its_deadline_and_says_how_things_stand(waiting: Waiting) -> None:
    wait = waiting.for_workers(None, timeout=0.4)
    began = time.monotonic()
    with pytest.raises(WorkerCannotRun) as caught:
        wait.wait()
    assert 0.4 <= time.monotonic() - began < 3
    assert "container: running" in caught.value.message
    assert "its own words" in caught.value.message
    assert "perry workspace logs a --worker" in caught.value.hint
    assert caught.value.workspace == "a"
    assert waiting.explained == 1


def test_a_program_that_has_ended_is_given_up_long_before_the_deadline(waiting: Waiting) -> None:
    waiting.program = {"Running": False, "ExitCode": 3}
    wait = waiting.for_workers(None, timeout=30)
    began = time.monotonic()
    with pytest.raises(WorkerCannotRun, match="ended with exit code 3"):
        wait.wait()
    assert time.monotonic() - began < 5


def test_another_perrys_worker_will_do_where_ones_own_found_the_port_taken(
    waiting: Waiting,
) -> None:
    waiting.program = {"Running": False, "ExitCode": 1}
    healthy_from = time.monotonic() + 0.6
    wait = waiting.for_workers(
        lambda target, _: health(
            target, status="ok" if time.monotonic() > healthy_from else "starting"
        ),
        timeout=30,
    )
    assert wait.wait()[1].status == "ok"


def test_a_lesser_way_is_not_asked_where_a_better_one_answers_soon() -> None:
    with Answering(lambda target, _: health(target)) as lesser, closing(Waiting()) as waiting:
        wait = waiting.for_workers(
            lambda target, number: health(target, status="starting" if number < 5 else "ok")
        )
        with WorkerClient(lesser.url, TOKEN, workspace="a") as client:
            wait.clients = {**wait.clients, Way("exec", "exec"): client}
            assert wait.wait()[0].rung == "address"
        assert lesser.connections == 0


def test_a_way_that_leads_nowhere_does_not_hold_up_the_one_that_leads_there() -> None:
    with closing(Waiting()) as waiting:
        wait = waiting.for_workers(lambda *_: b"", lambda target, _: health(target), timeout=10)
        began = time.monotonic()
        assert wait.wait()[0].address == "address-1"
        assert time.monotonic() - began < 3


def scanning(server: Answering, timeout: float = 5.0) -> Health:
    with WorkerClient(server.url, TOKEN, workspace="a") as client:
        return wait_for_first_scan(client, client.authenticate(), timeout)


def test_a_worker_on_its_first_scan_is_waited_for() -> None:
    def reply(target: str, number: int) -> bytes:
        return health(target, status="starting" if number < 5 else "ok", digest="its own")

    with Answering(reply) as server:
        assert scanning(server).digest == "its own"
        assert len(server.requests) == 6


def test_a_first_scan_that_takes_too_long_is_said_to() -> None:
    with (
        Answering(lambda target, _: health(target, status="starting")) as server,
        pytest.raises(WorkerFailure, match=r"still on its first scan after 0\.2 s") as caught,
    ):
        scanning(server, timeout=0.2)
    assert caught.value.workspace == "a"


def test_who_answers_in_the_place_of_a_worker_that_scanned_is_not_believed() -> None:
    def reply(target: str, number: int) -> bytes:
        if number == 0:
            return health(target, status="starting")
        return health(target, token="other")

    with Answering(reply) as server, pytest.raises(WorkerUntrusted):
        scanning(server)


def test_a_container_that_is_being_created_is_awaited() -> None:
    looks = 0

    def inspected() -> tuple[int, Any]:
        nonlocal looks
        looks += 1
        return (404, {"message": "no such container"}) if looks < 4 else (200, container())

    with engine_of({"/containers/workspace-a/json": inspected}) as engine:
        found = wait_for_container(engine, "workspace-a")
        assert found is not None
        assert found.id == "c1"
        assert looks == 4
        assert wait_for_container(engine, "never", timeout=0.1) is None
