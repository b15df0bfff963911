"""How long the property tests look for trouble: briefly in every run, for hours when asked to."""

from __future__ import annotations

import os


def examples(number: int) -> int:
    """Multiply a test's usual number of examples by the variable PERRY_FUZZ."""
    return number * int(os.environ.get("PERRY_FUZZ") or 1)
