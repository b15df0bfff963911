"""The daemon's answers about workspaces, and what is done to them: the manager's verbs over HTTP.

What takes a while is told step by step as server-sent events where the client wants them, and goes
on to its end if the client goes away. It must not know how anything is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from perry.agent import work
from perry.worker.answers import flag, in_thread, json_answer, number
from perry.workspace import names, revivals
from perry.workspace.models import WorkspaceSpec

if TYPE_CHECKING:
    from starlette.requests import Request

    from perry.agent.daemon import Daemon
    from perry.workspace.manager import WorkspaceManager
    from perry.workspace.models import Workspace

T = TypeVar("T")

LARGEST_REQUEST = 1024 * 1024  # bytes


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

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def routes(self) -> list[Route]:
        """Give the table of what is answered here."""
        one = "/api/workspaces/{name}"
        return [
            Route("/api/workspaces", self.list, methods=["GET"]),
            Route("/api/workspaces", self.create, methods=["POST"]),
            Route("/api/adoptions", self.adopt, methods=["POST"]),
            Route(one, self.show, methods=["GET"]),
            Route(one, self.remove, methods=["DELETE"]),
            Route(f"{one}/start", self.start, methods=["POST"]),
            Route(f"{one}/stop", self.stop, methods=["POST"]),
            Route(f"{one}/restart", self.restart, methods=["POST"]),
            Route(f"{one}/sync", self.sync, methods=["POST"]),
            Route(f"{one}/logs", self.logs),
        ]

    @property
    def _manager(self) -> WorkspaceManager:
        return self._daemon.reconciler.manager

    async def list(self, _: Request) -> Response:
        """List all workspaces, each with how its sessions are known."""
        found = await in_thread(lambda: [self._view(it) for it in self._manager.list()])
        return json_answer({"workspaces": found})

    async def show(self, request: Request) -> Response:
        """Show one workspace."""
        name = _name(request)
        return json_answer(
            {"workspace": await in_thread(lambda: self._view(self._manager.get(name)))}
        )

    def _view(self, workspace: Workspace) -> dict[str, object]:
        return {
            **msgspec.to_builtins(workspace),
            "place": self._daemon.mirror.place(workspace.name),
            "revival": revivals.last(workspace.container_id),
        }

    async def create(self, request: Request) -> Response:
        """Make a workspace be there, as `perry workspace init` does."""
        wanted = await _body(request, Wanted)
        spec = WorkspaceSpec(**msgspec.structs.asdict(wanted))
        return await work.answer(request, lambda: self._manager.init(spec))

    async def adopt(self, request: Request) -> Response:
        """Take a container in as a workspace, as `perry workspace adopt` does."""
        wanted = await _body(request, Adoption)
        return await work.answer(
            request, lambda: self._manager.adopt(wanted.container, wanted.name)
        )

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

    async def remove(self, request: Request) -> Response:
        """Remove a workspace and, unless told to keep it, its home."""
        name, keep = _name(request), flag(request, "keepVolume")
        return json_answer(
            {"removed": await in_thread(lambda: self._manager.remove(name, keep_volume=keep))}
        )

    async def logs(self, request: Request) -> Response:
        """Give what a workspace's own command, or its worker, has logged, as plain text."""
        name, tail = _name(request), number(request, "tail")

        def read() -> bytes:
            if flag(request, "worker"):
                lines = self._manager.worker_log(name).encode().splitlines(keepends=True)
                return b"".join(lines if tail is None else lines[max(0, len(lines) - tail) :])
            return b"".join(self._manager.logs(name, tail=tail))

        return Response(await in_thread(read), media_type="text/plain")


def _name(request: Request) -> str:
    return names.validate(request.path_params["name"])


async def _body(request: Request, shape: type[T]) -> T:
    """Read what is asked for. Raises HTTPException 400, which names what is wrong with it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_REQUEST:
            raise HTTPException(413, f"more than {LARGEST_REQUEST} bytes")
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(400, str(error)) from error
