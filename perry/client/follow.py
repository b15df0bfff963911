"""The events of a workspace or the host without an end, over as many connections as that takes.

Connections break and workers are replaced; what happened to the sessions meanwhile must not be
lost. An event counts as taken in when the next one is asked for, and each new connection goes on
from there. How a worker is reached, and revived where it is dead, is the caller's to know.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import tenacity

from perry.errors import PerryError, WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from perry.client.events import Event
    from perry.client.session_client import SessionClient

PATIENCE = 60.0  # s that a lost worker is tried to be reached again
PAUSE = 0.1  # s before that


class Follower:
    """Iterates over the events of one worker.

    `connect` reaches the worker and is called for every new connection; errors of the kinds in
    `passing` are waited out for `patience` seconds, but not at the first connection. The first
    event of each connection is `ready`, or `reset`.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[SessionClient]],
        since: str | None = None,
        *,
        passing: tuple[type[PerryError], ...] = (WorkerError,),
        patience: float = PATIENCE,
    ) -> None:
        self._connect = connect
        self._since = since
        self._passing = passing
        self._patience = patience
        self._client: SessionClient | None = None
        self._refused: PerryError | None = None
        self._refused_at: float | None = None

    @property
    def client(self) -> SessionClient:
        """The client that the last event came through, for further questions."""
        if self._client is None:
            raise RuntimeError("nothing was received yet")
        return self._client

    def again(self, error: PerryError) -> None:
        """Have the last event once more, over a new connection: it could not be taken in.

        Where that goes on for as long as a lost worker is waited for, `error` is raised.
        """
        self._refused = error

    def __iter__(self) -> Iterator[Event]:
        """Yield events; raises the connection's error where it stays lost for too long."""
        connection = self._opened()
        while True:
            with connection:
                yield from self._received(connection)
            time.sleep(PAUSE)  # a worker that ends every stream at once must not keep us busy
            connection = self._reopened()

    def _received(self, connection: _Connection) -> Iterator[Event]:
        event: Event | None = connection.first
        while event is not None:
            yield event
            if self._refused is not None:
                self._refuse(self._refused)
                return
            self._since, self._refused_at = event.id, None
            try:
                event = next(connection.events, None)
            except WorkerError:
                return  # lost; a new connection goes on from here, or says why there is none

    def _refuse(self, error: PerryError) -> None:
        now = time.monotonic()
        self._refused, self._refused_at = None, self._refused_at or now
        if now - self._refused_at > self._patience:
            raise error

    def _opened(self) -> _Connection:
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(self._connect())
            events = stack.enter_context(contextlib.closing(client.events(self._since)))
            first = next(events, None)
            if first is None:
                raise WorkerError(
                    f"The worker of {client.workspace} ended its events before they began.",
                    hint="Try again in a moment.",
                    workspace=client.workspace,
                )
            self._client = client
            return _Connection(first, events, stack.pop_all())

    def _reopened(self) -> _Connection:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(self._passing),
            stop=tenacity.stop_after_delay(self._patience),
            wait=tenacity.wait_exponential(multiplier=0.1, max=2.0) + tenacity.wait_random(0, 0.1),
            reraise=True,
        )
        return retrying(self._opened)


class _Connection:
    """An open stream: its first event, those after it, and what is to be closed at its end."""

    def __init__(
        self, first: Event, events: Iterator[Event], closing: contextlib.ExitStack
    ) -> None:
        self.first = first
        self.events = events
        self._closing = closing

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._closing.close()


def follow(
    connect: Callable[[], AbstractContextManager[SessionClient]], since: str | None = None
) -> Iterator[Event]:
    """Yield a worker's events and reconnect where the connection is lost, as Follower does."""
    return iter(Follower(connect, since))
