"""compose.yaml: what it starts, what outlives a daemon that is made anew, and that nothing is left.

On another machine's engine, since a daemon keeps every workspace of its engine.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from perry.workspace import agent_image, bundle, image
from perry.workspace.engine import Engine
from perry.workspace.progress import finish
from tests.e2e.eventually import eventually
from tests.e2e.own_engine import OwnEngine
from tests.e2e.packages import require
from tests.e2e.remote_engine import forwarded
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_line, claude_session

FILE = Path(__file__).parents[2] / "compose.yaml"
PROJECT = "perrytest"
LABEL = f"com.docker.compose.project={PROJECT}"
PATIENCE = 60.0


@dataclass(frozen=True)
class Project:
    """compose.yaml on an engine, at a port of its own; `command` runs docker-compose with it."""

    command: tuple[str, ...]
    port: int
    engine: OwnEngine

    def compose(self, *arguments: str) -> str:
        """Run docker-compose to its end, see that it succeeds, and return what it printed."""
        done = subprocess.run(
            [*self.command, *arguments],
            env={
                **os.environ,
                "DOCKER_HOST": self.engine.process.address,
                "PERRY_PORT": str(self.port),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}{done.stdout}"
        return done.stdout

    def run(self, service: str, *argv: str) -> str:
        """Run a program in a service's container and return what it printed."""
        return self.compose("exec", "-T", service, *argv)

    def await_health(self) -> None:
        """Wait until the engine finds the daemon healthy; a failure says what was logged."""
        try:
            eventually(self._health, lambda it: it == "healthy", within=PATIENCE)
        except AssertionError as error:
            log = self.compose("logs", "--tail=50")
            raise AssertionError(f"the daemon isn't healthy: {error}\n{log}") from error

    def _health(self) -> str:
        return str(self.container("agent").attrs["State"]["Health"]["Status"])

    def container(self, service: str) -> Any:
        """Return the one container of a service, as Docker's client has it."""
        wanted = [LABEL, f"com.docker.compose.service={service}"]
        (found,) = self.engine.client.containers.list(all=True, filters={"label": wanted})
        return found

    def left(self) -> list[str]:
        """Name what is of the project on its engine."""
        client, wanted = self.engine.client, {"label": LABEL}
        found = [
            *client.containers.list(all=True, filters=wanted),
            *client.volumes.list(filters=wanted),
            *client.networks.list(filters=wanted),
        ]
        return [str(one.name) for one in found]

    def token(self) -> str:
        return self.run("agent", "perry", "agent", "token").strip()

    def client(self) -> httpx.Client:
        """Ask the daemon from this machine, as its user does."""
        authorization = {"Authorization": f"Bearer {self.token()}"}
        url = f"http://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, headers=authorization, timeout=PATIENCE)

    def append(self, session: str, text: str) -> None:
        """Have a coding agent in the workspace append to a session."""
        script = f'mkdir -p ~/{CLAUDE_DIRECTORY} && printf %s "$2" >> ~/{CLAUDE_DIRECTORY}/$1.jsonl'
        self.run("workspace", "sh", "-c", script, "sh", session, text)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _ask(client: httpx.Client, path: str) -> Any:
    answer = client.get(path)
    answer.raise_for_status()
    return answer.json()


@pytest.fixture(scope="module")
def made(
    remote_engine: OwnEngine,
    engine: Engine,
    workspace_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Project]:
    """A project for all tests here, on an engine with nothing but what `make image` builds."""
    agent = finish(agent_image.ensure_agent_image(engine))
    remote_engine.reset()
    remote_engine.bring(agent.id, f"{image.AGENT_REPOSITORY}:latest")
    remote_engine.bring(workspace_image, f"{image.WORKSPACE_REPOSITORY}:latest")
    mounted = f"{remote_engine.process.address.removeprefix('unix://')}:/var/run/docker.sock"
    override = tmp_path_factory.mktemp("compose") / "override.json"
    override.write_text(json.dumps({"services": {"agent": {"volumes": [mounted]}}}))
    docker_compose = require("docker-compose", "docker-compose")
    command = (docker_compose, "-f", str(FILE), "-f", str(override), "-p", PROJECT)
    made = Project(command, _free_port(), remote_engine)
    with forwarded(made.port):
        try:
            yield made
        finally:
            made.compose("down", "-v")


