"""The agent daemon as a person runs it: a process, its API, and its stream of events."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.command import Perry
from tests.e2e.eventually import eventually

PATIENCE = 30.0


@dataclass
class RunningAgent:
    """`perry agent serve` with a home of its own, on the engine at `address`."""

    directory: Path
    address: str
    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def perry(self) -> Perry:
        """The command, with the same home and engine."""
        home = str(self.directory / "home")
        own = {
            "HOME": home,
            "XDG_STATE_HOME": f"{home}/.local/state",
            "XDG_CACHE_HOME": f"{home}/.cache",
            "DOCKER_HOST": self.address,
        }
        return Perry(self.directory, {**own, **self.environment}, self.prefix)

    @property
    def token(self) -> str:
        path = self.directory / "home/.local/state/perry/agent/token"
        return path.read_text().strip()

    @property
    def log(self) -> str:
        return (self.directory / "agent.log").read_text()

    def start(self) -> None:
        """Start it, at the port that it had before, and wait until it answers."""
        (self.directory / "home").mkdir(exist_ok=True)
        with (self.directory / "agent.log").open("a") as log:
            self.process = subprocess.Popen(
                self.perry.argv("agent", "serve", "--port", str(self.port)),
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.perry.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        assert first.startswith("agent daemon at"), f"{first}{self.log}"
        self.port = int(first.rsplit(":", 1)[1])
        eventually(self.is_healthy, bool, within=PATIENCE)

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self) -> None:
        """End it as an administrator would."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)

    def is_healthy(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}/health").status_code == 200
        return False

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask its API, with the token."""
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        url = f"http://127.0.0.1:{self.port}{path}"
        return httpx.request(method, url, headers=headers, timeout=PATIENCE, **more)

    def get(self, path: str, **params: Any) -> Any:
        """Get an answer of its API, which must be 200."""
        answer = self.ask("GET", path, params=params)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def place(self, name: str) -> dict[str, Any] | None:
        """Return how it knows a place."""
        places = self.get("/api/status")["places"]
        return next((place for place in places if place["name"] == name), None)

    def is_live(self, name: str) -> bool:
        place = self.place(name)
        return place is not None and place["via"] in {"worker", "host"}

    def until_live(self, *names: str, within: float = PATIENCE) -> None:
        """Wait until workspaces are read from their workers."""
        for name in names:
            eventually(lambda name=name: self.is_live(name), bool, within=within)  # type: ignore[misc]

    def counts(self, workspace: str) -> dict[str, int]:
        """Return the sessions of a workspace, and how many messages each has."""
        listed = self.get("/api/sessions", workspace=workspace)["sessions"]
        return {one["id"]: one["messageCount"] for one in listed}

    @contextlib.contextmanager
    def listening(self, since: str | None = None) -> Iterator[Listener]:
        """Subscribe to its events for a block."""
        listener = Listener(self, since)
        listener.start()
        try:
            yield listener
        finally:
            listener.close()


class Listener:
    """What a subscriber of the daemon hears, with the time at which it heard it."""

    def __init__(self, agent: RunningAgent, since: str | None) -> None:
        self._agent = agent
        self._since = since
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._opened = threading.Event()
        self.heard: list[tuple[float, str, str, Any]] = []
        self.error: Exception | None = None

    def start(self) -> None:
        self._thread.start()
        assert self._opened.wait(PATIENCE), f"no stream: {self.error}"

    def close(self) -> None:
        self._closed.set()

    @property
    def last_id(self) -> str:
        return self.heard[-1][1]

    def kinds(self) -> list[str]:
        return [kind for _, _, kind, _ in self.heard]

    def sessions(self) -> list[tuple[str, str, int]]:
        """What was heard of sessions: the kind, the id, and how many messages it has."""
        told = []
        for _, _, kind, data in self.heard:
            if "session" in data:
                told.append((kind, data["session"]["id"], data["session"]["messageCount"]))
            elif "id" in data:
                told.append((kind, data["id"], 0))
        return told

    def _listen(self) -> None:
        headers = {"Authorization": f"Bearer {self._agent.token}"}
        if self._since is not None:
            headers["Last-Event-ID"] = self._since
        url = f"http://127.0.0.1:{self._agent.port}/api/events"
        try:
            with httpx.stream("GET", url, headers=headers, timeout=PATIENCE) as answer:
                fields: dict[str, str] = {}
                for line in answer.iter_lines():
                    if self._closed.is_set():
                        return
                    if line:
                        name, _, value = line.partition(":")
                        fields[name] = value.strip()
                    elif "event" in fields:
                        data = json.loads(fields["data"])
                        self.heard.append((time.monotonic(), fields["id"], fields["event"], data))
                        self._opened.set()
                        fields = {}
        except httpx.TransportError as error:
            self.error = error
