"""Every condition that `perry doctor` tells of, made real on an engine that is the tests' own."""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perry.cli import doctor
from perry.workspace import bundle, image
from perry.workspace.doctor import engine_checks
from perry.workspace.doctor.engine_checks import EngineSeen
from perry.workspace.engine import Engine
from perry.workspace.manager import WorkspaceManager
from perry.workspace.models import WorkspaceSpec
from perry.workspace.progress import finish
from tests.e2e.command import BUSYBOX, KILL_WORKER, Perry
from tests.e2e.eventually import eventually
from tests.e2e.own_engine import OwnEngine, build
from tests.e2e.terminal import at_a_terminal

NAME = "demo"
WORKERS = f"{BUSYBOX} grep -l ^/opt/perry/layers/ /proc/[0-9]*/cmdline"


@dataclass(frozen=True)
class Found:
    """What one run of `perry doctor --json` found."""

    code: int
    answer: dict[str, Any]

    def of(self, subject: str) -> dict[str, dict[str, Any]]:
        """The findings about `host`, `engine` or a workspace, by their name."""
        return {
            one["name"]: one
            for one in self.answer["findings"]
            if subject == (one["workspace"] or one["subject"])
        }

    def bad(self) -> list[tuple[str, str]]:
        """The names and levels of what is not as it should be."""
        return [
            (one["name"], one["level"]) for one in self.answer["findings"] if one["level"] != "ok"
        ]


@pytest.fixture(scope="module")
def own(second_engine: OwnEngine) -> OwnEngine:
    second_engine.reset()
    return second_engine


@pytest.fixture
def perry(own: OwnEngine, tmp_path: Path) -> Perry:
    places = {f"XDG_{kind}_HOME": str(tmp_path / kind.lower()) for kind in ("CACHE", "STATE")}
    return Perry(tmp_path, {"DOCKER_HOST": own.address, **places})


@pytest.fixture
def demo(perry: Perry) -> Iterator[str]:
    """A workspace that a test may do anything to."""
    perry.ok("workspace", "init", NAME)
    yield NAME
    perry.ok("workspace", "remove", NAME, "--yes")


@contextmanager
def made(perry: Perry, *options: str) -> Iterator[None]:
    """A workspace of a kind of its own."""
    perry.ok("workspace", "init", NAME, *options)
    try:
        yield
    finally:
        perry.ok("workspace", "remove", NAME, "--yes")


def examined(perry: Perry) -> Found:
    done = perry.run("doctor", "--json")
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert (done.returncode == 1) == (answer["level"] == "failure")
    return Found(done.returncode, answer)


def in_demo(perry: Perry, script: str, user: str = "0") -> str:
    return perry.ok("workspace", "exec", "--user", user, NAME, BUSYBOX, "sh", "-euc", script)


def test_where_all_is_well_nothing_is_to_be_done(perry: Perry, demo: str) -> None:
    found = examined(perry)
    assert (found.code, found.answer["level"], found.bad()) == (0, "ok", [])
    assert all(one["advice"] == "" for one in found.answer["findings"])
    told = found.of(demo)
    assert set(told) == {"container", "worker", "token", "digest", "watch", "sessions", "home"}
    way = r"by address [\d.]+:7392: health [\d.]+ ms, a question [\d.]+ ms"
    assert re.fullmatch(way, told["worker"]["found"])
    ready = perry.json("workspace", "show", demo)["workspace"]["worker"]
    assert told["digest"]["found"] == ready["digest"]
    engine = found.of("engine")
    assert ready["digest"] in engine["bundle"]["found"]
    assert "cached" in engine["key"]["found"]
    assert "1 running workspace" in engine["inotify"]["found"]


def test_it_fits_a_terminal_and_has_colour_only_there(perry: Perry, demo: str) -> None:
    shown = {**os.environ, **perry.environment, "TERM": "xterm", "COLUMNS": "80"}
    code, coloured = at_a_terminal(perry.argv("doctor"), shown)
    code_too, plain = at_a_terminal(perry.argv("doctor"), {**shown, "NO_COLOR": "1"})
    assert code == code_too == 0
    assert "\x1b[32mok" in coloured
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 80
    piped = perry.ok("doctor")
    assert "\x1b" not in piped
    assert f"\nworkspace {demo}\n" in piped
    assert piped.endswith("\n\nall is well\n")


