"""Searches through the client: what is asked, and what may come back."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from perry.client.worker_client import WorkerClient
from perry.errors import WorkerFailure
from tests.client.answering import Answering, http

if TYPE_CHECKING:
    pass


def test_only_what_was_given_is_asked_for() -> None:
    with (
        Answering(lambda *_: http(200, {"sessions": [], "hits": []})) as worker,
        WorkerClient(worker.url, workspace="demo") as client,
    ):
        client.search("a b")
        client.search("x", agent="pi", since=5, limit=7, offset=9)
    asked = [parse_qs(urlsplit(target.split(" ")[1]).query) for target in worker.targets]
    assert asked == [
        {"q": ["a b"], "limit": ["100"], "offset": ["0"]},
        {"q": ["x"], "agent": ["pi"], "since": ["5"], "limit": ["7"], "offset": ["9"]},
    ]


@pytest.mark.parametrize("answer", [{"sessions": []}, {"sessions": [], "hits": [{"snippet": 1}]}])
def test_an_answer_without_hits_makes_no_sense(answer: object) -> None:
    """As a worker of before searches gives: all its sessions."""
    with (
        Answering(lambda *_: http(200, answer)) as worker,
        WorkerClient(worker.url, workspace="demo") as client,
        pytest.raises(WorkerFailure, match="makes no sense"),
    ):
        client.search("x")
