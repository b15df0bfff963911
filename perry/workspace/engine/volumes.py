"""The volumes that an engine holds.

It must not know what is in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import docker.errors

from perry.workspace.engine.calls import Calls, translated
from perry.workspace.objects import Volume


class Volumes(Calls):
    """What can be asked about volumes, and done to them."""

    def create_volume(self, name: str, labels: Mapping[str, str]) -> Volume:
        """Create a volume, or return the one of that name with the labels it has."""
        with translated():
            found = self._api.create_volume(name, labels=dict(labels))
        return Volume.from_inspection(found)

    def get_volume(self, name: str) -> Volume | None:
        """Look a volume up by name."""
        with translated(), suppress(docker.errors.NotFound):
            return Volume.from_inspection(self._api.inspect_volume(name))
        return None

    def list_volumes(self, label: str) -> list[Volume]:
        """List the volumes that carry a label (`key` or `key=value`)."""
        with translated():
            found = self._api.volumes(filters={"label": label}).get("Volumes") or []
        return [Volume.from_inspection(volume) for volume in found]

    def remove_volume(self, name: str) -> None:
        """Remove a volume and what is in it."""
        with translated(), suppress(docker.errors.NotFound):
            self._api.remove_volume(name)
