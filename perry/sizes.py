"""Sizes as people write them, on the command line and in the configuration.

This module must not know what has such a size.
"""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE = re.compile(r"(\d{1,15})([bkmgt]?)b?", re.IGNORECASE)


def size_of(text: str) -> int | None:
    """Read a size like `512m` or `4g` in bytes; None for what is none."""
    match = _SIZE.fullmatch(text)
    return None if match is None else int(match[1]) * _UNITS[match[2].lower()]


def told(size: int) -> str:
    """Say how much that is: `812 bytes`, `40.5 KB`, `2.1 GB`, in units of 1024."""
    if size < 1024:  # noqa: PLR2004  # a kilobyte
        return f"{size} bytes"
    amount, unit = size / 1024, "KB"
    for larger in ("MB", "GB", "TB"):
        if amount < 1000:  # noqa: PLR2004  # four digits before the point are hard to read
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.1f} {unit}"
