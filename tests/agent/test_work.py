"""Work that is told as it goes always comes to an end, and the end is told."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from starlette.requests import Request

from perry.agent import work
from perry.errors import WorkspaceNotFound
from perry.workspace.models import Ready, Step, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message

    from perry.workspace.models import Steps

READY = Ready(
    Workspace("w", "id", "image", "running", "", "", "", "/root", None, (), ()), None, "no worker"
)


def steps(count: int, end: Exception | None = None) -> Callable[[], Steps]:
    def begin() -> Steps:
        for number in range(count):
            yield Step("start", "progress", str(number))
        if end is not None:
            raise end
        return READY

    return begin


def answered(begin: Callable[[], Steps], accept: str) -> tuple[int, str]:
    """Have work answered on an event loop of its own; returns the status and the body."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def answer() -> None:
        headers = [(b"accept", accept.encode())]
        scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": headers}
        response = await work.answer(Request(scope, receive), begin)
        await response(scope, receive, send)

    anyio.run(answer)
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent).decode()


def events(body: str) -> list[tuple[str, Any]]:
    blocks = [block.split("\n") for block in body.split("\n\n")[:-1]]
    return [
        (kind.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for kind, data in blocks
    ]


@pytest.mark.parametrize("count", [0, 1, 500])
def test_every_step_is_told_in_order_and_then_the_end(count: int) -> None:
    status, body = answered(steps(count), "text/event-stream")
    told = events(body)
    assert status == 200
    assert [data["detail"] for kind, data in told if kind == "step"] == [*map(str, range(count))]
    assert (told[-1][0], told[-1][1]["warning"]) == ("ready", "no worker")
    status, body = answered(steps(count), "application/json")
    assert (status, json.loads(body)["warning"]) == (200, "no worker")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (WorkspaceNotFound("it isn't there", hint="make it", workspace="w"), 404, "it isn't there"),
        (ValueError("secret"), 500, "the daemon failed: ValueError"),
    ],
)
@pytest.mark.parametrize("count", [0, 3])
def test_whatever_goes_wrong_is_the_end(
    error: Exception, status: int, words: str, count: int
) -> None:
    code, body = answered(steps(count, error), "application/json")
    assert (code, json.loads(body)["error"]) == (status, words)
    kind, told = events(answered(steps(count, error), "text/event-stream")[1])[-1]
    assert (kind, told["status"], told["error"]) == ("error", status, words)


def test_an_end_is_never_missed_however_the_threads_take_turns() -> None:
    deadline = time.monotonic() + 60
    for _ in range(300):
        assert answered(steps(1), "application/json")[0] == 200
        assert time.monotonic() < deadline
