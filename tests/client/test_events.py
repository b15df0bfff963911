"""Events as the client gives them: typed, over a proved connection, and from nobody's bad bytes."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perry.client.channel import Answer, Channel
from perry.client.events import Event, event_of, split
from perry.client.follow import Follower, follow
from perry.client.transport import over_tcp
from perry.client.worker_client import WorkerClient
from perry.errors import (
    PerryError,
    WorkerFailure,
    WorkerUnreachable,
    WorkerUntrusted,
    WorkspaceNotFound,
)
from tests.client.answering import Answering, http, proving
from tests.worker.running import TOKEN, ClaudeHome, WorkerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OPEN_END = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
CUT = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


def block(number: int, kind: str, data: Any = None) -> bytes:
    return f"id: r-{number}\nevent: {kind}\ndata: {json.dumps(data or {})}\n\n".encode()


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def gone(name: str) -> dict[str, str]:
    return {"id": name, "agentType": "claude"}


DEEP = b"[" * 90_000
READY, DELETED = block(0, "ready"), block(1, "deleted", gone("a"))


def telling(*streams: bytes) -> Answering:
    """Prove the token, and answer each `/events` with the next of these, at last the last one."""
    left = list(streams)

    def reply(target: str, _: int) -> bytes:
        if target.startswith("/health"):
            return proving(TOKEN, target)
        return left.pop(0) if len(left) > 1 else left[0]

    return Answering(reply)


def connect(port: int, **more: Any) -> WorkerClient:
    return WorkerClient(f"http://127.0.0.1:{port}", TOKEN, workspace="ws", **more)


def test_a_worker_that_ends_ends_its_events(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker, connect(worker.port) as client:
        events = client.events()
        next(events)
        worker.terminate()
        assert list(events) == []


def test_events_go_the_given_way_beside_the_questions(tmp_path: Path) -> None:
    ClaudeHome(tmp_path).session("one", session_id="mine")
    with WorkerProcess(tmp_path) as worker, connect(worker.port, transport=over_tcp) as client:
        events = client.events()
        assert next(events).kind == "ready"
        assert len(client.list_sessions()) == 1
        events.close()
        assert len(client.list_sessions()) == 1


def test_a_worker_that_has_moved_is_let_go_of_at_once(tmp_path: Path) -> None:
    with WorkerProcess(tmp_path) as worker, connect(worker.port) as client:
        assert not client.cut(), "nothing was connected"
        events = client.events()
        assert next(events).kind == "ready"
        assert client.list_sessions() == ()
        cutting = threading.Timer(0.2, client.cut)
        cutting.start()
        began = time.monotonic()
        with pytest.raises(WorkerUnreachable):
            next(events)
        assert time.monotonic() - began < 5
        cutting.join()
        assert client.list_sessions() == (), "another connection will do"


def test_without_a_proof_the_token_is_not_sent_for_events_either() -> None:
    with Answering(lambda *_: http(200, {"status": "ok"})) as server:
        with connect(server.port) as client, pytest.raises(WorkerUntrusted):
            next(client.events())
        assert TOKEN.encode() not in server.received
        assert server.targets == []


def test_a_proof_of_another_connection_does_not_count() -> None:
    def reply(target: str, _: int) -> bytes:
        if target.startswith("/health"):
            return proving(TOKEN, target, "Connection: close")
        return http(200, READY)

    with Answering(reply) as server:
        with connect(server.port) as client, pytest.raises(WorkerUnreachable):
            next(client.events())
        assert TOKEN.encode() not in server.received


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http(401, {"error": "a token is needed"}), WorkerFailure),
        (http(404, {"error": "Not Found"}), WorkerFailure),
        (http(500), WorkerFailure),
        (http(200, READY, "Content-Encoding: gzip"), WorkerFailure),
        (http(200, READY + b"event: updated\ndata: {}\n\n"), WorkerFailure),
        (http(200, READY + block(1, "updated", {"session": 1})), WorkerFailure),
        (http(200, READY + block(1, "deleted", {"id": 1})), WorkerFailure),
        (http(200, READY + b"id: 1\nevent: deleted\ndata: not JSON\n\n"), WorkerFailure),
        (http(200, READY + b"id: 1\nevent: deleted\ndata: %b\n\n" % DEEP), WorkerFailure),
        (http(200, READY + b"id: \xff\nevent: ready\ndata: {}\n\n"), WorkerFailure),
        (http(200, READY + b"x" * 200_000), WorkerFailure),
        (CUT + chunk(READY) + b"ff\r\n", WorkerUnreachable),
    ],
)  # fmt: skip
def test_what_is_no_stream_of_events_is_a_clear_error(
    answer: bytes, error: type[PerryError]
) -> None:
    with telling(answer) as server, connect(server.port, largest_answer=100_000) as client:
        with pytest.raises(error, match="ws") as caught:
            list(client.events())
        assert caught.value.hint


def test_a_worker_that_scans_is_waited_for() -> None:
    starting = http(503, {"error": "still on its first scan"})
    with telling(starting, starting, http(200, READY)) as server, connect(server.port) as client:
        assert [event.kind for event in client.events()] == ["ready"]


def test_silence_that_lasts_too_long_is_an_error() -> None:
    with telling(OPEN_END + chunk(READY)) as server:
        channel = Channel(server.url, TOKEN, workspace="ws", timeout=5)
        began = time.monotonic()
        with pytest.raises(WorkerUnreachable, match="in time"):
            read_all(channel)
        assert 0.2 < time.monotonic() - began < 3
        channel.close()


def read_all(channel: Channel) -> list[bytes]:
    with channel.stream("/events", {}, silence=0.3) as got:
        assert not isinstance(got, Answer)
        return list(split(got, 1000))


def test_comments_and_unknown_kinds_are_passed_over() -> None:
    body = b":\n\n" + READY + b":\n\n" + block(1, "renamed", {"x": 1}) + block(2, "reset")
    with telling(http(200, body)) as server, connect(server.port) as client:
        assert list(client.events()) == [Event("r-0", "ready"), Event("r-2", "reset")]


@given(st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b), max_size=8), st.data())
def test_blocks_are_the_same_however_the_stream_is_cut(blocks: list[bytes], data: Any) -> None:
    whole = b"".join(b":" + each + b"\n\n" for each in blocks)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert list(split(pieces, 1000)) == [b":" + each for each in blocks]


@given(st.binary(max_size=200))
def test_no_bytes_do_more_harm_than_a_value_error(block_: bytes) -> None:
    try:
        event_of(block_)
    except ValueError:
        return


def test_a_lost_connection_goes_on_after_the_last_event() -> None:
    streams = (
        CUT + chunk(READY + DELETED) + b"ff\r\n",
        http(200, block(1, "ready")),
        http(200, block(1, "ready") + block(2, "deleted", gone("b")) + block(3, "reset")),
    )
    with telling(*streams) as server:
        told = follow(lambda: connect(server.port))
        got = [next(told) for _ in range(6)]
        assert [event.id for event in got] == ["r-0", "r-1", "r-1", "r-1", "r-2", "r-3"]
        assert server.targets == ["GET /events", "GET /events?since=r-1", "GET /events?since=r-1"]


def test_an_event_that_could_not_be_taken_in_comes_again() -> None:
    once = http(200, READY + DELETED + block(2, "deleted", gone("b")))
    with telling(once) as server:
        follower = Follower(lambda: connect(server.port))
        told = iter(follower)
        assert [next(told).id for _ in range(2)] == ["r-0", "r-1"]
        follower.again(WorkerUnreachable("no messages"))
        assert next(told).kind == "ready"
        assert server.targets[-1] == "GET /events?since=r-0"


def test_an_event_that_can_never_be_taken_in_is_an_error_in_the_end() -> None:
    with telling(http(200, READY)) as server:
        follower = Follower(lambda: connect(server.port), patience=0.3)
        came: list[Event] = []
        with pytest.raises(WorkerUnreachable, match="no messages"):
            came.extend(refusing(follower))
        assert 2 <= len(came) <= 5


def refusing(follower: Follower) -> Iterator[Event]:
    for event in follower:
        follower.again(WorkerUnreachable("no messages"))
        yield event


def test_a_worker_that_cannot_be_reached_at_first_is_an_error_at_once() -> None:
    def nowhere() -> WorkerClient:
        raise WorkerUnreachable("nothing answers", workspace="ws")

    with pytest.raises(WorkerUnreachable):
        next(follow(nowhere))


def failing_then(*steps: Callable[[], WorkerClient] | PerryError) -> Callable[[], WorkerClient]:
    left = list(steps)

    def reach() -> WorkerClient:
        step = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(step, PerryError):
            raise step
        return step()

    return reach


def test_a_lost_worker_is_waited_for_but_not_for_ever() -> None:
    lost = WorkerUnreachable("gone", workspace="ws")
    with telling(http(200, READY)) as server:

        def there() -> WorkerClient:
            return connect(server.port)

        told = iter(Follower(failing_then(there, lost, lost, there, lost), patience=0.5))
        assert [next(told).kind for _ in range(2)] == ["ready", "ready"]
        with pytest.raises(WorkerUnreachable, match="gone"):
            next(told)


def test_an_error_that_will_not_pass_is_not_waited_out() -> None:
    with telling(http(200, READY)) as server:
        removed = WorkspaceNotFound("removed", workspace="ws")
        told = follow(failing_then(lambda: connect(server.port), removed))
        next(told)
        began = time.monotonic()
        with pytest.raises(WorkspaceNotFound):
            next(told)
        assert time.monotonic() - began < 1


def test_following_survives_a_restart_with_a_reset_and_loses_nothing(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    path = home.session("one", session_id="mine")
    got: list[Event] = []
    with WorkerProcess(tmp_path) as first:
        told = follow(lambda: connect(first.port))

        def read() -> None:
            got.extend(told)

        threading.Thread(target=read, daemon=True).start()
        eventually(lambda: len(got) == 1, "it is subscribed")
        first.process.kill()
        first.process.wait()
        home.append(path, "while it was dead")
        with WorkerProcess(tmp_path, port=first.port):
            eventually(lambda: len(got) == 2, "it is subscribed again")
            home.append(path, "and after")
            eventually(lambda: len(got) == 3, "the change is told")
    assert [event.kind for event in got] == ["ready", "reset", "updated"]
    assert got[-1].session is not None
    assert got[-1].session.message_count == 3
