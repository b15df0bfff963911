"""Why a workspace's worker was started the last time that it was found dead.

Kept in this user's cache by container id, for whoever asks what happened; it decides nothing. It
must not know how workers are started.
"""

from __future__ import annotations

import contextlib
import time

import msgspec

from perry.workspace import cache


class Revival(msgspec.Struct, frozen=True, rename="camel"):
    """A worker was started again: when (ms since the epoch), why, and how many seconds it took."""

    at: int
    reason: str
    seconds: float


def record(container_id: str, reason: str, seconds: float) -> Revival:
    """Keep why a container's worker was started just now, and how long it took."""
    revival = Revival(int(time.time() * 1000), reason, round(seconds, 3))
    cache.write("revivals", container_id, msgspec.json.encode(revival))
    return revival


def forget(container_id: str) -> None:
    """Drop what is kept of a container."""
    cache.forget("revivals", container_id)


def last(container_id: str) -> Revival | None:
    """Return the last revival of a container's worker, None where none is known."""
    with contextlib.suppress(msgspec.MsgspecError):  # kept by another perry, in another shape
        kept = cache.read("revivals", container_id)
        if kept is not None:
            return msgspec.json.decode(kept, type=Revival)
    return None
