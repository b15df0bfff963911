"""The ways to a workspace's worker, as the engine tells them: the rungs of a ladder.

Addresses are read from the networks a container is in, never from Docker's old top-level field,
which current engines no longer have. Where neither they nor the port that perry publishes lead
anywhere from here, a stream through the engine does. It must not ask the worker anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from perry.protocol import WORKER_PORT
from perry.workspace.models import Rung
from perry.workspace.objects import Container

PORT = f"{WORKER_PORT}/tcp"

LOOPBACK = "127.0.0.1"
OWN_BINDING = {"HostIp": LOOPBACK, "HostPort": ""}
"""How perry publishes the worker's port: for the engine's machine alone, at any free port."""


@dataclass(frozen=True)
class Way:
    """One way to a worker; `address` is `host:port`, and `exec` for a stream."""

    rung: Rung
    address: str


def ways(container: Container) -> tuple[Way, ...]:
    """Return the ways to a running container's worker, the best ones first."""
    if not container.is_running:
        return ()
    inside = [Way("address", _with_port(address)) for address in container.addresses]
    published = [
        Way("published", f"{LOOPBACK}:{binding['HostPort']}")
        for binding in _ports(container).get(PORT) or ()
        if binding["HostIp"] == LOOPBACK
    ]
    return (*inside, *published, Way("exec", "exec"))


def shown_ports(container: Container) -> tuple[str, ...]:
    """Return what a person published, as `ip:port->port/protocol`: all but perry's own binding."""
    ports = {inside: list(bindings or ()) for inside, bindings in _ports(container).items()}
    own = _own(container, ports.get(PORT, ()))
    if own is not None:
        ports[PORT].remove(own)
    return tuple(
        f"{binding['HostIp']}:{binding['HostPort']}->{inside}"
        for inside, bindings in ports.items()
        for binding in bindings
    )


def _own(container: Container, bindings: Iterable[dict[str, str]]) -> dict[str, str] | None:
    """Find the binding that perry asked for: on loopback, at a port that nobody named."""
    asked = (container.raw["HostConfig"].get("PortBindings") or {}).get(PORT) or ()
    named = {binding["HostPort"] for binding in asked if binding["HostPort"]}
    if OWN_BINDING not in asked:
        return None
    free = [it for it in bindings if it["HostIp"] == LOOPBACK and it["HostPort"] not in named]
    return free[-1] if free else None


def _ports(container: Container) -> dict[str, list[dict[str, str]] | None]:
    ports: dict[str, Any] = (container.raw.get("NetworkSettings") or {}).get("Ports") or {}
    return ports


def _with_port(address: str) -> str:
    bracketed = f"[{address}]" if ip_address(address).version == 6 else address  # noqa: PLR2004 - IPv6
    return f"{bracketed}:{WORKER_PORT}"
