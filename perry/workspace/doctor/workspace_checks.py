"""What may be wrong with one workspace: its container, its worker, its home.

The worker is asked once, on the way that the ladder finds, and nothing is started: what is dead is
told as dead. It must not know the other workspaces.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from perry.client.worker_client import WorkerClient
from perry.errors import EngineFailure, WorkerError, WorkerUntrusted
from perry.protocol import WORKER_PORT, Health
from perry.workspace import bundle
from perry.workspace.address import Way
from perry.workspace.bundle import Bundle
from perry.workspace.doctor import inotify, space
from perry.workspace.doctor.finding import Check, Verdict, failure, ok, warning
from perry.workspace.engine import Engine
from perry.workspace.ladder import Ladder
from perry.workspace.models import Workspace
from perry.workspace.objects import Container
from perry.workspace.worker_process import WorkerProcess

LOOPING = 3
"""Restarts from which on a container that has started just now counts as one that keeps ending."""

STARTING = 3.0
"""Seconds that a worker may take from its start until it listens; then it counts as deaf."""

_INTERVAL = 0.1

SETTLED = 60.0
"""Seconds that a container has to run until it counts as one that doesn't."""


@dataclass(frozen=True)
class Answer:
    """What a worker said, on which way, and how many seconds a health and a question took."""

    way: Way
    health: Health
    health_took: float
    question_took: float


@dataclass(frozen=True)
class Conversation:
    """What came of asking: an answer, and the reasons of the ways on which nobody proved itself."""

    answer: Answer | None = None
    refusals: Mapping[Way, WorkerError] = field(default_factory=dict)

    @property
    def is_with_a_stranger(self) -> bool:
        """Whether the worker in the container itself doesn't know the token."""
        return self.answer is None and any(
            way.rung == "exec" and isinstance(error, WorkerUntrusted)
            for way, error in self.refusals.items()
        )


