"""The images that an engine holds, and how it comes by more.

It must not know what they are for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

import docker.errors
from docker.utils import parse_repository_tag

from perry.errors import EngineFailure
from perry.workspace.engine.calls import Calls, translated
from perry.workspace.objects import Image

_NO_NAME = "<none>:<none>"
"""How engines before 24 call an image that has no name."""


class Images(Calls):
    """What can be asked about images, and done to them."""

    def get_image(self, reference: str) -> Image | None:
        """Look an image up by name, tag or id."""
        with translated(), suppress(docker.errors.NotFound):
            return Image.from_inspection(self._api.inspect_image(reference))
        return None

    def list_images(self, label: str) -> list[str]:
        """List the names of the images that carry a label or inherited it."""
        with translated():
            found = self._api.images(filters={"label": label})
        tags = [tag for image in found for tag in image.get("RepoTags") or ()]
        return [tag for tag in tags if tag != _NO_NAME]

    def list_leftovers(self, label: str) -> list[str]:
        """List the ids of the images that carry a label, have no name, and are no other's base."""
        with translated():
            found = self._api.images(filters={"label": label, "dangling": True})
        return [image["Id"] for image in found]

    def pull_image(self, reference: str) -> Iterator[str]:
        """Pull an image, yielding the engine's words as it goes."""
        repository, tag = parse_repository_tag(reference)
        with translated():
            stream = self._api.pull(repository, tag=tag or "latest", stream=True, decode=True)
            yield from _progress(stream)

    def build_image(
        self, context: BinaryIO, *, tag: str, target: str | None, arguments: Mapping[str, str]
    ) -> Iterator[str]:
        """Build an image from a tar of its context, yielding the lines of the build."""
        with translated():
            stream = self._api.build(
                fileobj=context,
                custom_context=True,
                tag=tag,
                target=target,
                buildargs=dict(arguments),
                rm=True,
                forcerm=True,
                decode=True,
            )
            yield from _progress(stream)

    def import_image(self, path: str, *, repository: str, tag: str) -> None:
        """Make an image of a tar of its root file system."""
        with translated(), open(path, "rb") as tar:  # noqa: PTH123 - docker-py wants a file object
            self._api.import_image_from_data(tar, repository=repository, tag=tag)

    def tag_image(self, reference: str, *, repository: str, tag: str) -> None:
        """Give an image another name."""
        with translated():
            self._api.tag(reference, repository, tag)

    def remove_image(self, reference: str) -> None:
        """Remove an image's name, and the image with its last one."""
        with translated(), suppress(docker.errors.NotFound):
            self._api.remove_image(reference)


def _progress(stream: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    for entry in stream:
        if "error" in entry:
            raise EngineFailure(str(entry["error"]).strip())
        text = str(entry.get("stream") or entry.get("status") or "").strip()
        if text:
            yield text
