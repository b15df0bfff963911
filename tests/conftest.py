"""What every test may use: a real engine, workspaces that are cleaned up, and a loud failure."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from perry.errors import PerryError
from perry.workspace.engine import Engine
from perry.workspace.manager import WorkspaceManager
from perry.workspace.models import Ready, WorkspaceSpec
from perry.workspace.progress import finish

# Started in a shell's background, this process ignores SIGINT, and so would every command it runs.
signal.signal(signal.SIGINT, signal.default_int_handler)

ELSEWHERE = (
    "CLAUDE_CONFIG_DIR",
    "CODEX_HOME",
    "GEMINI_CLI_HOME",
    "OPENCODE_DB",
    "PI_CODING_AGENT_DIR",
    "PI_CODING_AGENT_SESSION_DIR",
    "XDG_DATA_HOME",
)
"""Variables with which a user has coding agents keep their sessions out of the home."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help="a skipped test fails the run")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--fail-on-skip") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failing test's report how each of its workspaces stands."""
    report = yield
    workspaces = getattr(item, "funcargs", {}).get("workspaces")
    if report.failed and isinstance(workspaces, Workspaces):
        report.sections.extend(workspaces.describe())
    return report


class Workspaces:
    """Makes workspaces for one test, remembers them, and removes what it left."""

    def __init__(self, manager: WorkspaceManager, engine: Engine) -> None:
        self.manager = manager
        self.engine = engine
        self.names: list[str] = []

    def name(self) -> str:
        """Return a name that nobody has, and see that its workspace is removed."""
        self.names.append(f"test-{secrets.token_hex(4)}")
        return self.names[-1]

    def init(self, name: str | None = None, **spec: object) -> Ready:
        """Make a workspace and return what `init` ended with."""
        return finish(self.manager.init(WorkspaceSpec(name or self.name(), **spec)))  # type: ignore[arg-type]  # the keywords are WorkspaceSpec's own

    def run(self, name: str, script: str, user: str = "") -> str:
        """Run a shell script in a workspace and return its output; a failing one fails the test."""
        container = self.manager.get(name).container_id
        done = self.engine.run(container, ["/opt/perry/busybox", "sh", "-euc", script], user=user)
        assert done.exit_code == 0, done.output
        return done.output

    def describe(self) -> list[tuple[str, str]]:
        sections = []
        for name in self.names:
            try:
                container = self.engine.get_container(self.manager.get(name).container_id)
            except PerryError:
                container = None
            if container is None:
                sections.append((f"workspace {name}", "its container is gone"))
                continue
            sections.append((f"workspace {name}: state", str(container.raw["State"])))
            sections.append((f"workspace {name}: container log", self._container_log(name)))
            sections.append((f"workspace {name}: worker log", self._worker_log(name)))
        return sections

    def _container_log(self, name: str) -> str:
        return b"".join(self.manager.logs(name, tail=50)).decode(errors="replace")

    def _worker_log(self, name: str) -> str:
        try:
            return self.manager.worker_log(name)[-5000:]
        except PerryError as error:
            return str(error)

    def clean(self) -> None:
        for name in self.names:
            self.manager.remove(name)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    connected = Engine.connect()
    yield connected
    connected.close()


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what perry caches in tests out of the user's own cache."""
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(directory))
        yield directory


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run with a home of the tests' own: the user's sessions are shown in none of them.

    The Docker context stays the user's, or there would be no engine for some.
    """
    directory = tmp_path_factory.mktemp("home")
    docker = os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_CONFIG", docker)
        patch.setenv("HOME", str(directory))
        for name in ELSEWHERE:
            patch.delenv(name, raising=False)
        yield directory


@pytest.fixture
def manager(engine: Engine) -> WorkspaceManager:
    return WorkspaceManager(engine)


@pytest.fixture
def workspaces(manager: WorkspaceManager, engine: Engine) -> Iterator[Workspaces]:
    made = Workspaces(manager, engine)
    yield made
    made.clean()
