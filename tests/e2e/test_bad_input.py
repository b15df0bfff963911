"""What can't be done: a clear word on stderr, exit code 1 or 2, and nothing half-made left."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perry.workspace import archive
from tests.e2e.command import Perry
from tests.e2e.own_engine import OwnEngine, build


@pytest.fixture(scope="module")
def own(second_engine: OwnEngine) -> OwnEngine:
    second_engine.reset()
    return second_engine


@pytest.fixture(scope="module")
def perry(own: OwnEngine, tmp_path_factory: pytest.TempPathFactory) -> Perry:
    directory = tmp_path_factory.mktemp("bad")
    return Perry(
        directory, {"DOCKER_HOST": own.address, "XDG_CACHE_HOME": str(directory / "cache")}
    )


@pytest.fixture(scope="module")
def demo(perry: Perry) -> str:
    perry.ok("workspace", "init", "demo")
    return "demo"


Left = tuple[list[str], list[str], list[str]]


def left(engine: OwnEngine) -> Left:
    return engine.containers(), engine.volumes(), engine.images()


def assert_refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


USAGE: tuple[tuple[str, ...], ...] = (
    ("workspace init Bad_Name", "lower-case letters, digits and dashes", "'bad-name'"),
    ("workspace init host", "'host'"),
    (f"workspace init {'x' * 64}", "at most 63"),
    ("workspace init ''", "''"),
    ("workspace init ../up", "'../up'"),
    ("workspace init a --clone=-x", "dash"),
    ("workspace init a --clone http://h/x", "https, ssh, git, file"),
    ("workspace init a --clone 'ext::sh -c id'", "ext::sh"),
    ("workspace init a --clone https://[bad/x", "https://[bad/x"),
    ("workspace init a --clone https://h/", "names no repository"),
    ("workspace init a --memory lots", "--memory lots"),
    ("workspace init a --memory 1k", "6m"),
    ("workspace init a --cpus 0", "--cpus 0"),
    ("workspace init a --cpus nan", "--cpus nan"),
    ("workspace init a --cpus inf", "inf"),
    ("workspace init a --env =x", "--env =x"),
    ("workspace init a --env NOT_SET_HERE", "NOT_SET_HERE"),
    ("workspace init a --volume here", "SRC:DST"),
    ("workspace init a --volume x:/opt/perry", "/opt/perry"),
    ("workspace init a --volume x:/home/workspace", "/home/workspace"),
    ("workspace init a --publish 80", "--publish 80"),
    ("workspace init a --publish 80:70000", "70000"),
    ("workspace init a --command ''", "--command"),
    ("workspace init a --no-such-option", "--no-such-option"),
    ("workspace remove demo", "--yes"),
    ("workspace sync", "--all"),
    ("workspace sync demo --all", "--all"),
    ("workspace exec demo", "COMMAND"),
    ("workspace logs demo --worker --follow", "--follow"),
    ("session list --limit -1", "-1"),
    ("session list --limit x", "x"),
    ("uninstall", "--yes"),
)

FAILURES: tuple[tuple[str, ...], ...] = (
    ("workspace init a --image no.such.host/image:1", "no.such.host/image:1"),
    ("workspace init a --image 'UPPER CASE'", "UPPER CASE"),
    ("workspace init a --cpus 100000", "CPU"),
    ("workspace init a --volume /no/such/directory:/data", "/no/such/directory"),
    ("workspace init a --network no-such-network", "no-such-network"),
    ("workspace init demo --read-only", "--read-only"),
    ("workspace show nobody", "nobody", "perry workspace list"),
    ("workspace start nobody", "nobody"),
    ("workspace stop nobody", "nobody"),
    ("workspace restart nobody", "nobody"),
    ("workspace logs nobody", "nobody"),
    ("workspace shell nobody", "nobody"),
    ("workspace exec nobody true", "nobody"),
    ("session list --workspace nobody", "nobody"),
    ("session show no-such-id", "no-such-id"),
    ("session show ''", "''"),
    ("session show ../../etc/passwd", "../../etc/passwd"),
    ("session show .. --workspace demo", "'..'"),
    ("session delete ../demo --yes", "../demo"),
    ("session delete no-such-id --yes", "no-such-id"),
    ("uninstall --yes", "demo"),
)


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize(
    ("code", "command", "words"),
    [(2, line, words) for line, *words in USAGE] + [(1, line, words) for line, *words in FAILURES],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    own: OwnEngine, perry: Perry, code: int, command: str, words: list[str]
) -> None:
    before = left(own)
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" {command}', *perry.argv()],
        cwd=perry.directory,
        env={**os.environ, **perry.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_refused(done, code, *words)
    assert left(own) == before


def empty_image(tag: str, architecture: str) -> bytes:
    """An image of one empty layer, as `docker save` writes it."""
    layer = archive.pack({})
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/tool"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    files = {"config.json": config, "manifest.json": manifest}
    texts = {path: json.dumps(content).encode() for path, content in files.items()}
    return archive.pack({**texts, "layer.tar": layer})


def test_an_image_of_another_architecture(own: OwnEngine, perry: Perry) -> None:
    other = {"amd64": "arm64", "arm64": "amd64"}[own.client.version()["Arch"]]
    own.client.images.load(empty_image("strange:1", other))
    before = left(own)
    done = perry.run("workspace", "init", "a", "--image", "strange:1")
    assert_refused(done, 1, "strange:1", f"linux/{other}")
    assert left(own) == before


def test_an_image_whose_user_it_does_not_know(own: OwnEngine, perry: Perry) -> None:
    build(own.client, "unknown-user:1", {"Dockerfile": f"FROM {own.runtime}\nUSER stranger\n"})
    before = left(own)
    done = perry.run("workspace", "init", "a", "--image", "unknown-user:1")
    assert_refused(done, 1, "'stranger'", "USER 1000")
    assert left(own) == before


def test_in_a_pipe_too_it_is_said_that_an_image_is_pulled(perry: Perry) -> None:
    done = perry.run("workspace", "init", "a", "--image", "no.such.host/image:1")
    assert done.stdout.split(maxsplit=1) == [
        "image", "no.such.host/image:1 is not on this engine: pulling it\n"
    ]  # fmt: skip


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("0.0.0.0", 0))  # noqa: S104 - published ports are on all addresses
        listening.listen()
        yield listening.getsockname()[1]


def test_a_taken_port(own: OwnEngine, perry: Perry, demo: str, taken_port: int) -> None:
    assert demo
    before = left(own)
    done = perry.run("workspace", "init", "a", "--publish", f"{taken_port}:80")
    assert_refused(done, 1, str(taken_port), "already in use", "--publish")
    assert left(own) == before


def test_a_foreign_container_is_never_touched(own: OwnEngine, perry: Perry, demo: str) -> None:
    assert demo
    foreign = own.client.containers.create(own.runtime, ["true"], name="workspace-theirs")
    before = left(own)
    for verb in ("init", "start", "stop", "show", "sync", "remove --yes"):
        done = perry.run("workspace", *verb.split(), "theirs")
        assert_refused(done, 1, "workspace-theirs", "isn't perry's")
    assert left(own) == before
    foreign.reload()
    assert foreign.status == "created"
    assert "theirs" not in [it["name"] for it in perry.json("workspace", "list")["workspaces"]]
    foreign.remove()


def test_a_container_removed_behind_perrys_back(own: OwnEngine, perry: Perry) -> None:
    perry.ok("workspace", "init", "torn")
    own.client.containers.get("workspace-torn").remove(force=True)
    assert_refused(perry.run("workspace", "show", "torn"), 1, "torn", "perry workspace init torn")
    assert_refused(perry.run("session", "list", "-w", "torn"), 1, "torn")
    assert "is ready" in perry.ok("workspace", "init", "torn")
    own.client.containers.get("workspace-torn").remove(force=True)
    assert "workspace-torn-home" in perry.ok("workspace", "remove", "torn", "--yes")
    assert "workspace-torn-home" not in own.volumes()


def test_an_image_without_git_keeps_the_workspace(perry: Perry, demo: str) -> None:
    done = perry.run("workspace", "init", demo, "--clone", "https://u:secret@127.0.0.1:1/x.git")
    assert_refused(done, 1, "has no git", "127.0.0.1", "perry workspace init demo --clone")
    assert "secret" not in done.stderr + done.stdout
    assert perry.json("workspace", "show", demo)["workspace"]["health"] == "healthy"


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("unix:///no/such.sock", ("No Docker engine answers", "unix:///no/such.sock")),
        ("tcp://127.0.0.1:1", ("No Docker engine answers", "127.0.0.1:1", "DOCKER_HOST")),
        ("tcp://no.such.host.invalid:1", ("no.such.host.invalid",)),
        ("nonsense", ("nonsense",)),
        ("foo://bar", ("foo://bar",)),
        ("tcp://127.0.0.1:port", ("127.0.0.1",)),
        ("ssh://no.such.host.invalid", ("no.such.host.invalid",)),
    ],
)
def test_where_no_engine_answers_it_says_where_it_looked(
    perry: Perry, host: str, words: tuple[str, ...]
) -> None:
    away = Perry(perry.directory, {**perry.environment, "DOCKER_HOST": host})
    for command in (("workspace", "list"), ("workspace", "init", "a")):
        done = away.run(*command)
        assert_refused(done, 1, *words)
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 2, done.stderr
    host_alone = away.run("session", "list")
    assert (host_alone.returncode, host_alone.stdout) == (0, "")
    assert host_alone.stderr.startswith("warning: the engine: ")
    assert all(word in host_alone.stderr for word in words), host_alone.stderr


def test_a_context_that_is_broken_is_said(perry: Perry, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"currentContext": "nowhere"}')
    environment = {**perry.environment, "DOCKER_HOST": "", "DOCKER_CONFIG": str(tmp_path)}
    done = Perry(perry.directory, environment).run("workspace", "list")
    assert_refused(done, 1, "nowhere")


@pytest.fixture
def locked_socket(own: OwnEngine) -> Iterator[str]:
    """The engine's address, its socket root's alone."""
    path = Path(own.address.removeprefix("unix://"))
    before = [(it, it.stat().st_mode & 0o777) for it in (path, path.parent)]
    path.chmod(0o600)
    path.parent.chmod(0o755)
    yield own.address
    for it, mode in before:
        it.chmod(mode)


def test_without_permission_it_names_the_socket_and_the_remedy(
    locked_socket: str,
) -> None:
    """A fresh interpreter drops its rights once it has loaded perry, wherever that lies."""
    program = (
        "import os, sys; from perry.cli import main, workspace;"
        "from perry.workspace import manager;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "sys.argv = ['perry', 'workspace', 'list']; main.run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "DOCKER_HOST": locked_socket, "HOME": "/"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert_refused(done, 1, "No permission", locked_socket, "usermod -aG docker")
