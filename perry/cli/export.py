"""`perry session export`: a whole session as one file.

Finds the session and those that it started, reads them page by page, and writes the document; a
file appears under its name once it is whole. What a document looks like is known elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perry.cli import document, render
from perry.cli.archived import Sources
from perry.cli.document import Exported
from perry.cli.options import Agent, FromArchive, Id, InWorkspace, examples
from perry.errors import UsageError

if TYPE_CHECKING:
    from perry.cli.fleet import Found, Gathered
    from perry.client.session_client import SessionClient
    from perry.sessions.models import Message, Session

EPILOG = examples(
    "perry session export 4f2a --format md > session.md",
    "perry session export 4f2a --format json --output session.json",
)


class Format(StrEnum):
    """What an exported session is written as."""

    MARKDOWN = "md"
    JSON = "json"


WRITERS = {Format.MARKDOWN: document.as_markdown, Format.JSON: document.as_json}


def export(
    session_id: Id,
    workspace: InWorkspace = None,
    agent: Agent = None,
    format_: Annotated[
        Format, typer.Option("--format", "-f", help="What to write: Markdown or JSON.")
    ] = (Format.MARKDOWN),
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The file to write, in place of stdout."
        ),
    ] = None,
    archived: FromArchive = False,
) -> None:
    """Write a session as one document.

    It is whole, the sessions that it started stand in it, and it needs nothing else. One that is
    nowhere else any more is read from the archive.
    """
    with contextlib.ExitStack() as open_:
        sources = open_.enter_context(Sources(workspace, archived=archived))
        found, gathered = sources.find(session_id, agent=agent)
        render.read_from(found)
        client = open_.enter_context(sources.connect(found))
        family = [found.session, *descendants(found, gathered)]
        exported = (Exported(one, _messages(client, one)) for one in family)
        text = WRITERS[format_](found.place.name, exported)
        if output is None:
            for piece in text:
                sys.stdout.write(piece)
        else:
            write_whole(output, text)
            render.line(f"wrote {output}", stream=sys.stderr)


def descendants(found: Found, gathered: Gathered) -> list[Session]:
    """Give the sessions that a session started, and those that they started, oldest first."""
    children: dict[str | None, list[Session]] = {}
    for other in gathered.found:
        if _may_be_kin(other, found):
            children.setdefault(other.session.parent_id, []).append(other.session)
    family: list[Session] = []
    waiting = [found.session.id]
    while waiting:
        started = children.pop(waiting.pop(), [])
        family += started
        waiting += [one.id for one in started]
    return sorted(family, key=lambda one: one.started_at or one.last_activity)


def _may_be_kin(other: Found, found: Found) -> bool:
    return (
        other.place.name == found.place.name
        and other.session.agent_type == found.session.agent_type
        and other.session.id != found.session.id
    )


def write_whole(path: Path, text: Iterable[str]) -> None:
    """Write a file so that it is there whole or not at all, readable by its owner alone.

    What is there and is no file, such as a pipe, is written to as it is. Raises UsageError where
    it can't be written, and whatever `text` raises.
    """
    try:
        if path.exists() and not path.is_file():
            with path.open("w", encoding="utf-8") as file:
                file.writelines(text)
        else:
            _replace(path.resolve(), text)
    except OSError as error:
        raise UsageError(
            f"{path} can't be written: {error.strerror}.", hint="Give --output another file."
        ) from error


def _replace(path: Path, text: Iterable[str]) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".perry-export-")
    draft = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(text)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _messages(client: SessionClient, session: Session) -> Iterator[Message]:
    return client.iterate_messages(session.id, agent=session.agent_type)
