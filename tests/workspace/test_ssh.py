"""HTTP over an ssh process, played here by a program of the test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perry.errors import EngineUnreachable
from perry.workspace.engine import Engine
from perry.workspace.ssh import Destination
from tests.workspace.engine_answers import served

CARRY = """
import socket, sys, threading, os
to = socket.create_connection(("127.0.0.1", {port}))
def out():
    while data := to.recv(65536):
        os.write(1, data)
    os._exit(0)
threading.Thread(target=out, daemon=True).start()
while data := os.read(0, 65536):
    to.sendall(data)
"""

Fake = Callable[[str], Path]


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a program named ssh in front of the real one; each start of it adds a line to `calls`."""

    def install(body: str) -> Path:
        program, calls = tmp_path / "ssh", tmp_path / "calls"
        program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{body}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
        monkeypatch.setenv("DOCKER_HOST", "ssh://me@there:2222")
        return calls

    return install


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ssh://there", "-- there docker system dial-stdio"),
        ("ssh://me@there:22/", "-l me -p 22 -- there docker system dial-stdio"),
        ("ssh://[::1]:22", "-p 22 -- ::1 docker system dial-stdio"),
        ("ssh://a/run/my docker.sock", "a docker --host 'unix:///run/my docker.sock' system"),
        ("ssh://me@-oProxyCommand=x", "-- -oProxyCommand=x docker"),
        ("ssh://Build.Local:22", "-- Build.Local docker"),
    ],
)
def test_an_address_becomes_the_command_line_that_docker_itself_uses(
    address: str, words: str
) -> None:
    argv = Destination.parse(address).argv()
    assert words in " ".join(argv)
    assert argv[:2] == ["sh", "-c"]


@pytest.mark.parametrize("address", ["ssh://", "ssh:///run/x", "ssh://me:secret@a", "ssh://a?b=c"])
def test_what_is_no_address_is_said_to_be_none(address: str, ssh: Fake) -> None:
    ssh("exit 1")
    os.environ["DOCKER_HOST"] = address  # restored with what the fixture set
    with pytest.raises(EngineUnreachable, match="is not ssh://"):
        Engine.connect()


def test_an_engine_is_asked_over_one_connection_and_its_process_ends_with_it(ssh: Fake) -> None:
    table = {
        "/version": lambda: (200, {"ApiVersion": "1.41"}),
        "/v1.41/info": lambda: (200, {"ID": "far"}),
    }
    with served(table) as address:
        carry = CARRY.format(port=address.rpartition(":")[2])
        calls = ssh(f"exec {sys.executable} -c '{carry}'")
        before = children()
        engine = Engine.connect()
        assert engine.id == "far"
        assert len(calls.read_text().splitlines()) == 1
        assert "-l me -p 2222 -- there docker system dial-stdio" in calls.read_text()
        assert len(children() - before) == 1
        engine.close()
        assert children() == before


def test_sshs_own_words_say_why_it_failed(ssh: Fake) -> None:
    ssh("echo 'me@there: Permission denied (publickey).' >&2; exit 255")
    before = children()
    with pytest.raises(EngineUnreachable) as caught:
        Engine.connect()
    assert "ssh://me@there:2222" in caught.value.message
    assert caught.value.message.endswith("me@there: Permission denied (publickey).")
    assert "ssh HOST docker version" in caught.value.hint
    assert children() == before


def test_a_process_that_ends_in_silence_is_unreachable_too(ssh: Fake) -> None:
    ssh("exit 0")
    with pytest.raises(EngineUnreachable, match="can't be reached"):
        Engine.connect()


def test_ctrl_c_leaves_the_connection_alone(ssh: Fake, tmp_path: Path) -> None:
    """What an interrupted command undoes needs the engine."""
    ssh(f"kill -INT $$; touch {tmp_path}/lived; exit 1")
    with pytest.raises(EngineUnreachable):
        Engine.connect()
    assert (tmp_path / "lived").exists()


def children() -> set[str]:
    """Return this process's children, ended ones that nobody waited for included."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
