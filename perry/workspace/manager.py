"""What can be done with workspaces: the verbs of their life cycle.

`init` reads as the list of its steps. The manager yields what happens and returns what it led to;
it prints nothing and asks nobody. All it knows of a workspace it reads from Docker, every time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from perry.client.worker_client import WorkerClient
from perry.errors import (
    EngineFailure,
    WorkerError,
    WorkspaceConflict,
    WorkspaceNotFound,
)
from perry.workspace import bundle, clone, delivery, helper, image, names, options, starting
from perry.workspace.account import Account, forget_home, read_account
from perry.workspace.engine import CONFLICT, Engine
from perry.workspace.exec_session import ExecSession
from perry.workspace.home import ensure_home
from perry.workspace.inspection import workspace_of
from perry.workspace.log_stream import LogStream, follow_command
from perry.workspace.models import (
    Installed,
    Ready,
    Removed,
    Steps,
    Survey,
    Worker,
    Workspace,
    WorkspaceSpec,
)
from perry.workspace.objects import Container
from perry.workspace.progress import at_once, timed
from perry.workspace.revivals import forget as forget_revivals
from perry.workspace.roster import Member, Roster, not_running
from perry.workspace.supervisor import Supervisor
from perry.workspace.wait import wait_for_container
from perry.workspace.worker_process import stop_workers

STOP_TIMEOUT = 10
"""Seconds that a workspace's own command may take to end."""


