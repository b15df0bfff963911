"""The daemon's answers about words: of the archive's index, or of every worker's own search.

Both give the same shape. The archive finds what is gone as well, in milliseconds; the workers look
through the files themselves, and are asked where the archive can't be, or on demand. This module
must not know how either finds anything.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from typing import TYPE_CHECKING, get_args

import anyio
import anyio.to_thread
import msgspec
from starlette.exceptions import HTTPException
from starlette.routing import Route

from perry.agent.failures import told
from perry.agent.models import StandingSession, standing_session
from perry.archive.models import Filters, Found, KeptHit
from perry.archive.terms import parse
from perry.client.local_client import LocalClient
from perry.errors import ArchiveError, PerryError, WorkerUnreachable
from perry.protocol import DEFAULT_PAGE
from perry.sessions.models import HitType
from perry.sessions.records import epoch
from perry.sessions.search import LONGEST_QUERY, MOST_HITS, words_in
from perry.worker.answers import asked_agent, in_thread, number, raw_answer
from perry.worker.encoding import encode

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from perry.agent.daemon import Daemon
    from perry.archive.archive import Archive
    from perry.client.session_client import SessionClient
    from perry.sessions.models import SearchPage

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds that all places together have for a search; who needs longer is named in the answer."""

SEARCHES = 16
"""Places that are searched at the same time."""

ROLES: tuple[str, ...] = get_args(HitType)
BY_INDEX = ("directory", "role", "tool", "until", "offset")
"""What only the archive can be asked for."""

Failures = dict[str, PerryError]


class Answer(msgspec.Struct, frozen=True, rename="camel"):
    """What is found, and by whom: `archive` or `workers`.

    `pending` is how many sessions the archive hasn't taken in yet as they are now; `failures` are
    the places that the workers' search couldn't look through.
    """

    hits: tuple[KeptHit, ...]
    sessions: tuple[StandingSession, ...]
    failures: tuple[dict[str, str | None], ...]
    by: str
    pending: int


class SearchApi:
    """The endpoint of searches."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._mirror = daemon.mirror
        self._searching = anyio.CapacityLimiter(SEARCHES)

    def routes(self) -> list[Route]:
        """Give the table of what is answered here."""
        return [Route("/api/search", self.search)]

    async def search(self, request: Request) -> Response:
        """Find words in what was said, everywhere or in one workspace."""
        words = request.query_params.get("q", "")
        if not words_in(words) or len(words) > LONGEST_QUERY:
            raise HTTPException(400, f"q must be 1 to {LONGEST_QUERY} characters of words")
        asked = number(request, "limit")
        limit = DEFAULT_PAGE if asked is None else min(asked, MOST_HITS)
        by = request.query_params.get("by") or None
        if by not in {None, "archive", "workers"}:
            raise HTTPException(400, "by must be archive or workers")
        if by != "workers":
            try:
                return await self._by_archive(request, words, limit)
            except ArchiveError:
                if by == "archive" or any(map(request.query_params.get, BY_INDEX)):
                    raise
        if any(map(request.query_params.get, BY_INDEX)):
            raise HTTPException(400, f"only the archive knows {', '.join(BY_INDEX)}")
        return await self._by_workers(request, words, limit)

    async def _by_archive(self, request: Request, words: str, limit: int) -> Response:
        filters, offset = _filters(request), number(request, "offset") or 0
        archive = self._daemon.intake.archive

        def encoded() -> bytes:
            name = filters.workspace
            if name and not (self._mirror.place(name) or name in archive.workspaces()):
                raise _nowhere(name)
            found = _searched(archive, words, filters, limit, offset)
            sessions = tuple(
                standing_session(kept.session, kept.workspace, self._mirror.standing(kept.key))
                for kept in found.sessions
            )
            pending = self._daemon.intake.pending
            return encode(Answer(found.hits, sessions, (), "archive", pending))

        return raw_answer(await in_thread(encoded))

    async def _by_workers(self, request: Request, words: str, limit: int) -> Response:
        names = self._places(request)
        ended = threading.Event()
        ask = functools.partial(
            _search,
            words=words,
            agent=asked_agent(request),
            since=number(request, "since"),
            limit=limit,
            ended=ended,
        )
        pages: dict[str, SearchPage] = {}
        failures: Failures = {name: _too_late(name) for name in names}

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

        with anyio.move_on_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for name in names:
                    group.start_soon(search_one, name)
        ended.set()
        return raw_answer(await in_thread(lambda: encode(self._joined(pages, failures, limit))))

    def _places(self, request: Request) -> list[str]:
        name = request.query_params.get("workspace") or None
        if name is None:
            return [place.name for place in self._mirror.places()]
        if self._mirror.place(name) is None:
            raise _nowhere(name)
        return [name]

    def _joined(self, pages: dict[str, SearchPage], failures: Failures, limit: int) -> Answer:
        """Join what was found, the newest message first, and cut it where one place's would be."""
        sessions = {
            (name, one.agent_type, one.id): standing_session(
                one, name, self._mirror.standing((name, one.agent_type, one.id))
            )
            for name, page in pages.items()
            for one in page.sessions
        }
        hits = [
            KeptHit(*msgspec.structs.astuple(hit), workspace=name)
            for name, page in sorted(pages.items())  # whoever was quicker: of equals, by name
            for hit in page.hits
            if (name, hit.agent_type, hit.session_id) in sessions  # a workspace may say anything
        ]

        def moment(hit: KeptHit) -> int:
            known = epoch(hit.timestamp)
            return sessions[_session_of(hit)].last_activity if known is None else known

        hits = sorted(hits, key=moment, reverse=True)[:limit]
        found = dict.fromkeys(_session_of(hit) for hit in hits)
        return Answer(
            tuple(hits),
            tuple(sessions[key] for key in found),
            tuple({**told(error), "workspace": name} for name, error in failures.items()),
            "workers",
            0,
        )


def _nowhere(name: str) -> HTTPException:
    return HTTPException(404, f"there is no workspace '{name}'")


def _filters(request: Request) -> Filters:
    given = request.query_params
    role = given.get("role") or None
    if role is not None and role not in ROLES:
        raise HTTPException(400, f"role must be one of {', '.join(ROLES)}")
    return msgspec.convert(
        {
            "workspace": given.get("workspace") or None,
            "agent": asked_agent(request),
            "directory": given.get("directory") or None,
            "role": role,
            "tool": given.get("tool") or None,
            "since": number(request, "since"),
            "until": number(request, "until"),
        },
        Filters,
    )


def _searched(archive: Archive, words: str, filters: Filters, limit: int, offset: int) -> Found:
    return archive.search(parse(words), filters, limit=limit, offset=offset)


def _search(
    client: SessionClient,
    *,
    words: str,
    agent: str | None,
    since: int | None,
    limit: int,
    ended: threading.Event,
) -> SearchPage:
    """Search one place; what is searched in this process stops when nobody waits for it."""

    def go_on() -> bool:
        time.sleep(0)  # others may have the interpreter now; a search is never in a hurry
        return not ended.is_set()

    with client:
        if isinstance(client, LocalClient):
            return client.search(words, agent=agent, since=since, limit=limit, go_on=go_on)
        return client.search(words, agent=agent, since=since, limit=limit)


def _session_of(hit: KeptHit) -> tuple[str, str, str]:
    return hit.workspace, hit.agent_type, hit.session_id


def _too_late(name: str) -> PerryError:
    return WorkerUnreachable(
        f"'{name}' has not answered within {PATIENCE:g} s",
        hint=f"perry workspace logs --worker {name} may say why.",
        workspace=name,
    )
