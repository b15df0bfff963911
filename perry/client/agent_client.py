"""The agent daemon's API, as far as the command line asks it.

The daemon has to prove that it has this user's token before it is sent, as a worker has: another
user's process may be listening on its port. This module must not know how the token was found.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

import msgspec

from perry.client.channel import OK, Channel, words_in
from perry.client.transport import over_tcp
from perry.errors import AgentError, AgentUnreachable, WorkerError, WorkerFailure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

TIMEOUT = 5.0  # s that a daemon may be silent
CONNECT_TIMEOUT = 1.0  # s


class AgentEngine(msgspec.Struct, frozen=True):
    """Whether the daemon reaches its engine, and if not, why."""

    reachable: bool
    error: str | None = None


class AgentPlace(msgspec.Struct, frozen=True, rename="camel"):
    """How the daemon knows one place's sessions; see `docs/http-api.md`."""

    name: str
    state: str
    via: str
    as_of: int | None = None
    error: str | None = None


class AgentStatus(msgspec.Struct, frozen=True, rename="camel"):
    """What `GET /api/status` answers; `started_at` is in ms since the epoch."""

    version: str
    pid: int
    started_at: int
    engine: AgentEngine
    watch: str | None
    places: tuple[AgentPlace, ...]


class AgentClient:
    """Asks the daemon at a base URL; a context manager.

    Every method may raise AgentUnreachable and AgentError.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._channel = Channel(
            url,
            token,
            workspace="the agent daemon",
            transport=over_tcp,
            timeout=TIMEOUT,
            connect_timeout=CONNECT_TIMEOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.close()

    def status(self) -> AgentStatus:
        """Ask how the daemon is."""
        with self._errors():
            answer = self._channel.ask("GET", "/api/status")
            if answer.status != OK:
                raise AgentError(f"The agent daemon answered {answer.status}: {words_in(answer)}")
            return msgspec.json.decode(answer.body, type=AgentStatus)

    def stop(self) -> None:
        """Ask the daemon to end."""
        with self._errors():
            answer = self._channel.ask("POST", "/api/stop")
            if answer.status != OK:
                raise AgentError(f"The agent daemon answered {answer.status}: {words_in(answer)}")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (WorkerFailure, msgspec.DecodeError) as error:
            raise AgentError(f"What answers at {self._url} makes no sense: {error}") from error
        except WorkerError as error:
            raise AgentUnreachable(
                f"No agent daemon of yours answers at {self._url}",
                hint="perry agent serve starts one.",
            ) from error
