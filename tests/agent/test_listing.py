"""The list in pieces: the same answer as the list encoded at once, whatever has changed."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from starlette.responses import Response

from perry.agent.listing import PIECE, Pieces
from perry.agent.models import Place, PlacedSession

PLACES = (Place("demo", "running", "worker"),)


def listing(*names: str) -> tuple[PlacedSession, ...]:
    return tuple(
        PlacedSession(name, "claude", name, "/", "/f", 1, None, 0, workspace="demo")
        for name in names
    )


async def body(response: Response) -> bytes:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await anyio.sleep_forever()

    await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
    whole = b"".join(message.get("body", b"") for message in sent)
    assert response.headers["content-length"] == str(len(whole))
    return whole


@pytest.mark.anyio
@pytest.mark.parametrize("count", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
async def test_a_list_in_pieces_is_the_list_whatever_came_or_went(count: int) -> None:
    pieces, names = Pieces(), [f"s{number}" for number in range(count)]
    moved = [*names[count // 2 :], *names[: count // 2]]
    for wanted in (names, names, ["new", *names], moved, names[1:], [*names, "last", "b\udcff"]):
        answer = json.loads(await body(await pieces.answer(listing(*wanted), 7, PLACES, {})))
        assert [one["id"] for one in answer["sessions"]] == [
            name.replace("\udcff", "?") for name in wanted
        ]
        assert (answer["total"], answer["places"][0]["name"]) == (7, "demo")


@pytest.mark.anyio
async def test_pieces_that_did_not_change_are_not_encoded_again() -> None:
    pieces, names = Pieces(), [f"s{number}" for number in range(3 * PIECE)]
    await pieces.answer(listing("new", *names), 0, PLACES, {})
    kept = [encoded for _, encoded in pieces._kept]
    await pieces.answer(listing("newer", "new", *names), 0, PLACES, {})
    again = [encoded for _, encoded in pieces._kept]
    assert [one is other for one, other in zip(kept, again, strict=True)] == [True] * 3 + [False]
