"""What a worker is told at its start: where to listen, the token, whose home to read.

Everything comes in through the environment and two options, because the process that starts a
worker in a container can set nothing else. The rule that protects sessions from the network lives
here: without a token only this machine may ask. It must not know HTTP or the sessions.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from perry.errors import UsageError
from perry.protocol import DIGEST_VARIABLE, TOKEN_VARIABLE, UNBUNDLED, WORKER_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

EVERYWHERE = "::"
"""All addresses of both families; only IPv4 where the kernel has no IPv6."""

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class WorkerConfig:
    """How one worker runs.

    `host` is an address or a name; `port` 0 lets the kernel choose; `token` None means that no
    token is asked for; `digest` names the bundle; `home` is the home whose sessions are served and
    `env` the environment that the coding agents' directories are looked up in.

    Raises UsageError where the host could be reached from outside and there is no token.
    """

    host: str
    port: int
    token: str | None = field(repr=False)
    digest: str
    home: Path
    env: Mapping[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        if self.token is None and not _is_loopback(self.host):
            raise UsageError(
                f"Without a token a worker only listens on this machine, not on {self.host}.",
                hint=f"Leave out --host, or set {TOKEN_VARIABLE} to a secret for its clients.",
            )
        if not 0 <= self.port <= 65535:  # noqa: PLR2004 - the range of a TCP port
            raise UsageError(
                f"{self.port} is no port number.", hint="Give --port a number from 1 to 65535."
            )

    @classmethod
    def from_environment(
        cls,
        environ: MutableMapping[str, str],
        *,
        host: str | None = None,
        port: int = WORKER_PORT,
    ) -> WorkerConfig:
        """Read a worker's settings from `environ`, and take the token out of it.

        Without `host` a worker with a token listens everywhere, one without on loopback.
        Raises UsageError as the class does, and where there is no home directory.
        """
        token = environ.pop(TOKEN_VARIABLE, "") or None
        return cls(
            host=host or (EVERYWHERE if token else LOOPBACK),
            port=port,
            token=token,
            digest=environ.get(DIGEST_VARIABLE) or UNBUNDLED,
            home=_home(environ),
            env=dict(environ),
        )


def _home(environ: Mapping[str, str]) -> Path:
    if home := environ.get("HOME"):
        return Path(home)
    try:
        return Path.home()
    except RuntimeError as error:
        raise UsageError(
            "This user has no home directory, so there are no sessions to serve.",
            hint="Set HOME to the directory that the coding agents use.",
        ) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # any other name may resolve to anything
