"""Searches asked of a real worker: their shape, their limits, and what they cost the others."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import pytest

from tests.worker.running import TOKEN, ClaudeHome, WorkerProcess, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

HIT_KEYS = {
    "sessionId", "agentType", "type", "position", "timestamp", "snippet", "marks",
}  # fmt: skip
UNFILTERED = "漢字"
"""What no look at bytes can rule out, so that every message is read."""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    home = ClaudeHome(tmp_path_factory.mktemp("home"))
    home.session("the Needle", "hay", "a needle again", session_id="one")
    home.session("no such thing", session_id="two")
    home.session(*[f"common {number}" for number in range(250)], session_id="many")
    with WorkerProcess(home.home) as running:
        yield running


def large_home(path: Path) -> ClaudeHome:
    """Make a home that takes seconds to read message by message: 100 MB of small messages."""
    home = ClaudeHome(path)
    text = home.session(*["some words of a prompt"] * 5000).read_text()
    for number in range(40):
        (home.projects / "-srv-app" / f"s{number}.jsonl").write_text(text)
    return home


def processor_time(worker: WorkerProcess) -> int:
    """Count the clock ticks that the worker has used."""
    fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def send_search(worker: WorkerProcess) -> socket.socket:
    """Ask, and don't wait for the answer."""
    connection = socket.create_connection(("127.0.0.1", worker.port))
    head = f"GET /sessions?q={quote(UNFILTERED)} HTTP/1.1\r\nHost: x\r\n"
    connection.sendall(f"{head}Authorization: Bearer {TOKEN}\r\n\r\n".encode())
    return connection


def test_an_answer_has_the_pinned_keys(worker: WorkerProcess) -> None:
    answer = worker.json("/sessions", q="needle")
    assert answer.keys() == {"sessions", "hits"}
    assert [session["id"] for session in answer["sessions"]] == ["one"]
    assert all(hit.keys() == HIT_KEYS for hit in answer["hits"])
    assert [(hit["type"], hit["position"]) for hit in answer["hits"]] == [("user", 2), ("user", 0)]
    assert answer["hits"][1]["snippet"] == "the Needle"
    assert answer["hits"][1]["marks"] == [[4, 10]]


def test_a_search_has_no_tag(worker: WorkerProcess) -> None:
    answer = worker.http.get("/sessions", params={"q": "needle"}, headers={"If-None-Match": "*"})
    assert answer.status_code == 200
    assert "etag" not in answer.headers


@pytest.mark.parametrize("query", ["", "   ", "nowhere"])
def test_no_words_and_unknown_words_find_nothing(worker: WorkerProcess, query: str) -> None:
    assert worker.json("/sessions", q=query) == {"sessions": [], "hits": []}


def test_pages_of_hits_follow_each_other(worker: WorkerProcess) -> None:
    assert len(worker.json("/sessions", q="common")["hits"]) == 100
    found = [
        hit["position"]
        for offset in (0, 100, 200, 300)
        for hit in worker.json("/sessions", q="common", limit="100", offset=str(offset))["hits"]
    ]
    assert found == list(range(249, -1, -1))
    assert worker.json("/sessions", q="common", limit="0") == {"sessions": [], "hits": []}


def test_agent_and_since_leave_hits_out(worker: WorkerProcess) -> None:
    assert worker.json("/sessions", q="needle", agent="pi")["hits"] == []
    assert len(worker.json("/sessions", q="needle", agent="claude")["hits"]) == 2
    at = 1772600767890  # when all of it was said
    assert len(worker.json("/sessions", q="needle", since=str(at))["hits"]) == 2
    assert worker.json("/sessions", q="needle", since=str(at + 1))["hits"] == []


@pytest.mark.parametrize("bad", ["since=-1", "since=x", "limit=-1", "limit=1.5", "offset=-1"])
def test_bad_numbers_are_400(worker: WorkerProcess, bad: str) -> None:
    answer = worker.http.get(f"/sessions?q=needle&{bad}")
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}


def test_a_query_too_long_is_400_and_one_of_bytes_finds_nothing(worker: WorkerProcess) -> None:
    assert worker.http.get("/sessions", params={"q": "x" * 1001}).status_code == 400
    assert worker.http.get("/sessions?q=%ff%00").json()["hits"] == []


def test_a_search_needs_the_token(worker: WorkerProcess) -> None:
    answer = httpx.get(f"{worker.http.base_url}/sessions?q=needle", trust_env=False)
    assert answer.status_code == 401


def test_others_are_answered_while_searches_run(tmp_path: Path) -> None:
    with WorkerProcess(large_home(tmp_path).home) as worker:
        searches = [send_search(worker) for _ in range(4)]
        slowest = 0.0
        for _ in range(50):
            asked = time.perf_counter()
            assert worker.is_ready()
            slowest = max(slowest, time.perf_counter() - asked)
        for search in searches:
            search.close()
        assert slowest < 0.5  # s; without giving way it is as long as a search


def test_a_search_stops_when_its_client_has_gone(tmp_path: Path) -> None:
    with WorkerProcess(large_home(tmp_path).home) as worker:
        search = send_search(worker)
        before = processor_time(worker)
        eventually(lambda: processor_time(worker) > before + 5, "the search runs")
        search.close()

        def is_idle() -> bool:
            used = processor_time(worker)
            time.sleep(0.2)
            return processor_time(worker) <= used + 2

        eventually(is_idle, "the search has stopped", within=3)


def test_the_worker_ends_within_a_second_while_searches_run(tmp_path: Path) -> None:
    with WorkerProcess(large_home(tmp_path).home) as worker:
        searches = [send_search(worker) for _ in range(4)]
        before = processor_time(worker)
        eventually(lambda: processor_time(worker) > before + 5, "a search runs")
        assert worker.terminate() < 1
        assert worker.process.returncode == 0
        for search in searches:
            search.close()


def test_more_searches_than_may_run_wait_for_their_turn(worker: WorkerProcess) -> None:
    found: list[int] = []

    def ask() -> None:
        params = {"q": "needle"}
        url = f"{worker.http.base_url}/sessions"
        answer = httpx.get(url, params=params, headers=worker.http.headers, trust_env=False)
        found.append(len(answer.json()["hits"]))

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert found == [2] * 10
