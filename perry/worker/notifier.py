"""The kernel's word that files changed: watchfiles, asked only when there is something to hear.

watchfiles gathers changes in a thread of its own, but who waits for them has to look every few
milliseconds, which costs a process that does nothing else more than all the rest. On Linux the
kernel can send a signal for each change it notes (SIGIO, to the one thread that asked for it); so
that thread sleeps until there is one, and then lets watchfiles look. Elsewhere, or where no signal
comes, watchfiles looks as it always does. This module must not know what is watched, or why.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import sys
import threading
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

DEBOUNCE = 50  # ms: a stream of changes is handed on at least this often
BUSY_STEP = 3  # ms: a change is handed on when twice this time has passed without another
IDLE_STEP = 20  # ms: the same where no signal wakes us and nothing has happened lately
LATE = 2 * BUSY_STEP  # ms in which watchfiles' own thread nearly always hears what woke us
SECOND_LOOK = 5  # ms until we look again where it had not heard, and then twice that, and so on
AFTERWARDS = 15  # ms until we do where it had

_SET_OWNER = 15  # F_SETOWN_EX of fcntl(2), which Python's fcntl doesn't name
_A_THREAD = 0  # F_OWNER_TID
HANDLES = "/proc/self/fd"

Batch = set[tuple[int, str]]
Answer = Batch | Literal["signal", "stop", "timeout"]


class Notifier(Protocol):
    """What the watcher needs, and what watchfiles' RustNotify is."""

    def watch(
        self, debounce_ms: int, step_ms: int, timeout_ms: int, stop_event: threading.Event | None
    ) -> Answer:
        """Wait for changes."""

    def close(self) -> None:
        """Stop watching."""


def native_notifier(paths: Sequence[str]) -> Notifier:
    """Open the kernel's notifier on these directories and all below them.

    The thread that opens it is the one that has to watch.
    Raises OSError or RuntimeError (watchfiles words only some of the kernel's refusals as OSError)
    where it can't be had: no more instances (EMFILE), no more watches (ENOSPC).
    """
    before = _inotify_handles()
    found = _opened(paths)
    for handle in _inotify_handles() - before:
        with contextlib.suppress(OSError):  # it is watched without signals then
            _send_signals(handle)
            return _Signalled(found)
    return found


def _opened(paths: Sequence[str]) -> Notifier:
    from watchfiles._rust_notify import RustNotify  # noqa: PLC0415 - keeps the start light

    try:
        return RustNotify(list(paths), False, False, 0, True, False)
    except PermissionError:
        # A directory that this user can't read holds no sessions for this user. Not the first
        # choice, since watchfiles is then silent about a lack of watches as well.
        return RustNotify(list(paths), False, False, 0, True, True)


class _Signalled:
    """Sleeps until the kernel's signal comes."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._comes: bool | None = None  # once we know whether the signal comes
        self._look_in = float("inf")  # ms
        self._is_handed_on = False

    def watch(
        self, debounce_ms: int, step_ms: int, timeout_ms: int, stop_event: threading.Event | None
    ) -> Answer:
        """Wait for changes; `stop_event` is not looked at before the time is up."""
        if self._comes is False:
            return self._notifier.watch(debounce_ms, step_ms, timeout_ms, stop_event)
        if self._is_handed_on:
            _wait_for_signal(0)  # of our own reading, it may be: we look again soon in any case
        is_told = _wait_for_signal(min(self._look_in, timeout_ms) / 1000)
        step, within = (BUSY_STEP, LATE) if is_told else (1, 1)
        answer = self._notifier.watch(debounce_ms, step, within, None)
        self._is_handed_on = not isinstance(answer, str)
        if self._is_handed_on:
            self._look_in = AFTERWARDS
        else:
            self._look_in = SECOND_LOOK if is_told else 2 * self._look_in
        if self._comes is None and (is_told or self._is_handed_on):
            self._comes = is_told
        return answer

    def close(self) -> None:
        """Stop watching."""
        self._notifier.close()


def _inotify_handles() -> set[int]:
    """Name this process's handles of the kernel's notifier; none where /proc doesn't tell."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(HANDLES):  # noqa: PTH208 - names, of which one is gone by now
            with contextlib.suppress(OSError):
                if os.readlink(f"{HANDLES}/{name}") == "anon_inode:inotify":  # noqa: PTH115 - a string
                    found.add(int(name))
    return found


def _send_signals(handle: int) -> None:
    """Have this thread, and no other, told of each change. Raises OSError."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})  # it is waited for, not handled
    owner = struct.pack("=ii", _A_THREAD, threading.get_native_id())
    fcntl.fcntl(handle, _SET_OWNER, owner)
    fcntl.fcntl(handle, fcntl.F_SETFL, fcntl.fcntl(handle, fcntl.F_GETFL) | os.O_ASYNC)


def _wait_for_signal(seconds: float) -> bool:
    return sys.platform == "linux" and signal.sigtimedwait({signal.SIGIO}, seconds) is not None
