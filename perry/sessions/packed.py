"""States of logs in as few bytes as they need, while nobody asks for them and on the disk.

A home holds thousands of logs, and almost all of them rest. So what was read of a log is kept as
msgpack, and made into objects only for the moment in which the log grows or a page of it is asked
for. Long lists of numbers and sets of identifiers are single blocks of bytes in there: no time is
spent on their elements before one is needed. This module must not know what any state means.
"""

from __future__ import annotations

import functools
import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

_STEPS = b"#"  # in place of a type of numbers: as many as follow, from 1
_KEY = 8  # bytes of each key that is kept
_SEARCHES = 64  # keys that are looked for in the block before it is spread out


class Numbers:
    """A list of whole numbers of up to 64 bits, four bytes each where that is enough."""

    __slots__ = ("_values",)

    def __init__(self, packed: bytes = b"") -> None:
        self._values = array(packed[:1].decode() or "I", packed[1:])

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> int:
        return self._values[index]

    def __setitem__(self, index: int, number: int) -> None:
        try:
            self._values[index] = number
        except OverflowError:
            self._values = array("Q", self._values)
            self._values[index] = number

    def extend(self, numbers: Collection[int]) -> None:
        """Add numbers."""
        try:
            self._values.extend(array(self._values.typecode, numbers))
        except OverflowError:
            self._values = array("Q", [*self._values, *numbers])

    def packed(self) -> bytes:
        """Give the bytes that the list can be made from."""
        return self._values.typecode.encode() + self._values.tobytes() if self._values else b""


class Counts:
    """A list in which each number is greater than the one before, beginning with 1 or more.

    One that counts in steps of 1 takes no space: where each record holds one message, all do.
    """

    __slots__ = ("_values",)

    def __init__(self, packed: bytes = b"") -> None:
        self._values: range | Sequence[int] = range(1, 1)
        if packed[:1] == _STEPS:
            self._values = range(1, int.from_bytes(packed[1:]) + 1)
        elif packed:
            self._values = array(packed[:1].decode(), packed[1:])

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> int:
        return self._values[index]

    def extend(self, numbers: Sequence[int]) -> None:
        """Add numbers."""
        length = len(self._values) + len(numbers)
        if isinstance(self._values, range):
            if not numbers or numbers[-1] == length:
                self._values = range(1, length + 1)
                return
            self._values = array("Q", self._values)
        self._values = array("Q", [*self._values, *numbers])

    def after(self, number: int) -> int:
        """Tell the place of the first number that is greater."""
        return bisect_right(self._values, number)

    def packed(self) -> bytes:
        """Give the bytes that the list can be made from."""
        if isinstance(self._values, range):
            return _STEPS + len(self._values).to_bytes(_KEY) if self._values else b""
        numbers = Numbers()
        numbers.extend(self._values)
        return numbers.packed()


class Keys:
    """The places of different strings in the order in which they came.

    Of those that were packed only a hash of 64 bits is left.
    """

    __slots__ = ("_block", "_fresh", "_searches", "_spread")

    def __init__(self, packed: bytes = b"") -> None:
        self._block = packed
        self._fresh: dict[str, int] = {}
        self._searches = 0
        self._spread: dict[int, int] = {}  # what is in the block, once that pays

    def __len__(self) -> int:
        return len(self._block) // _KEY + len(self._fresh)

    def __contains__(self, key: str) -> bool:
        return key in self._fresh or (bool(self._block) and self._search(key) is not None)

    def put(self, key: str) -> tuple[int, bool]:
        """Add a key that isn't there; gives its place, and whether it is new."""
        place = self._fresh.get(key)
        if place is None and self._block:
            place = self._search(key)
        if place is not None:
            return place, False
        place = self._fresh[key] = len(self)
        return place, True

    @staticmethod
    def hashes_in(packed: bytes) -> array[int]:
        """List the hashes of the keys that were packed."""
        return array("q", packed)

    def packed(self) -> bytes:
        """Give the bytes that the keys can be made from."""
        return self._block + hashes_of(self._fresh).tobytes()

    def _search(self, key: str) -> int | None:
        hashed = hash_of(key)
        if self._spread:
            return self._spread.get(hashed)
        self._searches += 1
        if self._searches > _SEARCHES:
            self._spread = {each: place for place, each in enumerate(self.hashes_in(self._block))}
            return self._spread.get(hashed)
        wanted = hashed.to_bytes(_KEY, sys.byteorder, signed=True)
        found = -1
        while (found := self._block.find(wanted, found + 1)) >= 0:
            if found % _KEY == 0:
                return found // _KEY
        return None


