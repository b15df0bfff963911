"""The Docker engine, as perry sees it: the only package that imports docker.

Everything else speaks of containers, volumes and images in the shapes of `objects.py`. Each kind of
thing that an engine holds is a module of it; docker-py's errors become perry's in here and nowhere
else, almost all of them in `calls.py`. It must not know what a workspace or a worker is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from perry.workspace.engine.calls import CONFLICT, NOT_FOUND, translated
from perry.workspace.engine.containers import Containers
from perry.workspace.engine.endpoint import connected
from perry.workspace.engine.files import Files
from perry.workspace.engine.images import Images
from perry.workspace.engine.programs import Programs
from perry.workspace.engine.volumes import Volumes
from perry.workspace.objects import EngineEvent

__all__ = ["CONFLICT", "NOT_FOUND", "Engine"]

EVENTS = (
    "start", "die", "pause", "unpause", "destroy", "rename", "exec_start", "exec_die",
    "connect", "disconnect",
)  # fmt: skip
"""What happens to containers and is told of; the last two in networks."""


class Engine(Images, Volumes, Containers, Files, Programs):
    """One Docker engine.

    Every method raises EngineUnreachable where no engine answers and EngineFailure for its errors;
    what is looked up and isn't there is None, and removing what is gone succeeds.
    """

    @classmethod
    def connect(cls) -> Engine:
        """Connect to the engine that DOCKER_HOST or the current Docker context names."""
        return cls(connected())

    def close(self) -> None:
        """Give the connections back."""
        self._api.close()

    @cached_property
    def architecture(self) -> str:
        """The architecture of the images the engine runs, in Docker's words (`amd64`)."""
        with translated():
            return str(self._api.version()["Arch"])

    @property
    def api_version(self) -> str:
        """The version of its API that the engine is asked in (`1.41`)."""
        return str(self._api.api_version)

    @cached_property
    def id(self) -> str:
        """The engine's own id."""
        return str(self.describe()["ID"])

    def now(self) -> int:
        """Return the time by the engine's own clock, in seconds since the epoch."""
        with translated(), closing(self._ask("GET", "/_ping")) as answer:
            return int(parsedate_to_datetime(answer.headers["Date"]).timestamp())

    def describe(self) -> Mapping[str, Any]:
        """Return the engine's own description (`ID`, `Architecture`, `ServerVersion`…)."""
        with translated():
            return dict(self._api.info())

    def events(self, since: float, until: float | None = None) -> Iterator[EngineEvent]:
        """Yield what happens to containers from a moment on, for good or until another.

        Both are in seconds since the epoch, by the engine's clock.
        """
        with translated():
            stream = self._api.events(
                since=f"{since:.9f}",
                until=until,
                decode=True,
                filters={"type": ["container", "network"], "event": list(EVENTS)},
            )
            for found in stream:
                yield EngineEvent.from_message(found)
