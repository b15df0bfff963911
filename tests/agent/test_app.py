"""What the daemon answers, asked of a real one that has a home and no engine."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

import perry
from tests.agent.daemon import AgentProcess
from tests.worker.running import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE = "/api/workspaces/host/sessions/long"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with AgentProcess(tmp_path_factory.mktemp("agent")) as running:
        running.home.session("one", "two", "three\xe9", "four", session_id="long")
        running.home.session("the needle", "a needle again", session_id="short")
        eventually(lambda: running.counts() == {"long": 4, "short": 2}, "both are listed")
        yield running


def error_of(daemon: AgentProcess, path: str, status: int, **params: str) -> Any:
    answer = daemon.http.get(path, params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


# Without an engine


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/workspaces"),
        ("GET", "/api/workspaces/demo"),
        ("DELETE", "/api/workspaces/demo"),
        ("POST", "/api/workspaces/demo/start"),
        ("POST", "/api/workspaces/demo/stop"),
        ("POST", "/api/workspaces/demo/restart"),
        ("POST", "/api/workspaces/demo/sync"),
        ("GET", "/api/workspaces/demo/logs"),
        ("GET", "/api/workspaces/demo/logs?worker=1"),
    ],
)
def test_without_an_engine_workspaces_are_503_with_its_words(
    daemon: AgentProcess, method: str, path: str
) -> None:
    answer = daemon.http.request(method, path)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json().keys() == {"error", "hint", "workspace"}
    assert f"No Docker engine answers at unix://{daemon.directory}" in answer.json()["error"]
    assert answer.json()["hint"]


def test_making_a_workspace_without_an_engine_is_503_as_json_and_an_event(
    daemon: AgentProcess,
) -> None:
    answer = daemon.http.post("/api/workspaces", json={"name": "demo"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    told = daemon.http.post(
        "/api/workspaces", json={"name": "demo"}, headers={"Accept": "text/event-stream"}
    )
    assert told.status_code == 200
    assert told.headers["content-type"].startswith("text/event-stream")
    assert told.text.startswith('event: error\ndata: {"error":"No Docker engine answers')
    assert told.text.endswith('"status":503}\n\n')


def test_without_an_engine_the_host_is_listed_all_the_same(daemon: AgentProcess) -> None:
    answer = daemon.json("/api/sessions")
    assert answer.keys() == {"sessions", "total", "places"}
    assert {one["id"] for one in answer["sessions"]} == {"long", "short"}
    assert {one["workspace"] for one in answer["sessions"]} == {"host"}
    assert answer["places"] == [
        {"name": "host", "state": "running", "via": "host", "asOf": None, "error": None}
    ]
    status = daemon.json("/api/status")
    assert status["places"] == answer["places"]
    assert status["version"] == perry.__version__
    assert status["watch"] == "native"
    assert status["engine"]["reachable"] is False
    assert status["engine"]["error"].startswith("No Docker engine answers")


# The list


def test_the_list_can_be_paged_and_says_the_whole_number(daemon: AgentProcess) -> None:
    whole = daemon.json("/api/sessions")["sessions"]
    for limit in (1, 2, 3):
        pages = [
            daemon.json("/api/sessions", limit=str(limit), offset=str(offset))
            for offset in range(0, 2, limit)
        ]
        assert [one for page in pages for one in page["sessions"]] == whole
        assert {page["total"] for page in pages} == {2}
    assert daemon.json("/api/sessions", offset="9" * 5000)["sessions"] == []
    assert daemon.json("/api/sessions", limit="0")["total"] == 2
    assert daemon.json("/api/sessions", workspace="host")["sessions"] == whole
    assert daemon.json("/api/sessions", agent="claude", children="1")["sessions"] == whole
    assert daemon.json("/api/sessions", agent="codex")["sessions"] == []


def test_a_list_that_is_known_is_not_sent_again(daemon: AgentProcess) -> None:
    tag = daemon.http.get("/api/sessions").headers["etag"]
    for given in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        answer = daemon.http.get("/api/sessions", headers={"If-None-Match": given})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
    path = daemon.home.session("new")
    eventually(lambda: path.stem in daemon.counts(), "it is listed")
    answer = daemon.http.get("/api/sessions", headers={"If-None-Match": tag})
    assert answer.status_code == 200
    path.unlink()
    eventually(lambda: path.stem not in daemon.counts(), "it is gone")


# One session


def test_one_session_is_the_one_in_the_list(daemon: AgentProcess) -> None:
    listed = {one["id"]: one for one in daemon.json("/api/sessions")["sessions"]}
    [place] = daemon.json("/api/sessions")["places"]
    for agent in ({}, {"agent": "claude"}):
        session = {**listed["long"], "standing": "live"}
        assert daemon.json(ONE, **agent) == {"session": session, "place": place}


@pytest.mark.parametrize("limit", range(1, 6))
def test_paging_with_any_limit_gives_the_same_messages(daemon: AgentProcess, limit: int) -> None:
    whole = daemon.json(f"{ONE}/messages")
    assert whole.keys() == {"workspace", "id", "messages", "total", "place"}
    assert (whole["workspace"], whole["id"], whole["total"]) == ("host", "long", 4)
    assert [one["content"] for one in whole["messages"]] == ["one", "two", "three\xe9", "four"]
    pages = [
        daemon.json(f"{ONE}/messages", limit=str(limit), offset=str(offset))["messages"]
        for offset in range(0, 4, limit)
    ]
    assert [one for page in reversed(pages) for one in page] == whole["messages"]


@pytest.mark.parametrize("end", ["", "/messages"])
@pytest.mark.parametrize("session", ["absent", "%00", "%ff", "x" * 5000, "a%20b"])
def test_a_session_that_is_not_there_is_404(daemon: AgentProcess, session: str, end: str) -> None:
    answer = daemon.http.get(f"/api/workspaces/host/sessions/{session}{end}")
    assert answer.status_code == 404
    assert answer.json()["error"]
    assert len(answer.content) < 1000


def test_a_session_of_another_agent_or_place_is_404(daemon: AgentProcess) -> None:
    assert error_of(daemon, ONE, 404, agent="codex")["workspace"] == "host"
    elsewhere = error_of(daemon, "/api/workspaces/demo/sessions/long", 404)
    assert elsewhere["error"] == "There is no workspace 'demo'"
    assert daemon.http.delete("/api/workspaces/demo/sessions/long").status_code == 404
    assert daemon.http.delete("/api/workspaces/host/sessions/absent").status_code == 404


def test_a_deleted_session_is_gone_from_the_disk_the_list_and_the_events(
    daemon: AgentProcess,
) -> None:
    path = daemon.home.session("delete me")
    eventually(lambda: path.stem in daemon.counts(), "it is listed")
    with daemon.events() as stream:
        stream.next()
        answer = daemon.http.delete(f"/api/workspaces/host/sessions/{path.stem}")
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert not path.exists()
        event = stream.next()
        assert (event.kind, event.data["id"]) == ("deleted", path.stem)
    assert path.stem not in daemon.counts()
    again = daemon.http.delete(f"/api/workspaces/host/sessions/{path.stem}")
    assert again.status_code == 404


def test_a_deleted_session_is_restored_to_the_disk_the_list_and_the_events(
    daemon: AgentProcess,
) -> None:
    path = daemon.home.session("bring me back")
    before = path.read_bytes()
    eventually(lambda: path.stem in daemon.counts(), "it is listed")
    one, kept = f"/api/workspaces/host/sessions/{path.stem}", "/api/workspaces/host/deleted"
    assert daemon.http.delete(one).status_code == 200
    answer = daemon.json(kept)
    assert answer.keys() == {"workspace", "deleted"}
    [deleted] = [each for each in answer["deleted"] if each["session"]["id"] == path.stem]
    assert deleted.keys() == {"session", "deletedAt", "until", "size"}
    eventually(lambda: path.stem not in daemon.counts(), "it is no longer listed")
    with daemon.events() as stream:
        stream.next()
        answer = daemon.http.post(f"{one}/restore")
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        event = stream.next()
        assert (event.kind, event.data["session"]["id"]) == ("created", path.stem)
    assert path.read_bytes() == before
    eventually(lambda: path.stem in daemon.counts(), "it is listed again")
    assert path.stem not in {each["session"]["id"] for each in daemon.json(kept)["deleted"]}


def test_the_archive_hides_and_shows_a_session_as_it_is_deleted_and_restored(
    daemon: AgentProcess,
) -> None:
    path = daemon.home.session("an unheard of word: zymurgy")

    def found() -> set[str]:
        hits = daemon.json("/api/search", q="zymurgy", by="archive")["hits"]
        return {hit["sessionId"] for hit in hits}

    eventually(lambda: found() == {path.stem}, "the archive has it")
    one = f"/api/workspaces/host/sessions/{path.stem}"
    assert daemon.http.delete(one).status_code == 200
    eventually(lambda: found() == set(), "the archive hides it")
    assert daemon.http.post(f"{one}/restore").status_code == 200
    eventually(lambda: found() == {path.stem}, "the archive shows it again")
    assert daemon.http.delete(one, params={"forgood": "1"}).status_code == 200
    eventually(lambda: found() == set(), "the archive hides it")
    assert daemon.http.post(f"{one}/restore").status_code == 404
    assert found() == set()


def test_what_was_deleted_and_is_kept_nowhere_else_is_restored_in_the_archive(
    daemon: AgentProcess,
) -> None:
    path = daemon.home.session("an unheard of word: quincunx")

    def found() -> set[str]:
        hits = daemon.json("/api/search", q="quincunx", by="archive")["hits"]
        return {hit["sessionId"] for hit in hits}

    eventually(lambda: found() == {path.stem}, "the archive has it")
    path.unlink()
    eventually(lambda: path.stem not in daemon.counts(), "its coding agent has purged it")
    one = f"/api/workspaces/host/sessions/{path.stem}"
    assert daemon.http.delete(one).status_code == 200
    eventually(lambda: found() == set(), "the archive hides it")
    assert daemon.http.post(f"{one}/restore").status_code == 200
    assert found() == {path.stem}
    assert not path.exists()


def test_what_cannot_be_restored_says_why(daemon: AgentProcess) -> None:
    assert daemon.http.post("/api/workspaces/host/sessions/absent/restore").status_code == 404
    for end in ("deleted", "sessions/x/restore"):
        ask = daemon.http.post if end.endswith("restore") else daemon.http.get
        assert ask(f"/api/workspaces/demo/{end}").status_code == 404
    path = daemon.home.session("mine")
    eventually(lambda: path.stem in daemon.counts(), "it is listed")
    one = f"/api/workspaces/host/sessions/{path.stem}"
    assert daemon.http.delete(one).status_code == 200
    path.write_text("{}\n")
    taken = daemon.http.post(f"{one}/restore")
    assert (taken.status_code, path.name in taken.json()["error"]) == (409, True)
    assert path.read_text() == "{}\n"
    path.unlink()
    daemon.http.post(f"{one}/restore")
    assert daemon.http.delete(one, params={"forgood": "1"}).status_code == 200
    assert daemon.http.post(f"{one}/restore").status_code == 404


def test_a_refresh_has_looked_at_everything_when_it_answers(daemon: AgentProcess) -> None:
    path = daemon.home.session("hello")
    answer = daemon.http.post("/api/workspaces/host/refresh")
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert daemon.json(f"/api/workspaces/host/sessions/{path.stem}")["session"]["id"] == path.stem
    path.unlink()
    assert daemon.http.post("/api/workspaces/demo/refresh").status_code == 404


# Searching


@pytest.mark.parametrize("by", ["archive", "workers"])
def test_a_search_gives_messages_and_their_sessions_in_one_shape(
    daemon: AgentProcess, by: str
) -> None:
    def search(**more: str) -> Any:
        return daemon.json("/api/search", q="NEEDLE", by=by, **more)

    eventually(lambda: len(search()["hits"]) == 2 and not search()["pending"], "it is taken in")
    found = search()
    assert found.keys() == {"hits", "sessions", "failures", "by", "pending"}
    assert found["by"] == by
    assert [(hit["workspace"], hit["sessionId"]) for hit in found["hits"]] == [
        ("host", "short")
    ] * 2
    [session] = found["sessions"]
    assert (session["workspace"], session["id"], session["standing"]) == ("host", "short", "live")
    assert found["failures"] == []
    assert len(search(limit="1")["hits"]) == 1
    nothing = search(limit="0")
    assert (nothing["hits"], nothing["sessions"], nothing["failures"]) == ([], [], [])
    assert len(search(workspace="host")["hits"]) == 2
    assert search(agent="codex")["hits"] == []
    assert search(since="9" * 15)["hits"] == []


def test_the_archive_can_be_asked_for_more_than_the_workers(daemon: AgentProcess) -> None:
    def found(**more: str) -> int:
        return len(daemon.json("/api/search", **{"q": "need*", **more})["hits"])

    eventually(lambda: found() == 2, "it is taken in")
    assert found(offset="1") == 1
    assert found(role="user") + found(role="assistant") == 2
    assert found(role="tool_result") == 0
    assert found(directory="/srv") == 2
    assert found(directory="/other") == 0
    assert found(until="5") == 0
    assert found(tool="Bash") == 0
    assert "one of title, user" in error_of(daemon, "/api/search", 400, q="x", role="x")["error"]
    words = error_of(daemon, "/api/search", 400, q="x", by="workers", role="user")["error"]
    assert words == "only the archive knows directory, role, tool, until, offset"
    assert "archive or workers" in error_of(daemon, "/api/search", 400, q="x", by="me")["error"]


def test_what_its_coding_agent_purged_is_listed_shown_and_deleted_from_the_archive(
    daemon: AgentProcess,
) -> None:
    path = daemon.home.session("purged")
    one = f"/api/workspaces/host/sessions/{path.stem}"

    def standing() -> dict[str, str]:
        listed = daemon.json("/api/sessions", archived="1")["sessions"]
        return {session["id"]: session["standing"] for session in listed}

    eventually(lambda: daemon.json("/api/search", q="purged")["hits"], "it is taken in")
    eventually(lambda: daemon.json("/api/status")["archive"]["pending"] == 0, "it is whole")
    before = daemon.json(f"{one}/messages")
    assert standing()[path.stem] == "live"
    path.unlink()
    eventually(lambda: standing()[path.stem] == "archived", "it is gone")
    assert daemon.json(one)["session"]["standing"] == "archived"
    assert daemon.json(f"{one}/messages") == before
    assert daemon.http.delete(one).json() == {"success": True}
    assert path.stem not in standing()
    assert daemon.http.get(one).status_code == 404
    assert daemon.http.delete(one).status_code == 404


@pytest.mark.parametrize("query", ["", " \t", "x" * 1001])
def test_a_search_for_nothing_or_too_much_is_400(daemon: AgentProcess, query: str) -> None:
    words = error_of(daemon, "/api/search", 400, q=query)["error"]
    assert words == "q must be 1 to 1000 characters of words"


def test_a_place_that_is_not_there_can_be_neither_listed_nor_searched(
    daemon: AgentProcess,
) -> None:
    for path in ("/api/sessions", "/api/search"):
        answer = error_of(daemon, path, 404, workspace="nobody", q="x")
        assert answer == {"error": "there is no workspace 'nobody'"}


# Requests out of shape


@pytest.mark.parametrize("path", ["/api/sessions", f"{ONE}/messages", "/api/search?q=x"])
@pytest.mark.parametrize("name", ["limit", "offset"])
@pytest.mark.parametrize("value", ["-1", "abc", "", "1.5", "+1", " 1", "\u0665", "1e3"])
def test_bad_numbers_are_400(daemon: AgentProcess, path: str, name: str, value: str) -> None:
    path, _, query = path.partition("?")
    params = {name: value, **({"q": "x"} if query else {})}
    assert error_of(daemon, path, 400, **params) == {
        "error": f"{name} must be a whole number, 0 or more"
    }


def test_bad_flags_are_400(daemon: AgentProcess) -> None:
    assert error_of(daemon, "/api/sessions", 400, children="maybe") == {
        "error": "children must be 0 or 1"
    }
    assert error_of(daemon, "/api/workspaces/demo/logs", 400, worker="2")["error"]
    assert error_of(daemon, "/api/workspaces/demo/logs", 400, tail="-1")["error"]
    answer = daemon.http.delete("/api/workspaces/demo", params={"keepVolume": "x"})
    assert answer.status_code == 400


@pytest.mark.parametrize("name", ["host", "UPPER", "-a", "a b", "x" * 64, "a.b", "%00", "\u0430"])
@pytest.mark.parametrize("end", ["", "/logs"])
def test_what_can_be_no_workspaces_name_is_400(daemon: AgentProcess, name: str, end: str) -> None:
    answer = daemon.http.get(f"/api/workspaces/{name}{end}")
    assert answer.status_code == 400
    assert answer.json().keys() == {"error", "hint", "workspace"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "Input data was truncated"),
        (b"{", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b"{}", "missing required field `name`"),
        (b'{"name": 1}', "Expected `str`, got `int` - at `$.name`"),
        (b'{"name": "a", "imagee": "x"}', "unknown field `imagee`"),
        (b'{"name": "a", "read_only": true}', "unknown field `read_only`"),
        (b'{"name": "a", "env": {"A": 1}}', "Expected `str`, got `int` - at `$.env[...]`"),
        (b'{"name": "a", "cpus": "2"}', "at `$.cpus`"),
        (b'{"name": "a", "volumes": "a:/b"}', "at `$.volumes`"),
        (b'{"name": "a", "cpus": 0}', "--cpus 0"),
        (b'{"name": "a", "cpus": -1}', "--cpus -1"),
        (b'{"name": "a", "cpus": 1e300}', "--cpus 1e+300"),
        (b'{"name": "a", "cpus": NaN}', "malformed"),
        (b'{"name": "a", "memory": "1x"}', "--memory 1x is no size"),
        (b'{"name": "a", "memory": "1"}', "--memory 1 is too little"),
        (b'{"name": "a", "publish": ["1:99999"]}', "--publish 1:99999"),
        (b'{"name": "a", "volumes": ["x"]}', "--volume x"),
        (b'{"name": "a", "volumes": ["./code:/code"]}', "--volume ./code:/code is relative"),
        (b'{"name": "host"}', "'host' is the name of this machine itself"),
        (b'{"name": "A"}', "'A' can't be a workspace's name"),
        (b'{"name": "\xff"}', "UTF-8"),
        (b'{"name": "\\ud800"}', ""),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b'{"name":' + b"[" * 100_000, ""),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_what_is_wrong_with_a_specification_is_named_in_a_400(
    daemon: AgentProcess, body: bytes, words: str, accept: str
) -> None:
    answer = daemon.http.post("/api/workspaces", content=body, headers={"Accept": accept})
    assert answer.status_code == 400, answer.text
    assert words.lower() in answer.json()["error"].lower()


def test_an_adoption_has_fields_of_its_own(daemon: AgentProcess) -> None:
    for body in ({}, {"container": "a", "image": "b"}, {"container": None}):
        assert daemon.http.post("/api/adoptions", json=body).status_code == 400


def test_a_request_of_more_than_a_mebibyte_is_413(daemon: AgentProcess) -> None:
    start = b'{"name": "host", "command": ["'
    fits = start + b"x" * (MIB - len(start) - 3) + b'"]}'
    assert len(fits) == MIB
    assert daemon.http.post("/api/workspaces", content=fits).status_code == 400
    for size in (MIB + 1, 20 * MIB):
        answer = daemon.http.post("/api/workspaces", content=b" " * size)
        assert (answer.status_code, answer.json()) == (413, {"error": "more than 1048576 bytes"})
    streamed = daemon.http.post("/api/workspaces", content=(b" " * 65536 for _ in range(100)))
    assert streamed.status_code == 413


def test_a_client_that_goes_in_the_middle_of_its_request_leaves_no_trace(
    daemon: AgentProcess,
) -> None:
    before = daemon.err.read_text()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as half:
            half.sendall(
                b"POST /api/workspaces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
                b"Authorization: Bearer " + daemon.token.encode() + b"\r\n\r\n{"
            )
    assert daemon.http.post("/api/workspaces", content=b"{").status_code == 400
    assert daemon.err.read_text() == before


def test_head_is_answered_like_get_without_a_body(daemon: AgentProcess) -> None:
    for path in ("/health", "/api/status", "/api/sessions", ONE, f"{ONE}/messages"):
        head, get = daemon.http.head(path), daemon.http.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(get.content)), path
    events = daemon.http.head("/api/events")
    assert (events.status_code, events.headers["content-type"].partition(";")[0]) == (
        200,
        "text/event-stream",
    )