def test_another_user_is_told_how_to_get_the_rights(own: OwnEngine, tmp_path: Path) -> None:
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    # the checkout may be in a home that is closed to others: this opens it for reading only
    reading = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    variables = ("env", f"DOCKER_HOST={own.address}", f"HOME={tmp_path}")
    perry = Perry(tmp_path, prefix=(*as_root, *nobody, *reading, *variables))
    done = perry.run("doctor", "--json")
    found = Found(done.returncode, json.loads(done.stdout))
    assert found.code == 1
    connection = found.of("engine")["connection"]
    assert connection["level"] == "failure"
    assert connection["found"] == f"No permission to use the Docker engine's socket {own.address}"
    assert "usermod -aG docker" in connection["advice"]


# The key, the token, the worker's version


def spoil_the_cached_key(perry: Perry) -> None:
    (path,) = Path(perry.environment["XDG_CACHE_HOME"], "perry/keys").iterdir()
    born, _, _ = path.read_bytes().partition(b"\n")
    path.write_bytes(born + b"\n" + secrets.token_bytes(32))


@pytest.mark.usefixtures("demo")
def test_another_key_in_the_cache_is_a_failure_and_its_advice_mends_it(perry: Perry) -> None:
    spoil_the_cached_key(perry)
    found = examined(perry)
    assert found.bad() == [("key", "failure")], "the worker is asked with the engine's own"
    subprocess.run(["sh", "-c", found.of("engine")["key"]["advice"]], check=True)
    assert examined(perry).bad() == []


def test_a_worker_of_another_key_is_a_failure_and_its_advice_mends_it(
    perry: Perry, demo: str
) -> None:
    spoil_the_cached_key(perry)
    perry.ok("workspace", "exec", demo, *KILL_WORKER)
    perry.ok("workspace", "sync", demo)
    (path,) = Path(perry.environment["XDG_CACHE_HOME"], "perry/keys").iterdir()
    path.unlink()
    found = examined(perry)
    assert found.bad() == [("token", "failure")]
    follow(perry, found.of(demo)["token"]["advice"])
    assert examined(perry).bad() == []


def follow(perry: Perry, advice: str) -> None:
    """Do what was advised, which is a command of perry's."""
    program, *arguments = advice.split()
    assert program == "perry"
    perry.ok(*arguments)


