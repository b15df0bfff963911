"""An ssh server of the tests' own, behind which an engine is found.

It listens on loopback with keys made for the occasion, and a wrapper named `ssh` has the client
read a configuration of the tests' own: nobody's ~/.ssh is read or written.
"""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.own_engine import as_root
from tests.e2e.packages import require

PATIENCE = 10.0


@dataclass(frozen=True)
class SshServer:
    """Where it answers, as DOCKER_HOST says it, and the folder that has to be first in PATH."""

    address: str
    programs: Path
    log: Path


@contextmanager
def ssh_server(directory: Path, engine: str) -> Iterator[SshServer]:
    """Run a server whose users find `engine` as theirs."""
    sshd, ssh = require("sshd", "openssh-server"), require("ssh", "openssh-client")
    docker = Path(require("docker", "docker-cli"))
    for key in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / key)]
        subprocess.run(words, check=True)
    shutil.copy(directory / "user.pub", directory / "authorized")
    port = _free_port()
    path = f"{docker.parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    (directory / "server").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nPidFile none\n"
        f"AuthorizedKeysFile {directory}/authorized\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        f"SetEnv DOCKER_HOST={engine} PATH={path}\n"
    )
    (directory / "client").write_text(
        f"IdentityFile {directory}/user\nIdentitiesOnly yes\nBatchMode yes\n"
        f"UserKnownHostsFile {directory}/known\nStrictHostKeyChecking accept-new\n"
    )
    programs = directory / "bin"
    programs.mkdir()
    wrapper = programs / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {ssh} -F {directory}/client "$@"\n')
    wrapper.chmod(0o755)
    subprocess.run(
        [*as_root(), "mkdir", "-p", "/run/sshd"], check=True
    )  # where sshd locks itself in
    log = directory / "log"
    words = [*as_root(), sshd, "-D", "-E", str(log), "-f", str(directory / "server")]
    process = subprocess.Popen(words, start_new_session=True)
    try:
        _await(port, process, log)
        yield SshServer(f"ssh://{getpass.getuser()}@127.0.0.1:{port}", programs, log)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _await(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            waiting = process.poll() is None and time.monotonic() < deadline
            assert waiting, f"no sshd: {log.read_text() if log.exists() else 'it said nothing'}"
            time.sleep(0.05)
        else:
            return
