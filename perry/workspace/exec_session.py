"""A program that runs in a workspace while somebody is at its other end.

It must not know terminals: the command line owns those.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from perry.workspace.attachment import Attachment
from perry.workspace.engine import Engine


@dataclass(frozen=True)
class ExecSession:
    """A started program."""

    engine: Engine
    exec_id: str
    attachment: Attachment

    @property
    def socket(self) -> socket.socket:
        """The connection of its streams: raw with a terminal, else output in Docker's frames."""
        return self.attachment.socket

    @property
    def early(self) -> bytes:
        """What it had said before that connection was there to be read."""
        return self.attachment.early

    def resize(self, rows: int, columns: int) -> None:
        """Tell the program the size of its terminal."""
        self.engine.resize_exec(self.exec_id, rows, columns)

    def exit_code(self) -> int:
        """Return the program's exit code; 0 while it still runs."""
        return self.engine.exec_exit_code(self.exec_id) or 0

    def close(self) -> None:
        """Let go of the program's streams."""
        self.attachment.close()
