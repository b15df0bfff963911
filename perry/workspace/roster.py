"""Which containers are workspaces: found, listed, adopted, let go of.

Three kinds are: perry's own (called `workspace-NAME`, with NAME as their own label), any other with
such a label of its own, and those that a record names. Labels that come from the image don't count:
images and `docker commit` hand them on. Docker is asked every time, and nothing is remembered. It
must not know workers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from perry.errors import (
    ForeignContainer,
    UsageError,
    WorkspaceConflict,
    WorkspaceNotFound,
    WorkspaceNotRunning,
)
from perry.workspace import adoption, bundle, names
from perry.workspace.adoption import Adoptions, Record
from perry.workspace.engine import Engine
from perry.workspace.models import Overlooked
from perry.workspace.objects import Container, Image

_REFERENCE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
"""What may be a container's name or id: nothing else belongs into a path of the engine's API."""


@dataclass(frozen=True)
class Member:
    """One workspace and its container; `adopted` says that perry didn't make it."""

    name: str
    container: Container
    adopted: bool


@dataclass(frozen=True)
class Roll:
    """The workspaces by name, and the containers that say they are one and aren't."""

    members: tuple[Member, ...]
    overlooked: tuple[Overlooked, ...]

    def holder(self, name: str) -> Member | None:
        """Return the workspace of a name."""
        return next((it for it in self.members if it.name == name), None)

    def member(self, container: Container) -> Member | None:
        """Return the workspace that a container is."""
        return next((it for it in self.members if it.container.id == container.id), None)


class Roster:
    """The workspaces of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def call(self) -> Roll:
        """Find all workspaces; records whose container is gone are removed on the way."""
        adoptions = Adoptions.read(self._engine)
        listed = [it.id for it in self._engine.list_containers(names.LABEL)]
        recorded = [it.container_id for it in adoptions.adopted()]
        containers = self._containers([*listed, *recorded])
        self._forget_gone(adoptions.all, containers)
        claims, overlooked = list[Member](), list[Overlooked]()
        for claim in self._claims(containers, adoptions):
            if names.is_valid(claim.name):
                claims.append(claim)
            else:
                overlooked.append(_nameless(claim))
        members, losers = _settle(claims)
        return Roll(tuple(members), (*overlooked, *losers))

    def find(self, name: str) -> Member | None:
        """Return the workspace of a name, None where there is none.

        Raises UsageError for what can't be a name, and ForeignContainer where the container that
        perry would make is somebody else's.
        """
        container = self._engine.get_container(names.container(names.validate(name)))
        if container is not None and self._own_label(container, {}) == name:
            return Member(name, container, adopted=False)
        adoptions = Adoptions.read(self._engine)
        records = adoptions.adopted(name)
        listed = [it.id for it in self._engine.list_containers(f"{names.LABEL}={name}")]
        containers = self._containers([*listed, *(it.container_id for it in records)])
        self._forget_gone(records, containers)
        claims = self._claims(containers, adoptions)
        members, _ = _settle(it for it in claims if it.name == name)
        if members:
            return members[0]
        if container is None:
            return None
        raise ForeignContainer(
            f"There is a container '{container.name}' that isn't perry's",
            hint="Choose another name for the workspace; perry leaves that container alone. To "
            f"make it a workspace as it is: perry workspace adopt {container.name} {name}",
            workspace=name,
        )

    def require(self, name: str) -> Member:
        """Return the workspace of a name. Raises WorkspaceNotFound, and what `find` raises."""
        member = self.find(name)
        if member is None:
            raise WorkspaceNotFound(
                f"There is no workspace '{name}'",
                hint=f"perry workspace list shows them; perry workspace init {name} makes it.",
                workspace=name,
            )
        return member

    def require_running(self, name: str) -> Member:
        """Return the running workspace of a name. Raises WorkspaceNotRunning, and as `require`."""
        member = self.require(name)
        if not member.container.is_running:
            raise not_running(name, member.container.state)
        return member

    def suggest_name(self, reference: str) -> str:
        """Return what a container would be adopted as: what it is, its own label, or its name.

        Raises WorkspaceNotFound where there is no such container, and UsageError.
        """
        container = self._container(reference)
        member = self.call().member(container)
        if member is not None:
            return member.name
        label = self._own_label(container, {})
        return label if label and names.is_valid(label) else names.from_container(container.name)

    def adopt(self, reference: str, name: str) -> Member:
        """Make a workspace of a container, by name or id; one that it is already is left so.

        Raises WorkspaceNotFound where there is no such container, UsageError for one of perry's own
        helpers, and WorkspaceConflict where the container, or the name, is another workspace.
        """
        names.validate(name)
        container = self._container(reference)
        roll = self.call()
        present, holder = roll.member(container), roll.holder(name)
        if present is not None and present.name == name:
            return present
        if present is not None:
            raise _other_name(present)
        if holder is not None:
            raise _taken(container, name, holder.container.name)
        self._record(container, name)
        return Member(name, container, adopted=True)

    def release(self, member: Member) -> None:
        """Let go of an adopted workspace: its container is none any more, and is left as it is."""
        label = self._own_label(member.container, {})
        if label is not None:
            adoption.record_released(self._engine, member.container, label)
        for record in Adoptions.read(self._engine).adopted():
            if record.container_id == member.container.id:
                adoption.forget(self._engine, record)

    def _record(self, container: Container, name: str) -> None:
        """Make a container's claim to a name count; where another perry was quicker, it stays."""
        former = Adoptions.read(self._engine).all
        recorded = None
        if self._own_label(container, {}) != name:
            recorded = adoption.record_adopted(self._engine, container, name)
            if recorded.container_id != container.id:
                raise _taken(container, name, recorded.container_id[:12])
        for record in former:
            if record.container_id == container.id and record != recorded:
                adoption.forget(self._engine, record)

    def _container(self, reference: str) -> Container:
        is_one = _REFERENCE.fullmatch(reference)
        container = self._engine.get_container(reference) if is_one else None
        if container is None:
            raise WorkspaceNotFound(
                f"There is no container '{reference}'", hint="docker ps --all shows them."
            )
        if bundle.is_perrys_own(container):
            raise UsageError(f"The container '{container.name}' is one of perry's own helpers")
        return container

    def _containers(self, ids: Iterable[str]) -> list[Container]:
        found = [self._engine.get_container(one) for one in dict.fromkeys(ids)]
        return [container for container in found if container is not None]

    def _forget_gone(self, records: Iterable[Record], present: list[Container]) -> None:
        there = {container.id for container in present}
        for record in records:
            if record.container_id in there:
                continue
            if self._engine.get_container(record.container_id) is None:
                adoption.forget(self._engine, record)

    def _claims(self, containers: list[Container], adoptions: Adoptions) -> Iterator[Member]:
        """Yield what each container says it is: a record counts more than its own label."""
        images: dict[str, Image | None] = {}
        for container in containers:
            record = adoptions.of(container)
            label = self._own_label(container, images) if record is None else None
            if record is not None and not record.released:
                yield Member(record.workspace, container, adopted=True)
            elif label is not None:
                yield Member(label, container, adopted=container.name != names.container(label))

    def _own_label(self, container: Container, images: dict[str, Image | None]) -> str | None:
        """Return a container's label where it isn't its image's; images are looked up once."""
        label = container.labels.get(names.LABEL)
        if label is None or bundle.is_perrys_own(container):
            return None
        if container.image_id not in images:
            images[container.image_id] = self._engine.get_image(container.image_id)
        image = images[container.image_id]
        return label if image is None or image.labels.get(names.LABEL) != label else None


