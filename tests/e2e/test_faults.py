"""What goes wrong around the agent daemon: nothing is lost, and how long recovery took is printed.

On an engine of the tests' own, since a daemon keeps every workspace of its engine.
"""

from __future__ import annotations

import random
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from perry.workspace import names
from perry.workspace.engine import Engine
from perry.workspace.manager import WorkspaceManager
from perry.workspace.models import WorkspaceSpec
from perry.workspace.progress import finish
from tests.e2e.command import BUSYBOX, KILL_WORKER
from tests.e2e.eventually import eventually
from tests.e2e.faults import TABLE
from tests.e2e.own_engine import OwnEngine
from tests.e2e.running_agent import RunningAgent
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_line

LIVE = 10.0
"""Seconds that recovery may take at most; the machines that run this are slow and busy."""


@pytest.fixture(scope="module")
def engine_of_ours(second_engine: OwnEngine) -> OwnEngine:
    second_engine.reset()
    return second_engine


@pytest.fixture
def agent(engine_of_ours: OwnEngine, tmp_path: Path) -> Iterator[RunningAgent]:
    running = RunningAgent(tmp_path, engine_of_ours.address)
    running.start()
    yield running
    running.stop()
    for place in _workspaces(engine_of_ours.client):
        place.remove(force=True, v=True)
    for volume in engine_of_ours.client.volumes.list(filters={"label": names.LABEL}):
        volume.remove(force=True)


@pytest.fixture
def workspace(agent: RunningAgent, engine_of_ours: OwnEngine) -> Container:
    """A workspace named `work`, which the daemon has reached."""
    agent.perry.ok("workspace", "init", "work")
    agent.until_live("work")
    return engine_of_ours.client.containers.get("workspace-work")


def _workspaces(client: docker.DockerClient) -> list[Container]:
    found: list[Container] = client.containers.list(all=True, filters={"label": names.LABEL})
    return found


def shell(container: Container, script: str, *, user: str = "", detach: bool = False) -> str:
    """Run a script in a container with the bundle's shell, and return what it printed."""
    done = container.exec_run([BUSYBOX, "sh", "-c", script, BUSYBOX], user=user, detach=detach)
    if detach:
        return ""
    assert done.exit_code == 0, done.output
    return str(done.output.decode())


def write(container: Container, session: str, count: int, *, first: int = 0) -> None:
    """Append so many messages to a session in a workspace."""
    lines = "".join(
        claude_line("user", f"message {number}", uuid=f"u-{number:04x}", session=session)
        for number in range(first, first + count)
    )
    path = f"$HOME/{CLAUDE_DIRECTORY}"
    shell(
        container,
        f"{BUSYBOX} mkdir -p {path}\n"
        f"{BUSYBOX} cat >> {path}/{session}.jsonl <<'LINES'\n{lines}LINES",
    )


def kill_worker(container: Container) -> float:
    """Kill the worker, and tell when that was done."""
    container.exec_run([*KILL_WORKER], user="0")
    return time.monotonic()


def until_recovered(agent: RunningAgent, since: float, name: str = "work") -> float:
    """Wait until a place that was lost is live again; returns how many seconds that took."""
    eventually(lambda: agent.place(name), lambda it: it is None or it["via"] != "worker", within=5)
    agent.until_live(name, within=LIVE)
    return time.monotonic() - since


def test_a_worker_that_is_killed_again_and_again_loses_nothing(
    agent: RunningAgent, workspace: Container
) -> None:
    write(workspace, "busy", 1)
    chance = random.Random(7)  # noqa: S311 - not for secrets
    took, written = [], 1
    with agent.listening() as listener:
        for _ in range(20):
            count = chance.randrange(1, 4)
            write(workspace, "busy", count, first=written)
            written += count
            time.sleep(chance.random() / 5)
            took.append(until_recovered(agent, kill_worker(workspace)))
        counts = eventually(
            lambda: agent.counts("work"), lambda it: it == {"busy": written}, within=LIVE
        )
        heard = eventually(
            listener.sessions, lambda it: ("updated", "busy", written) in it, within=LIVE
        )
    told = [count for _, _, count in heard]
    assert told == sorted(told), "an event went back in time"
    page = agent.get("/api/workspaces/work/sessions/busy/messages", limit=1000)
    assert [one["content"] for one in page["messages"]] == [
        f"message {number}" for number in range(counts["busy"])
    ]
    revival = agent.get("/api/workspaces/work")["workspace"]["revival"]
    assert revival["reason"] == "its process ended with exit code 137"
    assert "its process ended with exit code 137" in agent.perry.ok("workspace", "show", "work")
    TABLE.add("worker killed under writes", took, f"{written} messages, in order")


