"""The token goes to nobody who hasn't just proved that he has it, and no answer can do harm."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from perry.client.worker_client import WorkerClient
from perry.errors import (
    PerryError,
    SessionNotFound,
    WorkerFailure,
    WorkerUnreachable,
    WorkerUntrusted,
)
from tests.client.answering import Answering, http, proving
from tests.worker.running import TOKEN, ClaudeHome, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SESSIONS = {"sessions": []}  # type: dict[str, Any]


def connect(server: Answering, token: str | None = TOKEN, **more: Any) -> WorkerClient:
    return WorkerClient(server.url, token, workspace="ws", **more)


def honest(answers: Callable[[str, int], bytes | None]) -> Callable[[str, int], bytes | None]:
    """Prove the token, and leave all other questions to `answers`."""

    def reply(target: str, number: int) -> bytes | None:
        if target.startswith("/health"):
            return proving(TOKEN, target)
        return answers(target, number)

    return reply


@pytest.mark.parametrize(
    "answer",
    [
        http(200, {"status": "ok"}),
        http(200, {"status": "ok", "proof": "0" * 64}),
        http(200, {"status": "ok", "proof": ""}),
        http(200, {"status": "ok", "proof": 1}),
        http(200, b"not JSON"),
        http(200, b"[" * 200_000),
        http(200, b'{"status":"ok","proof":"\xff"}'),
        http(401, {"error": "token please"}),
        http(404),
        http(500, {"error": "x"}),
        http(302, b"", "Location: http://127.0.0.1:1/health"),
        http(200, SESSIONS),
    ],
)
def test_without_the_right_proof_the_token_is_never_sent(answer: bytes) -> None:
    with Answering(lambda *_: answer) as server, connect(server) as client:
        for ask in (
            client.list_sessions,
            client.refresh,
            client.authenticate,
            lambda: client.delete_session("x"),
            lambda: client.health(verbose=True),
        ):
            with pytest.raises(WorkerUntrusted, match="ws"):
                ask()
        assert TOKEN.encode() not in server.received
        assert b"authorization" not in server.received.lower()
        assert server.targets == []


def test_each_proof_is_of_another_nonce() -> None:
    with Answering(lambda *_: http(200, {})) as server:
        for _ in range(3):
            with connect(server) as client, pytest.raises(WorkerUntrusted):
                client.authenticate()
        assert len(set(server.requests)) == 3


def test_a_proof_counts_for_its_connection_alone() -> None:
    def reply(target: str, number: int) -> bytes:
        first = proving(TOKEN, target, "Connection: close") if number == 0 else None
        return first or http(200, SESSIONS)

    with Answering(reply) as server, connect(server) as client:
        with pytest.raises(WorkerUntrusted):
            client.list_sessions()
        assert server.connections == 2
        assert TOKEN.encode() not in server.received


def test_a_worker_that_proves_and_leaves_gets_no_token() -> None:
    with (
        Answering(lambda target, _: proving(TOKEN, target, "Connection: close")) as server,
        connect(server) as client,
    ):
        with pytest.raises(WorkerUnreachable, match="closes its connection"):
            client.list_sessions()
        assert TOKEN.encode() not in server.received


def test_who_takes_over_a_workers_address_gets_no_token(tmp_path: Path) -> None:
    ClaudeHome(tmp_path).session("one")
    with WorkerProcess(tmp_path) as worker:
        client = WorkerClient(f"http://127.0.0.1:{worker.port}", TOKEN, workspace="ws")
        assert len(client.list_sessions()) == 1
        worker.terminate()
    with Answering(lambda *_: http(200, SESSIONS), port=worker.port) as server, client:
        with pytest.raises(WorkerUntrusted):
            client.list_sessions()
        assert server.requests
        assert TOKEN.encode() not in server.received


def test_one_proof_serves_all_questions_of_a_connection() -> None:
    with Answering(honest(lambda *_: http(200, SESSIONS))) as server, connect(server) as client:
        for _ in range(3):
            assert client.list_sessions() == ()
        assert server.connections == 1
        assert len(server.requests) == 4
        assert server.received.count(TOKEN.encode()) == 3


def test_a_redirect_is_not_followed() -> None:
    with Answering(lambda *_: http(200, SESSIONS)) as elsewhere:
        location = f"Location: {elsewhere.url}/sessions"
        with (
            Answering(honest(lambda *_: http(307, b"", location))) as server,
            connect(server) as client,
            pytest.raises(WorkerFailure, match="307"),
        ):
            client.list_sessions()
        assert elsewhere.connections == 0


def test_no_proxy_sees_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        Answering(lambda *_: http(502)) as proxy,
        Answering(honest(lambda *_: http(200, SESSIONS))) as server,
    ):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        with connect(server) as client:
            assert client.list_sessions() == ()
        assert proxy.connections == 0


@pytest.mark.parametrize(
    "body",
    [
        b"", b"not JSON", b"[]", b"{}", b'{"sessions":1}', b'{"sessions":[{"id":1}]}',
        b'{"sessions":["\xff"]}', b"[" * 200_000, b'{"sessions":' * 200_000,
    ],
)  # fmt: skip
def test_an_answer_of_nonsense_is_a_failure(body: bytes) -> None:
    with (
        Answering(honest(lambda *_: http(200, body))) as server,
        connect(server) as client,
        pytest.raises(WorkerFailure, match="makes no sense") as caught,
    ):
        client.list_sessions()
    assert caught.value.workspace == "ws"
    assert caught.value.hint


def test_an_answer_too_large_is_a_failure() -> None:
    with (
        Answering(honest(lambda *_: http(200, b" " * 5000))) as server,
        connect(server, largest_answer=4999) as client,
        pytest.raises(WorkerFailure, match="larger than 4999 bytes"),
    ):
        client.list_sessions()


def test_a_compressed_answer_is_a_failure() -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    with (
        Answering(honest(lambda *_: http(200, bomb, "Content-Encoding: gzip"))) as server,
        connect(server) as client,
        pytest.raises(WorkerFailure, match="compressed"),
    ):
        client.list_sessions()


def test_a_workers_words_can_not_drive_a_terminal() -> None:
    words = "\x1b]0;owned\x07" + "x" * 9999
    with (
        Answering(honest(lambda *_: http(500, {"error": words}))) as server,
        connect(server) as client,
        pytest.raises(WorkerFailure) as caught,
    ):
        client.list_sessions()
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_session_that_never_ends_is_given_up() -> None:
    def reply(_: str, number: int) -> bytes:
        return http(200, {"id": "x", "messages": [], "total": 10 + number})

    with Answering(honest(reply)) as server, connect(server) as client:
        with pytest.raises(WorkerFailure, match="faster than it can be read"):
            list(client.iterate_messages("x"))
        assert len(server.targets) < 50


def test_a_session_shorter_than_it_says_is_a_failure() -> None:
    reply = honest(lambda *_: http(200, {"id": "x", "messages": [], "total": 10**15}))
    with (
        Answering(reply) as server,
        connect(server) as client,
        pytest.raises(WorkerFailure, match="fewer messages"),
    ):
        list(client.iterate_messages("x"))


@pytest.mark.parametrize("session_id", ["%2e", "%2e%2e", "a?b#c", "a b", "é", "a\\..\\b", "..."])
def test_an_id_never_becomes_another_path(session_id: str) -> None:
    with Answering(honest(lambda *_: http(404, {"error": "x"}))) as server:
        with connect(server) as client, pytest.raises(SessionNotFound):
            client.delete_session(session_id)
        for target in server.targets:
            assert target.startswith("DELETE /sessions/")
            assert target.count("/") == 2
            assert not set(target.removeprefix("DELETE ")) & set("?# \\")


def test_a_question_that_got_lost_is_asked_again() -> None:
    def reply(_: str, number: int) -> bytes | None:
        return http(200, SESSIONS) if number > 3 else None

    with Answering(honest(reply)) as server, connect(server) as client:
        assert client.list_sessions() == ()
        assert server.targets == ["GET /sessions"] * 3


@pytest.mark.parametrize(
    ("ask", "target"),
    [
        (lambda client: client.delete_session("x"), "DELETE /sessions/x"),
        (lambda client: client.restore_session("x"), "POST /sessions/x/restore"),
        (lambda client: client.refresh(), "POST /refresh"),
    ],
)
def test_what_changes_things_is_asked_once(
    ask: Callable[[WorkerClient], None], target: str
) -> None:
    for answer in (None, http(503, {"error": "later"})):
        with Answering(honest(lambda *_, answer=answer: answer)) as server:
            with connect(server) as client, pytest.raises(PerryError):
                ask(client)
            assert server.targets == [target]


def test_503_is_asked_again_and_explained_at_last() -> None:
    answers = [http(503, {"error": "soon"})] * 3 + [http(200, SESSIONS)]
    with (
        Answering(honest(lambda *_: answers.pop(0))) as server,
        connect(server) as client,
    ):
        assert client.list_sessions() == ()
        assert len(server.targets) == 4
    with (
        Answering(honest(lambda *_: http(503, {"error": "soon"}))) as server,
        connect(server) as client,
        pytest.raises(WorkerFailure, match="soon") as caught,
    ):
        client.list_sessions()
    assert caught.value.status == 503


def test_nobody_there_is_unreachable_soon() -> None:
    with Answering(lambda *_: None) as server:
        pass
    started = time.monotonic()
    with connect(server) as client, pytest.raises(WorkerUnreachable, match="ws") as caught:
        client.list_sessions()
    assert time.monotonic() - started < 3
    assert "perry workspace sync ws" in caught.value.hint
    assert caught.value.__cause__ is not None


def test_silence_is_unreachable_in_bounded_time() -> None:
    with (
        Answering(lambda *_: b"") as server,
        connect(server, timeout=0.2) as client,
        pytest.raises(WorkerUnreachable, match="in time"),
    ):
        client.list_sessions()


def test_what_is_no_http_is_unreachable() -> None:
    with (
        Answering(lambda *_: b"SSH-2.0-x\r\n\r\n") as server,
        connect(server) as client,
        pytest.raises(WorkerUnreachable),
    ):
        client.health()


@pytest.mark.parametrize("url", ["http://[", "ftp://localhost", "http://localhost:99999"])
def test_an_address_of_nonsense_is_unreachable(url: str) -> None:
    with pytest.raises(WorkerUnreachable):
        WorkerClient(url, TOKEN, workspace="ws").list_sessions()


def test_health_says_starting() -> None:
    with (
        Answering(lambda *_: http(503, {"status": "starting"})) as server,
        connect(server) as client,
    ):
        assert client.health().status == "starting"


def test_the_client_imports_nothing_of_the_worker() -> None:
    code = (
        "import sys, perry.client.worker_client;"
        "print([n for n in ('perry.worker', 'starlette', 'docker', 'typer') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
