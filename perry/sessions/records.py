"""JSON records out of bytes that other programs wrote, and texts fit to be sent on.

Coding agents written in JavaScript leave lone surrogates, crashes leave half lines, and encodings
differ. Here is the one place that turns such bytes into values: strictly where it can, leniently
where that saves what was said. It must not know what a record means.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_TOKENS = 2**48  # far more than any session uses: sums still fit into JSON's integers
_MILLISECONDS = 100_000_000_000  # numbers above are milliseconds, below are seconds


class Undecodable(ValueError):
    """Bytes that are no JSON of the wanted shape."""


def decode(data: bytes, shape: type[T]) -> T:
    """Decode one JSON value into a shape.

    Lone surrogates and bytes that are not UTF-8 become U+FFFD. Raises Undecodable.
    """
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # msgspec refuses lone surrogates even in fields it skips: try again below.
        pass
    except RecursionError as error:
        raise Undecodable(str(error)) from error
    try:
        text = data.decode("utf-8", "replace").lstrip("\ufeff")
        value = json.loads(text, parse_float=_finite)
        text = _LONE_SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False))
        return msgspec.json.decode(text, type=shape)
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise Undecodable(str(error)) from error


def _finite(number: str) -> float:
    """Read a number, as large as one can be where it is larger: JSON has no word for infinity."""
    return max(-sys.float_info.max, min(float(number), sys.float_info.max))


def json_text(value: Any) -> str:  # noqa: ANN401  (any JSON value)
    """Write a decoded value as JSON text."""
    try:
        return msgspec.json.encode(value).decode()
    except (OverflowError, RecursionError):
        # Numbers of more than 64 bits, which msgspec reads and doesn't write.
        return json.dumps(value, ensure_ascii=False)


def token_count(value: object) -> int:
    """Read a number of tokens; what is no sensible number counts as 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value < _TOKENS else 0


def iso(timestamp: object) -> str | None:
    """Tell a record's time as ISO 8601: as it stands, or from a number of (milli)seconds."""
    if isinstance(timestamp, str):
        return timestamp if _is_time(timestamp) else None
    milliseconds = epoch(timestamp)
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def epoch(timestamp: object) -> int | None:
    """Tell a record's time in milliseconds since the epoch, or None where it says none."""
    if isinstance(timestamp, str):
        return _parsed(timestamp)
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float):
        return None
    number = timestamp if abs(timestamp) > _MILLISECONDS else timestamp * 1000
    limit = 250_000_000_000_000  # the year 9892: later ones can't be written as a date
    return int(number) if 0 <= number <= limit else None


def milliseconds(moment: datetime) -> int:
    """Tell a time in milliseconds since the epoch; it has its time zone."""
    return int(moment.timestamp() * 1000)


def _is_time(timestamp: str) -> bool:
    try:
        datetime.fromisoformat(timestamp)
    except ValueError:
        return False
    return True


def _parsed(timestamp: str) -> int | None:
    try:
        moment = datetime.fromisoformat(timestamp)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return milliseconds(moment)
    except (ValueError, OverflowError):
        return None  # not a time: the record goes without


def text_or_none(value: object) -> str | None:
    """Keep a string that says something; anything else is None."""
    return value if isinstance(value, str) and value.strip() else None


def title_of(text: str, limit: int = 200) -> str:
    """Make a title of a text: one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"
