"""An engine on another machine, as far as its network goes.

A dockerd in a network namespace of its own, joined to this one by a pair of virtual cards: its API
answers over TCP, and the addresses of its containers, 172.17.0.2 and on, are there and not here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.e2e.own_engine import Dockerd, as_root, dockerd
from tests.e2e.packages import require

RUN = os.getpid() % 16_000
"""Keeps the test runs of one machine apart."""

NAMESPACE = f"perryfar{RUN}"
CARD = f"perryfar{RUN}"
HERE, THERE = (f"198.18.{RUN // 64}.{RUN % 64 * 4 + host}" for host in (1, 2))
PORT = 2375
PUBLISHED = "20100 20900"
"""The ports that an engine there chooses from, apart from what this machine's may have chosen."""

INSIDE = ("nsenter", f"--net=/run/netns/{NAMESPACE}")
"""Goes before a command that is to run in the other machine's network."""


@contextmanager
def remote_dockerd() -> Iterator[tuple[Dockerd, str]]:
    """Run a dockerd over there, which needs root, and yield it with its TCP address."""
    require("ip", "iproute2")
    with _other_machine():
        flags = ("--tls=false", f"--host=tcp://{THERE}:{PORT}")
        with dockerd(NAMESPACE, *flags, within=INSIDE) as process:
            yield process, f"tcp://{THERE}:{PORT}"


@contextmanager
def _other_machine() -> Iterator[None]:
    _ip("netns", "add", NAMESPACE)
    try:
        _ip("link", "add", CARD, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE)
        _ip("address", "add", f"{HERE}/30", "dev", CARD)
        _ip("link", "set", CARD, "up")
        _ip("-n", NAMESPACE, "address", "add", f"{THERE}/30", "dev", "eth0")
        _ip("-n", NAMESPACE, "link", "set", "eth0", "up")
        _ip("-n", NAMESPACE, "link", "set", "lo", "up")
        ports = f"echo {PUBLISHED} > /proc/sys/net/ipv4/ip_local_port_range"
        subprocess.run([*as_root(), *INSIDE, "sh", "-c", ports], check=True)
        yield
    finally:
        _ip("netns", "delete", NAMESPACE)


def _ip(*words: str) -> None:
    subprocess.run([*as_root(), "ip", *words], check=True, capture_output=True)


_RELAY = """
import socket, sys, threading
def carry(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        one.close(); other.close()
host, port, to = sys.argv[1:]
server = socket.create_server((host, int(port)))
print("listening", flush=True)
while True:
    one = server.accept()[0]
    try:
        other = socket.create_connection((to, int(port)))
    except OSError:
        one.close()
        continue
    for pair in ((one, other), (other, one)):
        threading.Thread(target=carry, args=pair, daemon=True).start()
"""


@contextmanager
def forwarded(port: int) -> Iterator[None]:
    """Have a loopback port of the other machine on this one too, as Docker Desktop does."""
    there = [*as_root(), *INSIDE, sys.executable, "-c", _RELAY, THERE, str(port), "127.0.0.1"]
    here = [sys.executable, "-c", _RELAY, "127.0.0.1", str(port), THERE]
    with ExitStack() as started:
        for words in (there, here):
            relay = started.enter_context(subprocess.Popen(words, stdout=subprocess.PIPE))
            started.callback(relay.terminate)
            assert relay.stdout is not None
            assert relay.stdout.readline() == b"listening\n"
        yield
