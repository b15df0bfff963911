"""docs/worker-api.md says what a worker answers: every call and every field, and no others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from starlette.routing import Route

from perry.protocol import Health
from perry.sessions.index import SessionIndex
from perry.sessions.journal import Kind
from perry.sessions.models import DeletedSession, Hit, Message, MessageType, Session
from perry.worker.app import Api, routes, streams_of
from perry.worker.config import WorkerConfig
from perry.worker.watcher import Watcher

TEXT = (Path(__file__).parents[2] / "docs" / "worker-api.md").read_text(encoding="utf-8")
SHAPES = {
    "Session": Session,
    "Deleted": DeletedSession,
    "Message": Message,
    "Hit": Hit,
    "Health": Health,
}


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def first_cells(text: str) -> list[str]:
    """Give what stands in backticks in the first column of a table."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


@pytest.fixture
def served(tmp_path: Path) -> list[Route]:
    index = SessionIndex.of_home(tmp_path, {})
    config = WorkerConfig("127.0.0.1", 0, None, "", tmp_path, {})
    return routes(Api(config, index, Watcher(index), streams_of(index)))


def test_every_call_is_documented_and_no_other(served: list[Route]) -> None:
    calls = {
        f"{method} {route.path}"
        for route in served
        for method in (route.methods or set()) - {"HEAD"}
    }
    documented = first_cells(TEXT.partition("## Session")[0])
    assert {call.partition("?")[0] for call in documented} == calls


@pytest.mark.parametrize("name", SHAPES)
def test_every_field_is_documented_in_its_place_and_no_other(name: str) -> None:
    assert first_cells(section(name)) == [field.encode_name for field in fields(SHAPES[name])]


def fields(shape: Any) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(shape)


def test_every_type_of_message_and_of_event_is_named() -> None:
    (types,) = re.findall(r"^\| `type` \| (.*) \|$", section("Message"), re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", types)) == get_args(MessageType)
    assert {"ready", "reset", *get_args(Kind)} <= set(re.findall(r"`(\w+)`", section("Events")))


def test_what_a_field_of_a_session_left_out_means_is_so() -> None:
    optional = [field.encode_name for field in fields(Session) if not field.required]
    assert optional[0] == "gitBranch"
    names = first_cells(section("Session"))
    assert names[names.index("gitBranch") :] == optional
