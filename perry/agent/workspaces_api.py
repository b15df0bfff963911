"""The daemon's answers about workspaces, and what is done to them: the manager's verbs over HTTP.

What takes a while is told step by step as server-sent events where the client wants them, and goes
on to its end if the client goes away. It must not know how anything is done.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, TypeVar

import anyio
import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from perry.agent import work
from perry.agent.log_answer import LogAnswer
from perry.errors import EngineError, UsageError
from perry.worker.answers import flag, in_thread, json_answer, number
from perry.workspace import names, options, revivals
from perry.workspace.models import WorkspaceSpec

if TYPE_CHECKING:
    from starlette.requests import Request

    from perry.agent.daemon import Daemon
    from perry.agent.ledger import Thing
    from perry.worker.events import Streams
    from perry.workspace.manager import WorkspaceManager
    from perry.workspace.models import Removed, Steps, Workspace

T = TypeVar("T")

LARGEST_REQUEST = 1024 * 1024  # bytes
LOG_LINES = 1000  # the last ones, where the client names no number
FOLLOWERS = 100  # logs that are followed at the same time

SETTLING = 10.0  # s at most that the archive is waited for before a workspace is removed


class Wanted(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What `POST /api/workspaces` takes: a WorkspaceSpec."""

    name: str
    image: str | None = None
    clone: str | None = None
    env: dict[str, str] = {}
    volumes: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    memory: str | None = None
    cpus: float | None = None
    command: tuple[str, ...] = ()
    network: str | None = None
    read_only: bool = False


class Adoption(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /api/adoptions` takes: a container's name or id, and the workspace's name."""

    container: str
    name: str | None = None


class WorkspacesApi:
    """The endpoints, one method each."""

    def __init__(self, daemon: Daemon, streams: Streams[Thing]) -> None:
        self._daemon = daemon
        self._streams = streams
        self._followers = anyio.CapacityLimiter(FOLLOWERS)

    def routes(self) -> list[Route]:
        """Give the table of what is answered here."""
        one = "/api/workspaces/{name}"
        return [
            Route("/api/workspaces", self.workspaces, methods=["GET", "POST"]),
            Route("/api/adoptions", self.adopt, methods=["POST"]),
            Route(one, self.workspace, methods=["GET", "DELETE"]),
            Route(f"{one}/start", self.start, methods=["POST"]),
            Route(f"{one}/stop", self.stop, methods=["POST"]),
            Route(f"{one}/restart", self.restart, methods=["POST"]),
            Route(f"{one}/sync", self.sync, methods=["POST"]),
            Route(f"{one}/logs", self.logs),
        ]

    @property
    def _manager(self) -> WorkspaceManager:
        return self._daemon.reconciler.manager

    async def workspaces(self, request: Request) -> Response:
        """List all workspaces, each with how its sessions are known, or make one be there."""
        if request.method == "POST":
            return await self._create(request)
        found = await in_thread(lambda: [self._view(it) for it in self._manager.list()])
        return json_answer({"workspaces": found})

    async def workspace(self, request: Request) -> Response:
        """Show or remove one workspace."""
        name = _name(request)
        if request.method == "DELETE":
            keep = flag(request, "keepVolume")
            return json_answer({"removed": await in_thread(self._remove, name, keep_volume=keep)})
        return json_answer(
            {"workspace": await in_thread(lambda: self._view(self._manager.get(name)))}
        )

    def _remove(self, name: str, *, keep_volume: bool) -> Removed:
        self._daemon.intake.settle(name, SETTLING)  # what was said last is to stay
        removed = self._manager.remove(name, keep_volume=keep_volume)
        if removed.let_go is not None:
            self._look_again()
        return removed

    def _view(self, workspace: Workspace) -> dict[str, object]:
        return {
            **msgspec.to_builtins(workspace),
            "place": self._daemon.mirror.place(workspace.name),
            "revival": revivals.last(workspace.container_id),
        }

    async def _create(self, request: Request) -> Response:
        wanted = await _body(request, Wanted)
        spec = WorkspaceSpec(**msgspec.structs.asdict(wanted))
        # Before any answer has begun: an event stream could not say 400 any more.
        options.check(spec)
        _require_absolute(spec.volumes)
        return await work.answer(request, lambda: self._manager.init(spec))

    async def adopt(self, request: Request) -> Response:
        """Take a container in as a workspace, as `perry workspace adopt` does."""
        wanted = await _body(request, Adoption)
        return await work.answer(request, lambda: self._adopt(wanted))

    def _adopt(self, wanted: Adoption) -> Steps:
        ready = yield from self._manager.adopt(wanted.container, wanted.name)
        self._look_again()
        return ready

    def _look_again(self) -> None:
        """Have the daemon see what nothing happened to: its container goes on as it was."""
        with contextlib.suppress(EngineError):  # what was done is done, and it looks by itself
            self._daemon.reconciler.check()

    async def start(self, request: Request) -> Response:
        """Start a workspace and its worker."""
        name = _name(request)
        return await work.answer(request, lambda: self._manager.start(name))

    async def restart(self, request: Request) -> Response:
        """Stop a workspace and start it again."""
        name = _name(request)
        return await work.answer(request, lambda: self._manager.restart(name))

    async def sync(self, request: Request) -> Response:
        """Bring a running workspace to this perry's worker."""
        name = _name(request)
        return await work.answer(request, lambda: self._manager.sync(name))

    async def stop(self, request: Request) -> Response:
        """Stop a workspace; its home stays."""
        name = _name(request)
        await in_thread(lambda: self._manager.stop(name))
        return json_answer({"success": True})

    async def logs(self, request: Request) -> Response:
        """Give what a workspace's own command, or its worker, has logged, as plain text."""
        name, tail = _name(request), number(request, "tail")
        tail = LOG_LINES if tail is None else tail
        if flag(request, "follow") and request.method != "HEAD":
            return await self._followed(name, worker=flag(request, "worker"), tail=tail)
        if flag(request, "worker"):
            text = await in_thread(lambda: self._manager.worker_log(name))
            lines = text.encode().splitlines(keepends=True)
            return Response(b"".join(lines[max(0, len(lines) - tail) :]), media_type="text/plain")
        chunks = await in_thread(lambda: self._manager.logs(name, tail=tail))
        # Read here, where an error can still be answered; the rest may be more than fits in memory.
        first = await in_thread(next, chunks, b"")
        return StreamingResponse(itertools.chain((first,), chunks), media_type="text/plain")

    async def _followed(self, name: str, *, worker: bool, tail: int) -> Response:
        if self._followers.available_tokens < 1:
            raise HTTPException(503, f"{FOLLOWERS} logs are followed already")
        opened = await in_thread(self._manager.follow_logs, name, worker=worker, tail=tail)
        return LogAnswer(opened, self._streams, self._followers)


def _name(request: Request) -> str:
    return names.validate(request.path_params["name"])


def _require_absolute(volumes: tuple[str, ...]) -> None:
    """Refuse what would be looked for where the daemon happened to be started."""
    for text in volumes:
        if text.startswith("."):
            raise UsageError(
                f"--volume {text} is relative, and to nothing",
                hint="Give a whole path of the daemon's machine.",
            )


async def _body(request: Request, shape: type[T]) -> T:
    """Read what is asked for. Raises HTTPException 400, which names what is wrong with it."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_REQUEST:
                raise HTTPException(413, f"more than {LARGEST_REQUEST} bytes")
    except ClientDisconnect as error:
        raise HTTPException(400, "the request was broken off") from error  # which nobody reads
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(400, str(error)) from error
