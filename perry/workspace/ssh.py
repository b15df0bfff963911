"""HTTP to an engine on another machine, over ssh as Docker's own command line does it.

Every connection is an `ssh` process that runs `docker system dial-stdio` there, so whatever the
user's ssh configuration says holds. docker-py's own adapter wants paramiko, which takes long to
load, and hands out connections that know no timeouts; here a connection is a socket like another.
It must not know what is asked over it.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from typing import IO
from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.response import HTTPResponse

CONNECT_TIMEOUT = 30  # s
POOL_SIZE = 10
LONGEST_COMPLAINT = 400  # bytes of ssh's own words
GRACE = 2.0  # s for an ssh process to end

_UNINTERRUPTED = 'trap "" INT; exec ssh "$@"'
"""Ctrl-C reaches every process at the terminal, and what perry then undoes needs the engine."""


class SshFailed(ConnectionError):
    """The ssh process ended; its words say why."""


@dataclass(frozen=True)
class Destination:
    """What `ssh://me@host:22/run/docker.sock` says; only the host has to be there."""

    host: str
    user: str | None
    port: int | None
    socket_path: str

    @classmethod
    def parse(cls, address: str) -> Destination:
        """Take an address apart. Raises ValueError."""
        parts = urlsplit(address)
        if not parts.hostname or parts.password is not None or parts.query or parts.fragment:
            raise ValueError(f"{address} is not ssh://[USER@]HOST[:PORT][/SOCKET]")
        named = parts.netloc.rpartition("@")[2]
        begin = named.lower().index(parts.hostname)  # names in an ssh configuration have cases
        host = named[begin : begin + len(parts.hostname)]
        return cls(host, parts.username, parts.port, parts.path.rstrip("/"))

    def argv(self) -> list[str]:
        """Return the command line that joins its stdin and stdout to the engine there."""
        options = ["-T", "-o", f"ConnectTimeout={CONNECT_TIMEOUT}"]
        options += [] if self.user is None else ["-l", self.user]
        options += [] if self.port is None else ["-p", str(self.port)]
        docker = ["docker"]
        docker += ["--host", f"unix://{self.socket_path}"] if self.socket_path else []
        there = shlex.join([*docker, "system", "dial-stdio"])
        return ["sh", "-c", _UNINTERRUPTED, "ssh", *options, "--", self.host, there]


class SshAdapter(HTTPAdapter):
    """Has requests ask whatever they ask over ssh connections to one destination."""

    def __init__(self, destination: Destination, *, timeout: float) -> None:
        super().__init__()
        self._over_ssh = _Pool(destination, timeout)

    def get_connection_with_tls_context(self, *_: object, **__: object) -> HTTPConnectionPool:
        """Return the pool of the destination's connections, whatever the URL."""
        return self._over_ssh

    def get_connection(self, *_: object, **__: object) -> HTTPConnectionPool:
        """Return the same for requests before 2.32."""
        return self._over_ssh

    def request_url(self, request: PreparedRequest, proxies: object) -> str:  # noqa: ARG002 - no proxy is asked
        """Return what stands in the request line."""
        return request.path_url

    def close(self) -> None:
        """End the connections that nobody uses."""
        self._over_ssh.close()
        super().close()


class _Pool(HTTPConnectionPool):
    def __init__(self, destination: Destination, timeout: float) -> None:
        super().__init__("docker", timeout=timeout, maxsize=POOL_SIZE)
        self._destination = destination
        self._seconds = timeout

    def _new_conn(self) -> _Connection:
        return _Connection(self._destination, self._seconds)


class _Connection(HTTPConnection):
    """One ssh process, its input and output being the other end of our socket."""

    def __init__(self, destination: Destination, timeout: float | None) -> None:
        super().__init__("docker", timeout=timeout)
        self._destination = destination
        self._process: subprocess.Popen[bytes] | None = None
        self._words: IO[bytes] | None = None
        self._said = ""

    def connect(self) -> None:
        ours, theirs = socket.socketpair()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - read when ssh has failed
        with theirs:
            self._process = subprocess.Popen(
                self._destination.argv(),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._words,
            )
        ours.settimeout(self.timeout)
        self.sock = ours

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # urllib3's own, not the standard library's
        try:
            return super().getresponse()
        except ConnectionError as error:
            self.close()
            if not self._said:
                raise
            raise SshFailed(self._said) from error

    def close(self) -> None:
        super().close()
        process, words = self._process, self._words
        self._process = self._words = None
        if process is not None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):  # it ends when it can
                process.wait(GRACE)
        if words is not None:
            with words:
                words.seek(0)
                self._said = words.read()[-LONGEST_COMPLAINT:].decode(errors="replace").strip()
