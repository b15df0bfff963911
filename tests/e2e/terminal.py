"""A command at a terminal: a pseudo-terminal that is read and typed into."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Sequence

PATIENCE = 30.0


def at_a_terminal(
    argv: Sequence[str], environment: dict[str, str], *typing: tuple[str, str]
) -> tuple[int, str]:
    """Run a command at a terminal and return its exit code and what was on the screen.

    `typing` are pairs: once the first is on the screen, the second is typed.
    """
    ours, its = pty.openpty()
    process = subprocess.Popen(
        argv, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True
    )
    os.close(its)
    screen = b""
    try:
        for awaited, typed in typing:
            screen += _read_until(ours, awaited.encode())
            os.write(ours, typed.encode())
        screen += _read_until(ours, None)
        return process.wait(timeout=PATIENCE), screen.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read_until(terminal: int, awaited: bytes | None) -> bytes:
    """Read until something shows, or to the end."""
    seen = b""
    deadline = time.monotonic() + PATIENCE
    while awaited is None or awaited not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{awaited!r} never showed: {seen!r}"
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # what Linux says once nobody has the other end
            assert awaited is None, f"it ended before {awaited!r}: {seen!r}"
            break
    return seen
