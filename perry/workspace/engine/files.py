"""The files of containers, running or not, through the engine's archive API.

It must not know what is in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import docker.errors
import requests
import requests.exceptions

from perry.errors import EngineFailure
from perry.workspace import archive
from perry.workspace.engine.calls import CHUNK, NOT_FOUND, Calls, translated
from perry.workspace.objects import PathStat


class Files(Calls):
    """What can be read of containers' files, and written."""

    def read_file(self, container_id: str, path: str) -> bytes | None:
        """Read a file through the archive API; None where there is none.

        Links are followed by the engine inside the container's own root only.
        """
        with translated(), suppress(docker.errors.NotFound):
            stream, _ = self._api.get_archive(container_id, path)
            return archive.only_file(stream)
        return None

    def read_owner(self, container_id: str, path: str) -> tuple[int, int] | None:
        """Return the (uid, gid) of a path in a container; None where there is no such path."""
        with translated(), suppress(docker.errors.NotFound):
            stream, _ = self._api.get_archive(container_id, path)
            return archive.first_owner(stream)
        return None

    def stat(self, container_id: str, path: str) -> PathStat | None:
        """Return what a path in a container is, of a link the link; None where there is nothing."""
        with translated(), closing(self._archive("HEAD", container_id, path)) as answer:
            if answer.status_code == NOT_FOUND:
                return None
            return PathStat.from_header(answer.headers["X-Docker-Container-Path-Stat"])

    @contextmanager
    def open_archive(self, container_id: str, path: str) -> Iterator[Iterator[bytes] | None]:
        """Stream a tar of a path in a container; None where there is nothing.

        A path that ends in `/.` is a directory, and a link to one is followed, by the engine and
        inside the container's own root only.
        """
        with translated(), closing(self._archive("GET", container_id, path)) as answer:
            missing = answer.status_code == NOT_FOUND
            yield None if missing else answer.iter_content(CHUNK)

    def write_archive(self, container_id: str, path: str, tar: bytes) -> None:
        """Unpack a tar in a container, at a directory that exists."""
        with translated():
            self._api.put_archive(container_id, path, tar)

    def copy(self, source_id: str, path: str, target_id: str, directory: str) -> None:
        """Copy a path of one container into a directory of another, as a stream."""
        with translated():
            stream, _ = self._api.get_archive(source_id, path)
            try:
                self._api.put_archive(target_id, directory, stream)
            except requests.exceptions.ConnectionError as error:
                # It hangs up on a stream that it can't unpack any further, before it says why.
                raise EngineFailure(
                    f"Docker: broke off while it wrote to {directory}; its disk may be full"
                ) from error

    def _archive(self, method: str, container_id: str, path: str) -> requests.Response:
        # docker-py's own call can't stat, and waits forever for a stream that stalls.
        return self._ask(method, f"/containers/{container_id}/archive", {"path": path})
