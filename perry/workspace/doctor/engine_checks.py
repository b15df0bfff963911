"""What may be wrong with the engine, and with what perry keeps on it.

What several checks need is asked once. It must not know how a worker is asked.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from perry.errors import BuildError, EngineFailure
from perry.workspace import bundle, image, wheels
from perry.workspace import key as keys
from perry.workspace.bundle import Bundle
from perry.workspace.doctor import inotify, space
from perry.workspace.doctor.finding import Check, Verdict, failure, ok, warning
from perry.workspace.engine import Engine
from perry.workspace.manager import WorkspaceManager
from perry.workspace.models import Survey, Workspace
from perry.workspace.objects import Container

LEAST_API = (1, 35)
"""Docker 17.12: the first whose programs in containers can be told their working directory."""

CLOCKS = 2.0
"""Seconds that the engine's clock may differ."""

BUILD = "perry image build"


@dataclass(frozen=True)
class Told:
    """The engine's description of itself, and when it was asked and answered, by the clock here."""

    info: Mapping[str, Any]
    asked: float
    answered: float

    @property
    def is_here(self) -> bool:
        """Whether the engine's machine is this one."""
        there = self.info.get("Name"), self.info.get("KernelVersion")
        return there == (platform.node(), platform.release())

    @property
    def time(self) -> float:
        """The engine's time, in seconds since the epoch."""
        return datetime.fromisoformat(self.info["SystemTime"]).timestamp()


class EngineSeen:
    """One engine, connected to by the first check that needs it.

    What was found out is kept; what could not be is raised once, to the check that asked for it,
    and not there for whoever asks again.
    """

    def __init__(self, connect: Callable[[], Engine]) -> None:
        self._connect = connect
        self._engine: Engine | None = None
        self._told: Told | None = None
        self._survey: Survey | None = None
        self._members: tuple[tuple[Workspace, Container], ...] | None = None
        self._bundle: Bundle | None = None
        self._key: bytes | None = None
        self._known: set[str] = set()

    @property
    def engine(self) -> Engine:
        """The engine. Raises EngineUnreachable."""
        if self._engine is None:
            self._engine = self._connect()
        return self._engine

    @property
    def told(self) -> Told:
        """What the engine says of itself."""
        if self._told is None:
            engine, asked = self.engine, time.time()
            info = engine.describe()
            self._told = Told(info, asked, time.time())
        return self._told

    @property
    def survey(self) -> Survey:
        """The workspaces, and the containers that say that they are one and aren't."""
        if self._survey is None:
            self._survey = WorkspaceManager(self.engine).survey()
        return self._survey

    @property
    def members(self) -> tuple[tuple[Workspace, Container], ...]:
        """The workspaces with their containers; one that has gone meanwhile is left out."""
        if self._members is None:
            found = [
                (it, self.engine.get_container(it.container_id)) for it in self.survey.workspaces
            ]
            self._members = tuple((it, container) for it, container in found if container)
        return self._members

    @property
    def running(self) -> list[Workspace]:
        """The workspaces that run."""
        return [workspace for workspace, _ in self.members if workspace.is_running]

    @property
    def bundle(self) -> Bundle | None:
        """The bundle of this perry, None where its runtime image is missing."""
        if self._is_new("bundle"):
            self._bundle = bundle.find_bundle(self.engine)
        return self._bundle

    @property
    def key(self) -> bytes | None:
        """The engine's own key, None where no bundle was filled yet. Raises BuildError."""
        if self._is_new("key"):
            keeper = next(iter(bundle.list_keepers(self.engine)), None)
            self._key = None if keeper is None else keys.stored(self.engine, keeper.id)
        return self._key

    def token(self, container_id: str) -> str:
        """Return the token that the engine's key makes. Raises BuildError where there is no key."""
        key = self.key or keys.cached(self.engine)
        if key is None:
            raise BuildError(
                "The engine's key can't be read, so the worker can't be asked",
                hint="perry workspace sync --all makes what is missing.",
            )
        return keys.token(key, container_id)

    def _is_new(self, name: str) -> bool:
        is_new = name not in self._known
        self._known.add(name)
        return is_new


def connection(seen: EngineSeen) -> Verdict:
    """Judge whether an engine answers; that none does is the engine's own error."""
    told = seen.told
    where = f"{told.info.get('Name')}, {told.info.get('OperatingSystem')}"
    return ok(f"answers in {(told.answered - told.asked) * 1000:.0f} ms: {where}")


def version(seen: EngineSeen) -> Verdict:
    """Judge whether the engine is new enough."""
    least = ".".join(map(str, LEAST_API))
    found = f"Docker {seen.told.info.get('ServerVersion')}, API {seen.engine.api_version}"
    if tuple(map(int, seen.engine.api_version.split("."))) < LEAST_API:
        return failure(
            f"{found}; perry needs API {least}, to start programs where they belong",
            "Update Docker to 17.12 or newer.",
        )
    return ok(f"{found}; perry needs API {least}")


