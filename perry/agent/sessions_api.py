"""The daemon's answers about sessions: those of the host and of every workspace, in one list.

Lists come out of the mirror and wait for nobody; messages and deletions are asked of the place that
has the session, and of the archive where none has it any more. Each answer says how every place is
known. It must not know how places are reached.
"""

from __future__ import annotations

import logging
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from perry.agent.listing import PIECE, Pieces
from perry.agent.models import standing_session
from perry.client.local_client import LocalClient
from perry.errors import (
    ArchiveError,
    ArchiveUnusable,
    SessionNotFound,
    WorkspaceNotFound,
    WorkspaceNotRunning,
)
from perry.protocol import DEFAULT_PAGE
from perry.worker.answers import (
    asked_agent,
    flag,
    has_tag,
    in_thread,
    json_answer,
    number,
    raw_answer,
)
from perry.worker.encoding import encode
from perry.workspace.names import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.requests import Request

    from perry.agent.daemon import Daemon
    from perry.agent.models import Place, PlacedSession, StandingSession
    from perry.archive.models import Kept, Key
    from perry.client.session_client import SessionClient

log = logging.getLogger(__name__)

T = TypeVar("T")

NOT_THERE = (SessionNotFound, WorkspaceNotFound, WorkspaceNotRunning)
"""Errors of a place for which the archive is asked instead."""