def test_a_container_restarted_while_it_is_asked_answers_again(
    agent: RunningAgent, workspace: Container
) -> None:
    write(workspace, "s", 5)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 5})
    statuses: list[int] = []
    asking = threading.Event()

    def ask() -> None:
        while not asking.is_set():
            path = "/api/workspaces/work/sessions/s/messages"
            statuses.append(agent.ask("GET", path).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    workspace.restart(timeout=1)
    took = until_recovered(agent, time.monotonic())
    eventually(lambda: statuses[-3:], lambda it: it == [200, 200, 200])
    asking.set()
    thread.join()
    assert set(statuses) <= {200, 409, 503}, sorted(set(statuses))
    assert agent.counts("work") == {"s": 5}
    TABLE.add("container restarted while asked", took, f"{len(statuses)} questions answered")


def test_a_paused_container_is_said_to_be_paused_and_goes_on(
    agent: RunningAgent, workspace: Container
) -> None:
    write(workspace, "s", 2)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 2})
    workspace.pause()
    place = eventually(lambda: agent.place("work"), lambda it: bool(it and it["error"]))
    assert place is not None
    assert (place["state"], place["via"], place["error"]) == ("paused", "memory", "it is paused")
    assert place["asOf"] > 0
    assert agent.counts("work") == {"s": 2}
    began = time.monotonic()
    answer = agent.ask("GET", "/api/workspaces/work/sessions/s/messages")
    assert (answer.status_code, time.monotonic() - began < 1) == (409, True), answer.text
    workspace.unpause()
    resumed = time.monotonic()
    agent.until_live("work", within=LIVE)
    took = time.monotonic() - resumed
    write(workspace, "s", 1, first=2)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 3})
    TABLE.add("container paused and unpaused", took, "listed meanwhile, with its age")


def test_a_killed_container_is_read_by_snapshot(agent: RunningAgent, workspace: Container) -> None:
    write(workspace, "s", 7)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 7})
    workspace.kill()
    killed = time.monotonic()
    eventually(
        lambda: agent.place("work"), lambda it: bool(it and it["via"] == "snapshot"), within=LIVE
    )
    took = time.monotonic() - killed
    page = agent.get("/api/workspaces/work/sessions/s/messages")
    assert (page["total"], page["place"]["state"]) == (7, "exited")
    assert agent.counts("work") == {"s": 7}
    TABLE.add("container killed", took, "sessions read by snapshot")


def test_a_removed_container_is_gone_with_its_sessions(
    agent: RunningAgent, workspace: Container
) -> None:
    write(workspace, "s", 1)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 1})
    with agent.listening() as listener:
        workspace.remove(force=True)
        removed = time.monotonic()
        eventually(lambda: agent.place("work"), lambda it: it is None, within=LIVE)
        took = time.monotonic() - removed
        eventually(listener.sessions, lambda it: ("deleted", "s", 0) in it)
    assert agent.ask("GET", "/api/workspaces/work/sessions/s/messages").status_code == 404
    TABLE.add("container removed", took, "its sessions' deletion was told")


def test_a_daemon_that_is_killed_tells_what_it_missed_and_nothing_twice(
    agent: RunningAgent, workspace: Container
) -> None:
    write(workspace, "old", 2)
    eventually(lambda: agent.counts("work"), lambda it: it == {"old": 2})
    with agent.listening() as listener:
        write(workspace, "old", 1, first=2)
        eventually(listener.sessions, lambda it: ("updated", "old", 3) in it)
        last = listener.last_id
    agent.kill()
    write(workspace, "old", 2, first=3)
    write(workspace, "new", 1)
    began = time.monotonic()
    agent.start()
    with agent.listening(since=last) as listener:
        eventually(listener.sessions, lambda it: len(it) >= 2, within=LIVE)
        took = time.monotonic() - began
        time.sleep(0.5)
        assert sorted(listener.sessions()) == [("created", "new", 1), ("updated", "old", 5)]
        assert listener.kinds()[0] == "ready"
    TABLE.add("daemon killed and started again", took, "missed events told once")


def test_an_engine_that_is_restarted_brings_its_workers_back(
    agent: RunningAgent, workspace: Container, engine_of_ours: OwnEngine
) -> None:
    write(workspace, "s", 3)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 3})
    engine_of_ours.process.stop()
    problem = eventually(
        lambda: agent.get("/api/status")["engine"], lambda it: not it["reachable"], within=LIVE
    )
    assert "Docker" in problem["error"]
    assert agent.counts("work") == {"s": 3}
    engine_of_ours.process.start()
    started = time.monotonic()
    agent.until_live("work", within=30)
    took = time.monotonic() - started
    write(workspace, "s", 1, first=3)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 4}, within=LIVE)
    assert agent.get("/api/status")["engine"]["reachable"]
    TABLE.add("engine restarted", took, "listed meanwhile; appended afterwards")