@pytest.fixture
def project(made: Project) -> Project:
    """The project, up as it would be if it had been made for the test alone."""
    made.compose("up", "-d")
    made.await_health()
    return made


def _adopted(project: Project) -> dict[str, Any]:
    """Wait until the workspace's worker is asked, and return how the daemon knows the places."""
    with project.client() as client:
        status = eventually(
            lambda: _ask(client, "/api/status"),
            lambda it: (
                [(one["name"], one["via"]) for one in it["places"]]
                == [("host", "host"), ("demo", "worker")]
            ),
            within=PATIENCE,
        )
    assert status["engine"] == {"reachable": True, "error": None}
    found: dict[str, Any] = status
    return found


def test_up_starts_a_daemon_that_adopts_the_workspace_and_sees_what_is_written_in_it(
    project: Project,
) -> None:
    _adopted(project)
    with project.client() as client:
        project.append("s", claude_session())
        session = eventually(
            lambda: {it["id"]: it for it in _ask(client, "/api/sessions")["sessions"]},
            lambda found: "s" in found,
        )["s"]
        assert (session["workspace"], session["messageCount"]) == ("demo", 6)
        page = _ask(client, "/api/workspaces/demo/sessions/s/messages")
        assert page["messages"][-1]["content"] == "Then fill it."
    shown = json.loads(project.run("agent", "perry", "workspace", "show", "demo", "--json"))
    assert shown["workspace"]["worker"]["via"] == "address", "by the network that they share"
    assert shown["workspace"]["containerId"] == project.container("workspace").id


def test_the_port_is_this_machines_alone_and_the_link_lets_a_browser_in(
    project: Project,
) -> None:
    ports = project.container("agent").attrs["NetworkSettings"]["Ports"]
    bindings = [binding for found in ports.values() for binding in found or ()]
    assert bindings == [{"HostIp": "127.0.0.1", "HostPort": str(project.port)}]
    assert "/login" not in project.compose("logs", "--no-color", "agent")
    link = project.run("agent", "perry", "agent", "token", "--link", "--port", str(project.port))
    link = link.strip()
    assert link.startswith(f"http://127.0.0.1:{project.port}/")
    with httpx.Client() as browser:
        assert browser.get(f"http://127.0.0.1:{project.port}/api/sessions").status_code == 401
        assert browser.get(link).status_code == 200
        assert browser.get(f"http://127.0.0.1:{project.port}/api/sessions").status_code == 200


def test_a_daemon_made_anew_has_its_token_and_its_events_go_on(project: Project) -> None:
    before, token, container = _adopted(project), project.token(), project.container("agent").id
    with project.client() as client, client.stream("GET", "/api/events") as stream:
        lines = stream.iter_lines()
        project.append("on", claude_line("user", "Go on.", uuid="u-01", session="on"))
        last = _until(lines, "on", 1)[-1]["id"]
    project.compose("up", "-d", "--force-recreate", "--no-deps", "agent")
    project.await_health()
    assert project.container("agent").id != container
    assert project.token() == token
    assert _adopted(project)["startedAt"] > before["startedAt"]
    project.append("on", claude_line("assistant", "I went on.", uuid="u-02", session="on"))
    resumed = {"Last-Event-ID": last}
    with project.client() as client, client.stream("GET", "/api/events", headers=resumed) as stream:
        told = _until(stream.iter_lines(), "on", 2)
    assert "reset" not in [event["event"] for event in told]


def _until(lines: Iterator[str], session: str, messages: int) -> list[dict[str, Any]]:
    """Read a stream's events up to the one that tells of so many messages in a session."""
    told: list[dict[str, Any]] = [{}]
    for line in lines:
        name, _, value = line.partition(": ")
        if name in ("id", "event", "data"):
            told[-1][name] = json.loads(value) if name == "data" else value
        elif not line and told[-1]:
            found = told[-1]["data"].get("session", {})
            if (found.get("id"), found.get("messageCount")) == (session, messages):
                return told
            told.append({})
    raise AssertionError(f"the stream ended: {told}")


def test_down_leaves_nothing_of_the_project(project: Project) -> None:
    assert len(project.left()) == 5, "two containers, two volumes and a network"
    _adopted(project)
    project.compose("down", "-v")
    assert project.left() == []
    own = (bundle.VOLUME, bundle.KEY_VOLUME)
    assert project.engine.volumes() == sorted(own)
    assert [it for it in project.engine.containers() if not it.startswith("perry-bundle-")] == []
