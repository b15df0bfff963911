"""Where a workspace's worker answers.

Addresses are read from the networks a container is in, never from Docker's old top-level field,
which current engines no longer have. It must not ask the worker anything.
"""

from __future__ import annotations

from ipaddress import ip_address

from perry.protocol import WORKER_PORT
from perry.workspace.objects import Container


def worker_addresses(container: Container) -> tuple[str, ...]:
    """Return the `host:port` of a running container's worker in each of its networks."""
    return tuple(_with_port(address) for address in container.addresses)


def _with_port(address: str) -> str:
    bracketed = f"[{address}]" if ip_address(address).version == 6 else address  # noqa: PLR2004 - IPv6
    return f"{bracketed}:{WORKER_PORT}"
