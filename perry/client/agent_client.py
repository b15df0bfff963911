"""The agent daemon's API, as far as the command line asks it.

The daemon has to prove that it has this user's token before it is sent, as a worker has: another
user's process may be listening on its port. That process may even ask the daemon on its real port
for the proof; so what is to be proved names the address that was asked, and the daemon proves
nothing that names another. This module must not know how the token was found.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from perry.archive.models import KeptHit
from perry.client.channel import OK, Channel, words_in
from perry.client.transport import over_tcp
from perry.errors import AgentError, AgentRefusal, AgentUnreachable, WorkerError, WorkerFailure
from perry.protocol import DEFAULT_PAGE
from perry.sessions.models import Session

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from perry.archive.models import Filters

T = TypeVar("T")

TIMEOUT = 3.0  # s that a daemon may be silent
SEARCH_TIMEOUT = 40.0  # s: longer than it has the workers look
CONNECT_TIMEOUT = 1.0  # s
END_PATIENCE = 10.0  # s that a daemon may take to end
POLL = 0.02  # s


class AgentEngine(msgspec.Struct, frozen=True):
    """Whether the daemon reaches its engine, and if not, why."""

    reachable: bool
    error: str | None = None


class AgentArchive(msgspec.Struct, frozen=True):
    """How many sessions the archive hasn't taken in yet, and why it can't, if it can't."""

    pending: int
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
    archive: AgentArchive
    places: tuple[AgentPlace, ...]


class AgentSession(Session, frozen=True, kw_only=True, rename="camel", gc=False):
    """A session, its place, and where it stands: `live`, `stopped` or `archived`."""

    workspace: str
    standing: str


class AgentFailure(msgspec.Struct, frozen=True):
    """A place that couldn't be searched, and why."""

    error: str
    workspace: str
    hint: str | None = None


class AgentFound(msgspec.Struct, frozen=True):
    """What `GET /api/search` answers: hits in their order, and the sessions they are in.

    `by` is `archive` or `workers`; `pending` is how many sessions the archive hasn't taken in yet
    as they are now.
    """

    hits: tuple[KeptHit, ...]
    sessions: tuple[AgentSession, ...]
    failures: tuple[AgentFailure, ...]
    by: str
    pending: int


class AgentClient:
    """Asks the daemon at a base URL, whose host is an address; a context manager.

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
            audience=f"{urlsplit(url).netloc}/",
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
        return self._decoded(self._ask("GET", "/api/status"), AgentStatus)

    def search(
        self, words: str, filters: Filters, *, limit: int = DEFAULT_PAGE, offset: int = 0
    ) -> AgentFound:
        """Find messages that have all words, "phrases" and prefixes*; the best come first.

        Where the daemon can't use the archive it has the workers look, which know of `filters` the
        workspace, the coding agent and `since` alone. Raises AgentRefusal where it knows no such
        workspace (404), or can't be asked so.
        """
        given = {**msgspec.structs.asdict(filters), "q": words, "limit": limit, "offset": offset}
        params = {name: str(value) for name, value in given.items() if value not in (None, "")}
        if not offset:
            del params["offset"]  # only the archive knows what that is
        body = self._ask("GET", "/api/search", params, timeout=SEARCH_TIMEOUT)
        return self._decoded(body, AgentFound)

    def _decoded(self, body: bytes, shape: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise AgentError(
                f"What the agent daemon at {self._url} says makes no sense: {error}",
                hint="It may be of another version: perry agent stop, then perry agent serve.",
            ) from error

    def stop(self) -> None:
        """Ask the daemon to end, and return when it has."""
        self._ask("POST", "/api/stop")
        deadline = time.monotonic() + END_PATIENCE
        while self._is_listening():
            if time.monotonic() > deadline:
                raise AgentError(
                    f"The agent daemon at {self._url} still runs after {END_PATIENCE:g} s",
                    hint="perry agent status shows its process, which can be killed.",
                )
            time.sleep(POLL)

    def _is_listening(self) -> bool:
        """Tell whether anybody has the port; the daemon keeps it until it has ended."""
        address = urlsplit(self._url)
        try:
            socket.create_connection((address.hostname, address.port), CONNECT_TIMEOUT).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True

    def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> bytes:
        with self._errors():
            self._channel.prove()  # once: who isn't there now is not waited for
            answer = self._channel.ask(method, path, params, timeout=timeout)
        if answer.status != OK:
            raise AgentRefusal(
                f"The agent daemon answered {answer.status}: {words_in(answer)}",
                status=answer.status,
            )
        return answer.body

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except WorkerFailure as error:
            raise AgentError(
                f"What the agent daemon at {self._url} answers can't be read",
                hint="perry agent stop ends it; perry agent serve starts one.",
            ) from error
        except WorkerError as error:
            raise AgentUnreachable(
                f"No agent daemon of yours answers at {self._url}",
                hint="perry agent serve starts one.",
            ) from error
