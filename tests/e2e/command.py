"""The `perry` command as a person has it: a process, its exit code, and what it says where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 60.0

BUSYBOX = "/opt/perry/busybox"
_KILL = """
for file in $("$0" grep -l "^/opt/perry/layers/" /proc/[0-9]*/cmdline); do
  process=${file#/proc/}
  kill -KILL ${process%/cmdline}
done
"""
KILL_WORKER = (BUSYBOX, "sh", "-c", _KILL, BUSYBOX)
"""Kills a workspace's worker from inside, whatever its image has."""


@dataclass(frozen=True)
class Perry:
    """The installed command, run in a directory with more variables than this process has."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    def argv(self, *arguments: str) -> list[str]:
        return [*self.prefix, str(Path(sys.executable).with_name("perry")), *arguments]

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run it to its end, piped, with nothing to read unless `stdin` is given."""
        return subprocess.run(
            self.argv(*arguments),
            cwd=self.directory,
            env={**os.environ, **self.environment},
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def ok(self, *arguments: str, stdin: str | None = None) -> str:
        """Run it, see that it succeeds, and return what it printed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.stderr}{done.stdout}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Run it with --json and return what it printed, which is JSON and nothing else."""
        return json.loads(self.ok(*arguments, "--json"))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it; its output can be read line by line as it comes."""
        return subprocess.Popen(
            self.argv(*arguments),
            cwd=self.directory,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
