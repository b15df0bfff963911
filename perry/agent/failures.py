"""Errors as the daemon's API tells them: a status, and what happened and what to do as JSON.

It must not know any route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perry.errors import (
    ArchiveError,
    BuildError,
    CloneFailed,
    EngineFailure,
    EngineUnreachable,
    ForeignContainer,
    ImageUnusable,
    PerryError,
    PortTaken,
    SessionAmbiguous,
    SessionInTheWay,
    SessionNotFound,
    SessionNotKept,
    UsageError,
    WorkerError,
    WorkerFailure,
    WorkspaceConflict,
    WorkspaceNotFound,
    WorkspaceNotRunning,
)
from perry.worker.answers import json_answer

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

NOT_NOW = 503

STATUSES: tuple[tuple[type[PerryError], int], ...] = (
    (UsageError, 400),
    (WorkspaceNotFound, 404),
    (SessionNotFound, 404),
    (SessionAmbiguous, 409),
    (SessionInTheWay, 409),
    (SessionNotKept, 507),
    (WorkspaceConflict, 409),
    (WorkspaceNotRunning, 409),
    (ForeignContainer, 409),
    (ImageUnusable, 409),
    (PortTaken, 409),
    (ArchiveError, NOT_NOW),
    (EngineUnreachable, NOT_NOW),
    (EngineFailure, 502),
    (BuildError, 502),
    (CloneFailed, 502),
    (WorkerFailure, 502),
    (WorkerError, NOT_NOW),
)
"""The first that fits counts; anything else of perry's is 500."""


def told(error: PerryError) -> dict[str, str | None]:
    """Give an error in the shape that it has as JSON."""
    return {"error": error.message, "hint": error.hint or None, "workspace": error.workspace}


def status_of(error: PerryError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, WorkerFailure) and error.status in {400, NOT_NOW}:
        return error.status
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


async def failed(_: Request, error: Exception) -> Response:
    """Answer a PerryError."""
    assert isinstance(error, PerryError)  # noqa: S101 - Starlette's type is wider than its calls
    return answer_to(error)


def answer_to(error: PerryError) -> Response:
    """Answer with an error: what may be asked again in a moment says so."""
    status = status_of(error)
    return json_answer(told(error), status, {"Retry-After": "1"} if status == NOT_NOW else None)


async def broken(_: Request, error: Exception) -> Response:
    """Answer anything else; Starlette raises it again, and uvicorn logs it with its traceback."""
    return json_answer({"error": f"the daemon failed: {type(error).__name__}"}, 500)
