"""Keeps a SessionIndex in step with the files, without asking to be asked.

One thread owns the index's changes: it does the first scan, opens the notifier, and then feeds
every change to `index.apply`; now and then it has the index keep what it read. watchfiles is fast
but not whole: events are dropped without a word when the kernel's queue overflows, when directories
appear faster than they can be watched, and when the kernel refuses one more watch. So each event is
a hint, and what it may have hidden is found by sweeps (`index.refresh`): soon after bursts, now and
then in any case. This module must not know HTTP or what a session file looks like.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from perry.worker.notifier import BUSY_STEP, DEBOUNCE, IDLE_STEP, native_notifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from perry.worker.notifier import Batch, Notifier

log = logging.getLogger(__name__)

BUSY_FOR = 10.0  # s
HEARD = 0.03  # s for who waits until we are ready: a notifier of many directories holds up answers
TICK = 100  # ms: how often the roots are looked at

BURST = 100  # paths in one batch from which on events may have been dropped
QUIET = 0.3  # s from a burst to the sweep after it
SECOND_LOOK = 2.0  # s from a burst to another sweep, for what was not yet watched at the first
SWEEP_WHEN_BUSY = 10.0  # s
SWEEP_WHEN_IDLE = 30.0  # s
REOPEN_EVERY = 30.0  # s: how often new directories may cause a new notifier
SWEEP_SHARE = 10  # a sweep that took t seconds is followed by no other for this times t

POLL = 1.0  # s between sweeps where the kernel notifies nobody
RETRY_NATIVE = 60.0  # s
RETRY_SCAN = 2.0  # s
SAVE_EVERY = 60.0  # s between two times that what was read is kept on the disk

ADDED, DELETED = 1, 3  # watchfiles.Change
REPLACEMENT = "\ufffd"  # what watchfiles puts in a name that isn't UTF-8

Watch = Literal["native", "polling"]
Identity = tuple[int, int] | None


class Index(Protocol):
    """What the watcher needs of a SessionIndex."""

    def roots(self) -> tuple[Path, ...]:
        """Name the directories whose files matter, whether they exist or not."""

    def refresh(self) -> None:
        """Look at all files."""

    def apply(self, paths: Iterable[str]) -> None:
        """Look at these files and directories, changed or gone, and at what the latter hold."""

    def save(self) -> bool:
        """Keep what was read for the next start, if anything changed."""


class Watcher:
    """The watching loop; `start` runs it in a thread of its own.

    `ready` is set once the first scan is whole; `mode` is how changes are noticed. `open_notifier`
    is the edge to watchfiles.
    """

    def __init__(
        self,
        index: Index,
        *,
        open_notifier: Callable[[Sequence[str]], Notifier] = native_notifier,
    ) -> None:
        self.ready = threading.Event()
        self.mode: Watch = "native"
        self._index = index
        self._open_notifier = open_notifier
        self._stop = threading.Event()
        self._notifier: Notifier | None = None
        self._watched: dict[str, Identity] = {}
        self._look_at = 0.0
        self._reopen_at: float | None = None
        self._opened_at = 0.0
        self._busy_until = 0.0
        self._swept_at = 0.0
        self._sweep_took = 0.0
        self._sweep_at = 0.0
        self._second_look = 0.0
        self._appeared: dict[str, list[float]] = {}
        self._save_at = 0.0

    def start(self) -> None:
        """Start the thread, which dies with the process."""
        threading.Thread(target=self.run, name="watcher", daemon=True).start()

    def stop(self) -> None:
        """Ask the loop to end; a scan that is under way is not waited for."""
        self._stop.set()

    def run(self) -> None:
        """Scan, then watch until stopped."""
        while not self._stop.is_set() and not self._sweep():
            self._stop.wait(RETRY_SCAN)
        self.ready.set()  # before the notifier, which takes longer to open than a scan to repeat
        scan_took = self._sweep_took
        self._stop.wait(min(HEARD, scan_took / 10))
        self._open()
        self._sweep()  # for what changed while nobody was watching
        log.info("first scan took %.3f s, watching: %s", scan_took, self.mode)
        while not self._stop.is_set():
            try:
                self._turn()
            except Exception:
                # A watcher that has died would leave the sessions as they are, unnoticed.
                log.exception("watching failed and goes on in %g s", RETRY_SCAN)
                self._stop.wait(RETRY_SCAN)
        self._close()

    def _turn(self) -> None:
        batch = self._wait()
        if batch:
            self._take(batch)
        now = time.monotonic()
        if self._appeared:
            self._look_into(now)
        if self._roots_moved(now) or (self._reopen_at is not None and now >= self._reopen_at):
            self._open()
            self._sweep()
        elif now >= self._sweep_at:
            self._sweep()
        elif now >= self._save_at:
            self._save_at = now + SAVE_EVERY
            self._index.save()

    def _wait(self) -> Batch:
        if self._notifier is None:
            self._stop.wait(TICK / 1000)
            return set()
        step = BUSY_STEP if time.monotonic() < self._busy_until else IDLE_STEP
        try:
            answer = self._notifier.watch(DEBOUNCE, step, TICK, self._stop)
        except (OSError, RuntimeError) as error:
            log.warning("the notifier failed and is opened again: %s", error)
            self._reopen_at = time.monotonic()
            self._close()
            return set()
        return set() if isinstance(answer, str) else answer

    def _take(self, batch: Batch) -> None:
        """Hand a batch to the index, and decide what it may have hidden."""
        now = time.monotonic()
        self._busy_until = now + BUSY_FOR
        if len(batch) >= BURST:
            self._sweep()  # cheaper than one by one, and finds what was dropped
        else:
            self._apply({path for _, path in batch})
        appeared = [path for kind, path in batch if kind == ADDED and _is_directory(path)]
        for path in appeared:
            self._appeared[path] = [now + SECOND_LOOK, now + QUIET]
        if appeared and self._reopen_at is None:
            self._reopen_at = max(now + SECOND_LOOK, self._opened_at + REOPEN_EVERY)
        unclear = any(kind == DELETED or REPLACEMENT in path for kind, path in batch)
        if unclear or len(batch) >= BURST:
            self._second_look = now + SECOND_LOOK
            self._sweep_no_later(now + QUIET)
        else:
            self._sweep_no_later(max(now + QUIET, self._swept_at + SWEEP_WHEN_BUSY))

    def _look_into(self, now: float) -> None:
        """Look once more at what new directories hold: some of it came before they were watched."""
        due = {path for path, moments in self._appeared.items() if moments[-1] <= now}
        for path in due:
            self._appeared[path].pop()
        self._appeared = {path: moments for path, moments in self._appeared.items() if moments}
        if due:
            self._apply(due)

    def _apply(self, paths: set[str]) -> None:
        try:
            self._index.apply(sorted(paths))
        except Exception:
            # One file that can't be read must not end the watching; the sweep tries again.
            log.exception("could not take in %d changed paths", len(paths))
            self._second_look = time.monotonic() + SECOND_LOOK

    def _sweep_no_later(self, at: float) -> None:
        earliest = self._swept_at + SWEEP_SHARE * self._sweep_took
        self._sweep_at = min(self._sweep_at, max(at, earliest))

    def _sweep(self) -> bool:
        started = time.monotonic()
        try:
            self._index.refresh()
        except Exception:
            # Same as above: the next sweep tries again, and meanwhile what is known is served.
            log.exception("could not look through the sessions")
            whole = False
        else:
            whole = True
        self._swept_at = time.monotonic()
        self._sweep_took = self._swept_at - started
        self._plan()
        return whole

    def _plan(self) -> None:
        interval = SWEEP_WHEN_IDLE if self.mode == "native" else POLL
        self._sweep_at = self._swept_at + max(interval, SWEEP_SHARE * self._sweep_took)
        if self._second_look > self._swept_at:
            self._sweep_no_later(self._second_look)

    def _roots_moved(self, now: float) -> bool:
        if now < self._look_at:
            return False
        self._look_at = now + TICK / 1000
        return any(_identity(root) != known for root, known in self._watched.items())

    def _open(self) -> None:
        """Watch the roots that exist now; without a notifier, poll."""
        self._close()
        self._watched = {str(root): _identity(str(root)) for root in self._index.roots()}
        self._opened_at = time.monotonic()
        self._reopen_at = None
        present = [root for root, identity in self._watched.items() if identity is not None]
        paths = [root for root in present if not root.startswith(tuple(f"{p}/" for p in present))]
        mode: Watch = "native"
        try:
            self._notifier = self._open_notifier(paths) if paths else None
        except FileNotFoundError:
            self._reopen_at = self._opened_at  # a root went between the look and the watch
        except (OSError, RuntimeError) as error:
            mode = "polling"
            self._reopen_at = self._opened_at + RETRY_NATIVE
            log.warning("no native notification (%s): polling every %g s", error, POLL)
        self.mode = mode

    def _close(self) -> None:
        if self._notifier is not None:
            self._notifier.close()
        self._notifier = None


def _identity(path: str) -> Identity:
    try:
        found = os.stat(path)  # noqa: PTH116 - called all the time
    except OSError:
        return None  # not there, or not for us: either way there is nothing to watch
    return found.st_dev, found.st_ino


def _is_directory(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - called for every event
