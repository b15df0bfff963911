"""What the agent daemon tells, beyond what workers and the manager do.

A place is whatever has sessions: a workspace, or the host. Every answer that speaks of sessions
says of each place how it was read and how old that is. This module must not know HTTP or Docker.
"""

from __future__ import annotations

import sys
from typing import Literal

import msgspec

from perry.sessions.models import Session

Via = Literal["host", "worker", "snapshot", "memory"]
Standing = Literal["live", "stopped", "archived"]
"""Whether a session's place is asked itself, or was read last, or has the session no more."""


class PlacedSession(
    Session, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False
):
    """A session, and the name of the place that it is in (`host`, or a workspace's)."""

    workspace: str


class StandingSession(PlacedSession, frozen=True, kw_only=True, rename="camel", gc=False):
    """A session of any place, or of the archive, and where it stands."""

    standing: Standing


class Place(msgspec.Struct, frozen=True, rename="camel"):
    """How one place's sessions are known.

    `state` is Docker's word for a workspace, `running` for the host. `via` says how they were read:
    in process (`host`), from the `worker`, from a `snapshot` through Docker's archive API, or from
    the daemon's `memory` of what it read last. `as_of` is None while they are current, else when
    they last were (ms since the epoch; 0: never). `error` says why they can't be asked now.
    """

    name: str
    state: str
    via: Via
    as_of: int | None = None
    error: str | None = None


def placed(session: Session, workspace: str) -> PlacedSession:
    """Put a session in its place; what thousands of sessions say alike is kept once."""
    alike = {
        name: sys.intern(text)
        for name in ("agent_type", "directory", "git_branch", "model")
        if (text := getattr(session, name)) is not None
    }
    if session.first_prompt == session.title:
        alike["first_prompt"] = session.title
    return PlacedSession(**{**msgspec.structs.asdict(session), **alike}, workspace=workspace)


def standing_session(session: Session, workspace: str, standing: Standing) -> StandingSession:
    """Say of a session where it is, and where it stands."""
    known = msgspec.structs.asdict(session)
    return StandingSession(**{**known, "workspace": workspace, "standing": standing})
