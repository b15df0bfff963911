"""Output as Docker frames it."""

from __future__ import annotations

import struct


def framed(stream: int, content: bytes) -> bytes:
    """One frame: what a program said on its output (1) or its errors (2)."""
    return struct.pack(">BxxxL", stream, len(content)) + content
