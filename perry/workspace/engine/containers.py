"""The containers of an engine: made, found, started, stopped, removed, and what they print.

It must not know which of them are workspaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

import docker.errors
import requests
from docker.types import CancellableStream

from perry.errors import EngineFailure
from perry.workspace.engine.calls import CHUNK, CONFLICT, Calls, translated
from perry.workspace.frames import Frames
from perry.workspace.objects import Container, ListedContainer


class Containers(Calls):
    """What can be asked about containers, and done to them."""

    def create_container(self, name: str, image: str, **config: Any) -> str:  # noqa: ANN401 - docker-py's own open set of settings
        """Create a container and return its id; `host_config` is a mapping of docker-py's names."""
        with translated():
            host = self._api.create_host_config(**config.pop("host_config", {}))
            network = config.pop("network", None)
            networking = None
            if network is not None:
                endpoint = self._api.create_endpoint_config()
                networking = self._api.create_networking_config({network: endpoint})
            created = self._api.create_container(
                image, name=name, host_config=host, networking_config=networking, **config
            )
            return str(created["Id"])

    def get_container(self, reference: str) -> Container | None:
        """Look a container up by name or id."""
        with translated(), suppress(docker.errors.NotFound):
            return Container.from_inspection(self._api.inspect_container(reference))
        return None

    def list_containers(self, label: str) -> list[ListedContainer]:
        """List the containers, running or not, that carry a label (`key` or `key=value`)."""
        return self._list_containers({"label": label})

    def list_users(self, volume: str) -> list[ListedContainer]:
        """List the containers, running or not, that mount a volume."""
        return self._list_containers({"volume": volume})

    def _list_containers(self, filters: Mapping[str, str]) -> list[ListedContainer]:
        with translated():
            found = self._api.containers(all=True, filters=dict(filters))
        return [ListedContainer.from_listing(container) for container in found]

    def list_processes(self, container_id: str) -> list[str]:
        """List the command lines of a container's processes; none where it has ended meanwhile."""
        try:
            with translated(), suppress(docker.errors.NotFound):
                table = self._api.top(container_id, ps_args="-eo pid,args")
                return [row[-1] for row in table.get("Processes") or []]
        except EngineFailure as failure:
            if failure.status != CONFLICT:  # the engine's word for one that doesn't run
                raise
        return []

    def start_container(self, container_id: str) -> None:
        """Start a container; starting a running one succeeds."""
        with translated():
            self._api.start(container_id)

    def unpause_container(self, container_id: str) -> None:
        """Let a paused container go on."""
        with translated():
            self._api.unpause(container_id)

    def stop_container(self, container_id: str, *, timeout: int) -> None:
        """Stop a container, killing what is left after `timeout` seconds."""
        with translated(), suppress(docker.errors.NotFound):
            self._api.stop(container_id, timeout=timeout)

    def wait_container(self, container_id: str) -> int:
        """Wait for a container to end and return its exit code."""
        with translated():
            return int(self._api.wait(container_id)["StatusCode"])

    def rename_container(self, container_id: str, name: str) -> bool:
        """Rename a container; False where another has that name."""
        try:
            with translated():
                self._api.rename(container_id, name)
        except EngineFailure as failure:
            if failure.status == CONFLICT:
                return False
            raise
        return True

    def remove_container(self, container_id: str) -> None:
        """Remove a container, running or not, with its anonymous volumes."""
        with translated(), suppress(docker.errors.NotFound):
            self._api.remove_container(container_id, force=True, v=True)

    def read_logs(self, container_id: str, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        """Yield what a container printed, both streams, from its last `tail` lines on."""
        with translated():
            yield from self._api.logs(
                container_id, stream=True, follow=follow, tail="all" if tail is None else tail
            )

    def follow_logs(
        self, container_id: str, *, tail: int
    ) -> tuple[Iterator[bytes], Callable[[], None]]:
        """Open what a container prints, both streams, from its last `tail` lines on.

        Returns what comes, for as long as the container runs, and what ends that from another
        thread.
        """
        query = {"stdout": "1", "stderr": "1", "follow": "1", "tail": str(tail)}
        with translated():
            has_terminal = self._api.inspect_container(container_id)["Config"]["Tty"]
            answer = self._ask("GET", f"/containers/{container_id}/logs", query, silence=None)
        printed = CancellableStream(_printed(answer, framed=not has_terminal), answer)

        def end() -> None:
            with suppress(OSError), closing(answer):  # it has ended by itself
                printed.close()

        return printed, end


def _printed(answer: requests.Response, *, framed: bool) -> Iterator[bytes]:
    """Yield what a container printed; without a terminal it comes in frames."""
    frames = Frames()
    for chunk in answer.raw.stream(CHUNK, decode_content=False):
        if framed:
            yield from (content for _, content in frames.feed(chunk))
        else:
            yield chunk
