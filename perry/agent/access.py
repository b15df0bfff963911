"""The daemon's token: who has it may do anything, so it is this user's alone.

Whoever may create a workspace is root on the engine's machine; so it is asked for on loopback too.
It lies in a file of the user's state directory (0600), where the command line finds it by itself.
This module must not know HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

import platformdirs

from perry.errors import AgentError

COOKIE_PURPOSE = b"perry login cookie"


def state_directory() -> Path:
    """Name the directory of what the daemon keeps."""
    return Path(platformdirs.user_state_dir("perry"), "agent")


def ensure_token(directory: Path) -> str:
    """Return the daemon's token, made once. Raises AgentError where it can't be kept."""
    path = directory / "token"
    draft = directory / f".token-{secrets.token_hex(4)}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as new:
                new.write(secrets.token_hex(32))
            try:
                os.link(draft, path)
            except FileExistsError:
                pass  # another daemon was quicker, and its token is the one
            finally:
                draft.unlink()
        token = read_token(directory)
    except OSError as error:
        raise AgentError(
            f"The agent daemon's token can't be kept in {directory}: {error.strerror}",
            hint="See that this directory can be written.",
        ) from error
    if token is None:
        raise AgentError(
            f"The agent daemon's token in {path} is empty", hint=f"Remove it: rm {path}"
        )
    return token


def read_token(directory: Path) -> str | None:
    """Return the token that this user's daemon has, None where none was made yet."""
    try:
        return (directory / "token").read_text().strip() or None
    except FileNotFoundError:
        return None


def cookie_value(token: str) -> str:
    """Return what a browser that was let in shows instead of the token: made of it, not it."""
    return hmac.new(token.encode(), COOKIE_PURPOSE, hashlib.sha256).hexdigest()
