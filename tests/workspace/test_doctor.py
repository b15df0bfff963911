"""What a check makes of what it sees; the conditions that need an engine are in tests/e2e."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

import perry
from perry.client.agent_client import AgentArchive, AgentEngine, AgentStatus
from perry.errors import AgentError, EngineUnreachable
from perry.workspace.doctor import engine_checks, host_checks, inotify
from perry.workspace.doctor.engine_checks import EngineSeen, clocks
from perry.workspace.doctor.examination import examine
from perry.workspace.doctor.finding import (
    HOST,
    Check,
    Finding,
    Verdict,
    findings,
    ok,
    worst,
)
from perry.workspace.doctor.host_checks import ThisMachine
from perry.workspace.doctor.space import MEGABYTE, Space, here
from perry.workspace.engine import Engine
from tests.workspace.engine_answers import VERSION, Table, engine_of, served

GIGABYTE = 1024 * MEGABYTE


def none_runs() -> None:
    return None


# Findings


def test_a_check_that_breaks_is_a_finding_and_hides_no_other() -> None:
    def breaks(_: object) -> Verdict:
        raise ZeroDivisionError("by zero")

    def refuses(_: object) -> Verdict:
        raise EngineUnreachable("nobody\nthere", hint="start it")

    checks: dict[str, Check[object]] = {
        "broken": breaks,
        "silent": lambda _: None,
        "refused": refuses,
        "well": lambda _: ok("well"),
    }
    broken, refused, well = findings(HOST, checks, object())
    assert (broken.name, broken.level) == ("broken", "failure")
    assert "ZeroDivisionError: by zero" in broken.found
    assert broken.advice
    assert refused == Finding("refused", "host", None, "failure", "nobody there", "start it")
    assert well == Finding("well", "host", None, "ok", "well", "")


@pytest.mark.parametrize(
    ("levels", "expected"),
    [([], "ok"), (["ok", "warning"], "warning"), (["failure", "warning", "ok"], "failure")],
)
def test_the_worst_level_counts(levels: list[Any], expected: str) -> None:
    assert worst(Finding("n", "host", None, level, "", "") for level in levels) == expected


# This machine


def test_pythons_from_3_11_on_will_do() -> None:
    assert host_checks.python(ThisMachine(none_runs)).level == "ok"
    old = host_checks.python(ThisMachine(none_runs, python=(3, 10, 4)))
    assert (old.level, "3.10.4" in old.found, "3.11" in old.found) == ("failure", True, True)


def test_directories_need_not_exist_to_be_writable(tmp_path: Path) -> None:
    machine = ThisMachine(none_runs, cache=tmp_path / "a/b/perry", state=tmp_path / "perry")
    for check in (host_checks.cache, host_checks.state):
        assert check(machine).level == "ok"
    assert list(tmp_path.iterdir()) == []


def test_without_a_cache_perry_is_slower_and_without_state_no_daemon_runs(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    machine = ThisMachine(none_runs, cache=in_the_way / "perry", state=in_the_way / "perry")
    cache, state = host_checks.cache(machine), host_checks.state(machine)
    assert (cache.level, state.level) == ("warning", "failure")
    assert "can't be written" in cache.found
    assert "XDG_CACHE_HOME" in cache.advice
    assert "XDG_STATE_HOME" in state.advice


def status(**changes: Any) -> AgentStatus:
    given: dict[str, Any] = {
        "version": perry.__version__, "pid": 7, "started_at": 0, "watch": "native", "places": (),
        "engine": AgentEngine(reachable=True), "archive": AgentArchive(0), **changes,
    }  # fmt: skip
    return AgentStatus(**given)


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        (None, "ok", "none runs"),
        (status(), "ok", "process 7"),
        (status(version="0.0.9"), "warning", "0.0.9"),
        (status(engine=AgentEngine(reachable=False, error="it is gone")), "warning", "it is gone"),
    ],
)
def test_the_daemon_is_of_this_version_and_has_an_engine(
    found: AgentStatus | None, level: str, words: str
) -> None:
    judged = host_checks.daemon(ThisMachine(lambda: found))
    assert judged.level == level
    assert words in judged.found
    assert bool(judged.advice) == (level == "warning")


def test_a_daemon_that_makes_no_sense_is_a_failure() -> None:
    def nonsense() -> AgentStatus:
        raise AgentError("it makes no sense")

    (found,) = [
        one
        for one in findings(HOST, host_checks.CHECKS, ThisMachine(nonsense))
        if one.name == "daemon"
    ]
    assert (found.level, found.found) == ("failure", "it makes no sense")


# Space


@pytest.mark.parametrize(
    ("space", "level"),
    [
        (Space(50 * GIGABYTE, 100 * GIGABYTE, 5, 10), "ok"),
        (Space(GIGABYTE - 1, 100 * GIGABYTE, 5, 10), "warning"),
        (Space(9 * MEGABYTE, 100 * GIGABYTE, 5, 10), "failure"),
        (Space(0, MEGABYTE, 5, 10), "failure"),
        (Space(50 * GIGABYTE, 100 * GIGABYTE, 0, 10), "failure"),
        (Space(50 * GIGABYTE, 100 * GIGABYTE, 0, 0), "ok"),
        (Space(MEGABYTE, MEGABYTE, 5, 10), "ok"),
    ],
)
def test_a_full_disk_is_a_failure_whether_of_bytes_or_of_inodes(space: Space, level: str) -> None:
    judged = space.judge("/data", "make room")
    assert judged.level == level
    assert judged.found.startswith("/data ")
    assert judged.advice == ("" if level == "ok" else "make room")


def test_space_here_is_what_the_kernel_says(tmp_path: Path) -> None:
    found = here(tmp_path)
    assert 0 < found.free <= found.size


# inotify


@pytest.mark.parametrize(
    ("instances", "watches", "workspaces", "advice"),
    [
        (128, 524288, 3, None),
        (128, 524288, 100, "fs.inotify.max_user_instances=1024"),
        (1024, 8192, 10, "fs.inotify.max_user_watches=524288"),
        (1024, 524288, 900, "fs.inotify.max_user_watches=1851392"),
    ],
)
def test_limits_are_held_against_the_workspaces_that_run(
    tmp_path: Path, instances: int, watches: int, workspaces: int, advice: str | None
) -> None:
    paths = [tmp_path / path.name for path in (inotify.INSTANCES, inotify.WATCHES)]
    for path, limit in zip(paths, (instances, watches), strict=True):
        path.write_text(f"{limit}\n")
    judged = inotify.limits(paths[0], paths[1], workspaces)
    assert judged.level == ("ok" if advice is None else "warning")
    assert advice is None or advice in judged.advice
    assert str(instances) in judged.found.replace(",", "")


# The engine


@pytest.mark.parametrize(
    ("there", "level", "words"),
    [
        (99.0, "ok", "agree"),
        (100.5, "ok", "agree"),
        (102.9, "ok", "agree"),
        (104.0, "warning", "3.0 s ahead"),
        (40.0, "warning", "60.0 s behind"),
    ],
)
def test_clocks_may_differ_by_two_seconds_besides_the_time_that_asking_took(
    there: float, level: str, words: str
) -> None:
    judged = clocks(there, asked=100.0, answered=101.0)
    assert judged.level == level
    assert words in judged.found


INFO = {
    "Name": "elsewhere", "KernelVersion": "6.0", "OSType": "linux", "ServerVersion": "20.10",
    "SystemTime": "2026-11-24T08:00:00.123456789Z", "DockerRootDir": "/var/lib/docker",
}  # fmt: skip


def test_an_engine_of_another_clock_is_told() -> None:
    with engine_of({"/info": lambda: (200, INFO)}) as engine:
        judged = engine_checks.clock(EngineSeen(lambda: engine))
    assert judged.level == "warning"
    assert judged.advice


@pytest.mark.parametrize(("api", "level"), [("1.34", "failure"), ("1.35", "ok"), ("1.50", "ok")])
def test_an_engine_has_to_be_new_enough(api: str, level: str) -> None:
    with served({f"/v{api}/info": lambda: (200, INFO)}) as address:
        engine = Engine(docker.APIClient(base_url=f"tcp://{address}", version=api))
        judged = engine_checks.version(EngineSeen(lambda: engine))
        engine.close()
    assert judged.level == level
    assert f"API {api}" in judged.found
    assert "1.35" in judged.found


@pytest.mark.parametrize(
    ("architecture", "system", "level"),
    [
        ("amd64", "linux", "ok"),
        ("arm64", "linux", "ok"),
        ("riscv64", "linux", "failure"),
        ("amd64", "windows", "failure"),
    ],
)
def test_there_is_a_worker_for_linux_on_two_architectures(
    architecture: str, system: str, level: str
) -> None:
    table: Table = {
        "/info": lambda: (200, {**INFO, "OSType": system}),
        "/version": lambda: (200, {"Arch": architecture}),
    }
    with engine_of(table) as engine:
        judged = engine_checks.architecture(EngineSeen(lambda: engine))
    assert judged.level == level
    assert f"{system}/{architecture}" in judged.found


def test_of_another_machine_only_its_own_workers_know_the_limits() -> None:
    table: Table = {
        "/info": lambda: (200, INFO),
        "/containers/json": lambda: (200, []),
        "/volumes": lambda: (200, {"Volumes": []}),
    }
    with engine_of(table) as engine:
        seen = EngineSeen(lambda: engine)
        assert engine_checks.watches(seen).level == "ok"
        assert "another machine" in engine_checks.watches(seen).found
        assert "can't be told" in engine_checks.disk(seen).found


# The examination


@contextmanager
def silent_engine() -> Iterator[Callable[[], Engine]]:
    """Something that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        yield lambda: Engine(docker.APIClient(base_url=address, version=VERSION))


def test_an_engine_that_never_answers_is_waited_for_so_long_and_hides_nothing_of_the_host() -> None:
    began = time.monotonic()
    with silent_engine() as connect:
        found = list(examine(daemon=none_runs, connect=connect, patience=0.5))
    assert time.monotonic() - began < 5
    assert [one.name for one in found] == [*host_checks.CHECKS, "patience"]
    assert (found[-1].subject, found[-1].level) == ("engine", "failure")
    assert "0.5 s" in found[-1].found


def test_findings_come_before_the_slow_ones_are_there() -> None:
    with silent_engine() as connect:
        coming = examine(daemon=none_runs, connect=connect, patience=30)
        began = time.monotonic()
        assert [next(coming).name for _ in host_checks.CHECKS] == list(host_checks.CHECKS)
        assert time.monotonic() - began < 5


def test_without_an_engine_its_absence_is_the_one_thing_said_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    found = [one for one in examine(daemon=none_runs) if one.subject != "host"]
    assert [(one.subject, one.name, one.level) for one in found] == [
        ("engine", "connection", "failure")
    ]
    assert f"{tmp_path}/no.sock" in found[0].found
    assert "systemctl start docker" in found[0].advice
