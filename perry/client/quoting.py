"""Words of a workspace in our own errors: short, and safe for a terminal.

Needed by all of this package, and loads none of it.
"""

from __future__ import annotations

LONGEST_QUOTE = 200  # characters of somebody else's own words in an error


def plain(words: str) -> str:
    """Make somebody else's words short and safe for a terminal."""
    cut = words if len(words) <= LONGEST_QUOTE else words[:LONGEST_QUOTE] + "…"
    return "".join(each if each.isprintable() else "\ufffd" for each in cut)