def not_running(name: str, state: str) -> WorkspaceNotRunning:
    """Return the error for what needs a workspace to run."""
    return WorkspaceNotRunning(
        f"The workspace '{name}' doesn't run ({state})",
        hint=f"Start it: perry workspace start {name}",
        workspace=name,
    )


def _settle(claims: Iterable[Member]) -> tuple[list[Member], list[Overlooked]]:
    """Give each name to one container: perry's own, else the oldest."""
    members: dict[str, Member] = {}
    losers: list[Overlooked] = []
    for claim in sorted(claims, key=_precedence):
        holder = members.setdefault(claim.name, claim)
        if holder is not claim:
            losers.append(_rival(claim, holder))
    return list(members.values()), losers


def _precedence(claim: Member) -> tuple[str, bool, str]:
    # without the Z, times of the engine sort as text, however many digits they have
    return claim.name, claim.adopted, claim.container.created_at.rstrip("Z")


def _rival(claim: Member, holder: Member) -> Overlooked:
    return Overlooked(
        claim.container.name,
        f"The container '{claim.container.name}' claims to be the workspace '{claim.name}', which "
        f"is the container '{holder.container.name}'",
        f"Give it another name: perry workspace adopt {claim.container.name} NAME",
    )


def _nameless(claim: Member) -> Overlooked:
    return Overlooked(
        claim.container.name,
        f"The container '{claim.container.name}' has the label {names.LABEL}={claim.name}, which "
        "can't be a workspace's name",
        f"Give it one: perry workspace adopt {claim.container.name} NAME",
    )


def _other_name(present: Member) -> WorkspaceConflict:
    hint = (
        f"Let go of it first: perry workspace remove {present.name}"
        if present.adopted
        else "perry made it, and its name stays."
    )
    return WorkspaceConflict(
        f"The container '{present.container.name}' is the workspace '{present.name}' already",
        hint=hint,
        workspace=present.name,
    )


def _taken(container: Container, name: str, holder: str) -> WorkspaceConflict:
    return WorkspaceConflict(
        f"The container '{container.name}' can't be the workspace '{name}': that is the container "
        f"'{holder}' already",
        hint=f"Give it another name: perry workspace adopt {container.name} NAME",
        workspace=name,
    )
