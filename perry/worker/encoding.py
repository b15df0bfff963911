"""How the worker puts answers and events into bytes.

One place, because file names may hold any bytes and JSON may not, and that must not cost an answer.
It must not know what is encoded.
"""

from __future__ import annotations

import json

import msgspec


def encode(answer: object) -> bytes:
    """Encode an answer as JSON in UTF-8, on one line.

    What UTF-8 can't hold becomes a question mark: Python turns the bytes of file names that aren't
    text into lone surrogates, which JSON in UTF-8 has no way to write.
    """
    try:
        return msgspec.json.encode(answer)
    except UnicodeEncodeError:
        text = json.dumps(msgspec.to_builtins(answer), ensure_ascii=False)
        return text.encode("utf-8", "replace")