def test_a_full_disk_in_a_workspace_hides_nothing_that_is_on_it(
    agent: RunningAgent, engine_of_ours: OwnEngine
) -> None:
    engine_of_ours.client.volumes.create(
        "workspace-full-home",
        labels={names.LABEL: "full"},
        driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=2m,mode=0777"},
    )
    agent.perry.ok("workspace", "init", "full")
    agent.until_live("full")
    container = engine_of_ours.client.containers.get("workspace-full")
    write(container, "s", 4)
    eventually(lambda: agent.counts("full"), lambda it: it == {"s": 4})
    shell(container, f"{BUSYBOX} dd if=/dev/zero of=$HOME/filler bs=64k 2>/dev/null || true")
    took = until_recovered(agent, kill_worker(container), "full")
    assert agent.counts("full") == {"s": 4}
    shell(container, f"{BUSYBOX} rm $HOME/filler")
    write(container, "s", 1, first=4)
    eventually(lambda: agent.counts("full"), lambda it: it == {"s": 5})
    TABLE.add("disk full in a workspace, worker killed", took, "sessions listed, then appended")


def test_thirty_workspaces_started_at_once_all_get_their_workers(
    agent: RunningAgent, engine_of_ours: OwnEngine
) -> None:
    manager = WorkspaceManager(Engine(docker.APIClient(base_url=agent.address)))
    names_of_all = [f"many-{number:02d}" for number in range(30)]
    with ThreadPoolExecutor(4) as making:
        list(making.map(lambda name: finish(manager.init(WorkspaceSpec(name))), names_of_all))
    containers = _workspaces(engine_of_ours.client)
    _at_once(lambda container: container.kill(), containers)
    eventually(
        lambda: [
            place["name"]
            for place in agent.get("/api/status")["places"]
            if place["via"] == "snapshot"
        ],
        lambda it: len(it) == 30,
        within=60,
    )
    began = time.monotonic()
    _at_once(lambda container: container.start(), containers)
    started = time.monotonic()
    agent.until_live(*names_of_all, within=90)
    took = time.monotonic() - began
    TABLE.add(
        "30 workspaces started at once",
        took,
        f"all of them live; the engine needed {started - began:.1f} s of that",
    )


def _at_once(do: Callable[[Container], object], containers: list[Container]) -> None:
    with ThreadPoolExecutor(len(containers)) as doing:
        list(doing.map(do, containers))


PYTHON = "lib/ld.so --library-path $PWD/lib $PWD/bin/python3 -I -S -c"

LIAR = """
import os, socket, time
while True:
    try:
        server = socket.create_server(("0.0.0.0", 7392))
        break
    except OSError:
        time.sleep(0.001)
body = b'{"status":"ok","version":"0","digest":"x","sessionCount":0}'
answer = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body
while True:
    connection, _ = server.accept()
    with connection, open(os.environ["HOME"] + "/heard", "ab") as heard:
        heard.write(connection.recv(65536))
        connection.sendall(answer)
"""


def test_a_liar_on_the_workers_port_gets_no_token_and_hides_nothing(
    agent: RunningAgent, engine_of_ours: OwnEngine
) -> None:
    script = f"cd /opt/perry/layers/runtime-*; exec {PYTHON} {shlex.quote(LIAR)}"
    command = f"{BUSYBOX} sh -c {shlex.quote(script)}"
    agent.perry.run("workspace", "init", "liar", "--command", command)
    container = engine_of_ours.client.containers.get("workspace-liar")
    kill_worker(container)  # it may have been quicker; the liar takes its place at once
    eventually(
        lambda: agent.place("liar"),
        lambda it: bool(it and it["via"] == "snapshot" and it["error"]),
        within=60,
    )
    write(container, "s", 2)
    assert agent.ask("POST", "/api/workspaces/liar/refresh").status_code == 200
    assert agent.counts("liar") == {"s": 2}
    heard = shell(container, f"{BUSYBOX} cat $HOME/heard")
    assert "GET /health" in heard
    assert "uthorization" not in heard
    TABLE.add("a liar on 7392", None, "no token sent; sessions read by snapshot")


