"""The engine's key, and the tokens made of it.

One key per engine lies in a volume that no workspace mounts; whoever may use the engine may read
it, through the archive API, and nobody else. A workspace's token is derived from its container's
id, so nothing is stored per workspace. It must not know how tokens are sent.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from perry.errors import BuildError
from perry.workspace import cache
from perry.workspace.bundle import KEY_VOLUME
from perry.workspace.engine import Engine


def token(key: bytes, container_id: str) -> str:
    """Return a workspace's token: the hex HMAC-SHA256 of its container's id under the key."""
    return hmac.new(key, container_id.encode(), hashlib.sha256).hexdigest()


def cached(engine: Engine) -> bytes | None:
    """Return the engine's key from this user's cache, None where it isn't there.

    A key of a volume that is gone counts no more: another user's uninstall may have taken it.
    """
    born, _, key = (cache.read("keys", engine.id) or b"").partition(b"\n")
    return key if key and born == _born(engine) else None


def read(engine: Engine, keeper_id: str) -> bytes:
    """Return the engine's own key, as `stored` does, and cache it."""
    key = stored(engine, keeper_id)
    cache.write("keys", engine.id, _born(engine) + b"\n" + key)
    return key


def stored(engine: Engine, keeper_id: str) -> bytes:
    """Read the engine's key through a container that mounts its volume.

    Raises BuildError where the volume holds none.
    """
    key = engine.read_file(keeper_id, "/key/key")
    if not key:
        raise BuildError(
            "The engine's perry-key volume holds no key",
            hint="perry uninstall removes what perry put on the engine; then init again.",
        )
    return key


def cache_file(engine: Engine) -> Path:
    """Return where this user's cache keeps the engine's key; it need not be there."""
    return cache.directory("keys", engine.id)


def forget(engine: Engine) -> None:
    """Remove the engine's key from this user's cache."""
    cache.forget("keys", engine.id)


def _born(engine: Engine) -> bytes:
    """Tell one key volume of an engine from the next, by when it was created."""
    volume = engine.get_volume(KEY_VOLUME)
    return b"" if volume is None else volume.created_at.encode()
