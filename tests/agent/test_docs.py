"""`docs/http-api.md` says what the daemon does: its table and its shapes are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from starlette.routing import Route

from perry.agent.app import routes, told
from perry.agent.daemon import Daemon
from perry.agent.failures import STATUSES
from perry.agent.models import Place, StandingSession
from perry.agent.workspaces_api import Adoption, Wanted
from perry.archive.models import KeptHit
from perry.client.agent_client import AgentPlace, AgentStatus
from perry.config import ArchiveConfig
from perry.errors import EngineUnreachable
from perry.sessions.models import DeletedSession, Message
from perry.worker.events import Streams
from perry.workspace.models import Ready, Removed, Step, Worker, Workspace
from perry.workspace.revivals import Revival

if TYPE_CHECKING:
    from perry.workspace.engine import Engine

TEXT = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()

SHAPES: dict[str, tuple[type, set[str]]] = {
    "Place": (Place, set()),
    "Session": (StandingSession, set()),
    "Deleted": (DeletedSession, set()),
    "Message": (Message, set()),
    "Hit": (KeptHit, set()),
    "Workspace": (Workspace, {"place", "revival"}),
    "Revival": (Revival, set()),
    "Specification": (Wanted, set()),
    "Adoption": (Adoption, set()),
    "Ready": (Ready, set()),
    "Worker": (Worker, set()),
    "Step": (Step, set()),
    "Removed": (Removed, set()),
}
"""Each shape that is described, the code's own, and what the answers add to it."""


def fields_of(shape: type) -> set[str]:
    return {field.encode_name for field in msgspec.inspect.type_info(shape).fields}  # type: ignore[attr-defined]  # all of them are structs or dataclasses


def described(shape: str) -> set[str]:
    """The fields in a shape's paragraph: code, but for what explains another in parentheses."""
    [paragraph] = re.findall(rf"^\*\*{shape}\*\*: (.*?)\n\n", TEXT, re.MULTILINE | re.DOTALL)
    if shape == "Place":
        paragraph = paragraph.partition(".")[0]
    return set(re.findall(r"`([a-zA-Z]+)`", re.sub(r"\([^()]*\)", "", paragraph)))


def table(directory: Path) -> set[str]:
    def connect() -> Engine:
        raise EngineUnreachable("there is none")

    parts = Daemon(
        directory,
        0,
        archive=directory / "archive.sqlite",
        config=ArchiveConfig(),
        home=directory,
        env={},
        connect=connect,
    )
    made = routes(parts, "token", Streams(parts.ledger.journal, told), lambda: None)
    parts.ledger.close()
    return {
        f"{method} {route.path.format(name='NAME', id='ID')}"
        for route in made
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }


def test_the_calls_are_those_of_the_routes(tmp_path: Path) -> None:
    calls = re.findall(r"^\| `((?:GET|POST|DELETE|PUT|PATCH) \S+)` \|", TEXT, re.MULTILINE)
    assert len(calls) == len(set(calls))
    assert set(calls) == table(tmp_path)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_the_fields_that_are_described(shape: str) -> None:
    code, added = SHAPES[shape]
    assert described(shape) == fields_of(code) | added


def test_every_shape_that_is_described_is_held_against_the_code() -> None:
    section = TEXT.partition("\n## Shapes\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\*\*(\w+)\*\*", section, re.MULTILINE)) == {*SHAPES, "Failure"}


def test_the_ways_in_which_a_place_is_known_are_described() -> None:
    ways = msgspec.inspect.type_info(Place).fields[2].type.values  # type: ignore[attr-defined]  # a Literal
    assert re.findall(r"^- `(\w+)`: ", TEXT, re.MULTILINE) == [*ways] or set(
        re.findall(r"^- `(\w+)`: ", TEXT, re.MULTILINE)
    ) == set(ways)


def test_the_status_has_the_fields_that_are_described() -> None:
    [answer] = re.findall(r"^\| `GET /api/status` \| `(\{.*?\})`;", TEXT, re.MULTILINE)
    top = re.sub(r":[{\[].*?[}\]]", "", answer)
    assert set(re.findall(r'"(\w+)"', top)) == fields_of(AgentStatus)
    assert fields_of(AgentPlace) == fields_of(Place)


def test_every_status_of_an_error_is_described() -> None:
    section = TEXT.partition("\n## Errors\n")[2]
    rows = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", section, re.MULTILINE)
            for code in row.split(",")}  # fmt: skip
    assert rows >= {status for _, status in STATUSES} | {500}
    assert rows - {status for _, status in STATUSES} == {401, 403, 405, 413, 500}
