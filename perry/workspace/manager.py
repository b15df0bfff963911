"""What can be done with workspaces: the verbs of their life cycle.

`init` reads as the list of its steps. The manager yields what happens and returns what it led to;
it prints nothing and asks nobody. All it knows of a workspace it reads from Docker, every time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack

from perry.client.worker_client import WorkerClient
from perry.errors import (
    EngineFailure,
    ForeignContainer,
    PortTaken,
    WorkerError,
    WorkspaceConflict,
    WorkspaceNotFound,
    WorkspaceNotRunning,
)
from perry.workspace import bundle, clone, helper, image, names, options
from perry.workspace.account import Account, read_account
from perry.workspace.address import shown_ports
from perry.workspace.engine import CONFLICT, Engine
from perry.workspace.exec_session import ExecSession
from perry.workspace.home import ensure_home
from perry.workspace.models import (
    Installed,
    Ready,
    Removed,
    Steps,
    Worker,
    Workspace,
    WorkspaceSpec,
)
from perry.workspace.objects import Container
from perry.workspace.progress import at_once, timed
from perry.workspace.supervisor import Supervisor
from perry.workspace.wait import wait_for_container

STOP_TIMEOUT = 10
"""Seconds that a workspace's own command may take to end."""

PORT_TAKEN = ("port is already allocated", "address already in use")
"""The engine's words where a published port can't be had; its status is a plain 500."""


