"""Runs the agent daemon: one socket, one token, one uvicorn, until a signal or `perry agent stop`.

The port is bound first, so that a second daemon says that one runs; what answers there is asked
for the proof that it has this user's token before it is believed. This module must not know what
the daemon answers.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from perry.agent.access import ensure_token, login_link, state_directory
from perry.agent.app import create_app, told
from perry.agent.daemon import Daemon
from perry.archive.archive import archive_path
from perry.client.agent_client import AgentClient
from perry.config import load
from perry.errors import AgentRunning, PerryError, PortInUse
from perry.protocol import AGENT_PORT
from perry.worker.events import Streams
from perry.worker.serve import listen, log_through, serve_app
from perry.workspace.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"

BY_LOOPBACK = frozenset({"localhost", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound to
"""Hosts at which this machine is asked by the loopback address.

A browser sends the cookie of `localhost` to whatever else is there: most of what people develop.
"""


@dataclass(frozen=True)
class Listening:
    """A daemon that answers: its base URL, and the link that lets a browser in."""

    url: str
    login: str


def run(
    host: str,
    port: int,
    *,
    env: Mapping[str, str],
    on_listening: Callable[[Listening], None],
    directory: Path | None = None,
) -> NoReturn:
    """Serve until SIGTERM, SIGINT or a stop over HTTP, then end the process at once.

    `on_listening` is called once the port is bound. Raises AgentRunning where another daemon has
    the port, PerryError where something else has it, UsageError for a host that isn't here.
    """
    log_through(logging.StreamHandler())
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each question to a worker
    directory = directory or state_directory()
    config = load()
    token = ensure_token(directory)
    try:
        listener = listen(host, port)
    except PortInUse as error:
        raise _running(host, port, token) or error from error
    with closing(listener), closing(listener.dup()):  # the port is kept until all has ended
        is_any, port = port == 0, listener.getsockname()[1]
        daemon = Daemon(
            directory,
            port,
            archive=archive_path(),
            config=config.archive,
            home=Path.home(),
            env=env,
            connect=Engine.connect,
        )
        streams = Streams(daemon.ledger.journal, told)
        app = create_app(daemon, token, streams, hosts=frozenset({host.lower()}), stop=_stop)
        url = _url(host, port)
        if not _is_loopback(host):
            log.warning("others can reach %s too, and what is sent there is not encrypted", url)
        on_listening(Listening(url, login_link(url, token)))
        daemon.start()
        serve_app(app, listener, streams)
        daemon.stop()
        if is_any:  # nobody comes back to a port that was free by chance
            daemon.forget()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _url(host: str, port: int) -> str:
    shown = LOOPBACK if host in BY_LOOPBACK else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _running(host: str, port: int, token: str) -> PerryError | None:
    """Say which daemon has the port, None where something else has it."""
    url = _url(host, port)
    try:
        with AgentClient(url, token) as client:
            pid = client.status().pid
    except PerryError:
        return None  # no daemon of this user's: the port's own error says what to do
    option = "" if port == AGENT_PORT else f" --port {port}"
    return AgentRunning(
        f"An agent daemon runs already at {url} (process {pid})",
        hint=f"perry agent status{option} shows how it is; perry agent stop{option} ends it.",
    )