IMPOSTOR = """
import hashlib, hmac, json, os, socketserver, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit
token, digest, mode = sys.argv[1:]

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        nonce = parse_qs(url.query).get("challenge", [""])[0]
        proof = hmac.new(token.encode(), nonce.encode(), hashlib.sha256).hexdigest()
        answer = {"status": "ok", "version": "0", "digest": digest, "sessionCount": 0,
                  "watch": "native", "proof": proof}
        body = json.dumps(answer).encode()
        if url.path != "/health":
            body = b"\\x00 no sense at all"
        self.send_response(200)
        if url.path != "/health" and mode == "half":
            self.send_header("Content-Length", "100000")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if url.path != "/health" and mode == "slow":
            time.sleep(60)
        self.wfile.write(body)
        if url.path != "/health" and mode == "half":
            self.wfile.flush()
            time.sleep(60)

    def log_message(self, *args):
        pass

class Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True

open(os.environ["HOME"] + "/spinning", "w").close()
while True:
    try:
        Server(("0.0.0.0", 7392), Handler).serve_forever()
    except OSError:
        time.sleep(0.001)
"""


@pytest.mark.parametrize("mode", ["garbage", "slow", "half"])
def test_a_worker_that_makes_no_sense_is_replaced_and_holds_nobody_up(
    agent: RunningAgent, workspace: Container, mode: str
) -> None:
    """It has the token, so it proves itself; nothing else that it says can be used."""
    write(workspace, "s", 3)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 3})
    found = agent.get("/api/workspaces/work")["workspace"]
    engine = Engine(docker.APIClient(base_url=agent.address))
    manager = WorkspaceManager(engine)
    worker = manager.worker("work")
    assert worker is not None
    words = [manager.token(manager.get("work")), worker.digest, mode]
    arguments = " ".join(map(shlex.quote, [IMPOSTOR, *words]))
    script = f"""
        cd /opt/perry/layers/runtime-*
        ($PWD/{PYTHON} {arguments} >/dev/null 2>&1 &)
        until [ -e $HOME/spinning ]; do {BUSYBOX} sleep 0.02; done
        exec {BUSYBOX} sh -c {shlex.quote(KILL_SERVING)}
    """
    shell(workspace, script, user="0")
    killed = time.monotonic()
    eventually(
        lambda: agent.place("work"), lambda it: it is None or it["via"] != "worker", within=15
    )
    began = time.monotonic()
    assert agent.get("/api/sessions", workspace="host")["sessions"] == []
    assert time.monotonic() - began < 1
    agent.until_live("work", within=90)
    took = time.monotonic() - killed
    assert agent.counts("work") == {"s": 3}
    now = agent.get("/api/workspaces/work")["workspace"]
    assert now["containerId"] == found["containerId"]
    assert now["revival"]["reason"] == "what it answered made no sense"
    TABLE.add(f"a worker that answers {ANSWERS[mode]}", took, "replaced; others answered at once")


ANSWERS = {"garbage": "garbage", "slow": "after a minute", "half": "half and hangs"}

KILL_SERVING = f"""
for file in $({BUSYBOX} grep -l perry.worker /proc/[0-9]*/cmdline); do
  process=${{file#/proc/}}
  [ "${{process%/cmdline}}" = $$ ] || kill -KILL ${{process%/cmdline}}
done
"""
"""Kills the real worker alone: the only one whose command line names its module."""


def test_a_session_that_grows_while_its_workspace_is_stopped_is_read(
    agent: RunningAgent, workspace: Container, engine_of_ours: OwnEngine
) -> None:
    write(workspace, "s", 2)
    eventually(lambda: agent.counts("work"), lambda it: it == {"s": 2})
    other = engine_of_ours.client.containers.create(
        engine_of_ours.runtime,
        ["/runtime/busybox", "sleep", "600"],
        volumes={
            "workspace-work-home": {"bind": "/home/workspace"},
            "perry-bundle": {"bind": "/opt/perry", "mode": "ro"},
        },
        environment={"HOME": "/home/workspace"},
    )
    other.start()
    try:
        workspace.stop(timeout=1)
        eventually(
            lambda: agent.place("work"),
            lambda it: bool(it and it["via"] == "snapshot"),
            within=LIVE,
        )
        write(other, "s", 3, first=2)
        grown = time.monotonic()
        assert agent.ask("POST", "/api/workspaces/work/refresh").status_code == 200
        assert agent.counts("work") == {"s": 5}
        took = time.monotonic() - grown
        page = agent.get("/api/workspaces/work/sessions/s/messages")
        assert [one["content"] for one in page["messages"]] == [f"message {n}" for n in range(5)]
    finally:
        other.remove(force=True)
    workspace.start()
    agent.until_live("work", within=LIVE)
    assert agent.counts("work") == {"s": 5}
    TABLE.add("a session grows in a stopped workspace", took, "5 messages, in order")
