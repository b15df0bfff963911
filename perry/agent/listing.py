"""The list of all sessions as JSON, kept in pieces, of which a change makes few anew.

Thousands of sessions take longer to encode than anybody should wait after one of them has grown,
and as one answer they would lie in memory several times. What grows is at the list's beginning, so
the pieces are cut from its end, where they stay as they are. This module must not know where
sessions come from.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import StreamingResponse

from perry.worker.encoding import encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from starlette.responses import Response

    from perry.agent.mirror import Listing
    from perry.agent.models import Place

PIECE = 200  # sessions


class Pieces:
    """The pieces of the list that was asked for last; used on the event loop only."""

    def __init__(self) -> None:
        self._kept: list[tuple[Listing, bytes]] = []

    async def answer(
        self, listing: Listing, total: int, places: tuple[Place, ...], headers: dict[str, str]
    ) -> Response:
        """Answer with a list, which may be a page of `total` sessions."""
        pieces = [b'{"sessions":[', *await self._encoded(listing)]
        pieces.append(b'],"total":%d,"places":%b}' % (total, encode(places)))
        length = str(sum(map(len, pieces)))
        return StreamingResponse(
            _each(pieces),
            headers={**headers, "Content-Length": length},
            media_type="application/json",
        )

    async def _encoded(self, listing: Listing) -> list[bytes]:
        """Encode the sessions of a list, commas in between."""
        kept: list[tuple[Listing, bytes]] = []
        for number, end in enumerate(range(len(listing), 0, -PIECE)):
            piece = listing[max(0, end - PIECE) : end]
            before = self._kept[number] if number < len(self._kept) else None
            if before is not None and before[0] == piece:
                kept.append(before)
            else:
                comma = b"," if number else b""
                kept.append((piece, encode(piece)[1:-1] + comma))
                await asyncio.sleep(0)  # whoever asks for something else is next
        self._kept = kept
        return [body for _, body in reversed(kept)]


async def _each(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
