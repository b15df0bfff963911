"""What was read of all files, kept on the disk for the next start.

One file for each home, a header and then frames, written beside the old one and renamed over it, so
there is always a whole one. Whatever is wrong with a file, of another version or damaged, it counts
as empty, and a unit that it has is looked at before it is believed. It can be deleted at any time.
This module must not know any format, or when is a good time to write.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path

from perry.sessions.frames import Damaged, end_frames, read_frames, write_frames
from perry.sessions.source import Reading, Source, Unit

_BUFFER = 256 * 1024  # bytes
_LEFTOVER = 3600  # s after which nobody is still writing
_LONGEST_HEADER = 256  # bytes


class Memory:
    """One home's readings on the disk; `problem` says why they could not be kept there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None

    @classmethod
    def of_home(cls, home: Path, env: Mapping[str, str], sources: Iterable[Source]) -> Memory:
        """Name the place for what these sources read, in the user's cache directory."""
        configured = env.get("XDG_CACHE_HOME", "")
        cache = Path(configured) if os.path.isabs(configured) else home / ".cache"  # noqa: PTH117  (a string)
        roots = "\0".join(str(root) for source in sources for root in source.roots)
        name = blake2b(roots.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        return cls(cache / "perry" / f"sessions-{name}")

    def size(self) -> int:
        """Tell how many bytes were written last, 0 where there are none."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def load(self, sources: Collection[Source]) -> dict[str, dict[Unit, Reading]]:
        """Read what was written last, by coding agent; nothing where it can't be used."""
        found: dict[str, dict[Unit, Reading]] = {source.agent: {} for source in sources}
        try:
            with self.path.open("rb", buffering=_BUFFER) as file:
                if file.readline(_LONGEST_HEADER) == _header():
                    for agent, pairs in read_frames(file, sources):
                        found[agent].update(pairs)
        except (OSError, Damaged):
            # Missing or damaged: all files are read again, as without it.
            return {source.agent: {} for source in sources}
        return found

    def save(self, readings: Mapping[str, Mapping[Unit, Reading]]) -> bool:
        """Write readings by coding agent, and tell whether that was possible."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._drop_leftovers()
            handle, name = tempfile.mkstemp(prefix=f"{self.path.name}.", dir=self.path.parent)
            try:
                with open(handle, "wb", buffering=_BUFFER) as file:  # noqa: PTH123  (of a handle)
                    file.write(_header())
                    for agent, of_agent in readings.items():
                        write_frames(file, agent, of_agent.items())
                    end_frames(file)
                os.replace(name, self.path)  # noqa: PTH105  (a string)
            except BaseException:
                with contextlib.suppress(OSError):  # what went wrong before is the news
                    os.unlink(name)  # noqa: PTH108  (a string)
                raise
        except OSError as error:
            self.problem = error.strerror or str(error)
            return False
        self.problem = None
        return True

    def _drop_leftovers(self) -> None:
        """Remove what processes that were killed while they wrote have left. Raises OSError."""
        for path in self.path.parent.glob(f"{self.path.name}.*"):
            if path.lstat().st_mtime < time.time() - _LEFTOVER:
                path.unlink(missing_ok=True)


def _header() -> bytes:
    """Name the version: a digest of the code that reads files, and of the Python that runs it."""
    digest = blake2b(f"{sys.version} {sys.byteorder}".encode(), digest_size=16)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return f"perry sessions {digest.hexdigest()}\n".encode()