class SessionsApi:
    """The endpoints, one method each."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._mirror = daemon.mirror
        self._pieces = Pieces()

    def routes(self) -> list[Route]:
        """Give the table of what is answered here."""
        one = "/api/workspaces/{name}/sessions/{id}"
        return [
            Route("/api/sessions", self.sessions),
            Route("/api/workspaces/{name}/refresh", self.refresh, methods=["POST"]),
            Route(one, self.session, methods=["GET", "DELETE"]),
            Route(f"{one}/messages", self.messages),
            Route(f"{one}/restore", self.restore, methods=["POST"]),
            Route("/api/workspaces/{name}/deleted", self.deleted),
        ]

    async def sessions(self, request: Request) -> Response:
        """List sessions, newest activity first, and how each place is known."""
        if flag(request, "archived"):
            return await in_thread(self._with_archived, request)
        limit, offset = number(request, "limit"), number(request, "offset") or 0
        agent, children = asked_agent(request), flag(request, "children")
        # Taken before the list: a change in between makes the tag too old, never too new.
        version = self._mirror.version
        workspace, places = self._asked_places(request)
        tag = self._tag(version, places)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if has_tag(request, tag):
            return Response(status_code=304, headers=headers)
        found = self._mirror.sessions(workspace=workspace, agent=agent, children=children)
        page = found[offset : None if limit is None else offset + limit]
        if len(page) > PIECE:
            return await self._pieces.answer(page, len(found), places, headers)
        return json_answer(_listing(page, len(found), places), headers=headers)

    def _with_archived(self, request: Request) -> Response:
        """List what the archive alone has as well, and where each session stands."""
        limit, offset = number(request, "limit"), number(request, "offset") or 0
        agent, children = asked_agent(request), flag(request, "children")
        workspace = request.query_params.get("workspace") or None
        places = [place for place in self._mirror.places() if workspace in {None, place.name}]
        archive, standing = self._daemon.intake.archive, self._mirror.standing
        found = {
            (one.workspace, one.agent_type, one.id): one
            for one in self._mirror.sessions(workspace=workspace, agent=agent, children=True)
        }
        listed = [standing_session(one, key[0], standing(key)) for key, one in found.items()]
        listed += [
            standing_session(kept.session, kept.workspace, "archived")
            for kept in archive.sessions(workspace)
            if kept.key not in found and agent in {None, kept.session.agent_type}
        ]
        fitting = [one for one in listed if children or one.parent_id is None]
        fitting.sort(key=lambda one: -one.last_activity)
        page = fitting[offset : None if limit is None else offset + limit]
        return json_answer(_listing(page, len(fitting), places))

    def _asked_places(self, request: Request) -> tuple[str | None, tuple[Place, ...]]:
        """Read which place is asked for, and give it, or all. Raises HTTPException 404."""
        workspace = request.query_params.get("workspace") or None
        if workspace is None:
            return None, self._mirror.places()
        place = self._mirror.place(workspace)
        if place is None:
            raise HTTPException(404, f"there is no workspace '{workspace}'")
        return workspace, (place,)

    def _tag(self, version: int, places: tuple[Place, ...]) -> str:
        digest = blake2b(msgspec.json.encode(places), digest_size=8).hexdigest()
        return f'"{self._mirror.run}-{version}-{digest}"'

    async def refresh(self, request: Request) -> Response:
        """Have all files of a place looked at again, and answer when that is done."""
        await in_thread(self._daemon.refresh, request.path_params["name"])
        return json_answer({"success": True})

    async def session(self, request: Request) -> Response:
        """Show or delete one session."""
        name, session_id = request.path_params["name"], request.path_params["id"]
        agent, for_good = asked_agent(request), flag(request, "forgood")

        if request.method == "DELETE":
            await in_thread(self._delete, name, session_id, agent, for_good=for_good)
            return json_answer({"success": True})

        def shown() -> StandingSession:
            return self._asked(
                name,
                session_id,
                agent,
                lambda client: standing_session(
                    client.get_session(session_id, agent=agent), name, self._mirror.stands(name)
                ),
                lambda kept: standing_session(kept.session, name, "archived"),
            )

        return json_answer({"session": await in_thread(shown), "place": self._mirror.place(name)})

    async def deleted(self, request: Request) -> Response:
        """List what can be restored of one place, what was deleted last first."""
        name = request.path_params["name"]
        found = await in_thread(lambda: self._changeable(name).list_deleted())
        return json_answer({"workspace": name, "deleted": found})

    async def restore(self, request: Request) -> Response:
        """Bring back what was deleted last under an id."""
        name, session_id = request.path_params["name"], request.path_params["id"]
        agent = asked_agent(request)
        await in_thread(self._restore, name, session_id, agent)
        return json_answer({"success": True})

    def _changeable(self, name: str) -> SessionClient:
        """Give the client of a place that isn't only read from a copy."""
        client = self._daemon.client(name)
        if name != HOST and isinstance(client, LocalClient):
            raise _only_copied(name)
        return client

    async def messages(self, request: Request) -> Response:
        """Give one page of a session's messages; `offset` counts back from the newest."""
        name, session_id = request.path_params["name"], request.path_params["id"]
        limit, offset = number(request, "limit"), number(request, "offset") or 0
        limit, agent = DEFAULT_PAGE if limit is None else limit, asked_agent(request)

        def encoded() -> bytes:
            page = self._asked(
                name,
                session_id,
                agent,
                lambda client: client.list_messages(
                    session_id, limit=limit, offset=offset, agent=agent
                ),
                lambda kept: self._daemon.intake.archive.messages(
                    kept.key, limit=limit, offset=offset
                ),
            )
            answer: dict[str, object] = {"workspace": name, **msgspec.structs.asdict(page)}
            return encode({**answer, "place": self._mirror.place(name)})

        return raw_answer(await in_thread(encoded))

    def _asked(
        self,
        name: str,
        session_id: str,
        agent: str | None,
        there: Callable[[SessionClient], T],
        kept: Callable[[Kept], T],
    ) -> T:
        """Ask a place about a session, and where it hasn't got it, the archive."""
        try:
            return self._daemon.ask(name, there)
        except NOT_THERE:
            found = self._archived(name, session_id, agent)
            if found is None:
                raise
            return kept(found)

    def _archived(self, name: str, session_id: str, agent: str | None) -> Kept | None:
        """Find a session of the archive, None where it has none, or can't be used."""
        try:
            return self._daemon.intake.archive.find(name, session_id, agent)
        except ArchiveError as error:
            log.warning("the archive was not asked: %s", error.message)
            return None

    def _delete(self, name: str, session_id: str, agent: str | None, *, for_good: bool) -> None:
        """Delete a session where it is, and in the archive, which is to forget it by all means."""
        kept, failure = None, None
        try:
            kept = self._daemon.intake.archive.find(name, session_id, agent)
        except ArchiveError as error:
            failure = error
        key = self._listed(name, session_id, agent) if kept is None else kept.key
        try:
            client = self._daemon.client(name)
            if name != HOST and isinstance(client, LocalClient):
                client.get_session(session_id, agent=agent)  # one that isn't there is 404
                raise _only_copied(name)
            client.delete_session(session_id, agent=agent, for_good=for_good)
        except (SessionNotFound, WorkspaceNotFound):
            if kept is None:
                raise
        if failure is not None:
            raise ArchiveUnusable(
                f"It was deleted from {name}, but not from the archive: {failure.message}",
                hint=failure.hint,
            ) from failure
        if key is not None:
            self._daemon.intake.archive.delete(key, for_good=for_good)

    def _listed(self, name: str, session_id: str, agent: str | None) -> Key | None:
        """Find a session in the list by its id, and return its key."""
        known = self._mirror.sessions(workspace=name, agent=agent, children=True)
        found = (one for one in known if one.id == session_id)
        return next(((name, one.agent_type, one.id) for one in found), None)

    def _restore(self, name: str, session_id: str, agent: str | None) -> None:
        """Restore a session where it was, and in the archive; at least in the one that can."""
        try:
            self._changeable(name).restore_session(session_id, agent=agent)
        except (SessionNotFound, WorkspaceNotFound):
            if not self._restored_in_archive(name, session_id, agent):
                raise
        else:
            self._restored_in_archive(name, session_id, agent)

    def _restored_in_archive(self, name: str, session_id: str, agent: str | None) -> bool:
        """Tell whether the archive hid a session, which it shows again now."""
        try:
            archive = self._daemon.intake.archive
            key = archive.hidden(name, session_id, agent)
            if key is None:
                return False
            archive.restore(key)
        except SessionNotFound:
            return False  # it hasn't come in yet
        except ArchiveError as error:
            log.warning("the archive shows nothing again: %s", error.message)
            return False
        return True


def _listing(page: Sequence[PlacedSession], total: int, places: Sequence[Place]) -> object:
    return {"sessions": page, "total": total, "places": places}


def _only_copied(name: str) -> WorkspaceNotRunning:
    return WorkspaceNotRunning(
        f"The sessions of '{name}' are read from a snapshot: none can be deleted or restored there",
        hint=f"Its worker can: perry workspace start {name}",
        workspace=name,
    )
