"""The record of an adoption: a small volume whose labels say which container is which workspace.

A container that exists can't be given a label, so what is to be remembered of one that perry didn't
make is kept beside it. There are two kinds: a container is *adopted* as a workspace, or, where its
own label would make it one, it was *let go of*. It must not know which containers are workspaces.
"""

from __future__ import annotations

from dataclasses import dataclass

from perry.errors import EngineFailure
from perry.workspace import names
from perry.workspace.engine import CONFLICT, Engine
from perry.workspace.objects import Container, Volume


@dataclass(frozen=True)
class Record:
    """What is recorded of one container; `released` says that it was let go of."""

    volume: str
    container_id: str
    workspace: str
    released: bool


class Adoptions:
    """What is recorded on an engine; where two say something of one container, the oldest counts.

    That it is adopted counts more than that it was let go of.
    """

    def __init__(self, found: list[Record]) -> None:
        self.all = tuple(found)
        self._by_container: dict[str, Record] = {}
        for record in sorted(found, key=lambda it: it.released):
            self._by_container.setdefault(record.container_id, record)

    @classmethod
    def read(cls, engine: Engine) -> Adoptions:
        """Read all records."""
        volumes = engine.list_volumes(names.CONTAINER_LABEL)
        found = [_record(volume) for volume in sorted(volumes, key=lambda it: it.created_at)]
        return cls([record for record in found if record.workspace])

    def of(self, container: Container) -> Record | None:
        """Return what counts for a container."""
        return self._by_container.get(container.id)

    def adopted(self, name: str | None = None) -> list[Record]:
        """Return the records of adopted containers, all of them or those of one workspace."""
        return [it for it in self.all if not it.released and name in (None, it.workspace)]


def record_adopted(engine: Engine, container: Container, name: str) -> Record:
    """Record that a container is a workspace, unless another one is recorded as that already.

    Returns what is recorded under the name then.
    """
    volume = names.adoption_volume(name)
    labels = {names.LABEL: name, names.CONTAINER_LABEL: container.id}
    return _record(engine.create_volume(volume, labels))


def record_released(engine: Engine, container: Container, name: str) -> None:
    """Record that a container was let go of, whatever its own label says."""
    labels = {names.RELEASED_LABEL: name, names.CONTAINER_LABEL: container.id}
    engine.create_volume(names.release_volume(container.id), labels)


def forget(engine: Engine, record: Record) -> None:
    """Remove a record."""
    try:
        engine.remove_volume(record.volume)
    except EngineFailure as failure:
        if failure.status != CONFLICT:  # somebody mounts it: it stays until they don't
            raise


def _record(volume: Volume) -> Record:
    released = volume.labels.get(names.RELEASED_LABEL)
    return Record(
        volume=volume.name,
        container_id=volume.labels.get(names.CONTAINER_LABEL, ""),
        workspace=released or volume.labels.get(names.LABEL, ""),
        released=released is not None,
    )
