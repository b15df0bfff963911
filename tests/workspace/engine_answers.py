"""The engine's HTTP API as a test wants it: answers from a table, over a real socket.

The one fake of a foreign edge in these tests, for what a real engine won't say on demand: answers
of other engine versions, networks with IPv6, programs that end at a chosen moment.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import docker

from perry.workspace.engine import Engine

VERSION = "1.41"
Table = dict[str, Callable[[], tuple[int, Any]]]


@contextmanager
def served(table: Table) -> Iterator[str]:
    """Serve a table of paths on loopback and yield `host:port`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            missing = 404, {"message": f"no {self.path}"}
            status, body = table.get(urlsplit(self.path).path, lambda: missing)()
            if isinstance(body, bytes):
                self._break_off(status, body)
                return
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET()

        def _break_off(self, status: int, chunks: bytes) -> None:
            """Begin a stream and hang up."""
            self.send_response(status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(chunks)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing: pytest shows what matters."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def engine_of(table: Table) -> Iterator[Engine]:
    """Connect perry's engine to one that answers from a table, keyed without the version."""
    versioned: Table = {f"/v{VERSION}{path}": answer for path, answer in table.items()}
    with served(versioned) as address:
        engine = Engine(docker.APIClient(base_url=f"tcp://{address}", version=VERSION))
        yield engine
        engine.close()


def listed(identity: str = "c1", **changes: Any) -> dict[str, Any]:
    """A container as the engine lists it, in the parts that perry reads."""
    return {
        "Id": identity,
        "Names": ["/workspace-a"],
        "State": "running",
        "Labels": {},
        "Created": 1_795_507_200,
        **changes,
    }


def container(identity: str = "c1", **changes: Any) -> dict[str, Any]:
    """A container as the engine inspects it, in the parts that perry reads."""
    return {
        "Id": identity,
        "Name": "/workspace-a",
        "Image": "sha256:1",
        "Created": "2026-11-24T08:00:00.123456789Z",
        "State": {"Status": "running", "ExitCode": 0, "StartedAt": "2026-11-24T08:00:01Z"},
        "Config": {"Image": "i", "Labels": None},
        "HostConfig": {},
        "NetworkSettings": {"Networks": {}},
        **changes,
    }
