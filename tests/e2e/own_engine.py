"""A Docker engine of the tests' own, where everything may be taken away.

A second dockerd beside the first one: its own data, socket, containerd namespace and bridge (which
the first engine makes, as a network). Its images come from the first, so nothing is downloaded.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import DockerException

from perry.workspace import image
from tests.e2e.labels import LABEL

BRIDGE = f"perrytest{os.getpid() % 100_000}"
"""One for each run of the tests; a bridge's name may have 15 characters."""

PATIENCE = 60.0


@contextmanager
def own_engine(first: docker.DockerClient) -> Iterator[Dockerd]:
    """Run a dockerd; it needs root, as every dockerd does."""
    options = {"com.docker.network.bridge.name": BRIDGE}
    network = first.networks.create(BRIDGE, options=options, labels={LABEL: "1"})
    try:
        with dockerd("perry-test", f"--bridge={BRIDGE}", "--userland-proxy=false") as running:
            yield running
    finally:
        network.remove()


@contextmanager
def dockerd(namespace: str, *flags: str, within: Sequence[str] = ()) -> Iterator[Dockerd]:
    """Run a dockerd for a block, `within` another program or at once."""
    # a socket's path may have 108 characters, so not below pytest's own directory
    directory = Path(tempfile.mkdtemp(prefix="perry-engine-"))
    running = Dockerd(directory, namespace, flags, within)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        subprocess.run([*as_root(), "rm", "-rf", str(directory)], check=True)


class Dockerd:
    """An engine's process, and where it answers."""

    def __init__(
        self, directory: Path, namespace: str, flags: Sequence[str], within: Sequence[str]
    ) -> None:
        self.address = f"unix://{directory}/docker.sock"
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        options = {
            "--data-root": directory / "data",
            "--exec-root": directory / "exec",
            "--pidfile": directory / "pid",
            "--host": self.address,
            "--containerd-namespace": namespace,
            "--containerd-plugins-namespace": f"{namespace}-plugins",
        }
        no_rules = ["--iptables=false", "--ip6tables=false"]
        with_us = ["setpriv", "--pdeathsig", "TERM"]  # should this process be killed
        words = [str(word) for option in options.items() for word in option]
        self._argv = [*as_root(), *within, *with_us, "dockerd", *words, *no_rules, *flags]

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                docker.DockerClient(base_url=self.address).close()
            except DockerException:
                waiting = self._process.poll() is None and time.monotonic() < deadline
                assert waiting, f"no second dockerd: {self._log.read_text()[-2000:]}"
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End it, and wait for its end; one that has ended is left so."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=PATIENCE)


def as_root() -> list[str]:
    """Return what goes before a command that only root may run."""
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


@dataclass(frozen=True)
class OwnEngine:
    """The second engine: its process, where it answers, and the clients of both engines."""

    process: Dockerd
    address: str
    first: docker.DockerClient
    client: docker.DockerClient
    runtime: str

    def reset(self) -> None:
        """Have perry's two images on it, and no container, volume or other image."""
        self._empty()
        wanted = {self.runtime, image.workspace_reference()}
        for found in self.client.images.list():
            if not wanted & set(found.tags):
                self.client.images.remove(found.id, force=True)
        if wanted - set(self.images()):
            self.fill()

    def _empty(self) -> None:
        for container in self.client.containers.list(all=True):
            container.remove(force=True, v=True)
        for volume in self.client.volumes.list():
            volume.remove(force=True)

    def fill(self) -> None:
        """Bring perry's images: the runtime's, and a small one that stands for the workspace's."""
        self.client.images.load(b"".join(self.first.api.get_image(self.runtime)))
        dockerfile = (
            f"FROM {self.runtime} AS runtime\nFROM scratch\n"
            "COPY --from=runtime /runtime/busybox /bin/sh\nCOPY passwd /etc/passwd\n"
            "LABEL perry.image=workspace\nUSER workspace\n"
        )
        passwd = "workspace:x:1000:1000::/home/workspace:/bin/sh\n"
        tag = image.workspace_reference()
        build(self.client, tag, {"Dockerfile": dockerfile, "passwd": passwd})

    def bring(self, reference: str, tag: str) -> None:
        """Bring an image of the first engine, whole, under another name (`repository:tag`)."""
        found = self.first.images.get(reference)
        self.client.images.load(self.first.api.get_image(found.id))
        assert self.client.images.get(found.id).tag(tag)

    def containers(self, prefix: str = "") -> list[str]:
        """Name the containers, running or not."""
        names = [container.name for container in self.client.containers.list(all=True)]
        return sorted(name for name in names if name.startswith(prefix))

    def volumes(self) -> list[str]:
        """Name the volumes."""
        return sorted(volume.name for volume in self.client.volumes.list())

    def images(self) -> list[str]:
        """Name the images that have a name."""
        return sorted(tag for found in self.client.images.list() for tag in found.tags)


def build(client: docker.DockerClient, tag: str, files: dict[str, str]) -> None:
    """Build an image from the texts of its context."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    buffer.seek(0)
    client.images.build(fileobj=buffer, custom_context=True, tag=tag, rm=True, forcerm=True)
