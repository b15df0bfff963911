"""One place's sessions, brought into the mirror for as long as its events come.

The same for the host, a workspace and a snapshot: whatever satisfies SessionClient. It must not
know how the place is reached, or what to do when it is lost.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from perry.errors import WorkerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from perry.agent.mirror import Mirror
    from perry.agent.models import Place
    from perry.client.session_client import SessionClient

_TAKING_IN = ThreadPoolExecutor(1, "taking-in")
"""Takes in whole lists, one after the other as they have to be. The C library keeps for a thread
what it has freed: with a thread for each place that would be megabytes."""


def follow(
    client: SessionClient, mirror: Mirror, place: Place, *, begun: Callable[[], None]
) -> None:
    """Mirror a place until its events end; `begun` is called once all its sessions are there.

    The whole list is read after the stream is open: what changes in between comes twice, and
    counts once. Raises what the client raises, WorkerError for events that end before they began,
    and LedgerUnwritable.
    """
    is_greeted = False
    with contextlib.closing(client.events()) as events:
        for event in events:
            if event.kind in {"ready", "reset"}:
                sessions = client.list_sessions(children=True)
                _TAKING_IN.submit(mirror.replace, place, sessions).result()
                del sessions
                begun()
                is_greeted = True
            elif event.session is not None:
                mirror.put(place.name, event.session)
            elif event.session_id is not None:
                mirror.drop(place.name, event.agent_type or "", event.session_id)
    if not is_greeted:
        raise WorkerError(
            f"The events of '{place.name}' ended before they began",
            hint="Try again in a moment.",
            workspace=place.name,
        )