def test_a_worker_of_another_version_is_a_warning_and_its_advice_mends_it(
    perry: Perry, own: OwnEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setenv("DOCKER_HOST", own.address)
        older.setenv("XDG_CACHE_HOME", perry.environment["XDG_CACHE_HOME"])
        files = {**bundle.code_files(), "perry/worker/older.py": b"OLDER = True\n"}
        older.setattr(bundle, "code_files", lambda: files)
        bundle.code_digest.cache_clear()
        ready = finish(WorkspaceManager(Engine.connect()).init(WorkspaceSpec(NAME)))
    bundle.code_digest.cache_clear()
    assert ready.worker is not None
    found = examined(perry)
    assert (found.code, found.bad()) == (0, [("digest", "warning")])
    assert ready.worker.digest in found.of(NAME)["digest"]["found"]
    follow(perry, found.of(NAME)["digest"]["advice"])
    assert examined(perry).bad() == []
    perry.ok("workspace", "remove", NAME, "--yes")


# The worker


def test_a_dead_worker_is_a_warning_and_its_advice_mends_it(perry: Perry, demo: str) -> None:
    perry.ok("workspace", "exec", demo, *KILL_WORKER)
    found = examined(perry)
    assert (found.code, found.bad()) == (0, [("worker", "warning")])
    assert "no worker runs" in found.of(demo)["worker"]["found"]
    follow(perry, found.of(demo)["worker"]["advice"])
    assert examined(perry).bad() == []


def test_a_deaf_worker_is_a_failure_and_its_advice_mends_it(perry: Perry, demo: str) -> None:
    script = f"for it in $({WORKERS}); do it=${{it#/proc/}}; kill -STOP ${{it%/cmdline}}; done"
    in_demo(perry, script)
    found = examined(perry)
    assert found.bad() == [("worker", "failure")]
    told = found.of(demo)["worker"]["found"]
    assert "doesn't answer" in told
    assert "tried: address, published, exec" in told
    follow(perry, found.of(demo)["worker"]["advice"])
    assert examined(perry).bad() == []


def test_where_no_worker_can_run_it_is_a_failure_with_the_reason(perry: Perry) -> None:
    with made(perry, "--memory", "6m"):
        found = examined(perry)
        assert found.bad() == [("worker", "failure")]
        assert "no worker can run in it: its Python ended" in found.of(NAME)["worker"]["found"]


def test_another_program_on_the_workers_port_is_a_failure(perry: Perry) -> None:
    with made(perry, "--command", f"{BUSYBOX} httpd -f -p 7392"):
        found = examined(perry)
        assert found.bad() == [("worker", "failure")]
        assert "has its port, 7392" in found.of(NAME)["worker"]["found"]


def test_without_a_network_it_is_reached_by_exec(perry: Perry) -> None:
    with made(perry, "--network", "none"):
        found = examined(perry)
        assert found.bad() == []
        assert found.of(NAME)["worker"]["found"].startswith("by exec: health ")


HOG = """
import ctypes, pathlib, time
limit = int(pathlib.Path("/proc/sys/fs/inotify/max_user_instances").read_text())
held = [ctypes.CDLL(None).inotify_init() for _ in range(min(limit, 10000) + 1)]
print(held[-1], flush=True)
time.sleep(120)
"""


def test_a_worker_that_polls_is_a_warning(perry: Perry, own: OwnEngine) -> None:
    """Another program of the same user's id has taken all notifiers; nobody else has that id."""
    user = 54321
    dockerfile = f"FROM {image.workspace_reference()}\nUSER {user}\n"
    build(own.client, "polls:1", {"Dockerfile": dockerfile})
    with made(perry, "--image", "polls:1"):
        in_demo(perry, f"{BUSYBOX} mkdir -p /home/workspace/.claude/projects", user=str(user))
        perry.ok("workspace", "exec", NAME, *KILL_WORKER)
        container = own.client.containers.get(f"workspace-{NAME}")
        (runtime,) = [it for it in layers(perry) if it.startswith("runtime-")]
        inside = f"/opt/perry/layers/{runtime}"
        loader = [f"{inside}/lib/ld.so", "--library-path", f"{inside}/lib"]
        python = [*loader, f"{inside}/bin/python3", "-I", "-S", "-c", HOG]
        _, words = container.exec_run(python, stream=True)
        assert next(words).strip() == b"-1", "the kernel has refused one more"
        perry.ok("workspace", "sync", NAME)
        found = eventually(lambda: examined(perry), lambda it: it.bad() != [], within=20)
        assert found.bad() == [("watch", "warning")]
        assert "sysctl fs.inotify.max_user_instances=" in found.of(NAME)["watch"]["advice"]
    own.client.images.remove("polls:1")


def layers(perry: Perry) -> list[str]:
    return in_demo(perry, f"{BUSYBOX} ls /opt/perry/layers").split()


def test_what_a_worker_could_not_read_is_told_and_is_no_fault(perry: Perry, demo: str) -> None:
    path = "/home/workspace/.claude/projects/-home-workspace"
    in_demo(perry, f"{BUSYBOX} mkdir -p {path}; echo nonsense > {path}/one.jsonl", user="1000")
    in_demo(perry, f"echo hidden > {path}/two.jsonl; {BUSYBOX} chmod 0 {path}/two.jsonl")
    found = eventually(
        lambda: examined(perry).of(demo)["sessions"],
        lambda it: "skipped lines 1" in it["found"] and "two.jsonl" in it["found"],
        within=15,
    )
    assert found["level"] == "ok"
    assert "unreadable files 1" in found["found"]


# The container and its home


def test_a_home_without_room_is_a_failure(perry: Perry, own: OwnEngine) -> None:
    tmpfs = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000,gid=1000"}
    labels = {"perry.workspace": NAME}
    own.client.volumes.create(f"workspace-{NAME}-home", driver_opts=tmpfs, labels=labels)
    with made(perry):
        assert examined(perry).bad() == []
        in_demo(perry, f"{BUSYBOX} dd if=/dev/zero of=/home/workspace/all 2>&1 || true")
        found = examined(perry)
        assert found.bad() == [("home", "failure")]
        assert "/home/workspace is full" in found.of(NAME)["home"]["found"]


def test_a_command_that_keeps_ending_is_a_failure(perry: Perry) -> None:
    with made(perry, "--command", f"{BUSYBOX} sh -c 'exit 3'"):
        found = eventually(
            lambda: examined(perry), lambda it: ("container", "failure") in it.bad(), within=30
        )
        told = found.of(NAME)["container"]
        assert "keeps ending" in told["found"]
        assert told["advice"] == f"perry workspace logs {NAME}"


def test_stopped_is_well_and_paused_is_a_warning_whose_advice_mends_it(
    perry: Perry, own: OwnEngine, demo: str
) -> None:
    own.client.containers.get(f"workspace-{demo}").pause()
    found = examined(perry)
    assert (found.code, found.bad()) == (0, [("container", "warning")])
    assert list(found.of(demo)) == ["container"]
    follow(perry, found.of(demo)["container"]["advice"])
    assert examined(perry).bad() == []
    perry.ok("workspace", "stop", demo)
    stopped = examined(perry)
    assert stopped.bad() == []
    assert stopped.of(demo)["container"]["found"] == "stopped"


def test_what_says_that_it_is_a_workspace_and_is_not_is_a_warning(
    perry: Perry, own: OwnEngine, demo: str
) -> None:
    claims = {"perry.workspace": "Not A Name"}
    own.client.containers.create(own.runtime, ["true"], name="claims", labels=claims)
    found = examined(perry)
    own.client.containers.get("claims").remove()
    assert (found.code, found.bad()) == (0, [("workspaces", "warning")])
    told = found.of("engine")["workspaces"]
    assert "'claims'" in told["found"]
    assert "perry workspace adopt claims" in told["advice"]
    assert "worker" in found.of(demo), "the others are looked at"


def test_an_adopted_container_is_looked_at_like_another(perry: Perry, own: OwnEngine) -> None:
    sleep = ["/runtime/busybox", "sleep", "600"]
    container = own.client.containers.run(own.runtime, sleep, name="somebodys", detach=True)
    try:
        perry.ok("workspace", "adopt", "somebodys", "adopted")
        assert examined(perry).bad() == []
        perry.ok("workspace", "exec", "adopted", *KILL_WORKER)
        assert examined(perry).bad() == [("worker", "warning")]
        perry.ok("workspace", "remove", "adopted", "--yes")
    finally:
        container.remove(force=True, v=True)


def test_all_workspaces_are_asked_at_once(perry: Perry) -> None:
    """Of three deaf ones each is waited for some seconds; together they take no longer."""
    names = [f"deaf-{number}" for number in range(3)]
    script = f"for it in $({WORKERS}); do it=${{it#/proc/}}; kill -STOP ${{it%/cmdline}}; done"
    for name in names:
        perry.ok("workspace", "init", name)
        perry.ok("workspace", "exec", "--user", "0", name, BUSYBOX, "sh", "-euc", script)
    began = time.monotonic()
    found = examined(perry)
    took = time.monotonic() - began
    assert [found.of(name)["worker"]["level"] for name in names] == ["failure"] * 3
    assert took < 20
    perry.ok("workspace", "remove", *names, "--yes")


# The daemon


def test_the_daemon_that_runs_is_told(perry: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in perry.environment.items():
        monkeypatch.setenv(name, value)
    daemon = perry.start("agent", "serve", "--port", "0")
    try:
        assert daemon.stdout is not None
        port = int(daemon.stdout.readline().rpartition(":")[2])
        monkeypatch.setattr(doctor, "AGENT_PORT", port)
        found = eventually(doctor.ask_daemon, lambda it: it is not None, within=15)
        assert found is not None
        assert found.pid == daemon.pid
    finally:
        daemon.terminate()
        daemon.communicate(timeout=30)
    assert doctor.ask_daemon() is None


# What perry keeps on the engine


@pytest.mark.usefixtures("demo")
def test_the_disk_of_an_engine_elsewhere_is_looked_at_through_a_workspace(
    own: OwnEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", own.address)
    monkeypatch.setattr(platform, "node", lambda: "not the engine's machine")
    seen = EngineSeen(Engine.connect)
    assert not seen.told.is_here
    told = engine_checks.disk(seen).found
    assert re.fullmatch(r"/\S+/data has [\d.]+ \wB of [\d.]+ \wB free", told)


def test_a_bare_engine_lacks_images_and_is_told_how_to_get_them(
    perry: Perry, bare_engine: OwnEngine
) -> None:
    """The last one here: it takes away what the others stand on."""
    unfilled = examined(perry)
    assert unfilled.bad() == []
    assert "not there yet" in unfilled.of("engine")["bundle"]["found"]
    assert unfilled.of("engine")["workspaces"]["found"] == "none yet"
    for reference in bare_engine.images():
        bare_engine.client.images.remove(reference, force=True)
    found = examined(perry)
    assert (found.code, found.bad()) == (0, [("images", "warning")])
    told = found.of("engine")["images"]
    assert image.runtime_reference() in told["found"]
    assert image.workspace_reference() in told["found"]
    assert told["advice"] == "perry image build"