def architecture(seen: EngineSeen) -> Verdict:
    """Judge whether there is a worker for what the engine runs."""
    kind, system = seen.engine.architecture, seen.told.info.get("OSType", "linux")
    if system != "linux" or kind not in wheels.MACHINES:
        there_are = " and ".join(sorted(wheels.MACHINES))
        return failure(
            f"{system}/{kind}: perry has workers for linux on {there_are} only",
            "Use another engine: set DOCKER_HOST, or docker context use.",
        )
    return ok(f"{system}/{kind}")


def clock(seen: EngineSeen) -> Verdict:
    """Judge the engine's clock by this machine's."""
    return clocks(seen.told.time, seen.told.asked, seen.told.answered)


def clocks(there: float, asked: float, answered: float) -> Verdict:
    """Judge a time that the engine gave between two moments here, in seconds since the epoch."""
    difference = max(asked - there, there - answered, 0.0)
    if difference > CLOCKS:
        word = "behind" if there < asked else "ahead"
        return warning(
            f"the engine's clock is {difference:.1f} s {word} of this machine's",
            "Set both by NTP: sudo timedatectl set-ntp true",
        )
    return ok("the engine's clock and this machine's agree")


def images(seen: EngineSeen) -> Verdict:
    """Judge whether perry's images are there."""
    wanted = image.workspace_reference(), image.runtime_reference()
    missing = [it for it in wanted if seen.engine.get_image(it) is None]
    if missing:
        return warning(f"not on the engine yet: {', '.join(missing)}", BUILD)
    return ok(", ".join(wanted))


def filled(seen: EngineSeen) -> Verdict:
    """Judge whether the engine holds this perry's bundle; what needs it fills it."""
    wanted = seen.bundle
    if wanted is None or not bundle.is_complete(seen.engine, wanted):
        of = "" if wanted is None else f" ({wanted.digest})"
        return ok(f"this perry's{of} is not there yet: the first init, start or sync fills it")
    return ok(f"{wanted.digest} is complete")


def key(seen: EngineSeen) -> Verdict:
    """Judge whether the engine's key can be read, and whether the one that is cached is the same.

    Raises BuildError where there is none though there should be.
    """
    stored, cached = seen.key, keys.cached(seen.engine)
    if stored is None:
        return ok("can't be read before the bundle is there: the first init makes it")
    if cached is not None and cached != stored:
        return failure(
            "this user's cache has another key than the engine",
            f"rm {keys.cache_file(seen.engine)}",
        )
    return ok("can be read; " + ("cached" if cached else "not in this user's cache yet"))


def disk(seen: EngineSeen) -> Verdict:
    """Judge the free space where the engine keeps images, containers and volumes."""
    root = seen.told.info.get("DockerRootDir", "")
    found = _space_of(seen, root)
    if found is None:
        return ok(f"{root}: its free space can't be told from here while no workspace runs there")
    return found.judge(
        root, "docker system df shows what takes it; docker builder prune frees some"
    )


def watches(seen: EngineSeen) -> Verdict:
    """Judge the kernel's limits on watching files, where the engine's kernel is this one."""
    if not seen.told.is_here:
        return ok("the limits are another machine's; a worker that meets one polls, and says so")
    return inotify.limits(inotify.INSTANCES, inotify.WATCHES, len(seen.running))


def workspaces(seen: EngineSeen) -> Verdict:
    """Count the workspaces, and judge what says that it is one and isn't."""
    running, there = len(seen.running), len(seen.members)
    told = f"{there} on this engine, {running} of them running" if there else "none yet"
    overlooked = seen.survey.overlooked
    if overlooked:
        more = f" (and {len(overlooked) - 1} more)" if len(overlooked) > 1 else ""
        return warning(f"{told}. {overlooked[0].reason}{more}", overlooked[0].hint)
    return ok(told)


CHECKS: Mapping[str, Check[EngineSeen]] = {
    "connection": connection,
    "version": version,
    "architecture": architecture,
    "clock": clock,
    "images": images,
    "bundle": filled,
    "key": key,
    "disk": disk,
    "inotify": watches,
    "workspaces": workspaces,
}


def _space_of(seen: EngineSeen, root: str) -> space.Space | None:
    """Look at the disk of the engine's directory: from here, or through a workspace's bundle.

    The bundle's volume is in that directory. None where neither can be.
    """
    if seen.told.is_here:
        try:
            return space.here(Path(root))
        except OSError:
            pass  # the engine's machine, but not its files: it is in a container of its own
    for workspace, container in seen.members:
        if workspace.is_running and bundle.is_mounted(container):
            try:
                return space.inside(seen.engine, container.id, bundle.ROOT)
            except EngineFailure:
                continue  # another one may let us look
    return None