class WorkspaceManager:
    """The workspaces of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._roster = Roster(engine)
        self._supervisor = Supervisor(engine)

    # Verbs that take a while: they yield their steps

    def init(self, spec: WorkspaceSpec) -> Steps:
        """Make a workspace be there, running, with a healthy worker; one that exists is made right.

        Raises UsageError for a bad specification, WorkspaceConflict where the workspace exists and
        contradicts it, ForeignContainer, ImageUnusable, PortTaken, BuildError, and CloneFailed when
        all else is done.
        """
        options.check(spec)
        member = self._roster.find(spec.name)
        if member is not None:
            self._check_agreement(spec, member)
            return (yield from self._bring_up(member, spec.clone))
        helper.remove_abandoned(self._engine)
        ensured = image.ensure_image(self._engine, spec.image, spec.name)
        found = yield from timed("image", ensured, lambda _: options.image_reference(spec))
        yield from timed("bundle", self._supervisor.ensure_bundle(), lambda it: it.digest)
        account = read_account(self._engine, found)
        with ExitStack() as undo:
            home = at_once(lambda: self._ensure_home(spec.name, account, undo))
            yield from timed("volume", home, lambda it: f"{it} at {account.home}")
            created = at_once(lambda: self._create(spec, account, undo))
            made = yield from timed("container", created, lambda it: it.container.name)
            started = at_once(lambda: self._start(made))
            member = yield from timed("start", started, _addresses)
            undo.pop_all()
        return (yield from self._serve(member, spec.clone, fresh=True))

    def adopt(self, reference: str, name: str | None = None) -> Steps:
        """Make a workspace of a container that is there, by its name or id, with a worker in it.

        Without a name it is called as its own label or its name says. One that doesn't run is left
        so. Raises WorkspaceNotFound, WorkspaceConflict and UsageError.
        """
        chosen = name or self.suggest_name(reference)
        adopted = at_once(lambda: self._roster.adopt(reference, chosen))
        member = yield from timed("adopt", adopted, lambda it: it.container.name)
        if not member.container.is_running:
            warning = f"it doesn't run; start it: perry workspace start {member.name}"
            return Ready(workspace_of(self._engine, member), None, warning)
        yield from timed("bundle", self._supervisor.ensure_bundle(), lambda it: it.digest)
        return (yield from self._serve(member, None, fresh=False))

    def start(self, name: str) -> Steps:
        """Start a workspace and its worker; one that runs is left so."""
        return (yield from self._bring_up(self._roster.require(name)))

    def restart(self, name: str) -> Steps:
        """Stop a workspace and start it again."""
        self.stop(name)
        return (yield from self.start(name))

    def sync(self, name: str) -> Steps:
        """Bring a running workspace to this perry's worker. Raises WorkspaceNotRunning."""
        ready = yield from self._bring_up(self._roster.require_running(name))
        self._supervisor.prune()
        return ready

    # Verbs that are done at once

    def list(self) -> list[Workspace]:
        """List the workspaces by name."""
        return list(self.survey().workspaces)

    def survey(self) -> Survey:
        """Find the workspaces, and the containers that say they are one and aren't."""
        roll = self._roster.call()
        members = [workspace_of(self._engine, it) for it in roll.members]
        return Survey(tuple(members), roll.overlooked)

    def get(self, name: str) -> Workspace:
        """Return a workspace. Raises WorkspaceNotFound."""
        return workspace_of(self._engine, self._roster.require(name))

    def suggest_name(self, reference: str) -> str:
        """Return what a container would be adopted as. Raises WorkspaceNotFound and UsageError."""
        return self._roster.suggest_name(reference)

    def stop(self, name: str) -> None:
        """Stop a workspace; a stopped one is left so. Raises WorkspaceNotFound."""
        container = self._roster.require(name).container
        self._engine.stop_container(container.id, timeout=STOP_TIMEOUT)

    def remove(self, name: str, *, keep_volume: bool = False) -> Removed:
        """Remove a workspace's container and, unless told to keep it, its home.

        An adopted one is only let go of. What is gone already counts as removed. Raises
        ForeignContainer.
        """
        member = self._roster.find(name)
        if member is not None and member.adopted:
            return self._let_go(member)
        if member is not None:
            self._engine.remove_container(member.container.id)
            self._forget(member.container.id)
        for abandoned in helper.list_helpers(self._engine, name):
            helper.remove(self._engine, abandoned)
        volumes: tuple[str, ...] = ()
        labelled = [it.name for it in self._engine.list_volumes(f"{names.LABEL}={name}")]
        if not keep_volume and names.home_volume(name) in labelled:
            volumes = (names.home_volume(name),)
            self._engine.remove_volume(*volumes)
        containers = () if member is None else (member.container.name,)
        return Removed(name, containers, volumes)

    def _let_go(self, member: Member) -> Removed:
        """Forget that a container is a workspace, then take out of it what perry put there."""
        self._roster.release(member)
        self._forget(member.container.id)
        container, warning = member.container, None
        try:
            if container.is_running:
                stop_workers(self._engine, container.id)
            is_clean = delivery.take_away(self._engine, container)
        except EngineFailure as failure:
            warning = f"what perry put into '{container.name}' stays there: {failure.message}"
        else:
            if not is_clean:
                warning = f"what perry put into '{container.name}' stays there: {bundle.ROOT}"
        return Removed(member.name, (), (), let_go=container.name, warning=warning)

    def _forget(self, container_id: str) -> None:
        """Keep nothing of a workspace in this user's cache, its sessions least of all."""
        from perry.workspace.snapshot import Snapshots  # noqa: PLC0415  # loads all readers

        Snapshots(self._engine).forget(container_id)
        forget_revivals(container_id)
        forget_home(container_id)

    # The worker

    def worker(self, name: str) -> Worker | None:
        """Return a workspace's healthy worker, None where none answers; starts nothing."""
        container = self._roster.require(name).container
        return self._supervisor.ask(container, name) if container.is_running else None

    def connect(self, workspace: Workspace) -> WorkerClient:
        """Return a client of the workspace's worker, which is revived first if it is dead.

        Raises WorkspaceNotFound, WorkspaceNotRunning and WorkerCannotRun.
        """
        return self._supervisor.connect(self._running_container(workspace), workspace)

    def reach(self, workspace: Workspace) -> WorkerClient:
        """Return a client of the workspace's worker as it is; starts and revives nothing.

        Raises WorkspaceNotFound, WorkspaceNotRunning and WorkerUnreachable.
        """
        return self._supervisor.reach(self._running_container(workspace), workspace.name)

    def revive(self, workspace: Workspace, *, gently: bool = True) -> WorkerClient:
        """Start a worker that is known to be dead, and return a client of it.

        One that is there all the same will do, unless not `gently`: then it is ended first. Raises
        WorkspaceNotFound, WorkspaceNotRunning and WorkerCannotRun.
        """
        container = self._running_container(workspace)
        return self._supervisor.revive(container, workspace, gently=gently)

    def worker_execs(self, workspace: Workspace) -> tuple[str, ...]:
        """Return the ids of the execs that the workspace's workers run as."""
        programs = self._engine.list_execs(self._running_container(workspace))
        return tuple(it for it, path in programs.items() if path.startswith(bundle.PROCESS_PREFIX))

    def token(self, workspace: Workspace) -> str:
        """Return the token that opens the workspace's worker."""
        return self._supervisor.token(workspace.container_id)

    def worker_log(self, name: str) -> str:
        """Return what the workspace's worker logged; empty where it never ran."""
        return self._supervisor.log(self.get(name))

    # Programs and output

    def exec_command(
        self, name: str, argv: tuple[str, ...], *, tty: bool, stdin: bool, user: str | None = None
    ) -> ExecSession:
        """Start a program in a running workspace, as its user in its working directory."""
        container = self._roster.require_running(name).container
        exec_id = self._engine.prepare_exec(
            container.id, argv, user=user or "", tty=tty, stdin=stdin
        )
        return ExecSession(self._engine, exec_id, self._engine.attach_exec(exec_id, tty=tty))

    def shell_argv(self, name: str) -> tuple[str, ...]:
        """Return the command line of the best shell there is: bash, sh, or the bundle's own."""
        container = self._roster.require_running(name).container
        for shell in ("/bin/bash", "/bin/sh"):
            probe = self._engine.run(container.id, [shell, "-c", "exit 0"])
            if probe.exit_code == 0:
                return (shell, "-l")
        return (bundle.BUSYBOX, "sh", "-l")

    def logs(self, name: str, *, follow: bool = False, tail: int | None = None) -> Iterator[bytes]:
        """Yield what the workspace's container printed."""
        container = self._roster.require(name).container
        return self._engine.read_logs(container.id, follow=follow, tail=tail)

    def follow_logs(self, name: str, *, worker: bool, tail: int) -> LogStream:
        """Open what a workspace's command prints, or its worker logs, from the last lines on.

        It ends when the container stops. Raises WorkspaceNotFound, and WorkspaceNotRunning for the
        worker's.
        """
        if worker:
            workspace = workspace_of(self._engine, self._roster.require_running(name))
            return self._supervisor.follow_log(workspace, tail=tail)
        return follow_command(self._engine, self._roster.require(name).container.id, tail=tail)

    # What perry put on the engine

    def installed(self) -> Installed:
        """Return what perry put on the engine besides workspaces."""
        filled = self._engine.list_containers(bundle.LABEL)
        helpers = helper.list_helpers(self._engine)
        return Installed(
            containers=tuple(dict.fromkeys(it.name for it in [*filled, *helpers])),
            volumes=tuple(
                it.name
                for label in (bundle.LABEL, bundle.KEY_LABEL, names.RELEASED_LABEL)
                for it in self._engine.list_volumes(label)
            ),
            images=tuple(image.list_built(self._engine)),
        )

    def uninstall(self) -> Installed:
        """Remove what perry put on the engine. Raises WorkspaceConflict while workspaces exist."""
        workspaces = self.list()
        if workspaces:
            raise _still_there(workspaces)
        installed = self.installed()
        for container in installed.containers:
            self._engine.remove_container(container)
        for volume in installed.volumes:
            self._engine.remove_volume(volume)
        for reference in installed.images:
            self._engine.remove_image(reference)
        image.remove_leftovers(self._engine)
        self._supervisor.forget_key()
        return installed

    # Below: one step each

    def _bring_up(self, member: Member, url: str | None = None) -> Steps:
        """Take a workspace that exists, in whatever state, to a healthy worker."""
        if member.container.is_running:
            return (yield from self._serve(member, url, fresh=False))
        yield from timed("bundle", self._supervisor.ensure_bundle(), lambda it: it.digest)
        started = at_once(lambda: self._start(member))
        running = yield from timed("start", started, _addresses)
        return (yield from self._serve(running, url, fresh=True))

    def _serve(self, member: Member, url: str | None, *, fresh: bool) -> Steps:
        """Give a running workspace its worker; where none can run it is ready too."""
        workspace = workspace_of(self._engine, member)
        worker, warning = None, None
        try:
            worker = yield from self._supervisor.ensure(member.container, workspace, fresh=fresh)
        except WorkerError as error:
            warning = str(error)
        if url is not None:
            cloned = at_once(lambda: clone.clone(self._engine, workspace, url))
            yield from timed("clone", cloned, str)
        return Ready(workspace, worker, warning)

    def _ensure_home(self, name: str, account: Account, undo: ExitStack) -> str:
        runtime = image.runtime_reference()
        return ensure_home(self._engine, name, account, helper_image=runtime, undo=undo)

    def _create(self, spec: WorkspaceSpec, account: Account, undo: ExitStack) -> Member:
        """Create the container; where another perry was quicker, its container is the one."""
        settings = options.container_settings(spec, home=account.home)
        try:
            created = self._engine.create_container(names.container(spec.name), **settings)
        except EngineFailure as failure:
            if failure.status != CONFLICT:
                raise
            wait_for_container(self._engine, names.container(spec.name))
            return self._roster.require(spec.name)
        undo.callback(self._engine.remove_container, created)
        return self._roster.require(spec.name)

    def _start(self, member: Member) -> Member:
        starting.start(self._engine, member.name, member.container)
        return self._roster.require(member.name)

    def _check_agreement(self, spec: WorkspaceSpec, member: Member) -> None:
        container = member.container
        spec = dataclasses.replace(spec, network=self._as_recorded(spec.network))
        wanted = None if spec.image is None else self._engine.get_image(spec.image)
        same_image = spec.image in (None, container.image) or (
            wanted is not None and wanted.id == container.image_id
        )
        differing = options.differences(spec, container.raw, same_image=same_image)
        if differing:
            hint = "Leave these options out to use it as it is"
            if not member.adopted:
                hint += (
                    ", or remove it first "
                    f"(perry workspace remove {spec.name} --keep-volume keeps its home)"
                )
            raise WorkspaceConflict(
                f"The workspace '{spec.name}' exists and differs in: {', '.join(differing)}",
                hint=f"{hint}.",
                workspace=spec.name,
            )

    def _as_recorded(self, network: str | None) -> str | None:
        """Spell a network as the engine records it: another container's by that one's id."""
        kind, is_anothers, reference = (network or "").partition(":")
        if not is_anothers:
            return network
        found = self._engine.get_container(reference)
        return network if found is None else f"{kind}:{found.id}"

    def _running_container(self, workspace: Workspace) -> Container:
        """Return a workspace's container as it is now, found by its id and not by its name."""
        container = self._engine.get_container(workspace.container_id)
        if container is None:
            raise WorkspaceNotFound(
                f"The container of '{workspace.name}' was removed meanwhile",
                hint=f"perry workspace init {workspace.name} makes it anew.",
                workspace=workspace.name,
            )
        if not container.is_running:
            raise not_running(workspace.name, container.state)
        return container


def _addresses(member: Member) -> str:
    return " ".join(member.container.addresses)


def _still_there(workspaces: Sequence[Workspace]) -> WorkspaceConflict:
    listed = ", ".join(it.name for it in workspaces)
    adopted = ", ".join(it.name for it in workspaces if it.adopted)
    only = f" (only lets go of what perry didn't make: {adopted})" if adopted else ""
    return WorkspaceConflict(
        f"There are still workspaces on this engine: {listed}",
        hint=f"Remove them first: perry workspace remove {listed.replace(',', '')}{only}",
    )
