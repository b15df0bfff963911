"""The daemon's API with an engine: workspaces made, ended and asked over HTTP.

On an engine of the tests' own, since a daemon keeps every workspace of its engine.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from docker.models.containers import Container

from tests.e2e.command import BUSYBOX, KILL_WORKER
from tests.e2e.eventually import eventually
from tests.e2e.own_engine import OwnEngine
from tests.e2e.running_agent import RunningAgent
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_session

EVENTS = {"Accept": "text/event-stream"}
WORKSPACE = {
    "name", "containerId", "image", "state", "createdAt", "startedAt", "user", "home",
    "homeVolume", "addresses", "ports", "adopted",
}  # fmt: skip


@pytest.fixture(scope="module")
def own(second_engine: OwnEngine) -> OwnEngine:
    second_engine.reset()
    return second_engine


@pytest.fixture(scope="module")
def agent(own: OwnEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    running = RunningAgent(tmp_path_factory.mktemp("agent"), own.address)
    running.start()
    eventually(lambda: running.get("/api/status")["engine"]["reachable"], bool)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def demo(agent: RunningAgent, own: OwnEngine) -> Container:
    """A workspace with two sessions, which the daemon has read from its worker."""
    answer = agent.ask("POST", "/api/workspaces", json={"name": "demo"})
    assert answer.status_code == 200, answer.text
    container = own.client.containers.get("workspace-demo")
    put(container, "abc")
    put(container, "xyz")
    agent.until_live("demo")
    eventually(lambda: agent.counts("demo"), lambda seen: seen == {"abc": 6, "xyz": 6})
    return container


@pytest.fixture
def spare(agent: RunningAgent, own: OwnEngine) -> Iterator[Container]:
    """A workspace that a test may do anything to."""
    assert agent.ask("POST", "/api/workspaces", json={"name": "spare"}).status_code == 200
    agent.until_live("spare")
    yield own.client.containers.get("workspace-spare")
    assert agent.ask("DELETE", "/api/workspaces/spare").status_code == 200


def put(container: Container, session: str) -> None:
    text = claude_session(f"Prompt of {session}").replace(
        '"sessionId": "s"', f'"sessionId": "{session}"'
    )
    path = f"/home/workspace/{CLAUDE_DIRECTORY}"
    script = f"{BUSYBOX} mkdir -p {path}; {BUSYBOX} cat > {path}/{session}.jsonl <<'END'\n{text}END"
    done = container.exec_run([BUSYBOX, "sh", "-c", script])
    assert done.exit_code == 0, done.output


def has_file(container: Container, session: str) -> bool:
    path = f"/home/workspace/{CLAUDE_DIRECTORY}/{session}.jsonl"
    code: int = container.exec_run([BUSYBOX, "test", "-e", path]).exit_code
    return code == 0


def told(agent: RunningAgent, path: str, **more: Any) -> list[tuple[str, Any]]:
    """POST, and return the events that it led to."""
    answer = agent.ask("POST", path, headers=EVENTS, **more)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block for block in answer.text.split("\n\n") if block and block != ":"]
    found = []
    for block in blocks:
        kind, data = block.split("\n")
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


# Making workspaces


def test_a_workspace_is_made_and_answered_as_it_is_then(agent: RunningAgent) -> None:
    wanted = {"name": "json", "env": {"COLOUR": "blue"}, "memory": "256m", "cpus": 0.5}
    answer = agent.ask("POST", "/api/workspaces", json=wanted)
    assert answer.status_code == 200, answer.text
    ready = answer.json()
    assert ready.keys() == {"workspace", "worker", "warning"}
    assert ready["workspace"].keys() == WORKSPACE
    assert ready["worker"].keys() == {"address", "via", "version", "digest", "sessionCount"}
    assert ready["warning"] is None
    shown = agent.get("/api/workspaces/json")["workspace"]
    assert shown == {**ready["workspace"], "place": shown["place"], "revival": shown["revival"]}
    assert agent.ask("POST", "/api/workspaces", json=wanted).json()["workspace"]["name"] == "json"
    other = agent.ask("POST", "/api/workspaces", json={**wanted, "memory": "512m"})
    assert other.status_code == 409
    assert "--memory 512m" in other.json()["error"]
    assert other.json()["workspace"] == "json"
    assert agent.ask("DELETE", "/api/workspaces/json").status_code == 200


def test_steps_are_told_as_they_happen_and_then_that_it_is_ready(agent: RunningAgent) -> None:
    events = told(agent, "/api/workspaces", json={"name": "steps"})
    assert {kind for kind, _ in events[:-1]} == {"step"}
    assert all(step.keys() == {"name", "state", "detail", "seconds"} for _, step in events[:-1])
    done = [step["name"] for _, step in events[:-1] if step["state"] == "done"]
    assert done == ["image", "bundle", "volume", "container", "start", "worker", "health"]
    kind, ready = events[-1]
    assert kind == "ready"
    assert ready["workspace"]["name"] == "steps"
    assert agent.ask("DELETE", "/api/workspaces/steps").json() == {
        "removed": {
            "name": "steps",
            "containers": ["workspace-steps"],
            "volumes": ["workspace-steps-home"],
            "letGo": None,
            "warning": None,
        }
    }
    assert agent.ask("DELETE", "/api/workspaces/steps").json()["removed"]["containers"] == []


def test_what_goes_wrong_is_an_event_with_the_status_it_would_have_had(
    agent: RunningAgent,
) -> None:
    for path, more, status in (
        ("/api/workspaces", {"json": {"name": "bad", "image": "perry.invalid/none:1"}}, 409),
        ("/api/workspaces/absent/start", {}, 404),
        ("/api/workspaces/absent/restart", {}, 404),
        ("/api/workspaces/absent/sync", {}, 404),
    ):
        kind, error = told(agent, path, **more)[-1]
        assert kind == "error"
        assert error.keys() == {"error", "hint", "workspace", "status"}
        assert error["status"] == status, error
        answer = agent.ask("POST", path, **more)
        assert answer.status_code == status
        assert {**answer.json(), "status": status} == error
    assert agent.ask("GET", "/api/workspaces/bad").status_code == 404


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_client_that_leaves_in_the_middle_does_not_stop_the_work(
    agent: RunningAgent, own: OwnEngine, accept: str
) -> None:
    body = json.dumps({"name": "left"}).encode()
    with socket.create_connection(("127.0.0.1", agent.port)) as client:
        client.sendall(
            f"POST /api/workspaces HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
            f"Authorization: Bearer {agent.token}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        # Not by OwnEngine.containers, which asks about each: the work's helpers come and go.
        filters = {"name": "workspace-left"}
        eventually(lambda: own.client.api.containers(all=True, filters=filters), bool, within=30)
    agent.until_live("left")
    assert agent.get("/api/workspaces/left")["workspace"]["state"] == "running"
    assert agent.ask("DELETE", "/api/workspaces/left").status_code == 200


def test_the_same_workspace_asked_for_by_two_at_once_is_made_once(
    agent: RunningAgent, own: OwnEngine
) -> None:
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(agent.ask("POST", "/api/workspaces", json={"name": "twice"}))

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 2, [it.text for it in answers]
    ids = {answer.json()["workspace"]["containerId"] for answer in answers}
    assert ids == {own.client.containers.get("workspace-twice").id}
    assert agent.ask("DELETE", "/api/workspaces/twice").status_code == 200


def test_a_container_is_adopted_and_let_go_of(
    agent: RunningAgent, own: OwnEngine, demo: Container
) -> None:
    image = demo.image
    assert image is not None
    theirs = own.client.containers.run(
        image,
        ["-c", "while read x; do :; done"],
        entrypoint="/bin/sh",
        detach=True,
        stdin_open=True,
    )
    absent = agent.ask("POST", "/api/adoptions", json={"container": "absent", "name": "theirs"})
    assert absent.status_code == 404
    wanted = {"container": theirs.id, "name": "theirs"}
    events = told(agent, "/api/adoptions", json=wanted)
    assert events[-1][0] == "ready", events
    assert events[-1][1]["workspace"]["adopted"] is True
    agent.until_live("theirs", within=10)
    removed = agent.ask("DELETE", "/api/workspaces/theirs").json()["removed"]
    assert (removed["containers"], removed["letGo"]) == ([], theirs.name)
    eventually(lambda: agent.place("theirs"), lambda place: place is None)
    theirs.reload()
    assert theirs.status == "running"
    theirs.remove(force=True)


# Their life


def test_a_workspace_is_stopped_started_restarted_and_brought_up_to_date(
    agent: RunningAgent, spare: Container
) -> None:
    def state() -> Any:
        return agent.get("/api/workspaces/spare")["workspace"]["state"]

    answer = agent.ask("POST", "/api/workspaces/spare/stop")
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert state() == "exited"
    assert agent.ask("POST", "/api/workspaces/spare/stop").status_code == 200
    synced = agent.ask("POST", "/api/workspaces/spare/sync")
    assert (synced.status_code, synced.json()["workspace"]) == (409, "spare")

    started = agent.ask("POST", "/api/workspaces/spare/start")
    assert started.json()["workspace"]["state"] == state() == "running"
    before = started.json()["workspace"]["startedAt"]
    assert told(agent, "/api/workspaces/spare/restart")[-1][0] == "ready"
    assert agent.get("/api/workspaces/spare")["workspace"]["startedAt"] > before
    assert agent.ask("POST", "/api/workspaces/spare/sync").json()["worker"]["digest"]
    spare.reload()
    assert spare.status == "running"


def test_workspaces_are_listed_with_how_each_is_known(agent: RunningAgent, demo: Container) -> None:
    [view] = [it for it in agent.get("/api/workspaces")["workspaces"] if it["name"] == "demo"]
    assert view.keys() == WORKSPACE | {"place", "revival"}
    assert view["containerId"] == demo.id
    assert view["place"] == {
        "name": "demo", "state": "running", "via": "worker", "asOf": None, "error": None,
    }  # fmt: skip
    demo.exec_run(KILL_WORKER)
    eventually(
        lambda: agent.get("/api/workspaces/demo")["workspace"]["revival"] or {},
        lambda revival: revival.keys() == {"at", "reason", "seconds"},
        within=30,
    )
    agent.until_live("demo")


def test_logs_are_the_last_lines_of_the_command_or_of_the_worker(
    agent: RunningAgent, demo: Container
) -> None:
    spoken = ["sh", "-c", f"{BUSYBOX} seq 1 3000; exec {BUSYBOX} sleep infinity"]
    made = agent.ask("POST", "/api/workspaces", json={"name": "talker", "command": spoken})
    assert made.status_code == 200, made.text

    def logs(**params: str) -> httpx.Response:
        return agent.ask("GET", "/api/workspaces/talker/logs", params=params)

    eventually(lambda: logs(tail="1").text, lambda text: text == "3000\n")
    assert logs().headers["content-type"].startswith("text/plain")
    assert logs().text.split() == [str(number) for number in range(2001, 3001)]
    assert logs(tail="2").text == "2999\n3000\n"
    assert logs(tail="0").text == ""
    assert len(logs(tail="9" * 20).text.split()) == 3000
    worker = agent.ask("GET", "/api/workspaces/demo/logs", params={"worker": "1"})
    assert "listening on" in worker.text
    last = agent.ask("GET", "/api/workspaces/demo/logs", params={"worker": "1", "tail": "1"})
    assert last.text == worker.text.splitlines(keepends=True)[-1]
    assert agent.ask("GET", "/api/workspaces/absent/logs").status_code == 404
    assert agent.ask("DELETE", "/api/workspaces/talker").status_code == 200
    assert demo.id


def test_a_home_is_kept_where_that_is_asked_for(agent: RunningAgent, own: OwnEngine) -> None:
    assert agent.ask("POST", "/api/workspaces", json={"name": "kept"}).status_code == 200
    answer = agent.ask("DELETE", "/api/workspaces/kept?keepVolume=1")
    assert answer.json()["removed"]["volumes"] == []
    assert "workspace-kept-home" in own.volumes()
    answer = agent.ask("DELETE", "/api/workspaces/kept")
    assert answer.json()["removed"]["volumes"] == ["workspace-kept-home"]
    eventually(lambda: agent.place("kept"), lambda place: place is None)


# Their sessions


def test_messages_are_paged_as_the_worker_pages_them(agent: RunningAgent, demo: Container) -> None:
    whole = agent.perry.json("session", "show", "abc", "--workspace", "demo")["messages"]
    path = "/api/workspaces/demo/sessions/abc/messages"
    assert agent.get(path)["messages"] == whole
    for limit in range(1, 8):
        pages = [agent.get(path, limit=limit, offset=at) for at in range(0, 6, limit)]
        assert [one for page in reversed(pages) for one in page["messages"]] == whole
        assert {page["total"] for page in pages} == {6}
        assert {page["place"]["via"] for page in pages} == {"worker"}
    session = agent.get("/api/workspaces/demo/sessions/abc")["session"]
    assert (session["workspace"], session.pop("standing")) == ("demo", "live")
    assert session in agent.get("/api/sessions", workspace="demo")["sessions"]
    assert agent.ask("GET", "/api/workspaces/demo/sessions/none").status_code == 404
    assert demo.id


def test_a_session_is_really_deleted(agent: RunningAgent, demo: Container) -> None:
    put(demo, "doomed")
    eventually(lambda: agent.counts("demo"), lambda seen: "doomed" in seen)
    with agent.listening() as listener:
        answer = agent.ask("DELETE", "/api/workspaces/demo/sessions/doomed")
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        assert not has_file(demo, "doomed")
        eventually(listener.sessions, lambda heard: heard == [("deleted", "doomed", 0)])
    assert "doomed" not in agent.counts("demo")
    assert agent.ask("DELETE", "/api/workspaces/demo/sessions/doomed").status_code == 404


def test_a_search_goes_over_the_host_and_workspaces_and_names_who_failed(
    agent: RunningAgent, demo: Container, spare: Container
) -> None:
    host = agent.directory / "home" / ".claude" / "projects" / "-home-dev-shop" / "local.jsonl"
    host.parent.mkdir(parents=True)
    host.write_text(claude_session("Why is the cart empty? xylophone"))
    put(spare, "spared")
    eventually(lambda: agent.counts("host"), lambda seen: seen == {"local": 6})
    eventually(lambda: agent.counts("spare"), lambda seen: seen == {"spared": 6})
    found = agent.get("/api/search", by="workers", q="then fill it")
    assert found["failures"] == []
    assert {hit["workspace"] for hit in found["hits"]} == {"host", "demo", "spare"}
    times = [hit["timestamp"] for hit in found["hits"]]
    assert times == sorted(times, reverse=True)
    assert {(hit["workspace"], hit["sessionId"]) for hit in found["hits"]} == {
        (one["workspace"], one["id"]) for one in found["sessions"]
    }
    two = agent.get("/api/search", by="workers", q="then fill it", limit=2)
    assert two["hits"] == found["hits"][:2]
    assert len(two["sessions"]) == 2
    only = agent.get("/api/search", by="workers", q="then fill it", workspace="spare")
    assert {hit["workspace"] for hit in only["hits"]} == {"spare"}

    spare.pause()
    try:
        eventually(lambda: agent.place("spare") or {}, lambda place: place["state"] == "paused")
        began = time.monotonic()
        found = agent.get("/api/search", by="workers", q="then fill it")
        assert {hit["workspace"] for hit in found["hits"]} == {"host", "demo"}
        [failure] = found["failures"]
        assert failure["workspace"] == "spare"
        assert "paused" in failure["error"]
        assert time.monotonic() - began < 10
    finally:
        spare.unpause()
    host.unlink()
    agent.until_live("spare")
    assert demo.id


def test_in_a_snapshot_nothing_is_deleted(agent: RunningAgent, spare: Container) -> None:
    put(spare, "stays")
    eventually(lambda: agent.counts("spare"), lambda seen: "stays" in seen)
    assert agent.ask("POST", "/api/workspaces/spare/stop").status_code == 200
    eventually(lambda: agent.place("spare") or {}, lambda place: place["via"] == "snapshot")
    page = agent.get("/api/workspaces/spare/sessions/stays/messages")
    assert page["total"] == 6
    assert page["place"]["asOf"] is not None
    answer = agent.ask("DELETE", "/api/workspaces/spare/sessions/stays")
    assert answer.status_code == 409
    assert "snapshot" in answer.json()["error"]
    assert agent.ask("DELETE", "/api/workspaces/spare/sessions/none").status_code == 404
    assert agent.ask("POST", "/api/workspaces/spare/start").status_code == 200
    agent.until_live("spare")
    assert has_file(spare, "stays")


def test_questions_while_a_worker_dies_are_answered_or_told_to_come_again(
    agent: RunningAgent, spare: Container
) -> None:
    put(spare, "asked")
    eventually(lambda: agent.counts("spare"), lambda seen: "asked" in seen)
    seen: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            answer = agent.ask("GET", "/api/workspaces/spare/sessions/asked/messages")
            seen.append(answer.status_code)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(4):
            answered = seen.count(200)
            eventually(
                lambda wanted=answered + 10: seen.count(200) >= wanted,  # type: ignore[misc]
                bool,
                within=30,
            )
            spare.exec_run(KILL_WORKER)
    finally:
        ended.set()
        for thread in asking:
            thread.join()
    assert set(seen) <= {200, 503}, agent.log[-3000:]
