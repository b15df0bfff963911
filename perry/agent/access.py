"""The daemon's token: who has it may do anything, so it is this user's alone.

Whoever may create a workspace is root on the engine's machine; so it is asked for on loopback too.
It lies in a file of the user's state directory (0600), where the command line finds it by itself.
This module must not know how a request is made.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

import platformdirs

from perry.errors import AgentError

LOGIN = "/login"
COOKIE_PURPOSE = b"perry login cookie"

_TOKEN = re.compile("[!-~]{32,256}")


def state_directory() -> Path:
    """Name the directory of what the daemon keeps."""
    return Path(platformdirs.user_state_dir("perry"), "agent")


def ensure_token(directory: Path) -> str:
    """Return the daemon's token, made once, in a directory that only this user may look into.

    Raises AgentError where it can't be kept there.
    """
    path = directory / "token"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)  # it may have been there before
        if not path.exists():
            _make(path)
        path.chmod(0o600)
    except OSError as error:
        raise _unusable(path, error) from error
    token = read_token(directory)
    if token is None:
        raise AgentError(f"{path} was removed at this moment", hint="Try again.")
    return token


def _make(path: Path) -> None:
    draft = path.with_name(f".token-{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as new:
        new.write(secrets.token_hex(32))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # another daemon was quicker, and its token is the one
    finally:
        draft.unlink()


def read_token(directory: Path) -> str | None:
    """Return the token that this user's daemon has, None where none was made yet.

    Raises AgentError for a file that can't be read, or that holds something else.
    """
    path = directory / "token"
    try:
        token = path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    if not _TOKEN.fullmatch(token):
        raise AgentError(
            f"{path} holds no token", hint=f"Remove it, and a new one is made: rm {path}"
        )
    return token


def _unusable(path: Path, error: OSError) -> AgentError:
    return AgentError(
        f"The agent daemon's token, {path}, can't be used: {error.strerror}",
        hint="See that its directory belongs to this user and can be written.",
    )


def cookie_value(token: str) -> str:
    """Return what a browser that was let in shows instead of the token: made of it, not it.

    The token is what is hashed, not the key: `/health` gives anybody the hash of words of their
    own choice with the token as the key, and must never give this.
    """
    return hmac.new(COOKIE_PURPOSE, token.encode(), hashlib.sha256).hexdigest()


def login_link(url: str, token: str) -> str:
    """Return the link that lets a browser in, to the daemon at a base URL."""
    return f"{url}{LOGIN}?token={token}"
