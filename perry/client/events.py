"""A worker's events, out of the bytes of its stream.

The format is that of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html),
as far as a worker uses it. What comes from a workspace is nobody's word: a block that never ends is
refused, and what an event says is decoded strictly. Pure functions: this module must not know
connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from perry.sessions.models import Session, SessionAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Kind = Literal["ready", "reset", "created", "updated", "deleted"]

LONGEST_ID = 256  # characters


class Event(msgspec.Struct, frozen=True):
    """Something happened to a session, or to the stream itself.

    `id` is where to go on after it. `created` and `updated` carry the whole session as it is now,
    `deleted` its id and coding agent; several changes of one session may come as its last.
    `ready` says that the stream is open, `reset` that changes may be missing: after it, all
    sessions have to be listed anew.
    """

    id: str
    kind: Kind
    session: Session | None = None
    session_id: str | None = None
    agent_type: str | None = None


class _Deleted(msgspec.Struct, rename="camel"):
    id: str
    agent_type: str


def split(chunks: Iterable[bytes], largest: int) -> Iterator[bytes]:
    """Cut a stream into its blocks, which end with an empty line.

    Raises ValueError for a block of more than `largest` bytes.
    """
    pending = bytearray()
    for chunk in chunks:
        looked_at = max(0, len(pending) - 1)
        pending += chunk
        while (end := pending.find(b"\n\n", looked_at)) >= 0:
            yield bytes(pending[:end])
            del pending[: end + 2]
            looked_at = 0
        if len(pending) > largest:
            raise ValueError(f"it is larger than {largest} bytes")


def event_of(block: bytes) -> Event | None:
    """Read one block; None for a comment, and for kinds of event that are unknown here.

    Raises ValueError where it is no event.
    """
    fields: dict[bytes, bytes] = {}
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        fields[name] = value.removeprefix(b" ")
    kind = _kind(fields.get(b"event", b"").decode())
    if kind is None:
        return None
    event_id = fields.get(b"id", b"").decode()
    if not 0 < len(event_id) <= LONGEST_ID:
        raise ValueError("it has no id")
    return _decoded(event_id, kind, fields.get(b"data", b""))


def _kind(name: str) -> Kind | None:
    kinds: tuple[Kind, ...] = get_args(Kind)
    return next((kind for kind in kinds if kind == name), None)


def _decoded(event_id: str, kind: Kind, data: bytes) -> Event:
    if kind in {"ready", "reset"}:
        return Event(event_id, kind)
    if kind == "deleted":
        gone = msgspec.json.decode(data, type=_Deleted)
        return Event(event_id, kind, None, gone.id, gone.agent_type)
    session = msgspec.json.decode(data, type=SessionAnswer).session
    return Event(event_id, kind, session, session.id, session.agent_type)
