"""Titles that Claude Code's old versions wrote into other logs than those they are for.

A summary names the record that it sums up, its leaf, by the leaf's uuid, and the leaf may stand in
any other log. So which log a summary is for depends on all logs; what was found out is kept, and a
log that merely grows costs no look at the others. This module must not know where logs lie.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from perry.sessions.claude_log import Log
from perry.sessions.jsonl import LogReading, Notes
from perry.sessions.packed import Keys, hash_of
from perry.sessions.source import Reading, Unit

_OWN = ""  # in place of a leaf that stands in the same log
_RECENT = 8  # growing logs whose records are kept at hand
_NAMED = "\0"  # in place of a leaf: the log has a title of its own, which is better


class _Seen(msgspec.Struct, array_like=True):
    """The beginning of a packed log's state, which has the hashes of its records."""

    end: int
    skipped: int
    seen: bytes


_decode = msgspec.msgpack.Decoder(_Seen).decode


def notes_of(log: Log) -> Notes:
    """Note a log's summaries, pairs of a leaf and a title, for `Summaries`."""
    named = [(_NAMED, "")] if log.custom_title or log.ai_title else []
    told = [(_OWN if leaf in log.seen else leaf, title) for leaf, title in log.summaries]
    return (*named, *told)


class Summaries:
    """Settles which summary is whose; `titles` has them by log, if it has no better title.

    A summary whose leaf stands nowhere belongs to the log that holds it.
    """

    def __init__(self) -> None:
        self.titles: dict[Unit, str] = {}
        self._notes: dict[Unit, Notes] = {}
        self._abroad: dict[int, str] = {}  # titles by their leaf's hash
        self._leaves: frozenset[int] = frozenset()
        self._held: dict[Unit, frozenset[int]] = {}
        self._looked_at: dict[Unit, bytes] = {}  # the records of logs that changed lately

    def settle(self, readings: Mapping[Unit, Reading], changed: Collection[Unit]) -> set[Unit]:
        """Take in that logs changed or went; gives those that have another title now."""
        is_same = True
        for unit in changed:
            reading = readings.get(unit)
            notes = reading.notes if isinstance(reading, LogReading) else ()
            if notes != self._notes.get(unit, ()):
                self._note(unit, notes)
                is_same = False
            if is_same and self._abroad:
                is_same = self._holds_now(unit, reading) == self._held.get(unit, frozenset())
        if is_same:
            return set()
        self._looked_at.clear()
        before, self.titles = self.titles, self._settled(readings)
        both = before.keys() | self.titles.keys()
        return {unit for unit in both if before.get(unit) != self.titles.get(unit)}

    def _note(self, unit: Unit, notes: Notes) -> None:
        self._notes[unit] = notes
        if not notes:
            del self._notes[unit]

    def _settled(self, readings: Mapping[Unit, Reading]) -> dict[Unit, str]:
        self._abroad = {
            hash_of(leaf): title
            for notes in self._notes.values()
            for leaf, title in notes
            if leaf not in (_OWN, _NAMED)
        }
        self._leaves = frozenset(self._abroad)
        self._held = self._holders(readings) if self._abroad else {}
        found: set[int] = set()
        titles: dict[Unit, str] = {}
        for unit, leaves in self._held.items():
            found |= leaves
            # A set has no order of its own: the last summary that was noted is the title.
            titles[unit] = [t for leaf, t in self._abroad.items() if leaf in leaves][-1]
        for unit, notes in self._notes.items():
            for leaf, title in _told(notes):
                if leaf == _OWN or hash_of(leaf) not in found:
                    titles[unit] = title
        for unit, notes in self._notes.items():
            if (_NAMED, "") in notes:
                titles.pop(unit, None)
        return titles

    def _holders(self, readings: Mapping[Unit, Reading]) -> dict[Unit, frozenset[int]]:
        """Find the logs with leaves, and note with each of the others that it has none of these."""
        wanted = hash(tuple(sorted(self._leaves)))
        held = {}
        for unit, reading in readings.items():
            if isinstance(reading, LogReading) and reading.looked_for != wanted:
                leaves = self._leaves.intersection(Keys.hashes_in(_decode(reading.visible).seen))
                if leaves:
                    held[unit] = leaves
                else:
                    msgspec.structs.force_setattr(reading, "looked_for", wanted)
        return held

    def _holds_now(self, unit: Unit, reading: Reading | None) -> frozenset[int]:
        """Name the leaves in a log; in one that has only grown, look at what is new."""
        if not isinstance(reading, LogReading):
            return frozenset()
        seen = _decode(reading.visible).seen
        before = self._looked_at.pop(unit, None)
        self._looked_at[unit] = seen
        if len(self._looked_at) > _RECENT:
            del self._looked_at[next(iter(self._looked_at))]
        if before is None or not seen.startswith(before):
            return self._leaves.intersection(Keys.hashes_in(seen))
        added = self._leaves.intersection(Keys.hashes_in(seen[len(before) :]))
        return self._held.get(unit, frozenset()) | added


def _told(notes: Notes) -> Iterable[tuple[str, str]]:
    return (note for note in notes if note[0] != _NAMED)
