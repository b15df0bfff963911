"""The daemon's answers about sessions: those of the host and of every workspace, in one list.

Lists come out of the mirror and wait for nobody; messages, deletions and searches are asked of the
place that has the session. Each answer says how every place is known. It must not know how places
are reached.
"""

from __future__ import annotations

import functools
import logging
from hashlib import blake2b
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from perry.agent.failures import told
from perry.agent.listing import PIECE, Pieces
from perry.agent.models import PlacedSession, placed
from perry.client.local_client import LocalClient
from perry.errors import PerryError, WorkerUnreachable, WorkspaceNotRunning
from perry.protocol import DEFAULT_PAGE
from perry.sessions.models import Hit
from perry.sessions.records import epoch
from perry.sessions.search import LONGEST_QUERY, MOST_HITS, words_in
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
    from starlette.requests import Request

    from perry.agent.daemon import Daemon
    from perry.agent.mirror import Listing
    from perry.agent.models import Place
    from perry.client.session_client import SessionClient
    from perry.sessions.models import SearchPage

log = logging.getLogger(__name__)

SEARCH_PATIENCE = 30.0
"""Seconds that all places together have for a search; who needs longer is named in the answer."""

SEARCHES = 16
"""Places that are searched at the same time."""


class PlacedHit(Hit, frozen=True, kw_only=True, rename="camel", gc=False):
    """A hit, and the name of the place that it is in."""

    workspace: str


class SessionsApi:
    """The endpoints, one method each."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._mirror = daemon.mirror
        self._pieces = Pieces()
        self._searching = anyio.CapacityLimiter(SEARCHES)

    def routes(self) -> list[Route]:
        """Give the table of what is answered here."""
        one = "/api/workspaces/{name}/sessions/{id}"
        return [
            Route("/api/sessions", self.sessions),
            Route("/api/search", self.search),
            Route("/api/workspaces/{name}/refresh", self.refresh, methods=["POST"]),
            Route(one, self.session, methods=["GET", "DELETE"]),
            Route(f"{one}/messages", self.messages),
        ]

    async def sessions(self, request: Request) -> Response:
        """List sessions, newest activity first, and how each place is known."""
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
        agent = asked_agent(request)

        def show() -> PlacedSession:
            return placed(self._daemon.client(name).get_session(session_id, agent=agent), name)

        def delete() -> None:
            client = self._daemon.client(name)
            if name != HOST and isinstance(client, LocalClient):
                client.get_session(session_id, agent=agent)  # one that isn't there is 404
                raise _only_copied(name)
            client.delete_session(session_id, agent=agent)

        if request.method == "DELETE":
            await in_thread(delete)
            return json_answer({"success": True})
        found = await in_thread(show)
        return json_answer({"session": found, "place": self._mirror.place(name)})

    async def messages(self, request: Request) -> Response:
        """Give one page of a session's messages; `offset` counts back from the newest."""
        name, session_id = request.path_params["name"], request.path_params["id"]
        limit, offset = number(request, "limit"), number(request, "offset") or 0

        def encoded() -> bytes:
            page = self._daemon.client(name).list_messages(
                session_id,
                limit=DEFAULT_PAGE if limit is None else limit,
                offset=offset,
                agent=asked_agent(request),
            )
            answer: dict[str, object] = {"workspace": name, **msgspec.structs.asdict(page)}
            return encode({**answer, "place": self._mirror.place(name)})

        return raw_answer(await in_thread(encoded))

    async def search(self, request: Request) -> Response:
        """Find words in the sessions of every place, or of one; who couldn't be asked is named."""
        query, limit = request.query_params.get("q", ""), number(request, "limit")
        if not words_in(query) or len(query) > LONGEST_QUERY:
            raise HTTPException(400, f"q must be 1 to {LONGEST_QUERY} characters of words")
        limit = DEFAULT_PAGE if limit is None else min(limit, MOST_HITS)
        names = [place.name for place in self._asked_places(request)[1]]
        ask = functools.partial(
            _search,
            words=query,
            agent=asked_agent(request),
            since=number(request, "since"),
            limit=limit,
        )
        pages: dict[str, SearchPage] = {}
        failures: dict[str, PerryError] = {name: _too_late(name) for name in names}

        async def search_one(name: str) -> None:
            try:
                pages[name] = await anyio.to_thread.run_sync(
                    lambda: ask(self._daemon.asking(name)),
                    abandon_on_cancel=True,
                    limiter=self._searching,
                )
            except PerryError as error:
                failures[name] = error
            except Exception as error:
                # One place that can't be searched must not hide what is found in all the others.
                log.exception("searching %s failed", name)
                failures[name] = PerryError(f"the daemon failed: {type(error).__name__}")
            else:
                del failures[name]

        with anyio.move_on_after(SEARCH_PATIENCE):
            async with anyio.create_task_group() as group:
                for name in names:
                    group.start_soon(search_one, name)
        return raw_answer(await in_thread(lambda: encode(_found(pages, failures, limit))))


def _listing(page: Listing, total: int, places: tuple[Place, ...]) -> object:
    return {"sessions": page, "total": total, "places": places}


def _search(
    client: SessionClient, *, words: str, agent: str | None, since: int | None, limit: int
) -> SearchPage:
    with client:
        return client.search(words, agent=agent, since=since, limit=limit)


def _found(pages: dict[str, SearchPage], failures: dict[str, PerryError], limit: int) -> object:
    """Join what was found, the newest message first, and cut it where one place's would be cut."""
    sessions = {
        (name, one.agent_type, one.id): placed(one, name)
        for name, page in pages.items()
        for one in page.sessions
    }
    hits = [
        PlacedHit(*msgspec.structs.astuple(hit), workspace=name)
        for name, page in pages.items()
        for hit in page.hits
        if (name, hit.agent_type, hit.session_id) in sessions  # a workspace may say anything
    ]

    def moment(hit: PlacedHit) -> int:
        known = epoch(hit.timestamp)
        return sessions[_session_of(hit)].last_activity if known is None else known

    hits = sorted(hits, key=moment, reverse=True)[:limit]
    hit_sessions = dict.fromkeys(_session_of(hit) for hit in hits)
    return {
        "hits": hits,
        "sessions": [sessions[key] for key in hit_sessions],
        "failures": [{**told(error), "workspace": name} for name, error in failures.items()],
    }


def _session_of(hit: PlacedHit) -> tuple[str, str, str]:
    return hit.workspace, hit.agent_type, hit.session_id


def _only_copied(name: str) -> WorkspaceNotRunning:
    return WorkspaceNotRunning(
        f"The sessions of '{name}' are read from a snapshot, in which none can be deleted",
        hint=f"Its worker can delete them: perry workspace start {name}",
        workspace=name,
    )


def _too_late(name: str) -> PerryError:
    return WorkerUnreachable(
        f"'{name}' has not answered within {SEARCH_PATIENCE:g} s",
        hint=f"perry workspace logs --worker {name} may say why.",
        workspace=name,
    )
