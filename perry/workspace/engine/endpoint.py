"""Where the engine is: what DOCKER_HOST or a Docker context says, and a connection to that.

It must not know what is asked of it.
"""

from __future__ import annotations

import os
from typing import Any

import docker
from docker.context import ContextAPI
from docker.context.config import get_current_context_name

from perry.errors import EngineUnreachable
from perry.workspace.engine.calls import TIMEOUT, translated
from perry.workspace.ssh import Destination, SshAdapter
from perry.workspace.unreachable import unreachable


def connected() -> docker.APIClient:
    """Connect to the engine that DOCKER_HOST or the current Docker context names.

    Raises EngineUnreachable and EngineFailure.
    """
    with translated():
        endpoint = _endpoint()
    address = endpoint.get("base_url")
    with translated(address):
        try:
            if address is not None and address.startswith("ssh://"):
                return _over_ssh(address)
            return docker.APIClient(version="auto", timeout=TIMEOUT, **endpoint)
        except ValueError as error:  # what urllib says of an address that is none
            raise unreachable(error, address) from error


def _endpoint() -> dict[str, Any]:
    """Say where the engine is, as docker-py takes it.

    DOCKER_CONTEXT comes first, as with Docker's own command line, then DOCKER_HOST, then the
    context that is in use.
    """
    named = os.environ.get("DOCKER_CONTEXT")
    if not named and os.environ.get("DOCKER_HOST"):
        return dict(docker.utils.kwargs_from_env())
    return _context_endpoint(named or get_current_context_name() or "default")


def _context_endpoint(name: str) -> dict[str, Any]:
    context = ContextAPI.get_context(name)
    if context is None:
        raise EngineUnreachable(
            f"There is no Docker context '{name}'",
            hint="docker context ls shows them; docker context use default goes back.",
        )
    if name == "default" or context.Host is None:
        return dict(docker.utils.kwargs_from_env())
    return {"base_url": context.Host, "tls": context.TLSConfig or False}


def _over_ssh(address: str) -> docker.APIClient:
    """Make a client whose every connection is an ssh process.

    docker-py asks an engine for its version before anything else can be set, so the first client
    is made for that question.
    """
    adapter = SshAdapter(Destination.parse(address), timeout=TIMEOUT)
    version = docker.constants.MINIMUM_DOCKER_API_VERSION
    for _ in range(2):
        client = docker.APIClient("unix://ssh", version=version, timeout=TIMEOUT)
        client.mount("http+docker://", adapter)
        version = client.version(api_version=False)["ApiVersion"]
    return client
