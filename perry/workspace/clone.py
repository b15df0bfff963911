"""A git repository cloned into a workspace's home.

Runs the image's own git, as the workspace's user, with the transports allowed here only. A clone
appears under its name once it is whole. It must not know how a workspace is made.
"""

from __future__ import annotations

import re
import shlex
from urllib.parse import SplitResult, urlsplit

from perry.errors import CloneFailed, UsageError
from perry.workspace.bundle import BUSYBOX
from perry.workspace.engine import Engine
from perry.workspace.models import Workspace
from perry.workspace.objects import Execution

PROTOCOLS = ("https", "ssh", "git", "file")

_SCP_LIKE = re.compile(r"(?:[\w.-]+@)?[\w.-]+:(?!//|:)(?P<path>.+)")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]+@")

_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new",
}
_COMMAND_NOT_FOUND = (126, 127)


def validate(url: str) -> str:
    """Return the URL if git may be given it. Raises UsageError.

    https, ssh, git and file are the protocols allowed; `user@host:path` is ssh.
    """
    if url.startswith("-"):
        raise UsageError(f"'{url}' begins with a dash and is no repository")
    scheme = _parts(url).scheme if "://" in url else ""
    if not url.isprintable() or " " in url:
        raise UsageError(f"{without_credentials(url)!r} is no repository")
    if scheme in PROTOCOLS or (not scheme and _SCP_LIKE.fullmatch(url) and "::" not in url):
        return url
    raise UsageError(
        f"'{without_credentials(url)}' can't be cloned",
        hint=f"Use one of these protocols: {', '.join(PROTOCOLS)}.",
    )


def without_credentials(text: str) -> str:
    """Blot out the user names and passwords of URLs in a text."""
    return _CREDENTIALS.sub("***@", text)


def directory_of(url: str) -> str:
    """Return the name of the directory that git would clone into."""
    scp = _SCP_LIKE.fullmatch(url)
    path = _parts(url).path if "://" in url else (scp["path"] if scp else url)
    name = path.rstrip("/").removesuffix("/.git").rsplit("/", 1)[-1].removesuffix(".git")
    if name in ("", ".", ".."):
        raise UsageError(f"'{without_credentials(url)}' names no repository")
    return name


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise UsageError(f"'{without_credentials(url)}' is no repository: {error}") from error


def clone(engine: Engine, workspace: Workspace, url: str) -> str:
    """Clone a repository into the workspace's home and return its directory there.

    A directory of that name whose origin is the same is left as it is. Raises CloneFailed with
    git's words, credentials blotted out.
    """
    target = f"{workspace.home}/{directory_of(url)}"
    draft = f"{target}.perry-clone"
    env = {**_ENVIRONMENT, "HOME": workspace.home}

    def run(*argv: str) -> Execution:
        return engine.run(workspace.container_id, argv, env=env)

    origin = run("git", "-C", target, "remote", "get-url", "origin")
    if origin.exit_code == 0 and origin.output.strip() == url:
        return target
    attempt = run(BUSYBOX, "sh", "-c", _MAKE_ROOM, BUSYBOX, draft, target)
    if attempt.exit_code == 0:
        attempt = run("git", "clone", "--quiet", "--", url, draft)
    if attempt.exit_code == 0:
        attempt = run(BUSYBOX, "mv", draft, target)
    if attempt.exit_code != 0:
        raise _failed(workspace, url, attempt)
    return target


_MAKE_ROOM = """
if [ -e "$2" ]; then echo "$2 is there already, and its origin is another"; exit 1; fi
exec "$0" rm -rf "$1"
"""


def _failed(workspace: Workspace, url: str, attempt: Execution) -> CloneFailed:
    words = attempt.output.strip() or f"git ended with exit code {attempt.exit_code}"
    if attempt.exit_code in _COMMAND_NOT_FOUND:
        words = f"the image {workspace.image} has no git"
    shown = without_credentials(url)
    again = f"perry workspace init {workspace.name} --clone {shlex.quote(shown)}"
    return CloneFailed(
        f"{shown} could not be cloned into '{workspace.name}': {without_credentials(words)}",
        hint=f"The workspace runs. Once that is mended: {again}",
        workspace=workspace.name,
    )
