"""Several places at once, each told of at the moment that it says something.

Every workspace, and the host, is listened to in a thread of its own, and what they hear comes out
of one queue in the main thread, so that the slowest holds up nobody and the broken one hides
nobody. This module must not know what is heard, or how a worker is reached.
"""

from __future__ import annotations

import io
import queue
import select
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from perry.cli.host import Host
from perry.errors import PerryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from perry.cli.fleet import Place

T = TypeVar("T")

WAITING = 1000
"""Things heard and not yet taken; beyond it the workers wait, and skip what is overtaken."""

LATECOMERS = 2.0
"""Seconds after which workspaces that were started meanwhile are looked for."""


@dataclass(frozen=True)
class Ended:
    """Nothing more comes from a place, because of an error."""

    workspace: str
    error: PerryError


@dataclass(frozen=True)
class _Closed:
    """Nobody reads our output any more."""


@dataclass(frozen=True)
class _Done:
    """Nothing more comes from a place."""

    place: Place


@dataclass(frozen=True)
class _Listed:
    """The workspaces that run now."""

    workspaces: Sequence[Place]


@dataclass(frozen=True)
class _Heard(Generic[T]):
    item: T


@dataclass(frozen=True)
class _Failed:
    """An error of our own, to be raised in the main thread."""

    error: Exception


Coming = queue.Queue[_Heard[T] | Ended | _Done | _Listed | _Closed | _Failed]


def merged(
    places: Sequence[Place],
    heard: Callable[[Place], Iterable[T]],
    *,
    idle: Callable[[], object],
    more: Callable[[], Sequence[Place]] | None = None,
    every: float = LATECOMERS,
) -> Iterator[T | Ended]:
    """Give what is heard in all places, as it comes, until it ends in each of them.

    `idle` is called when there is nothing, before waiting. `more` lists the workspaces that run: it
    is asked every so many seconds, those that are new are listened to as well, and there is no
    end. Raises BrokenPipeError when nobody reads stdout any more, and any error of `heard` that
    isn't a PerryError.
    """
    coming: Coming[T] = queue.Queue(WAITING)
    listeners = _Listeners(heard, coming)
    listeners.add(places)
    _when_unread(lambda: coming.put(_Closed()))
    if more is not None:
        threading.Thread(target=_look_again, args=(more, every, coming), daemon=True).start()
    while more is not None or listeners.any:
        if coming.empty():
            idle()
        match coming.get():
            case _Heard(item):
                yield item
            case Ended() as ended:
                yield ended
            case _Done(place):
                listeners.remove(place)
            case _Listed(running):
                listeners.add(running)
            case _Closed():
                raise BrokenPipeError
            case _Failed(error):
                raise error


class _Listeners(Generic[T]):
    """The threads that listen; used by the main thread alone."""

    def __init__(self, heard: Callable[[Place], Iterable[T]], coming: Coming[T]) -> None:
        self._heard = heard
        self._coming = coming
        self._names: set[str] = set()
        self._ended: set[tuple[str, str | None]] = set()

    @property
    def any(self) -> bool:
        return bool(self._names)

    def add(self, places: Iterable[Place]) -> None:
        """Listen to places, but for those that are listened to, or ended and run on."""
        for place in places:
            if place.name in self._names or _run_of(place) in self._ended:
                continue
            self._names.add(place.name)
            threading.Thread(target=self._listen, args=(place,), daemon=True).start()

    def remove(self, place: Place) -> None:
        """Forget a place that has ended, until it is started again."""
        self._names.discard(place.name)
        self._ended.add(_run_of(place))

    def _listen(self, place: Place) -> None:
        try:
            for item in self._heard(place):
                self._coming.put(_Heard(item))
        except PerryError as error:
            self._coming.put(Ended(place.name, error))
        except Exception as error:  # noqa: BLE001  # raised again in the main thread
            self._coming.put(_Failed(error))
        self._coming.put(_Done(place))


def _run_of(place: Place) -> tuple[str, str | None]:
    return (place.name, None) if isinstance(place, Host) else (place.container_id, place.started_at)


def _look_again(more: Callable[[], Sequence[Place]], every: float, coming: Coming[T]) -> None:
    while True:
        time.sleep(every)
        try:
            coming.put(_Listed(more()))
        except PerryError:
            continue  # the engine is away for a moment, as when it is restarted: later, then
        except Exception as error:  # noqa: BLE001  # raised again in the main thread
            coming.put(_Failed(error))
            return


def _when_unread(tell: Callable[[], None]) -> None:
    """Watch for the moment when stdout, a pipe, has lost its reader; a write may be far away."""
    try:
        descriptor = sys.stdout.fileno()
    except io.UnsupportedOperation:
        return  # no real file, so nobody who could close it

    def watch() -> None:
        closing = select.poll()
        closing.register(descriptor, 0)  # of no event but those that are always told
        if any(events & (select.POLLERR | select.POLLHUP) for _, events in closing.poll()):
            tell()

    threading.Thread(target=watch, daemon=True).start()
