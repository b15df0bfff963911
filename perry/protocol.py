"""What the host and the worker must agree on, and nothing else.

Ports, header and environment names, the health answer, and the proof that a worker gives before
anybody sends it a token. Host and container run this same file, so it must not know Docker, HTTP
libraries or files. The shapes of sessions and messages are in `sessions/models.py`.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

AGENT_PORT = 7391
WORKER_PORT = 7392

TOKEN_VARIABLE = "PERRY_WORKER_TOKEN"  # noqa: S105 - the name of a variable, not a token
DIGEST_VARIABLE = "PERRY_WORKER_DIGEST"

DEFAULT_PAGE = 100
"""Messages in a page where the caller names no limit."""

HEARTBEAT = 15.0
"""Seconds of silence after which an event stream says that it is still there."""

UNBUNDLED = "unbundled"
"""The digest that a worker started by hand reports: it runs from no bundle."""


class Health(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What `GET /health` answers.

    `status` is `starting` until the first scan is whole, then `ok`; `watch` is `native` or
    `polling`; `proof` is there when a challenge was given; `skipped_lines` and `unreadable`
    (path to reason) only in the verbose answer.
    """

    status: str
    version: str = ""
    digest: str = ""
    session_count: int | None = None
    watch: str | None = None
    proof: str | None = None
    skipped_lines: int | None = None
    unreadable: dict[str, str] | None = None


def proof(token: str, nonce: str) -> str:
    """Prove knowledge of a token: the hex HMAC-SHA256 of the nonce under it."""
    return hmac.new(token.encode(), nonce.encode(), hashlib.sha256).hexdigest()


def is_proof(token: str, nonce: str, candidate: str) -> bool:
    """Tell whether a proof fits token and nonce, in constant time."""
    return hmac.compare_digest(proof(token, nonce).encode(), candidate.encode())
