"""The HTTP contract, asked of a real worker over real files."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import httpx
import pytest

import perry
from perry.protocol import proof
from tests.worker.running import DIGEST, TOKEN, ClaudeHome, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SESSION_KEYS = {
    "id", "agentType", "title", "directory", "filePath", "messageCount", "firstPrompt",
    "lastActivity",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> ClaudeHome:
    made = ClaudeHome(tmp_path_factory.mktemp("home"))
    made.session("one", "two", "three", session_id="long")
    made.session("hello", session_id="short")
    return made


@pytest.fixture(scope="module")
def worker(home: ClaudeHome) -> Iterator[WorkerProcess]:
    with WorkerProcess(home.home) as running:
        yield running


def test_health_needs_no_token_and_has_the_pinned_keys(worker: WorkerProcess) -> None:
    answer = httpx.get(f"{worker.http.base_url}/health", trust_env=False)
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "version": perry.__version__,
        "digest": DIGEST,
        "sessionCount": 2,
        "watch": "native",
    }


def test_health_proves_the_token_without_being_sent_it(worker: WorkerProcess) -> None:
    answer = httpx.get(f"{worker.http.base_url}/health?challenge=n0nce", trust_env=False)
    assert answer.json()["proof"] == proof(TOKEN, "n0nce")


def test_a_challenge_too_long_is_refused(worker: WorkerProcess) -> None:
    assert worker.http.get("/health", params={"challenge": "x" * 257}).status_code == 400


def test_only_the_token_gets_the_verbose_health(worker: WorkerProcess) -> None:
    verbose = worker.json("/health", verbose="1")
    assert verbose["skippedLines"] == 0
    assert verbose["unreadable"] == {}
    answer = httpx.get(f"{worker.http.base_url}/health?verbose=1", trust_env=False)
    assert "skippedLines" not in answer.json()


def test_sessions_have_the_pinned_keys(worker: WorkerProcess, home: ClaudeHome) -> None:
    answer = worker.json("/sessions")
    assert answer.keys() == {"sessions"}
    session = next(each for each in answer["sessions"] if each["id"] == "long")
    assert session.keys() >= SESSION_KEYS
    assert session["agentType"] == "claude"
    assert session["firstPrompt"] == "one"
    assert session["title"]
    assert session["directory"] == "/srv/app"
    assert session["gitBranch"] == "main"
    assert session["messageCount"] == 3
    assert session["filePath"] == str(home.projects / "-srv-app" / "long.jsonl")
    assert session["lastActivity"] == 1772600767890


def test_sessions_can_be_paged_and_filtered(worker: WorkerProcess) -> None:
    everything = worker.json("/sessions")["sessions"]
    pages = [worker.json("/sessions", limit="1", offset=str(n))["sessions"] for n in range(3)]
    assert [each for page in pages for each in page] == everything
    assert worker.json("/sessions", agent="opencode") == {"sessions": []}
    assert worker.ids(agent="claude", children="1") == {"long", "short"}


def test_one_session_is_the_one_in_the_list(worker: WorkerProcess) -> None:
    listed = next(each for each in worker.json("/sessions")["sessions"] if each["id"] == "short")
    assert worker.json("/sessions/short") == {"session": listed}
    assert worker.json("/sessions/short", agent="claude") == {"session": listed}
    assert worker.http.get("/sessions/short?agent=codex").status_code == 404


def test_messages_count_back_from_the_newest(worker: WorkerProcess) -> None:
    page = worker.json("/sessions/long/messages", limit="2", offset="1")
    assert page.keys() == {"id", "messages", "total"}
    assert (page["id"], page["total"]) == ("long", 3)
    assert [each["content"] for each in page["messages"]] == ["one", "two"]
    assert page["messages"][0] == {
        "type": "user",
        "content": "one",
        "timestamp": "2026-03-04T05:06:07.890Z",
    }


@pytest.mark.parametrize("limit", range(1, 5))
def test_paging_with_any_limit_gives_the_same_sequence(worker: WorkerProcess, limit: int) -> None:
    whole = worker.json("/sessions/long/messages")["messages"]
    pages = [
        worker.json("/sessions/long/messages", limit=str(limit), offset=str(offset))["messages"]
        for offset in range(0, len(whole), limit)
    ]
    assert [each for page in reversed(pages) for each in page] == whole


def test_a_page_of_nothing_still_says_the_total(worker: WorkerProcess) -> None:
    for params in ({"limit": "0"}, {"offset": "3"}, {"offset": "9" * 5000}):
        page = worker.json("/sessions/long/messages", **params)
        assert page == {"id": "long", "messages": [], "total": 3}


def test_sessions_unchanged_are_not_sent_again(worker: WorkerProcess) -> None:
    tag = worker.http.get("/sessions").headers["etag"]
    for given in (tag, f'"other", W/{tag}', "*"):
        answer = worker.http.get("/sessions", headers={"If-None-Match": given})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
    assert worker.http.get("/sessions", headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_change_changes_the_tag(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    path = home.session("one")
    with WorkerProcess(tmp_path) as worker:
        tag = worker.http.get("/sessions").headers["etag"]
        home.append(path, "two")
        worker.http.post("/refresh")
        answer = worker.http.get("/sessions", headers={"If-None-Match": tag})
        assert answer.status_code == 200
        assert answer.json()["sessions"][0]["messageCount"] == 2


@pytest.mark.parametrize("path", ["/sessions", "/sessions/long/messages"])
@pytest.mark.parametrize("name", ["limit", "offset"])
@pytest.mark.parametrize("value", ["-1", "abc", "", "1.5", "+1", " 1", "\u0665", "1e3"])
def test_bad_numbers_are_400(worker: WorkerProcess, path: str, name: str, value: str) -> None:
    answer = worker.http.get(path, params={name: value})
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}


def test_a_bad_flag_is_400(worker: WorkerProcess) -> None:
    assert worker.http.get("/sessions?children=perhaps").status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/", "/nothing", "/sessions/", "/sessions/gone", "/sessions/gone/messages", "/health/",
        "/sessions/long/other", "/sessions/%2e%2e", "/sessions/%2e%2e%2fhealth",
        "/sessions/long%2Fmessages", "/sessions//messages", "/sessions/..%2f..%2fetc%2fpasswd",
    ],
)  # fmt: skip
def test_what_is_not_there_is_404_as_json(worker: WorkerProcess, path: str) -> None:
    # By hand, since httpx tidies paths up.
    with socket.create_connection(("127.0.0.1", worker.port), 5) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"content-type: application/json" in head
    assert body.startswith(b'{"error":')


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/sessions"), ("PUT", "/sessions/long"), ("GET", "/refresh"), ("DELETE", "/health")],
)
def test_the_wrong_method_is_405_as_json(worker: WorkerProcess, method: str, path: str) -> None:
    answer = worker.http.request(method, path)
    assert answer.status_code == 405
    assert answer.json().keys() == {"error"}
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN.upper()}", "Bearer \u00e9",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/sessions"), ("GET", "/sessions/long"), ("GET", "/sessions/long/messages"),
        ("DELETE", "/sessions/long"), ("POST", "/refresh"), ("GET", "/nothing"),
        ("PUT", "/sessions"),
    ],
)  # fmt: skip
def test_without_the_token_everything_is_401(
    worker: WorkerProcess, method: str, path: str, header: str | None
) -> None:
    headers = [] if header is None else [(b"Authorization", header.encode("latin-1"))]
    answer = httpx.request(
        method, f"{worker.http.base_url}{path}", headers=headers, trust_env=False
    )
    assert answer.status_code == 401
    assert answer.json().keys() == {"error"}


def test_head_is_a_get_without_its_body(worker: WorkerProcess) -> None:
    answer = worker.http.head("/sessions/long")
    assert (answer.status_code, answer.content) == (200, b"")


def test_refresh_says_when_it_is_done(worker: WorkerProcess) -> None:
    assert worker.http.post("/refresh").json() == {"success": True}


def test_a_deleted_session_is_gone_with_its_file(tmp_path: Path) -> None:
    path = ClaudeHome(tmp_path).session("one", session_id="mine")
    with WorkerProcess(tmp_path) as worker:
        assert worker.http.delete("/sessions/mine").json() == {"success": True}
        assert not path.exists()
        assert worker.ids() == set()
        again = worker.http.delete("/sessions/mine")
        assert again.status_code == 404
        assert again.json()["success"] is False
        assert again.json()["error"]


def test_a_deleted_session_is_restored(tmp_path: Path) -> None:
    path = ClaudeHome(tmp_path).session("one", session_id="mine")
    with WorkerProcess(tmp_path) as worker:
        before = worker.json("/sessions/mine")
        assert worker.http.delete("/sessions/mine").status_code == 200
        [deleted] = worker.json("/deleted")["deleted"]
        assert deleted.keys() == {"session", "deletedAt", "until", "size"}
        assert deleted["session"] == before["session"]
        for _ in range(2):
            answer = worker.http.post("/sessions/mine/restore", params={"agent": "claude"})
            assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert worker.json("/sessions/mine") == before
        assert path.exists()
        assert worker.json("/deleted") == {"deleted": []}
        gone = worker.http.post("/sessions/other/restore")
        assert (gone.status_code, gone.json().keys()) == (404, {"error"})


def test_a_restoration_with_something_in_its_way_is_409_and_one_without_room_507(
    tmp_path: Path,
) -> None:
    home = ClaudeHome(tmp_path)
    home.session("one", session_id="mine")
    with WorkerProcess(tmp_path) as worker:
        worker.http.delete("/sessions/mine")
        home.session("two", session_id="mine")
        taken = worker.http.post("/sessions/mine/restore")
        assert (taken.status_code, "mine.jsonl" in taken.json()["error"]) == (409, True)
        worker.http.post("/refresh")
        kept = tmp_path / ".cache" / "perry" / "deleted"
        kept.rename(kept.with_name("elsewhere"))
        kept.write_bytes(b"")
        refused = worker.http.delete("/sessions/mine")
        assert (refused.status_code, refused.json().keys()) == (507, {"error"})
        assert worker.http.delete("/sessions/mine?forgood=2").status_code == 400
        assert worker.http.delete("/sessions/mine?forgood=1").json() == {"success": True}


def test_a_file_name_that_is_no_text_costs_nobody_the_list(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    home.session("one", session_id="plain")
    home.session("two", session_id="odd-\udcff", project="-srv-\udcfe")
    with WorkerProcess(tmp_path) as worker:
        found = {each["firstPrompt"] for each in worker.json("/sessions")["sessions"]}
        assert found == {"one", "two"}
