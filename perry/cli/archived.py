"""Where the session commands read: what is live, and behind it what the archive has kept.

The host and the workspaces are asked first, and what they have is read from them; for what they
have no more, or can't tell of, the archive answers. It is opened when it is first needed, and a
user without one notices nothing. This module must not print, or know who fills the archive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import TYPE_CHECKING, NoReturn, Self

from perry.cli.connection import connect_fleet, open_archive
from perry.cli.fleet import ENGINE, Archived, Fleet, Found, Gathered, resolved
from perry.errors import (
    ArchiveError,
    EngineError,
    PerryError,
    SessionAmbiguous,
    SessionNotFound,
    WorkspaceNotFound,
)
from perry.workspace import names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from perry.archive.archive import Archive
    from perry.archive.models import Kept, Key
    from perry.cli.fleet import Place
    from perry.client.session_client import SessionClient

ON_REQUEST = "as it was seen last"


class Sources:
    """The sessions of all places, or of the one named `only`; a context manager.

    With `archived` no place is asked, and the archive alone answers.
    """

    def __init__(self, only: str | None, *, archived: bool = False) -> None:
        self._only = only
        self._archived = archived
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    @functools.cached_property
    def fleet(self) -> Fleet:
        """The places that can be asked. Raises WorkspaceNotFound, EngineError and UsageError."""
        return connect_fleet(self._only)

    @functools.cached_property
    def _archive(self) -> Archive | None:
        return self._open.enter_context(open_archive())

    @property
    def places(self) -> Fleet:
        """The places that can be asked; none where the only one can't, which is in `missing`."""
        try:
            return self.fleet
        except (WorkspaceNotFound, EngineError) as error:
            return Fleet((), _nobody, missing={self._only or ENGINE: error})

    def sessions(
        self, *, agent: str | None = None, children: bool = False, limit: int | None = None
    ) -> Gathered:
        """Ask all places, and no archive. Raises what `fleet` raises."""
        try:
            return self.fleet.sessions(agent=agent, children=children, limit=limit)
        except WorkspaceNotFound as error:
            if not self._may_help():
                raise
            raise WorkspaceNotFound(
                error.message,
                hint="The archive has its sessions: perry session list --archived"
                f" --workspace {self._only}",
                workspace=error.workspace,
            ) from error

    def all_sessions(
        self, *, agent: str | None = None, children: bool = False, limit: int | None = None
    ) -> Gathered:
        """Ask all places, and add what only the archive has.

        Raises what `fleet` raises where the archive has nothing of that place either.
        """
        gathered, refusal = self._live(agent)
        live = {(one.place.name, one.session.agent_type, one.session.id) for one in gathered.found}
        kept = self._kept(agent)
        if refusal is not None and not kept:
            raise refusal
        found = [*gathered.found, *_found([one for one in kept if one.key not in live], gathered)]
        found.sort(key=lambda one: one.session.last_activity, reverse=True)
        shown = [one for one in found if children or one.session.parent_id is None]
        failures = {
            name: error
            for name, error in gathered.failures.items()
            if not isinstance(error, WorkspaceNotFound)
        }
        return dataclasses.replace(gathered, found=tuple(shown[:limit]), failures=failures)

    def find(self, prefix: str, *, agent: str | None = None) -> tuple[Found, Gathered]:
        """Find the one session whose id begins with `prefix`, children included: live, or archived.

        Returns it with everything that answers for its kin. Raises SessionNotFound,
        SessionAmbiguous, and what keeps the only place from answering.
        """
        if self._archived:
            kept = Gathered(_found(self._kept(agent), None), {}, ())
            return resolved(prefix, kept), kept
        gathered, refusal = self._live(agent)
        try:
            if refusal is not None:
                raise refusal
            return self.fleet.pick(prefix, gathered), gathered
        except SessionAmbiguous:
            raise
        except PerryError:
            kept = dataclasses.replace(gathered, found=_found(self._kept(agent), gathered))
            if not any(one.session.id.startswith(prefix) for one in kept.found if prefix):
                raise
        return resolved(prefix, kept), kept

    def connect(self, found: Found) -> AbstractContextManager[SessionClient]:
        """Reach who answers for a session. Raises PerryError."""
        if not isinstance(found.place, Archived):
            return self.fleet.connect(found.place)
        from perry.client.archive_client import ArchiveClient  # noqa: PLC0415  # loads a database

        if self._archive is None:
            raise SessionNotFound("The archive is gone.", hint="perry archive status tells of it.")
        return ArchiveClient(self._archive, workspace=found.place.name)

    def delete(self, found: Found, *, for_good: bool = False) -> None:
        """Delete a session with those that it started, where it is and in the archive.

        Nothing is kept of one that is deleted `for_good`. Raises PerryError; what its place can't
        delete stays in the archive too.
        """
        session, name = found.session, found.place.name
        with self.connect(found) as client:
            client.delete_session(session.id, agent=session.agent_type, for_good=for_good)
        if found.standing == "archived":
            return
        try:
            if self._archive is not None:
                self._archive.delete((name, session.agent_type, session.id), for_good=for_good)
        except ArchiveError as error:
            raise ArchiveError(
                f"It was deleted from {name}, but not from the archive: {error.message}",
                hint=error.hint,
            ) from error

    def deleted(self, agent: str | None, failures: Mapping[str, PerryError]) -> list[Kept]:
        """List what can be restored in the archive, what was deleted last first.

        Not what a place has that is in `failures`, unless it is gone: that one knows better. Nor
        sessions that are deleted with the one that started them.
        """
        if self._archive is None:
            return []
        hidden = {one.key: one for one in self._archive.sessions(self._only, deleted=True)}
        found = [
            one
            for (name, coding_agent, _), one in hidden.items()
            if (name, coding_agent, one.session.parent_id) not in hidden
            and agent in (None, coding_agent)
            and isinstance(_failure(name, failures), WorkspaceNotFound | None)
        ]
        return sorted(found, key=lambda one: one.deleted_at or 0, reverse=True)

    def restore(self, key: Key) -> bool:
        """Show again what was deleted in the archive; tells whether there was anything.

        Raises ArchiveError.
        """
        try:
            if self._archive is not None:
                self._archive.restore(key)
        except SessionNotFound:
            return False  # it was never taken in, or deleted too long ago
        return self._archive is not None

    def where(self, found: Found) -> str:
        """Say where a session is deleted: in its workspace, or in what the archive has of it."""
        return f"{'the archive of ' * (found.standing == 'archived')}{found.place.name}"

    def _live(self, agent: str | None) -> tuple[Gathered, PerryError | None]:
        """Ask all places; a place that is gone, or can't be looked for, is a failure and told."""
        try:
            return self.fleet.sessions(agent=agent, children=True), None
        except (WorkspaceNotFound, EngineError) as error:
            return Gathered((), {self._only or ENGINE: error}, ()), error

    def _may_help(self) -> bool:
        """Tell whether the archive has something; a broken one is another matter."""
        try:
            return bool(self._kept(None))
        except ArchiveError:
            return False

    def _kept(self, agent: str | None) -> list[Kept]:
        if self._archive is None:
            return []
        return [
            one
            for one in self._archive.sessions(self._only)
            if agent in (None, one.session.agent_type)
        ]


def _nobody(place: Place) -> NoReturn:
    raise WorkspaceNotFound(f"There is no workspace {place.name!r}", workspace=place.name)


def _found(kept: Collection[Kept], gathered: Gathered | None) -> tuple[Found, ...]:
    """Put kept sessions in their places; `gathered` is what those places said when asked."""
    known: dict[str, Archived] = {}
    for one in kept:
        name = one.workspace
        if name not in known:
            reason = ON_REQUEST if gathered is None else _reason(name, gathered)
            known[name] = Archived(name, reason)
    return tuple(Found(one.session, known[one.workspace]) for one in kept)


def _reason(name: str, gathered: Gathered) -> str:
    """Say why the archive answers for a place."""
    place = "the host" if name == names.HOST else f"the workspace '{name}'"
    if name in gathered.asked and name not in gathered.failures:
        return f"{place} has it no more"
    error = _failure(name, gathered.failures)
    if error is None or isinstance(error, WorkspaceNotFound):
        return f"{place} is gone"
    return f"{place} can't be asked: {error.message}"


def _failure(name: str, failures: Mapping[str, PerryError]) -> PerryError | None:
    return failures.get(name) or (None if name == names.HOST else failures.get(ENGINE))
