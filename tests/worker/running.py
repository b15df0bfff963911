"""A real worker process over a real home, for tests that ask it over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any, Self

import httpx

from perry.protocol import DIGEST_VARIABLE, TOKEN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

TOKEN = "a-token-of-32-characters-or-more!"
DIGEST = "sha256-of-a-bundle"
PATIENCE = 15.0  # s


def eventually(holds: Callable[[], bool], what: str, *, within: float = PATIENCE) -> float:
    """Wait until something holds; returns the seconds it took."""
    started = time.monotonic()
    while not holds():
        waited = time.monotonic() - started
        assert waited < within, f"after {waited:.1f} s still not so: {what}"
        time.sleep(0.005)
    return time.monotonic() - started


class ClaudeHome:
    """A home directory with Claude Code's session files in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.projects = home / ".claude" / "projects"

    def session(self, *prompts: str, session_id: str = "", project: str = "-srv-app") -> Path:
        """Write a session file of user prompts; its stem is the session's id."""
        path = self.projects / project / f"{session_id or uuid.uuid4()}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(record(path.stem, prompt) for prompt in prompts))
        return path

    @staticmethod
    def append(path: Path, prompt: str) -> None:
        """Append one user prompt, as Claude Code does."""
        with path.open("a") as file:
            file.write(record(path.stem, prompt))


def record(session_id: str, prompt: str) -> str:
    """One line of a Claude Code session: a user's prompt."""
    line = {
        "type": "user",
        "uuid": str(uuid.uuid4()),
        "parentUuid": None,
        "sessionId": session_id,
        "cwd": "/srv/app",
        "gitBranch": "main",
        "version": "2.1.330",
        "timestamp": "2026-03-04T05:06:07.890Z",
        "message": {"role": "user", "content": prompt},
    }
    return json.dumps(line) + "\n"


class WorkerProcess:
    """`python -m perry.worker` in a process of its own."""

    def __init__(
        self,
        home: Path,
        *,
        token: str | None = TOKEN,
        port: int = 0,
        prefix: Sequence[str] = (),
    ) -> None:
        self.token = token
        self.log = home / ".cache" / "perry" / "worker.log"
        self.log.unlink(missing_ok=True)
        environ = {"HOME": str(home), "PATH": os.environ["PATH"], DIGEST_VARIABLE: DIGEST}
        if token is not None:
            environ[TOKEN_VARIABLE] = token
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "perry.worker", "--port", str(port)], env=environ
        )
        self.port = self._port()
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            trust_env=False,
        )

    def __enter__(self) -> Self:
        eventually(self.is_ready, "the worker is healthy")
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)

    def _port(self) -> int:
        found: list[str] = []

        def listening() -> bool:
            text = self.log.read_text() if self.log.exists() else ""
            assert self.process.poll() is None, f"the worker died: {text}"
            found[:] = re.findall(r"listening on http://\S+:(\d+)", text)
            return bool(found)

        eventually(listening, "the worker listens")
        return int(found[0])

    def is_ready(self) -> bool:
        """Whether the first scan is whole."""
        return self.http.get("/health").status_code == 200

    def json(self, path: str, **params: str) -> Any:
        """GET a path and decode its JSON."""
        answer = self.http.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ids(self, **params: str) -> set[str]:
        """The ids of the sessions that the worker lists."""
        return {session["id"] for session in self.json("/sessions", **params)["sessions"]}

    def terminate(self) -> float:
        """Send SIGTERM and wait for the end; returns the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        return time.monotonic() - started
