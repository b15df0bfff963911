"""The worker's process in a container: started by exec, ended by a signal, asked why it won't run.

Only perry starts workers. It must not know how a worker is reached.
"""

from __future__ import annotations

from dataclasses import dataclass

from perry.protocol import DIGEST_VARIABLE, TOKEN_VARIABLE
from perry.workspace.bundle import BUSYBOX, PROCESS_PREFIX, Bundle
from perry.workspace.engine import Engine

_STOP = """
workers() {
  "$0" grep -l "$1" /proc/[0-9]*/cmdline 2>/dev/null | while IFS=/ read -r _ _ process _; do
    if "$0" cmp -s /proc/self/cgroup "/proc/$process/cgroup"; then echo "$process"; fi
  done
}
tries=0
signal=TERM
while left=$(workers "$1") && [ -n "$left" ] && [ $tries -lt 50 ]; do
  if [ $tries -eq 40 ]; then signal=KILL; fi
  if [ $tries -eq 0 ] || [ $signal = KILL ]; then kill -$signal $left 2>/dev/null; fi
  "$0" sleep 0.05
  tries=$((tries + 1))
done
"""
"""Busybox's shell ends every worker: asked first, killed after two seconds.

An adopted container may see the processes of others (`--pid host`): those are in another cgroup.
"""


@dataclass(frozen=True)
class WorkerProcess:
    """The worker of one container, seen from the engine."""

    engine: Engine
    container_id: str
    bundle: Bundle

    def start(self, *, token: str, home: str) -> str:
        """Start the worker as the container's user, and return the id of its exec.

        The loader's variables are blanked: an image's own would be obeyed before Python starts.
        """
        env = {
            "LD_PRELOAD": "",
            "LD_AUDIT": "",
            "HOME": home,
            TOKEN_VARIABLE: token,
            DIGEST_VARIABLE: self.bundle.digest,
        }
        return self.engine.launch(self.container_id, self.bundle.argv(), env=env)

    def stop(self) -> None:
        """End whatever worker runs in the container, this bundle's or another's."""
        stop_workers(self.engine, self.container_id)

    def why_not(self) -> str:
        """Say in a few words why the worker doesn't run here, by trying its imports alone."""
        tried = self.engine.run(
            self.container_id, self.bundle.argv("--check"), env={"LD_PRELOAD": "", "LD_AUDIT": ""}
        )
        if tried.exit_code == 0:
            return ""
        return tried.output.strip()[-400:] or f"its Python ended with exit code {tried.exit_code}"


def stop_workers(engine: Engine, container_id: str) -> None:
    """End whatever worker runs in a container; one that never had the bundle is left as it is."""
    shell = [BUSYBOX, "sh", "-c", _STOP, BUSYBOX, f"^{PROCESS_PREFIX}"]
    engine.run(container_id, shell, user="0:0")
