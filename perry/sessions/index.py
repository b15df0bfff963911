"""All sessions of all coding agents, kept current by re-reading only what changed.

Owns the readings, settles which reader answers for which id, and hands out consistent answers to
any thread. Reading happens under one lock and answering under another that is only ever held to
swap results in, so a slow read never delays an answer. This module must not know formats, what
watches the files, or who asks.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import gc
import os
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from perry.errors import SessionError, SessionNotFound
from perry.sessions.catalog import Catalog
from perry.sessions.claude import ClaudeSource
from perry.sessions.codex import CodexSource
from perry.sessions.deleted import Bin, delete_for_good
from perry.sessions.gemini import GeminiSource
from perry.sessions.journal import Journal, changes_between, weight
from perry.sessions.listing import Listing
from perry.sessions.looks import Look, look_while
from perry.sessions.memory import Memory
from perry.sessions.models import DeletedSession, MessagePage, Session
from perry.sessions.opencode import OpenCodeSource
from perry.sessions.parallel import may_help, read_many
from perry.sessions.pi import PiSource
from perry.sessions.source import Entry, Reading, Source, Stale, Unit, shown

SOURCES: tuple[Callable[[Path, Mapping[str, str]], Source], ...] = (
    ClaudeSource,
    OpenCodeSource,
    CodexSource,
    PiSource,
    GeminiSource,
)
"""The readers: each makes a source from a home directory and an environment."""


def coding_agents() -> tuple[str, ...]:
    """Name the coding agents that there are readers for."""
    return tuple(make(Path(), {}).agent for make in SOURCES)


_DEFEATS = (
    OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip
_MUCH = 4 * 1024 * 1024  # remembered bytes that take longer to read than a helper to start
_ATTEMPTS = 5  # times that a page is tried while its files keep changing


class SessionIndex:
    """The sessions that a set of sources finds; every method may be called from any thread.

    `journal` tells what changed lately. `memory` is where readings are kept for the next index of
    the same home; without one they aren't. `root` is where the file system lies in which the
    sessions were written: paths are told as they were there.
    """

    def __init__(
        self, sources: Iterable[Source], memory: Memory | None = None, *, root: str = ""
    ) -> None:
        self.journal: Journal[Session] = Journal(weigh=weight)
        self._root = shown(root)
        self.memory = memory
        self._sources = tuple(sources)
        self.bin = None if memory is None else Bin(memory.path.with_name("deleted"), self._sources)
        self._reading = threading.Lock()
        self._saving = threading.Lock()
        self._lock = threading.Lock()
        self._catalogs = {source.agent: Catalog(root) for source in self._sources}
        self._listing = Listing()
        self._unscanned: dict[str, Mapping[str, str]] = {}
        self._version = 0
        self._reads = 0  # how often something was read that isn't remembered
        self._saved = 0
        self._is_scanned = False  # what was there before anybody could ask is no news
        self._is_loaded = memory is None

    @classmethod
    def of_home(cls, home: Path, env: Mapping[str, str], *, remember: bool = False) -> SessionIndex:
        """Make an index of all coding agents' sessions in a home directory.

        `remember` keeps what is read in the user's cache directory, and begins with what is there.
        """
        sources = [make(home, env) for make in SOURCES]
        return cls(sources, Memory.of_home(home, env, sources) if remember else None)

    @property
    def version(self) -> int:
        """A number that rises with every visible change."""
        with self._lock:
            return self._version

    def roots(self) -> tuple[Path, ...]:
        """Directories to watch; they may not exist yet."""
        return tuple(root for source in self._sources for root in source.roots)

    def located(self, session: Session) -> str:
        """Tell where a session's file lies on this machine."""
        return self._root + session.file_path

    def refresh(self) -> None:
        """Look at every file again, read what changed, forget what is gone."""
        with self._reading, _uncollected():
            looks = self._load()
            for source in self._sources:
                look = looks.get(source.agent) or Look(source.scan())
                known = self._catalogs[source.agent].readings.keys()
                self._update(source, look.scan.units | known, look.fingerprints)
                with self._lock:
                    self._unscanned[source.agent] = look.scan.unreadable
            self._is_scanned = True

    def apply(self, paths: Iterable[Path | str]) -> None:
        """Read again what belongs to changed, added or deleted files and directories."""
        changed = [*map(str, paths)]
        with self._reading:
            held = tuple(f"{path}/" for path in changed if not os.path.isfile(path))  # noqa: PTH113  (a string)
            for source in self._sources:
                units = self._known(source, changed, held)
                for path in changed:
                    units |= source.units_of(path)
                if units:
                    self._update(source, units)

    def save(self) -> bool:
        """Keep what was read for the next index, if anything changed since the last time.

        Tells whether it is kept now. Changes made meanwhile may or may not be.
        """
        if self.memory is None:
            return False
        with self._saving:
            with self._lock:
                reads = self._reads
                readings = {name: dict(c.readings) for name, c in self._catalogs.items()}
            if reads != self._saved and self.memory.save(readings):
                self._saved = reads
            return reads == self._saved

    def list(self, *, agent: str | None = None, children: bool = False) -> list[Session]:
        """List sessions that have messages, newest activity first.

        `agent` keeps one coding agent's; `children` adds the sessions that others started.
        """
        return [*self._listing.sessions(agent, children=children)]

    def listing(self, *, agent: str | None = None, children: bool = False) -> tuple[Session, ...]:
        """List as `list` does; the very same tuple comes back until something changes."""
        return self._listing.sessions(agent, children=children)

    def get(self, session_id: str, *, agent: str | None = None) -> Session:
        """Give one session. Raises SessionNotFound."""
        with self._lock:
            return self._find(session_id, agent)[1].session

    def messages(
        self, session_id: str, *, limit: int, offset: int, agent: str | None = None
    ) -> MessagePage:
        """Give a page of a session's messages, in time order.

        `offset` counts back from the newest; neither number is negative. Raises SessionNotFound,
        and SessionError where the files change faster than they can be read.
        """
        for _ in range(_ATTEMPTS):
            with self._lock:
                source, entry = self._find(session_id, agent)
                reading = self._catalogs[source.agent].readings[entry.unit]
            total = entry.session.message_count
            stop = max(0, total - offset)
            start = max(0, stop - limit)
            try:
                found = source.messages(entry, reading, start, stop) if start < stop else ()
                return MessagePage(session_id, tuple(found), total)
            except Stale:
                self._reread(source, entry.unit, reading)
        raise SessionError(
            f"The files of session {session_id} keep changing", hint="Try again in a moment."
        )

    def delete(self, session_id: str, *, agent: str | None = None, for_good: bool = False) -> None:
        """Delete a session from the disk, with its children and side files.

        It can be restored, unless it is deleted `for_good` or nothing is remembered. Raises
        SessionNotFound, SessionNotKept where it can't be kept for that and therefore isn't deleted,
        and SessionError where the files can't be deleted.
        """
        with self._reading:
            with self._lock:
                source, entry = self._find(session_id, agent)
                entries = [entry, *self._descendants(source, entry)]
            doomed = source.doomed(entries)
            try:
                if self.bin is None or for_good:
                    delete_for_good(doomed)
                else:
                    self.bin.delete(source.agent, entry.session, doomed)
            except OSError as error:
                raise SessionError(
                    f"Session {session_id} could not be deleted whole: {error}",
                    hint="See that its files can be written, and delete it again.",
                ) from error
            finally:
                self._update(source, doomed.units)

    def deleted(self) -> tuple[DeletedSession, ...]:
        """List what can be restored, what was deleted last first. Raises OSError."""
        return () if self.bin is None else self.bin.listed()

    def restore(self, session_id: str, *, agent: str | None = None) -> None:
        """Bring back what was deleted last under an id; where the session is there, do nothing.

        Raises SessionNotFound, SessionInTheWay where something else is in its place by now, and
        SessionError where it can't be written; all is left as it is then.
        """
        with self._reading:
            restored = self.bin.restore(session_id, agent=agent) if self.bin else None
            if restored is None:
                self._require_there(session_id, agent)
                return
            source = next(one for one in self._sources if one.agent == restored.agent)
            self._update(source, restored.units & source.scan().units)

    def skipped_lines(self) -> int:
        """Count the lines and files of all sessions that could not be parsed."""
        with self._lock:
            readings = [r for c in self._catalogs.values() for r in c.readings.values()]
        return sum(reading.skipped_lines for reading in readings)

    def unreadable(self) -> dict[str, str]:
        """Name the files and directories that could not be read, each with the reason."""
        with self._lock:
            found = [dict(problems) for problems in self._unscanned.values()]
            readings = [r for c in self._catalogs.values() for r in c.readings.values()]
        found += [dict(reading.unreadable) for reading in readings if reading.unreadable]
        if self.memory is not None and self.memory.problem is not None:
            found.append({shown(self.memory.path): self.memory.problem})
        return {self._told(path): reason for these in found for path, reason in these.items()}

    def _find(self, session_id: str, agent: str | None) -> tuple[Source, Entry]:
        """Look an id up; where two coding agents share it, the newer session answers."""
        found = [
            (source, entries[session_id])
            for source in self._sources
            if agent in (None, source.agent)
            and session_id in (entries := self._catalogs[source.agent].entries)
        ]
        if not found:
            raise SessionNotFound(
                f"There is no session {session_id}", hint="List the sessions to see their ids."
            )
        return max(found, key=lambda pair: pair[1].session.last_activity)

    def _require_there(self, session_id: str, agent: str | None) -> None:
        """See that a session of which nothing is kept needn't be restored."""
        try:
            with self._lock:
                self._find(session_id, agent)
        except SessionNotFound as error:
            raise SessionNotFound(
                f"No deleted session {session_id} is kept",
                hint="List what was deleted to see the ids.",
            ) from error

    def _known(self, source: Source, changed: Iterable[str], held: tuple[str, ...]) -> set[Unit]:
        """Name the known units among changed paths, and those that begin as one of `held` does."""
        known = self._catalogs[source.agent].readings
        units = {unit for unit in changed if unit in known}
        below = tuple(directory for directory in held if directory[:-1] not in known)
        if below:
            units.update(unit for unit in known if unit.startswith(below))
        return units

    def _descendants(self, source: Source, entry: Entry) -> builtins.list[Entry]:
        children: dict[str | None, builtins.list[Entry]] = {}
        for other in self._catalogs[source.agent].entries.values():
            children.setdefault(other.session.parent_id, []).append(other)
        family = {entry.session.id: entry}
        waiting = [entry.session.id]
        while waiting:
            for child in children.get(waiting.pop(), ()):
                if child.session.id not in family:
                    family[child.session.id] = child
                    waiting.append(child.session.id)
        return [other for name, other in family.items() if name != entry.session.id]

    def _reread(self, source: Source, unit: Unit, stale: Reading) -> None:
        with self._reading:
            if self._catalogs[source.agent].readings.get(unit) is stale:
                self._update(source, {unit}, afresh=True)

    def _load(self) -> Mapping[str, Look]:
        """Begin with what is remembered; it is shown once its files have been looked at.

        Gives looks at the files, by coding agent, where there was time for them meanwhile.
        """
        if self.memory is None or self.bin is None or self._is_loaded:
            return {}
        self.bin.tidy()
        load = functools.partial(self.memory.load, self._sources)
        worth = self.memory.size() >= _MUCH and may_help()
        remembered, looks = look_while(self._sources, load) if worth else (load(), {})
        for agent, readings in remembered.items():
            self._catalogs[agent].readings.update(readings)
        self._is_loaded = True
        return looks

    def _update(
        self,
        source: Source,
        units: Iterable[Unit],
        fingerprints: Mapping[Unit, bytes] = types.MappingProxyType({}),
        *,
        afresh: bool = False,
    ) -> None:
        """Read units and swap in what came out; the reading lock is held.

        A unit whose fingerprint is the one that it had needs no reading.
        """
        catalog = self._catalogs[source.agent]
        changed: dict[Unit, Reading | None] = {}
        unknown, known = [], 0
        for unit in units:
            before = catalog.readings.get(unit)
            if before is None:
                unknown.append(unit)
                continue
            after: Reading | None = before
            seen = fingerprints.get(unit)
            if not seen or seen != before.fingerprint:
                after = self._read(source, unit, None if afresh else before)
            if after is not before or not catalog.is_settled(unit):
                changed[unit] = after
                known += after is before
        found = read_many(source, unknown, lambda unit: self._read(source, unit, None))
        changed.update((unit, reading) for unit, reading in found if reading is not None)
        if not changed:
            return
        with self._lock:
            self._reads += len(changed) > known
            for unit, reading in changed.items():
                if reading is None:
                    del catalog.readings[unit]
                else:
                    catalog.readings[unit] = reading
            resolved = source.resolve(catalog.readings, changed)
            shown_before, shown_after = catalog.put(self._as_written(resolved))
            self._listing.change(_sessions(shown_before), _sessions(shown_after))
            self._version += 1
        if self._is_scanned:
            self.journal.add(changes_between(source.agent, shown_before, shown_after))

    def _as_written(
        self, resolved: Mapping[Unit, Sequence[Entry]]
    ) -> Mapping[Unit, Sequence[Entry]]:
        """Tell of each session where its file was when it was written."""
        if not self._root:
            return resolved
        return {unit: [self._moved(entry) for entry in found] for unit, found in resolved.items()}

    def _moved(self, entry: Entry) -> Entry:
        place = self._told(entry.session.file_path)
        session = msgspec.structs.replace(entry.session, file_path=place)
        return msgspec.structs.replace(entry, session=session)

    def _told(self, path: str) -> str:
        return path.removeprefix(self._root)

    @staticmethod
    def _read(source: Source, unit: Unit, before: Reading | None) -> Reading | None:
        """Read one unit; one that defeats its reader must not hide all the others."""
        try:
            return source.read(unit, before)
        except _DEFEATS as error:
            failed = Reading(unreadable={shown(unit): f"{type(error).__name__}: {error}"})
            return before if before == failed else failed


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python from looking for garbage: what is read is none, and there is a lot of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _sessions(shown: Mapping[str, Entry]) -> Iterator[Session]:
    return (entry.session for entry in shown.values())