class WorkspaceManager:
    """The workspaces of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._supervisor = Supervisor(engine)

    # Verbs that take a while: they yield their steps

    def init(self, spec: WorkspaceSpec) -> Steps:
        """Make a workspace be there, running, with a healthy worker; one that exists is made right.

        Raises UsageError for a bad specification, WorkspaceConflict where the workspace exists and
        contradicts it, ForeignContainer, ImageUnusable, PortTaken, BuildError, and CloneFailed when
        all else is done.
        """
        options.check(spec)
        container = self._find(spec.name)
        if container is not None:
            self._check_agreement(spec, container)
            return (yield from self._bring_up(container, spec.clone))
        helper.remove_abandoned(self._engine)
        ensured = image.ensure_image(self._engine, spec.image, spec.name)
        found = yield from timed("image", ensured, lambda _: options.image_reference(spec))
        yield from timed("bundle", self._supervisor.ensure_bundle(), lambda it: it.digest)
        account = read_account(self._engine, found)
        with ExitStack() as undo:
            home = at_once(lambda: self._ensure_home(spec.name, account, undo))
            yield from timed("volume", home, lambda it: f"{it} at {account.home}")
            created = at_once(lambda: self._create(spec, account, undo))
            container = yield from timed("container", created, lambda it: it.name)
            made = container
            started = at_once(lambda: self._start(made))
            container = yield from timed("start", started, lambda it: " ".join(it.addresses))
            undo.pop_all()
        return (yield from self._serve(container, spec.clone, fresh=True))

    def start(self, name: str) -> Steps:
        """Start a workspace and its worker; one that runs is left so."""
        return (yield from self._bring_up(self._require(name)))

    def restart(self, name: str) -> Steps:
        """Stop a workspace and start it again."""
        self.stop(name)
        return (yield from self.start(name))

    def sync(self, name: str) -> Steps:
        """Bring a running workspace to this perry's worker. Raises WorkspaceNotRunning."""
        container = self._require_running(name)
        ready = yield from self._bring_up(container)
        self._supervisor.prune()
        return ready

    # Verbs that are done at once

    def list(self) -> list[Workspace]:
        """List the workspaces by name."""
        listed = self._engine.list_containers(names.LABEL)
        found = [self._engine.get_container(container.id) for container in listed]
        ours = [_workspace(it) for it in found if it is not None and self._is_workspace(it)]
        return sorted(ours, key=lambda it: it.name)

    def get(self, name: str) -> Workspace:
        """Return a workspace. Raises WorkspaceNotFound."""
        return _workspace(self._require(name))

    def stop(self, name: str) -> None:
        """Stop a workspace; a stopped one is left so. Raises WorkspaceNotFound."""
        self._engine.stop_container(self._require(name).id, timeout=STOP_TIMEOUT)

    def remove(self, name: str, *, keep_volume: bool = False) -> Removed:
        """Remove a workspace's container and, unless told to keep it, its home.

        What is gone already counts as removed. Raises ForeignContainer.
        """
        container = self._find(names.validate(name))
        if container is not None:
            self._engine.remove_container(container.id)
        for abandoned in helper.list_helpers(self._engine, name):
            helper.remove(self._engine, abandoned)
        volumes: list[str] = []
        if not keep_volume:
            volumes = [it.name for it in self._engine.list_volumes(f"{names.LABEL}={name}")]
        for volume in volumes:
            self._engine.remove_volume(volume)
        containers = () if container is None else (container.name,)
        return Removed(name, containers, tuple(volumes))

    # The worker

    def worker(self, name: str) -> Worker | None:
        """Return a workspace's healthy worker, None where none answers; starts nothing."""
        container = self._require(name)
        return self._supervisor.ask(container) if container.is_running else None

    def connect(self, workspace: Workspace) -> WorkerClient:
        """Return a client of the workspace's worker, which is revived first if it is dead.

        Raises WorkspaceNotFound, WorkspaceNotRunning and WorkerCannotRun.
        """
        return self._supervisor.connect(self._running_container(workspace), workspace)

    def reach(self, workspace: Workspace) -> WorkerClient:
        """Return a client of the workspace's worker as it is; starts and revives nothing.

        Raises WorkspaceNotFound, WorkspaceNotRunning and WorkerUnreachable.
        """
        return self._supervisor.reach(self._running_container(workspace))

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
        container = self._require(name)
        return self._supervisor.log(_workspace(container))

    # Programs and output

    def exec_command(
        self, name: str, argv: tuple[str, ...], *, tty: bool, stdin: bool, user: str | None = None
    ) -> ExecSession:
        """Start a program in a running workspace, as its user in its working directory."""
        container = self._require_running(name)
        exec_id = self._engine.prepare_exec(
            container.id, argv, user=user or "", tty=tty, stdin=stdin
        )
        return ExecSession(self._engine, exec_id, self._engine.attach_exec(exec_id, tty=tty))

    def shell_argv(self, name: str) -> tuple[str, ...]:
        """Return the command line of the best shell there is: bash, sh, or the bundle's own."""
        container = self._require_running(name)
        for shell in ("/bin/bash", "/bin/sh"):
            probe = self._engine.run(container.id, [bundle.BUSYBOX, "test", "-x", shell])
            if probe.exit_code == 0:
                return (shell, "-l")
        return (bundle.BUSYBOX, "sh", "-l")

    def logs(self, name: str, *, follow: bool = False, tail: int | None = None) -> Iterator[bytes]:
        """Yield what the workspace's container printed."""
        return self._engine.read_logs(self._require(name).id, follow=follow, tail=tail)

    # What perry put on the engine

    def installed(self) -> Installed:
        """Return what perry put on the engine besides workspaces."""
        filled = self._engine.list_containers(bundle.LABEL)
        helpers = helper.list_helpers(self._engine)
        return Installed(
            containers=tuple(dict.fromkeys(it.name for it in [*filled, *helpers])),
            volumes=tuple(
                it.name
                for label in (bundle.LABEL, bundle.KEY_LABEL)
                for it in self._engine.list_volumes(label)
            ),
            images=tuple(image.list_built(self._engine)),
        )

    def uninstall(self) -> Installed:
        """Remove what perry put on the engine. Raises WorkspaceConflict while workspaces exist."""
        workspaces = [workspace.name for workspace in self.list()]
        if workspaces:
            raise WorkspaceConflict(
                f"There are still workspaces on this engine: {', '.join(workspaces)}",
                hint=f"Remove them first: perry workspace remove {' '.join(workspaces)}",
            )
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

    def _bring_up(self, container: Container, url: str | None = None) -> Steps:
        """Take a container that exists, in whatever state, to a healthy worker."""
        if container.is_running:
            return (yield from self._serve(container, url, fresh=False))
        yield from timed("bundle", self._supervisor.ensure_bundle(), lambda it: it.digest)
        started = at_once(lambda: self._start(container))
        running = yield from timed("start", started, lambda it: " ".join(it.addresses))
        return (yield from self._serve(running, url, fresh=True))

    def _serve(self, container: Container, url: str | None, *, fresh: bool) -> Steps:
        """Give a running container its worker; where none can run the workspace is ready too."""
        workspace = _workspace(container)
        worker, warning = None, None
        try:
            worker = yield from self._supervisor.ensure(container, workspace, fresh=fresh)
        except WorkerError as error:
            warning = str(error)
        if url is not None:
            cloned = at_once(lambda: clone.clone(self._engine, workspace, url))
            yield from timed("clone", cloned, str)
        return Ready(workspace, worker, warning)

    def _ensure_home(self, name: str, account: Account, undo: ExitStack) -> str:
        runtime = image.runtime_reference()
        return ensure_home(self._engine, name, account, helper_image=runtime, undo=undo)

    def _create(self, spec: WorkspaceSpec, account: Account, undo: ExitStack) -> Container:
        """Create the container; where another perry was quicker, its container is the one."""
        settings = options.container_settings(spec, home=account.home)
        try:
            created = self._engine.create_container(names.container(spec.name), **settings)
        except EngineFailure as failure:
            if failure.status != CONFLICT:
                raise
            wait_for_container(self._engine, names.container(spec.name))
            return self._require(spec.name)
        undo.callback(self._engine.remove_container, created)
        return self._require(spec.name)

    def _start(self, container: Container) -> Container:
        name = container.labels[names.LABEL]
        try:
            if container.state == "paused":
                self._engine.unpause_container(container.id)
            else:
                self._engine.start_container(container.id)
        except EngineFailure as failure:
            if any(words in failure.message for words in PORT_TAKEN):
                raise PortTaken(
                    f"A port that '{name}' publishes is already in use: {failure.message}",
                    hint="Publish another one (--publish HOST:CONTAINER), or free it.",
                    workspace=name,
                ) from failure
            raise
        return self._require(name)

    def _check_agreement(self, spec: WorkspaceSpec, container: Container) -> None:
        spec = dataclasses.replace(spec, network=self._as_recorded(spec.network))
        wanted = None if spec.image is None else self._engine.get_image(spec.image)
        same_image = spec.image in (None, container.image) or (
            wanted is not None and wanted.id == container.image_id
        )
        differing = options.differences(spec, container.raw, same_image=same_image)
        if differing:
            raise WorkspaceConflict(
                f"The workspace '{spec.name}' exists and differs in: {', '.join(differing)}",
                hint="Leave these options out to use it as it is, or remove it first "
                f"(perry workspace remove {spec.name} --keep-volume keeps its home).",
                workspace=spec.name,
            )

    def _as_recorded(self, network: str | None) -> str | None:
        """Spell a network as the engine records it: another container's by that one's id."""
        kind, is_anothers, reference = (network or "").partition(":")
        if not is_anothers:
            return network
        found = self._engine.get_container(reference)
        return network if found is None else f"{kind}:{found.id}"

    def _find(self, name: str) -> Container | None:
        """Return the container of a workspace. Raises ForeignContainer."""
        container = self._engine.get_container(names.container(names.validate(name)))
        if container is None or self._is_workspace(container):
            return container
        raise ForeignContainer(
            f"There is a container '{container.name}' that isn't perry's",
            hint="Choose another name for the workspace; perry leaves that container alone.",
            workspace=name,
        )

    def _require(self, name: str) -> Container:
        container = self._find(name)
        if container is None:
            raise WorkspaceNotFound(
                f"There is no workspace '{name}'",
                hint=f"perry workspace list shows them; perry workspace init {name} makes it.",
                workspace=name,
            )
        return container

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
            raise _not_running(workspace.name, container.state)
        return container

    def _require_running(self, name: str) -> Container:
        container = self._require(name)
        if not container.is_running:
            raise _not_running(name, container.state)
        return container

    def _is_workspace(self, container: Container) -> bool:
        """Tell whether a container's own label, not its image's, makes it a workspace."""
        name = container.labels.get(names.LABEL)
        if not name or container.name != names.container(name):
            return False
        found = self._engine.get_image(container.image_id)
        return found is None or found.labels.get(names.LABEL) != name


def _not_running(name: str, state: str) -> WorkspaceNotRunning:
    return WorkspaceNotRunning(
        f"The workspace '{name}' doesn't run ({state})",
        hint=f"Start it: perry workspace start {name}",
        workspace=name,
    )


def _workspace(container: Container) -> Workspace:
    config = container.raw["Config"]
    variables = dict(item.partition("=")[::2] for item in config.get("Env") or ())
    name = container.labels[names.LABEL]
    volumes = [mount.get("Name") for mount in container.raw.get("Mounts") or ()]
    volume = names.home_volume(name)
    return Workspace(
        name=name,
        container_id=container.id,
        image=container.image,
        state=container.state,
        created_at=container.created_at,
        started_at=container.started_at,
        user=config.get("User") or "",
        home=variables.get("HOME", "/root"),
        home_volume=volume if volume in volumes else None,
        addresses=container.addresses,
        ports=shown_ports(container),
    )
