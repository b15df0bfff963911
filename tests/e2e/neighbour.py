"""A neighbour: a container that took a worker's address, and keeps every byte it is sent."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import docker
from docker.errors import NotFound
from docker.models.containers import Container
from docker.models.networks import Network

from tests.e2e.eventually import eventually
from tests.e2e.labels import LABEL

LISTENER = """
import socket, sys, threading
body = b'{"status":"ok","version":"0","digest":"x","sessionCount":9,"sessions":[]}'
answer = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body
def serve(connection):
    while data := connection.recv(65536):
        print(data, flush=True)
        connection.sendall(answer)
server = socket.create_server(("0.0.0.0", 7392))
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

PYTHON = (
    "/runtime/lib/ld.so",
    "--library-path",
    "/runtime/lib",
    "/runtime/bin/python3",
    "-I",
    "-S",
)


@contextmanager
def network(client: docker.DockerClient, subnet: str) -> Iterator[Network]:
    """Make a network whose addresses can be chosen; whatever is in it at the end is let go."""
    pool = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=subnet)])
    name = f"perry-test-{secrets.token_hex(4)}"
    made = client.networks.create(name, ipam=pool, labels={LABEL: "1"})
    try:
        yield made
    finally:
        made.reload()
        for container in made.containers:
            made.disconnect(container, force=True)
        made.remove()


@dataclass(frozen=True)
class Neighbour:
    """A hostile container with an address of its choice."""

    container: Container

    def heard(self) -> str:
        """Return all that anybody sent it."""
        return str(self.container.logs().decode())


@contextmanager
def neighbour(
    client: docker.DockerClient, image: str, where: Network, address: str
) -> Iterator[Neighbour]:
    """Run one that listens on the worker's port at an address, and answers like a worker."""
    endpoint = client.api.create_endpoint_config(ipv4_address=address)
    created = client.api.create_container(
        image,
        [*PYTHON, "-c", LISTENER],
        labels={LABEL: "1"},
        host_config=client.api.create_host_config(network_mode=where.name),
        networking_config=client.api.create_networking_config({where.name: endpoint}),
    )
    container = client.containers.get(created["Id"])
    try:
        container.start()
        made = Neighbour(container)
        eventually(made.heard, lambda said: "listening" in said)
        yield made
    finally:
        with suppress(NotFound):  # whoever tests on the same engine removes by the label, too
            container.remove(force=True, v=True)
