"""A real agent daemon in a process of its own, with a home of its own and no engine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests.worker.running import PATIENCE, ClaudeHome, eventually
from tests.worker.subscribing import Subscriber, Told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PERRY = os.path.join(os.path.dirname(sys.executable), "perry")  # noqa: PTH118, PTH120 - a venv's python is a link
LONG_AGO = 1.0  # s; a change has been told by then, however busy the machine is


def environment(directory: Path, docker_host: str | None = None) -> dict[str, str]:
    """The variables of a user whose home and perry's directories are below `directory`."""
    home = directory / "home"
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_STATE_HOME": str(directory / "state"),
        "XDG_CACHE_HOME": str(directory / "cache"),
        "DOCKER_HOST": docker_host or f"unix://{directory}/no-engine.sock",
        "COLUMNS": "80",
        "PYTHONUNBUFFERED": "1",
    }


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class AgentProcess:
    """`perry agent serve`, whose files are all below one directory; a context manager."""

    def __init__(self, directory: Path, *, port: int = 0, docker_host: str | None = None) -> None:
        self.directory = directory
        self.environment = environment(directory, docker_host)
        self.home = ClaudeHome(directory / "home")
        self.out, self.err = directory / "stdout", directory / "stderr"
        with self.out.open("ab") as out, self.err.open("ab") as err:
            already = self.out.stat().st_size
            self.process = subprocess.Popen(
                [PERRY, "agent", "serve", "--port", str(port)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        found: list[str] = []

        def listens() -> bool:
            assert self.process.poll() is None, f"the daemon died: {self.err.read_text()}"
            said = self.out.read_text()[already:]
            found[:] = re.findall(r"agent daemon at http://127\.0\.0\.1:(\d+)\n", said)
            return bool(found)

        eventually(listens, "the daemon listens")
        self.port = int(found[0])
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = (directory / "state" / "perry" / "agent" / "token").read_text()
        self.http = self.client()
        self.http.headers["Authorization"] = f"Bearer {self.token}"

    def client(self) -> httpx.Client:
        """A client without a token."""
        return httpx.Client(base_url=self.url, trust_env=False, timeout=PATIENCE)

    def __enter__(self) -> Self:
        eventually(self.has_read_the_host, "the host's sessions were read")
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)

    def has_read_the_host(self) -> bool:
        """Whether the host's sessions are current."""
        return any(place["via"] == "host" for place in self.json("/api/status")["places"])

    def json(self, path: str, **params: str) -> Any:
        """GET a path and decode its JSON."""
        answer = self.http.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def counts(self) -> dict[str, int]:
        """How many messages each listed session has."""
        listed = self.json("/api/sessions", children="1")["sessions"]
        return {session["id"]: session["messageCount"] for session in listed}

    def events(
        self, *, last_event_id: str | None = None, receive_buffer: int | None = None
    ) -> Subscriber:
        """Open a stream of events."""
        return Subscriber(
            self.port,
            path="/api/events",
            token=self.token,
            last_event_id=last_event_id,
            receive_buffer=receive_buffer,
        )

    def end(self, number: int = signal.SIGTERM) -> float:
        """Send a signal and wait for the end; returns the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        return time.monotonic() - began

    def perry(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the same user."""
        return perry(self.environment, *arguments)


def perry(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command to its end."""
    return subprocess.run(
        [PERRY, *arguments],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )


def until(stream: Subscriber, wanted: Callable[[Told], bool]) -> list[Told]:
    """Read events up to the one that is wanted."""
    seen = [stream.next()]
    while not wanted(seen[-1]):
        seen.append(stream.next())
    return seen


def sessions_in(events: list[Told]) -> list[tuple[str, str]]:
    """The events about sessions: what happened to which."""
    return [
        (event.kind, event.data["id"] if event.kind == "deleted" else event.data["session"]["id"])
        for event in events
        if "session" in event.data or "id" in event.data
    ]
