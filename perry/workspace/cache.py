"""Perry's own cache on this machine: answers that can be asked for again, kept to save the asking.

A cache that can't be read or written (a home that is somebody else's, read-only or full) costs time
and nothing else, so no command fails for it. It must not know what it keeps.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

import platformdirs


def read(kind: str, key: str) -> bytes | None:
    """Return what is kept of a kind under a key, None where nothing is."""
    try:
        return _file(kind, key).read_bytes()
    except OSError:
        return None  # never written, or out of reach: it is asked for again


def write(kind: str, key: str, content: bytes) -> None:
    """Keep content under a key, whole or not at all, for this user's eyes (0600)."""
    path = _file(kind, key)
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):  # then it is asked for again
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
        draft.replace(path)


def forget(kind: str, key: str) -> None:
    """Keep nothing under a key any more."""
    with contextlib.suppress(OSError):  # never written, or out of reach as it is for `read`
        _file(kind, key).unlink()


def directory(kind: str, key: str) -> Path:
    """Return where what is too much for a file is kept under a key; it need not exist."""
    return _file(kind, key)


def _file(kind: str, key: str) -> Path:
    # A key may hold anything; hashed, it is a file name.
    name = hashlib.sha256(key.encode()).hexdigest()[:32]
    return Path(platformdirs.user_cache_dir("perry"), kind, name)
