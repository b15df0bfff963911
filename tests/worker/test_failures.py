"""What the worker answers when its index fails it: an error as JSON, and life goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from perry.errors import SessionError
from perry.sessions.index import SessionIndex
from perry.sessions.models import Session
from perry.worker.app import create_app
from perry.worker.config import WorkerConfig
from perry.worker.watcher import Watcher
from tests.worker.running import ClaudeHome, eventually

if TYPE_CHECKING:
    from pathlib import Path


class Failing(SessionIndex):
    """Fails as it is told."""

    failure: Exception | None = None

    def get(self, session_id: str, *, agent: str | None = None) -> Session:
        if self.failure is not None:
            raise self.failure
        return super().get(session_id, agent=agent)


def ask(index: SessionIndex, home: Path, path: str) -> httpx.Response:
    config = WorkerConfig.from_environment({"HOME": str(home)})
    watcher = Watcher(index)
    watcher.start()
    assert watcher.ready.wait(10)
    transport = httpx.ASGITransport(create_app(config, index, watcher), raise_app_exceptions=False)

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    try:
        return asyncio.run(get())
    finally:
        watcher.stop()


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (RuntimeError("a secret of the inside"), 500),
        (SessionError("The files of session x keep changing"), 503),
    ],
)
def test_a_failure_is_json(tmp_path: Path, failure: Exception, status: int) -> None:
    index = Failing.of_home(tmp_path, {})
    assert isinstance(index, Failing)
    index.failure = failure
    answer = ask(index, tmp_path, "/sessions/x")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"error"}
    assert "secret" not in answer.text


def test_a_reader_that_fails_does_not_end_the_watching(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    path = home.session("one", session_id="mine")

    class FailsOnce(SessionIndex):
        """Fails at its first change."""

        failed = False

        def apply(self, paths: object) -> None:
            if not self.failed:
                self.failed = True
                raise RuntimeError("a fault in a reader")
            super().apply(paths)  # type: ignore[arg-type] # handed on unchanged

    index = FailsOnce.of_home(tmp_path, {})
    watcher = Watcher(index)
    watcher.start()
    assert watcher.ready.wait(10)
    try:
        home.append(path, "two")
        eventually(lambda: index.get("mine").message_count == 2, "the line shows all the same")
    finally:
        watcher.stop()
