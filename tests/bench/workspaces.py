"""What perry promises of workspaces: how soon one is ready, and how little an idle verb costs.

What is compared is measured in turn within the same round. It needs a Docker engine.
"""

from __future__ import annotations

import os
import secrets
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from perry.workspace import bundle, image
from perry.workspace.engine import Engine
from perry.workspace.manager import WorkspaceManager
from perry.workspace.models import WorkspaceSpec
from perry.workspace.progress import finish
from tests.bench.table import Row, seconds, stopwatch

ROUNDS = 9
PERRY = str(Path(sys.executable).with_name("perry"))


def measure_workspaces() -> Iterator[Row]:
    """Measure everything."""
    engine = Engine.connect()
    finish(image.ensure_workspace_image(engine))
    finish(bundle.ensure_bundle(engine))
    yield from measure_init(engine)
    yield from measure_idle_verbs(engine)
    yield from measure_start()
    yield memory(engine)


def measure_init(engine: Engine) -> Iterator[Row]:
    """`init` to a healthy worker beside a bare `docker run -d` of the same image."""
    client = docker.from_env()
    bare: list[float] = []
    managed: list[float] = []
    command: list[float] = []
    reference = image.workspace_reference()
    for _ in range(ROUNDS):
        with stopwatch(bare):
            container = client.containers.run(reference, detach=True)
        container.remove(force=True)
        with workspace(engine) as name, stopwatch(managed):
            ready = finish(WorkspaceManager(Engine.connect()).init(WorkspaceSpec(name)))
            assert ready.worker is not None, ready.warning
        with workspace(engine) as name, stopwatch(command):
            run(PERRY, "workspace", "init", name)
    floor, init, whole = (statistics.median(each) for each in (bare, managed, command))
    yield Row(
        "manager's init to a healthy worker",
        seconds(init),
        f"{seconds(floor)} docker run -d",
        f"{init / floor:.2f} times",
        "2.5 times at most",
    )
    yield Row(
        "the command 'perry workspace init'",
        seconds(whole),
        f"{seconds(init)} manager's init",
        f"{whole - init:+.2f} s",
        "+0.5 s at most",
    )


def measure_idle_verbs(engine: Engine) -> Iterator[Row]:
    """A second `init`, and a `sync`, with nothing to do, beside the start of the command itself."""
    start: list[float] = []
    again: list[float] = []
    sync: list[float] = []
    with workspace(engine) as name:
        run(PERRY, "workspace", "init", name)
        for _ in range(ROUNDS):
            with stopwatch(start):
                run(PERRY, "workspace", "init", "--help")
            with stopwatch(again):
                run(PERRY, "workspace", "init", name)
            with stopwatch(sync):
                run(PERRY, "workspace", "sync", name)
    floor = statistics.median(start)
    for what, figures in (("a second init", again), ("a sync", sync)):
        median = statistics.median(figures)
        yield Row(
            f"{what} with nothing to do",
            seconds(median),
            f"{seconds(floor)} the command's start",
            f"{median - floor:+.2f} s",
            "+0.3 s at most",
        )


def measure_start() -> Iterator[Row]:
    """The start of commands, beside the start of Python itself."""
    for words in (("--help",), ("workspace", "list")):
        python: list[float] = []
        command: list[float] = []
        for _ in range(ROUNDS):
            with stopwatch(python):
                run(sys.executable, "-c", "")
            with stopwatch(command):
                run(PERRY, *words)
        floor, median = statistics.median(python), statistics.median(command)
        yield Row(
            f"perry {' '.join(words)}",
            seconds(median),
            f"{seconds(floor)} python -c ''",
            f"{median - floor:+.2f} s",
            "",
        )


def memory(engine: Engine) -> Row:
    """The resident memory of an idle worker."""
    with workspace(engine) as name:
        ready = finish(WorkspaceManager(engine).init(WorkspaceSpec(name)))
        script = "grep -l ^/opt/perry/layers /proc/[0-9]*/cmdline"
        shell = [bundle.BUSYBOX, "sh", "-c"]
        process = engine.run(ready.workspace.container_id, [*shell, script]).output.split("/")[2]
        status = engine.run(
            ready.workspace.container_id, [*shell, f"grep VmRSS /proc/{process}/status"]
        ).output
    return Row("an idle worker's memory", f"{int(status.split()[1]) / 1024:.0f} MB", "", "", "")


@contextmanager
def workspace(engine: Engine) -> Iterator[str]:
    """Give a workspace's name, and remove the workspace afterwards, outside what is measured."""
    name = f"bench-{secrets.token_hex(4)}"
    try:
        yield name
    finally:
        WorkspaceManager(engine).remove(name)


def run(*argv: str) -> None:
    """Run a command whose output nobody wants, unless it fails.

    As where it is installed, it may keep what it has compiled.
    """
    kept = {name: it for name, it in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=kept)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} failed: {done.stderr or done.stdout}")