class Sums:
    """Pairs of numbers by strings of which the last pair holds, and the sums of all pairs."""

    __slots__ = ("_fresh", "_keys", "_left", "_right", "_sums")

    def __init__(self, packed: bytes = b"") -> None:
        parts = msgspec.msgpack.decode(packed) if packed else (b"", b"", b"", (0, 0))
        self._keys = Keys(parts[0])
        self._left, self._right = Numbers(parts[1]), Numbers(parts[2])
        self._sums: tuple[int, int] = tuple(parts[3])
        self._fresh: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._keys) + len(self._fresh)

    def put(self, key: str, left: int, right: int) -> None:
        """Set the pair of a key."""
        self._fresh[key] = left, right

    def both(self) -> tuple[int, int]:
        """Give the sums of what is left and what is right in the pairs."""
        self._settle()
        return self._sums

    def packed(self) -> bytes:
        """Give the bytes that the pairs can be made from."""
        self._settle()
        columns = self._keys.packed(), self._left.packed(), self._right.packed()
        return msgspec.msgpack.encode((*columns, self._sums))

    def _settle(self) -> None:
        left, right = self._sums
        added: list[tuple[int, int]] = []
        for key, pair in self._fresh.items():
            place, is_new = self._keys.put(key)
            left += pair[0]
            right += pair[1]
            if is_new:
                added.append(pair)
            else:
                left -= self._left[place]
                right -= self._right[place]
                self._left[place], self._right[place] = pair
        self._left.extend([pair[0] for pair in added])
        self._right.extend([pair[1] for pair in added])
        self._sums = left, right
        self._fresh = {}


def hash_of(key: str) -> int:
    """Hash a string into 64 bits, signed; the same ones in every process of one Python."""
    data = key.encode("utf-8", "replace")
    return hash(struct.unpack(_layout(len(data)), data))


def hashes_of(keys: Collection[str]) -> array[int]:
    """Hash strings as `hash_of` does; in a small part of the time if they are of one length."""
    text = "".join(keys)
    if text.isascii() and len({*map(len, keys)}) == 1 and text:
        layout = _layout(len(text) // len(keys))
        return array("q", map(hash, struct.iter_unpack(layout, text.encode())))
    return array("q", map(hash_of, keys))


@functools.lru_cache(maxsize=256)
def _layout(length: int) -> str:
    """Divide bytes into numbers: Python's hash of numbers is no secret one, as that of strings."""
    return f"={length // 8}Q{length % 8}B"


def pack(state: msgspec.Struct) -> bytes:
    """Write a state as msgpack. Raises UnicodeEncodeError for lone surrogates."""
    return msgspec.msgpack.encode(state, enc_hook=_packed)


def unpack(data: bytes, shape: type[S]) -> S:
    """Make the state that was packed. Raises msgspec.DecodeError."""
    state: S = _decoder(shape).decode(data)
    return state


@functools.cache
def _decoder(shape: type[S]) -> msgspec.msgpack.Decoder[S]:
    return msgspec.msgpack.Decoder(shape, dec_hook=_unpacked)


def _packed(value: Any) -> bytes:  # noqa: ANN401  (msgspec's hook takes anything)
    if isinstance(value, Numbers | Counts | Keys | Sums):
        return value.packed()
    raise NotImplementedError(type(value).__name__)


def _unpacked(kind: type, value: bytes) -> object:
    return kind(value)
