"""Deletes or restores one session in a process of its own, which may be killed at any moment.

`python -m tests.sessions.deleting HOME delete|restore ID [BYTES]`: says `begun` before it does, and
how it ended. No file may become larger than BYTES.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from perry.errors import SessionError
from tests.sessions.deletable import remembering

CHECKOUT = Path(__file__).parents[2]
MAY_DO_ANYTHING = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"]
"""What makes root mind the modes of files as everybody does."""


def main(home: str, what: str, session_id: str, largest: str = "") -> None:
    """Do it."""
    index = remembering(Path(home))
    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), int(largest)))
    print("begun", flush=True)  # noqa: T201  (to the test)
    started = time.monotonic()
    try:
        index.delete(session_id) if what == "delete" else index.restore(session_id)
    except SessionError as error:
        print(type(error).__name__, error.message, flush=True)  # noqa: T201  (to the test)
    else:
        print(f"done {time.monotonic() - started}", flush=True)  # noqa: T201  (to the test)


def begin(home: Path, *words: str, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start such a process, and return once it has begun."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "tests.sessions.deleting", str(home), *words],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def ended(process: subprocess.Popen[str]) -> str:
    """Wait until it has ended, and tell its last words."""
    told, _ = process.communicate(timeout=60)
    return told.strip()


def minding_modes() -> Sequence[str]:
    """Make a process mind the modes of files, whoever runs it."""
    return MAY_DO_ANYTHING if os.geteuid() == 0 else ()


if __name__ == "__main__":
    main(*sys.argv[1:])
