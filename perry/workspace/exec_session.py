"""A program that runs in a workspace while somebody is at its other end.

It must not know terminals: the command line owns those.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from perry.workspace.engine import Engine


@dataclass(frozen=True)
class ExecSession:
    """A started program.

    `socket` carries its streams both ways: raw bytes with a terminal, else output in Docker's
    frames of an 8-byte header (stream number, three zero bytes, length as 32 bits big-endian).
    """

    engine: Engine
    exec_id: str
    socket: socket.socket

    def resize(self, rows: int, columns: int) -> None:
        """Tell the program the size of its terminal."""
        self.engine.resize_exec(self.exec_id, rows, columns)

    def exit_code(self) -> int:
        """Return the program's exit code; 0 while it still runs."""
        return self.engine.exec_exit_code(self.exec_id) or 0

    def close(self) -> None:
        """Let go of the program's streams."""
        self.socket.close()
