"""Programs that are started in running containers, by exec.

It must not know what they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

import docker.errors

from perry.workspace.attachment import Attachment
from perry.workspace.engine.calls import Calls, translated
from perry.workspace.objects import Container, Execution


class Programs(Calls):
    """What can be started in containers, and asked about what was."""

    def run(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        user: str = "",
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> Execution:
        """Run a program in a container to its end and return what it came to."""
        exec_id = self.prepare_exec(container_id, argv, user=user, env=env, workdir=workdir)
        with translated():
            output = self._api.exec_start(exec_id)
        code = self.exec_exit_code(exec_id)
        return Execution(-1 if code is None else code, output.decode(errors="replace"))

    def launch(self, container_id: str, argv: Sequence[str], *, env: Mapping[str, str]) -> str:
        """Start a program that outlives this call, and return the id of its exec."""
        exec_id = self.prepare_exec(container_id, argv, env=env, attach=False)
        with translated():
            self._api.exec_start(exec_id, detach=True)
        return exec_id

    def prepare_exec(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        user: str = "",
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        tty: bool = False,
        stdin: bool = False,
        attach: bool = True,
    ) -> str:
        """Tell the engine of a program to run, and return the id of its exec."""
        with translated():
            return str(
                self._api.exec_create(
                    container_id,
                    list(argv),
                    user=user,
                    environment=dict(env or {}),
                    workdir=workdir,
                    tty=tty,
                    stdin=stdin,
                    stdout=attach,
                    stderr=attach,
                )["Id"]
            )

    def attach_exec(self, exec_id: str, *, tty: bool) -> Attachment:
        """Start a prepared exec and return the connection that carries its streams."""
        with translated():
            return Attachment.taken_over(self._api.exec_start(exec_id, tty=tty, socket=True))

    def resize_exec(self, exec_id: str, rows: int, columns: int) -> None:
        """Tell a running exec the size of its terminal."""
        with translated(), suppress(docker.errors.NotFound):
            self._api.exec_resize(exec_id, height=rows, width=columns)

    def list_execs(self, container: Container) -> dict[str, str]:
        """Return the programs that run in a container by exec: id to the path of the program."""
        found = {}
        for exec_id in container.raw.get("ExecIDs") or ():
            with translated(), suppress(docker.errors.NotFound):
                execution = self._api.exec_inspect(exec_id)
                if execution["Running"]:
                    found[exec_id] = str(execution["ProcessConfig"].get("entrypoint", ""))
        return found

    def exec_exit_code(self, exec_id: str) -> int | None:
        """Return the exit code of an exec, None while it runs."""
        with translated():
            found = self._api.exec_inspect(exec_id)
        return None if found["Running"] else int(found["ExitCode"] or 0)