class WorkspaceSeen:
    """One workspace, whose worker is asked by the first check that needs it.

    `wanted` is this perry's bundle, None where its image is missing; `now` is the engine's time, in
    seconds since the epoch.
    """

    def __init__(
        self,
        engine: Engine,
        ladder: Ladder,
        workspace: Workspace,
        container: Container,
        *,
        wanted: Bundle | None,
        now: float,
    ) -> None:
        self.engine = engine
        self.workspace = workspace
        self.container = container
        self.wanted = wanted
        self.now = now
        self.sync = f"perry workspace sync {workspace.name}"
        self._ladder = ladder
        self._conversation: Conversation | None = None

    @property
    def conversation(self) -> Conversation:
        """What came of asking; what goes wrong with it is raised once.

        Raises EngineError, and BuildError where there is no key to ask with.
        """
        if self._conversation is None:
            self._conversation = Conversation()
            self._conversation = self._converse()
        return self._conversation

    @property
    def health(self) -> Health | None:
        """What a worker that knows its sessions said; before that it tells nothing else."""
        answer = self.conversation.answer
        return answer.health if answer and answer.health.status == "ok" else None

    @property
    def has_worker_process(self) -> bool:
        """Whether a worker of perry's runs in the container, be it deaf."""
        running = self.engine.list_processes(self.container.id)
        return any(command.startswith(bundle.PROCESS_PREFIX) for command in running)

    def _converse(self) -> Conversation:
        """Ask; a worker that was started a moment ago is waited for."""
        asking = Retrying(
            stop=stop_after_delay(STARTING),
            wait=wait_fixed(_INTERVAL),
            retry=retry_if_result(self._is_promising),
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        return asking(self._converse_once)

    def _is_promising(self, so_far: Conversation) -> bool:
        silent = so_far.answer is None and not so_far.is_with_a_stranger
        return silent and self.has_worker_process

    def _converse_once(self) -> Conversation:
        answer, refusals = None, dict[Way, WorkerError]()
        with ExitStack() as asked:
            clients = self._ladder.clients(self.container, self.workspace.name)
            for way, client in clients.items():
                asked.callback(client.close)
                try:
                    answer = answer or _ask(way, client)
                except WorkerError as error:
                    refusals[way] = error
        return Conversation(answer, refusals)


def _ask(way: Way, client: WorkerClient) -> Answer:
    if client.authenticate().status != "ok":
        return Answer(way, Health("starting"), 0.0, 0.0)
    began = time.monotonic()
    client.health()
    between = time.monotonic()
    client.list_sessions(limit=1)
    ended = time.monotonic()
    return Answer(way, client.health(verbose=True), between - began, ended - between)


def container(seen: WorkspaceSeen) -> Verdict:
    """Judge how the container is: one that keeps ending is a failure, a stopped one is none."""
    state, name = seen.container.state, seen.workspace.name
    restarts = int(seen.container.raw.get("RestartCount") or 0)
    age = seen.now - _moment(seen.container.started_at)
    if state == "restarting" or (state == "running" and restarts >= LOOPING and age < SETTLED):
        code = "" if state == "running" else f" (exit code {seen.container.exit_code})"
        return failure(
            f"its own command keeps ending{code}: restarted {restarts} times",
            f"perry workspace logs {name}",
        )
    if state == "paused":
        return warning("paused", f"perry workspace start {name}")
    if state == "dead":
        return failure("dead: the engine could not remove it", f"perry workspace remove {name}")
    return ok("running" if state == "running" else "stopped")


def worker(seen: WorkspaceSeen) -> Verdict | None:
    """Judge whether the worker answers, on which way and how fast; and if not, why."""
    if not seen.container.is_running:
        return None
    answer = seen.conversation.answer
    if answer is None:
        return _silent(seen)
    if seen.health is None:
        return warning("on its first scan: its sessions come after it", "Wait, and look again.")
    took = f"health {_ms(answer.health_took)}, a question {_ms(answer.question_took)}"
    where = "" if answer.way.address == answer.way.rung else f" {answer.way.address}"
    return ok(f"by {answer.way.rung}{where}: {took}")


def token(seen: WorkspaceSeen) -> Verdict | None:
    """Judge whether the worker has the token that the engine's key makes."""
    if seen.conversation.is_with_a_stranger and seen.has_worker_process:
        return failure("a worker runs there that doesn't know the engine's key", seen.sync)
    return ok("the worker has proved it") if seen.conversation.answer else None


def digest(seen: WorkspaceSeen) -> Verdict | None:
    """Judge whether the worker is this perry's."""
    health = seen.health
    if health is None:
        return None
    ours = f"…-{bundle.code_digest()}" if seen.wanted is None else seen.wanted.digest
    if health.digest.endswith(ours.removeprefix("…")):
        return ok(health.digest)
    told = f"{health.digest} of perry {health.version}, and this perry's is {ours}"
    return warning(f"the worker is another version's: {told}", seen.sync)


def watch(seen: WorkspaceSeen) -> Verdict | None:
    """Judge how the worker notices changes."""
    if seen.health is None:
        return None
    if seen.health.watch == "native":
        return ok("native: the kernel tells of changes")
    return warning(
        "polling: the kernel refused to watch its files, so changes show a second later",
        f"On the engine's machine: {inotify.raising(dict.fromkeys(inotify.ENOUGH, 0))}",
    )


def sessions(seen: WorkspaceSeen) -> Verdict | None:
    """Tell how many sessions the worker knows, and what it could not read."""
    health = seen.health
    if health is None:
        return None
    unreadable = health.unreadable or {}
    told = f"{health.session_count}; skipped lines {health.skipped_lines}"
    told += f", unreadable files {len(unreadable)}"
    first = next(iter(unreadable.items()), None)
    return ok(told if first is None else f"{told}: {first[0]} ({first[1]})")


def home(seen: WorkspaceSeen) -> Verdict | None:
    """Judge the free space of the home."""
    if not seen.container.is_running:
        return None
    path = seen.workspace.home
    try:
        found = space.inside(seen.engine, seen.container.id, path)
    except EngineFailure as error:
        return warning(error.message, seen.sync)
    return found.judge(path, f"Make room in it: perry workspace shell {seen.workspace.name}")


CHECKS: Mapping[str, Check[WorkspaceSeen]] = {
    "container": container,
    "worker": worker,
    "token": token,
    "digest": digest,
    "watch": watch,
    "sessions": sessions,
    "home": home,
}


def _silent(seen: WorkspaceSeen) -> Verdict | None:
    """Say why no worker answers: one hangs, none can run, or it is merely dead."""
    name, talk = seen.workspace.name, seen.conversation
    if seen.has_worker_process:
        tried = ", ".join(way.rung for way in talk.refusals)
        said = [error.message for error in talk.refusals.values()]
        last = " ".join(said[-1:])
        deaf = failure(f"a worker runs and doesn't answer (tried: {tried}). {last}", seen.sync)
        return None if talk.is_with_a_stranger else deaf
    if talk.is_with_a_stranger:
        return failure(
            f"no worker can run in it: another program there has its port, {WORKER_PORT}",
            f"Give that program another port (perry workspace shell {name}), then: {seen.sync}",
        )
    wanted = seen.wanted
    if wanted is not None and bundle.is_mounted(seen.container):
        reason = WorkerProcess(seen.engine, seen.container.id, wanted).why_not()
        if reason and bundle.is_complete(seen.engine, wanted):
            return failure(
                f"no worker can run in it: {reason}", f"perry workspace logs {name} --worker"
            )
    return warning("no worker runs; the next question about its sessions starts one", seen.sync)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"  # noqa: PLR2004 - so small that a digit more tells something
