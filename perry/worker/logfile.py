"""The worker's log in a container: a file of bounded size in perry's own cache directory.

A worker is started by exec, whose output goes nowhere once the starter has left, so it opens its
own log before anything else can fail. This module is imported first of all and must stay light.
"""

from __future__ import annotations

import os
import stat

LARGEST = 1024 * 1024  # bytes; a larger log is moved to `.1`


def log_path(environ: os._Environ[str] | dict[str, str]) -> str:
    """Name the log file: `${XDG_CACHE_HOME:-~/.cache}/perry/worker.log`."""
    cache = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # noqa: PTH117 - pathlib is not imported this early
        # The XDG base directory specification wants relative paths ignored.
        cache = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118 - as above
    return os.path.join(cache, "perry", "worker.log")  # noqa: PTH118 - as above


def log_to(path: str) -> bool:
    """Send stdout and stderr of this process to the file, made with its directories for this user.

    A large file is moved to `.1` first.
    Returns False, and leaves both as they are, where the file can't be written.
    """
    try:
        _make_directories(os.path.dirname(path))  # noqa: PTH120 - as above
        if is_large(path):
            os.replace(path, path + ".1")  # noqa: PTH105 - as above
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
    except OSError:
        return False  # a read-only or full home: logging is not worth failing for
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    return True


def is_large(path: str) -> bool:
    """Tell whether the log has to be moved aside."""
    try:
        found = os.lstat(path)
    except OSError:
        return False  # not there, or out of reach: nothing to move
    return stat.S_ISREG(found.st_mode) and found.st_size > LARGEST


def _make_directories(directory: str) -> None:
    if os.path.isdir(directory):  # noqa: PTH112 - as above
        return
    _make_directories(os.path.dirname(directory))  # noqa: PTH120 - as above
    try:
        os.mkdir(directory, 0o700)  # noqa: PTH102 - as above
    except FileExistsError:
        return  # another worker was faster
