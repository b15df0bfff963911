"""What happens to a worker, or what it does: nothing is lost, and the table says what it took."""

from __future__ import annotations

import random
import shlex
import time

import pytest
from docker.models.containers import Container

from perry.workspace import names
from tests.e2e.command import BUSYBOX
from tests.e2e.eventually import eventually
from tests.e2e.faults.doing import LIVE, kill_worker, manager_of, shell, until_recovered, write
from tests.e2e.faults.table import TABLE
from tests.e2e.own_engine import OwnEngine
from tests.e2e.running_agent import RunningAgent


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
            took.append(until_recovered(agent, lambda: kill_worker(workspace)))
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
    took = until_recovered(agent, lambda: kill_worker(container), "full")
    assert agent.counts("full") == {"s": 4}
    shell(container, f"{BUSYBOX} rm $HOME/filler")
    write(container, "s", 1, first=4)
    eventually(lambda: agent.counts("full"), lambda it: it == {"s": 5})
    TABLE.add("disk full in a workspace, worker killed", took, "sessions listed, then appended")


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
    manager = manager_of(agent)
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
  [ "${{process%/cmdline}}" = $$ ] || kill -KILL ${{process%/cmdline}} 2>/dev/null || true
done
"""
"""Kills the real worker alone: but for the search itself, which has ended, only its command line
names its module."""
