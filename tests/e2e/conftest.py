"""Images and containers that perry doesn't make itself: made on the spot, removed by label."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound
from docker.models.images import Image

from perry.workspace import bundle, image
from perry.workspace.engine import Engine
from perry.workspace.progress import finish
from tests.e2e.command import Perry
from tests.e2e.faults.table import TABLE
from tests.e2e.labels import LABEL
from tests.e2e.own_engine import OwnEngine, own_engine
from tests.e2e.own_engine import build as make_image
from tests.e2e.remote_engine import remote_dockerd
from tests.e2e.ssh_server import SshServer, ssh_server

os.environ["TESTCONTAINERS_RYUK_DISABLED"] = (
    "true"  # its reaper is an image to pull; we clean up by label
)


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    """Docker itself; whatever carries the test label is removed at the end of the run."""
    connected = docker.from_env()
    yield connected
    for container in connected.containers.list(all=True, filters={"label": LABEL}):
        container.remove(force=True, v=True)
    for network in connected.networks.list(filters={"label": LABEL}):
        network.remove()


@pytest.fixture(scope="session")
def runtime_image(engine: Engine) -> str:
    """The image of the bundle's runtime: its busybox is the static binary of the tests' images."""
    finish(bundle.ensure_bundle(engine))
    return f"{image.RUNTIME_REPOSITORY}:{image.recipe_digest()}"


@pytest.fixture(scope="session")
def workspace_image(engine: Engine) -> str:
    """The default workspace image."""
    finish(image.ensure_workspace_image(engine))
    return image.workspace_reference()


@pytest.fixture(scope="session")
def build(client: docker.DockerClient) -> Callable[..., str]:
    """Build an image from a Dockerfile and files, and return its name."""

    def build_image(name: str, dockerfile: str, **files: str) -> str:
        tag = f"perry-test-{name}"
        make_image(client, tag, {"Dockerfile": dockerfile, **files})
        return tag

    return build_image


@pytest.fixture(scope="session")
def debian(
    client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Return an image of a Debian release: pulled, else made of Debian's packages."""

    def release_image(release: str) -> str:
        official, made = f"debian:{release}-slim", f"perry-test-debian:{release}"
        for reference in (official, made):
            if _present(client, reference):
                return reference
        try:
            client.images.pull(official)
        except docker.errors.APIError:
            _bootstrap(client, release, tmp_path_factory.mktemp(release) / "base.tar")
            return made
        return official

    return release_image


def _present(client: docker.DockerClient, reference: str) -> Image | None:
    try:
        return client.images.get(reference)
    except ImageNotFound:
        return None


def _bootstrap(client: docker.DockerClient, release: str, tar: Path) -> None:
    assert shutil.which("mmdebstrap"), "no registry answers: apt-get install mmdebstrap"
    subprocess.run(
        ["mmdebstrap", "--variant=minbase", "--include=python3-minimal", release, str(tar)],
        check=True,
        capture_output=True,
    )
    with tar.open("rb") as file:
        client.api.import_image_from_data(file, repository="perry-test-debian", tag=release)


@pytest.fixture
def another_version(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Turn this perry into a version that nobody runs: its code layer has one more module."""
    original = bundle.code_files()

    def turn() -> None:
        module = f"VERSION = {secrets.token_hex(8)!r}".encode()
        files = {**original, "perry/worker/version.py": module}
        monkeypatch.setattr(bundle, "code_files", lambda: files)
        bundle.code_digest.cache_clear()

    yield turn
    bundle.code_digest.cache_clear()


@pytest.fixture
def perry(tmp_path: Path) -> Perry:
    """The installed command, run in a directory of its own."""
    return Perry(tmp_path)


@pytest.fixture(scope="session")
def second_engine(client: docker.DockerClient, runtime_image: str) -> Iterator[OwnEngine]:
    """An engine where nobody else is."""
    with own_engine(client) as process:
        second = docker.DockerClient(base_url=process.address)
        yield OwnEngine(process, process.address, client, second, runtime_image)
        second.close()


@pytest.fixture
def bare_engine(second_engine: OwnEngine) -> OwnEngine:
    """The tests' own engine with perry's two images and nothing else of perry's."""
    second_engine.reset()
    return second_engine


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what faults were made, and how long recovery took."""
    if TABLE.rows:
        terminalreporter.section("faults")
        for line in TABLE.lines():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def remote_engine(client: docker.DockerClient, runtime_image: str) -> Iterator[OwnEngine]:
    """An engine on another machine, over TCP, with perry's two images."""
    with remote_dockerd() as (process, address):
        remote = docker.DockerClient(base_url=address)
        found = OwnEngine(process, address, client, remote, runtime_image)
        found.reset()
        yield found
        remote.close()


@pytest.fixture(scope="session")
def server_of_remote_engine(
    remote_engine: OwnEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SshServer]:
    """An ssh server behind which that engine is found."""
    with ssh_server(tmp_path_factory.mktemp("ssh"), remote_engine.address) as server:
        yield server


@dataclass(frozen=True)
class Remote:
    """An engine on another machine and one way to reach it, as its user sets that up."""

    engine: OwnEngine
    environment: dict[str, str]


@pytest.fixture(params=["tcp", "ssh"])
def remote(
    request: pytest.FixtureRequest,
    remote_engine: OwnEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Remote:
    """Have this process, and all that it starts, use the engine on the other machine."""
    environment = {
        "DOCKER_HOST": remote_engine.address,
        "DOCKER_CONTEXT": "",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    if request.param == "ssh":
        server: SshServer = request.getfixturevalue("server_of_remote_engine")
        environment["DOCKER_HOST"] = server.address
        environment["PATH"] = f"{server.programs}:{os.environ['PATH']}"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Remote(remote_engine, environment)
