"""What Ctrl-C leaves behind, said in words.

A workspace is made in steps, and each of them is complete or can be done again, so an interrupted
command never needs repair: it needs somebody to say what is there now and how to go on. This
module must not know how a workspace is made, only whom to ask.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from perry.errors import PerryError, WorkspaceNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perry.workspace.models import Workspace


class Interrupted(PerryError):
    """A person pressed Ctrl-C; the exit code is what shells expect of that."""

    exit_code = 130


@contextmanager
def resumable(name: str, again: str, get: Callable[[str], Workspace]) -> Iterator[None]:
    """Turn Ctrl-C into words on what is left of workspace `name`.

    `again` is the command that goes on from there; `get` finds the workspace as it is now.
    Raises Interrupted.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted: {_left(name, get)}.",
            hint=f"Go on with {again}, or take it away with `perry workspace remove {name}`.",
        ) from None


def _left(name: str, get: Callable[[str], Workspace]) -> str:
    try:
        return f"workspace {name} is there, {get(name).state}"
    except WorkspaceNotFound:
        return f"workspace {name} has no container yet; its home volume may be left"
    except PerryError as error:
        return f"what is left of workspace {name} could not be asked ({error.message})"
