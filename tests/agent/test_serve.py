"""The daemon as a process: started, found, asked, ended, and killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx
import pytest

from tests.agent.daemon import (
    PERRY,
    AgentProcess,
    environment,
    free_port,
    perry,
    sessions_in,
    until,
)
from tests.worker.running import PATIENCE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.worker.subscribing import Told

PROMPT_END = 2.0  # s


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """A daemon that no test ends; its home may hold sessions of other tests."""
    with AgentProcess(tmp_path_factory.mktemp("agent")) as running:
        yield running


# One daemon for each port


def test_a_second_daemon_on_the_port_says_that_one_runs(shared: AgentProcess) -> None:
    done = shared.perry("agent", "serve", "--port", str(shared.port))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"perry: An agent daemon runs already at {shared.url} (process {shared.process.pid})\n"
        f"perry agent status --port {shared.port} shows how it is; "
        f"perry agent stop --port {shared.port} ends it.\n"
    )
    assert shared.json("/api/status")["pid"] == shared.process.pid


def test_a_daemon_on_another_port_works_beside_it(tmp_path: Path) -> None:
    with AgentProcess(tmp_path) as one, AgentProcess(tmp_path) as other:
        assert (one.token, one.port) != (other.token, other.port)
        assert one.token == other.token
        path = one.home.session("hello")
        for daemon in (one, other):
            eventually(lambda it=daemon: it.counts() == {path.stem: 1}, "both show it")  # type: ignore[misc]


def test_a_port_that_something_else_has_is_said_to_be(tmp_path: Path) -> None:
    with Listener() as listener:
        done = perry(environment(tmp_path), "agent", "serve", "--port", str(listener.port))
    assert done.returncode == 1
    assert done.stderr == (
        f"perry: Port {listener.port} is in use by another process.\n"
        "Stop that process, or choose another port with --port.\n"
    )


def test_a_port_whose_owner_is_silent_is_not_waited_for_long(tmp_path: Path) -> None:
    with Listener(answers=False) as listener:
        began = time.monotonic()
        done = perry(environment(tmp_path), "agent", "serve", "--port", str(listener.port))
        assert "is in use by another process" in done.stderr
        assert time.monotonic() - began < 15


def test_a_host_that_is_not_here_is_a_usage_error(tmp_path: Path) -> None:
    done = perry(environment(tmp_path), "agent", "serve", "--host", "192.0.2.1", "--port", "0")
    assert done.returncode == 2
    assert "Can't listen on 192.0.2.1" in done.stderr


def test_at_a_terminal_the_link_is_shown_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    screen, code = interrupted_at_a_terminal(tmp_path, "--port", "0")
    url = re.escape("http://127.0.0.1:")
    assert re.match(
        rf"agent daemon at ({url}\d+)\r\n"
        rf"  in a browser: \1/login\?token=[0-9a-f]{{64}}\r\n"
        r"  Ctrl-C ends it; workspaces and workers go on\r\n",
        screen,
    )
    assert "others can reach" not in screen
    assert code == 0


def test_beyond_loopback_it_warns_and_gives_the_link_for_loopback(tmp_path: Path) -> None:
    screen, code = interrupted_at_a_terminal(tmp_path, "--port", "0", "--host", "0.0.0.0")  # noqa: S104 - as a user may
    assert re.search(r"in a browser: http://127\.0\.0\.1:\d+/login\?token=[0-9a-f]{64}\r\n", screen)
    assert "others can reach http://127.0.0.1:" in screen
    assert code == 0


def interrupted_at_a_terminal(directory: Path, *options: str) -> tuple[str, int]:
    """Serve at a terminal until it listens, press Ctrl-C; returns the screen and the exit code."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [PERRY, "agent", "serve", *options],
        env=environment(directory),
        stdin=its,
        stdout=its,
        stderr=its,
        preexec_fn=lambda: fcntl.ioctl(its, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads yet
        start_new_session=True,
    )
    os.close(its)
    screen = b""
    try:
        with contextlib.suppress(OSError):  # what Linux says once nobody has the other end
            while chunk := os.read(ours, 4096):
                screen += chunk
                if b"Started server process" in chunk:
                    os.write(ours, b"\x03")
        return screen.decode(), process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


# Who else may be there


class Listener:
    """Something that isn't this user's daemon: it records all that it is sent."""

    def __init__(self, *, answers: bool = True, ask: str | None = None) -> None:
        self.received = b""
        self._answers, self._ask = answers, ask
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed: the test is over
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            while chunk := connection.recv(65536):
                self.received += chunk
                if self._answers:
                    connection.sendall(self._answer_to(chunk))

    def _answer_to(self, request: bytes) -> bytes:
        body = b'{"status":"ok","version":"0","proof":"' + b"0" * 64 + b'"}'
        if self._ask is not None:
            target = request.split(b" ", 2)[1].decode()
            body = httpx.get(self._ask + target, trust_env=False).content
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


@pytest.mark.parametrize("command", ["status", "stop", "serve"])
def test_somebody_elses_daemon_is_not_sent_the_token(shared: AgentProcess, command: str) -> None:
    with Listener() as thief:
        done = shared.perry("agent", command, "--port", str(thief.port))
        assert b"GET /health?challenge=" in thief.received
        assert shared.token.encode() not in thief.received
        assert b"authorization" not in thief.received.lower()
        assert shared.token not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["status", "stop", "serve"])
def test_who_has_the_daemon_prove_in_their_stead_is_not_sent_the_token(
    shared: AgentProcess, command: str
) -> None:
    with Listener(ask=shared.url) as between:
        done = shared.perry("agent", command, "--port", str(between.port))
        assert b"GET /health?challenge=" in between.received
        assert shared.token.encode() not in between.received
        assert shared.process.poll() is None
        assert done.returncode == (0 if command == "stop" else 1)


# The token


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_token_is_this_users_alone_and_stays_the_same(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "perry" / "agent"
    with AgentProcess(tmp_path) as daemon:
        first = daemon.token
        assert re.fullmatch("[0-9a-f]{64}", first)
        assert (mode(directory), mode(directory / "token")) == (0o700, 0o600)
        assert {mode(path) for path in directory.iterdir()} == {0o600}
        daemon.end()
    directory.chmod(0o755)
    (directory / "token").chmod(0o644)
    with AgentProcess(tmp_path) as daemon:
        assert daemon.token == first
        assert (mode(directory), mode(directory / "token")) == (0o700, 0o600)
    assert not list(directory.glob(".token-*"))


def test_commands_at_the_same_time_agree_on_one_token(tmp_path: Path) -> None:
    found: set[str] = set()

    def ask() -> None:
        found.add(perry(environment(tmp_path), "agent", "token").stdout)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(found) == 1


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\xff" * 64, b"two words that are long enough ..."]
)
@pytest.mark.parametrize("command", ["token", "status", "serve"])
def test_a_file_that_holds_no_token_is_said_to(
    tmp_path: Path, command: str, content: bytes
) -> None:
    path = tmp_path / "state" / "perry" / "agent" / "token"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    done = perry(environment(tmp_path), "agent", command)
    assert done.returncode == 1
    assert done.stderr == (
        f"perry: {path} holds no token\nRemove it, and a new one is made: rm {path}\n"
    )


@pytest.mark.parametrize("command", ["token", "status", "serve"])
def test_a_directory_that_cannot_be_used_is_an_error_with_words(
    tmp_path: Path, command: str
) -> None:
    (tmp_path / "state").write_text("a file")
    done = perry(environment(tmp_path), "agent", command)
    assert done.returncode == 1
    assert f"{tmp_path}/state/perry/agent/token, can't be used: Not a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_token_is_in_no_log_and_no_list_of_processes(tmp_path: Path) -> None:
    with AgentProcess(tmp_path) as daemon:
        with daemon.client() as stranger:
            stranger.get("/login", params={"token": daemon.token})
            stranger.get("/login", params={"token": f"{daemon.token}x"})
        daemon.http.get("/nothing")
        daemon.http.post("/api/workspaces", content=b"{")
        daemon.http.get("/api/workspaces")
        with daemon.events() as stream:
            stream.next()
        process = Path("/proc", str(daemon.process.pid))
        for file in ("cmdline", "environ"):
            assert daemon.token.encode() not in (process / file).read_bytes()
        daemon.end()
        said = daemon.out.read_text() + daemon.err.read_text()
        assert daemon.token not in said
        assert "in a browser: perry agent token --link shows the link" in said
        assert "Traceback" not in said


def test_a_daemon_that_nothing_happens_to_logs_no_warning(tmp_path: Path) -> None:
    with AgentProcess(tmp_path) as daemon:
        path = daemon.home.session("hello")
        eventually(lambda: daemon.counts() == {path.stem: 1}, "it is listed")
        daemon.end()
        lines = daemon.err.read_text().splitlines()
        [engine_away] = [line for line in lines if " INFO " not in line]
        assert "the engine is away: No Docker engine answers" in engine_away


# What a person sees


def narrow(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines())


def test_status_says_how_everything_is_in_80_columns(shared: AgentProcess) -> None:
    done = shared.perry("agent", "status", "--port", str(shared.port))
    assert done.returncode == 0
    assert narrow(done.stdout), done.stdout
    assert re.match(
        rf"agent daemon at {shared.url}, version \S+, process {shared.process.pid}\n",
        done.stdout,
    )
    assert re.search(r"^NAME +STATE +READ VIA +AS OF", done.stdout, re.MULTILINE)
    assert re.search(r"^host +running +host +now", done.stdout, re.MULTILINE)
    assert "the Docker engine can't be reached" in done.stdout + done.stderr
    assert shared.token not in done.stdout + done.stderr


def test_status_as_json_is_what_the_api_says(shared: AgentProcess) -> None:
    done = shared.perry("agent", "status", "--port", str(shared.port), "--json")
    shown, said = httpx.Response(200, content=done.stdout).json(), shared.json("/api/status")
    assert shown["archive"].keys() == said["archive"].keys()
    assert {**shown, "archive": None} == {**said, "archive": None}


def test_status_says_why_nothing_is_archived(tmp_path: Path) -> None:
    blocked = tmp_path / "home" / ".local" / "share" / "perry"
    blocked.parent.mkdir(parents=True)
    blocked.touch()
    with AgentProcess(tmp_path) as daemon:
        eventually(lambda: daemon.json("/api/status")["archive"]["error"], "it can't be kept")
        done = daemon.perry("agent", "status", "--port", str(daemon.port))
        assert "nothing is archived: The archive can't be kept at" in done.stderr


def test_stop_returns_when_the_daemon_has_ended_and_its_port_is_free(tmp_path: Path) -> None:
    port = free_port()
    for _ in range(3):
        daemon = AgentProcess(tmp_path, port=port)
        with daemon.events() as stream:
            stream.next()
            done = daemon.perry("agent", "stop", "--port", str(port))
            assert (done.returncode, done.stdout) == (0, "stopped the agent daemon\n"), done.stderr
            assert daemon.process.wait(0.5) == 0
        daemon.http.close()
    done = perry(environment(tmp_path), "agent", "stop", "--port", str(port))
    assert (done.returncode, done.stdout) == (0, "no agent daemon of yours runs\n")


@pytest.mark.parametrize("has_run", [True, False])
def test_without_a_daemon_status_says_how_to_have_one(tmp_path: Path, has_run: bool) -> None:
    if has_run:
        perry(environment(tmp_path), "agent", "token")
    began = time.monotonic()
    done = perry(environment(tmp_path), "agent", "status", "--port", str(free_port()))
    assert done.returncode == 1
    assert "perry agent serve starts one." in done.stderr
    assert narrow(done.stderr)
    assert time.monotonic() - began < 3
    done = perry(environment(tmp_path), "agent", "stop")
    assert done.returncode == 0


def test_the_token_and_the_link_can_be_had_at_any_time(shared: AgentProcess) -> None:
    token = shared.perry("agent", "token").stdout
    assert token == f"{shared.token}\n"
    link = shared.perry("agent", "token", "--link", "--port", str(shared.port)).stdout.strip()
    assert link == f"{shared.url}/login?token={shared.token}"
    assert httpx.get(link, trust_env=False).status_code == 200


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_streams_open(tmp_path: Path, number: int) -> None:
    with AgentProcess(tmp_path) as daemon:
        reading, stuck = daemon.events(), daemon.events(receive_buffer=4096)
        with reading, stuck:
            reading.next()
            for _ in range(50):
                daemon.home.session("x" * 5000)
            eventually(lambda: len(daemon.counts()) == 50, "all are listed")
            assert daemon.end(number) < PROMPT_END
            assert daemon.process.returncode == 0
            reading.until_end()


def test_a_client_in_the_middle_of_a_request_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with (
        AgentProcess(tmp_path) as daemon,
        socket.create_connection(("127.0.0.1", daemon.port)) as half,
    ):
        half.sendall(
            b"POST /api/workspaces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
            b"Authorization: Bearer " + daemon.token.encode() + b"\r\n\r\n{"
        )
        eventually(lambda: daemon.http.get("/health").status_code == 200, "it still answers")
        assert daemon.end() < PROMPT_END


# Sessions, live


def test_a_hosts_session_and_its_changes_are_told_within_50_ms(tmp_path: Path) -> None:
    with AgentProcess(tmp_path) as daemon, daemon.events() as stream:
        stream.next()
        path = daemon.home.session("one")
        until(stream, is_session("created"))
        took = []
        for number in range(2, 12):
            began = time.monotonic()
            daemon.home.append(path, "more")
            event = stream.next()
            took.append(time.monotonic() - began)
            assert (event.kind, event.data["session"]["messageCount"]) == ("updated", number)
            assert event.data["session"]["workspace"] == "host"
        assert sorted(took)[len(took) // 2] < 0.05, took
        path.unlink()
        assert stream.next()[1:] == (
            "deleted",
            {"id": path.stem, "agentType": "claude", "workspace": "host"},
        )
        assert daemon.counts() == {}


def is_session(kind: str) -> Callable[[Told], bool]:
    return lambda event: event.kind == kind and "place" not in event.data


def test_a_stream_that_goes_on_after_a_kill_tells_exactly_what_was_missed(tmp_path: Path) -> None:
    port = free_port()
    with AgentProcess(tmp_path, port=port) as daemon:
        home = daemon.home
        with daemon.events() as stream:
            stream.next()
            appended, deleted, kept = (home.session("one", session_id=name) for name in "adk")
            seen = until(stream, lambda _: len(daemon.counts()) == 3)
            while len(sessions_in(seen)) < 3:
                seen.append(stream.next())
            last = seen[-1].id
        daemon.process.kill()
        daemon.process.wait()
    home.append(appended, "two")
    home.append(appended, "three")
    deleted.unlink()
    home.session("one", session_id="new")
    with AgentProcess(tmp_path, port=port) as daemon:
        assert daemon.counts() == {"a": 3, "k": 1, "new": 1}
        with daemon.events(last_event_id=last) as stream:
            ready, *missed = [stream.next() for _ in range(5)]
            assert ready.kind == "ready"
            assert sorted(sessions_in(missed)) == [
                ("created", "new"),
                ("deleted", "d"),
                ("updated", "a"),
            ]
            [place] = [event.data["place"] for event in missed if "place" in event.data]
            assert (place["name"], place["via"], place["asOf"]) == ("host", "host", None)
            home.append(kept, "two")
            assert sessions_in([stream.next()]) == [("updated", "k")]
        for position, event in enumerate(missed):
            with daemon.events(last_event_id=event.id) as stream:
                assert stream.next().kind == "ready"
                left = [stream.next().id for _ in missed[position:]]
                assert left[:-1] == [later.id for later in missed[position + 1 :]]


def test_an_id_that_is_not_this_daemons_is_told_to_begin_anew(shared: AgentProcess) -> None:
    for strange in ("nonsense", "0123456789abcdef-1", f"{'9' * 300}-1", "-"):
        with shared.events(last_event_id=strange) as stream:
            assert stream.next().kind == "reset"


def test_what_is_remembered_is_listed_before_the_host_was_read_again(tmp_path: Path) -> None:
    port = free_port()
    with AgentProcess(tmp_path, port=port) as daemon:
        daemon.home.session("one", session_id="a")
        eventually(lambda: daemon.counts() == {"a": 1}, "it is listed")
        daemon.end(signal.SIGKILL)
    with AgentProcess(tmp_path, port=port) as daemon:
        place = daemon.json("/api/sessions")["places"][0]
        assert place == {
            "name": "host", "state": "running", "via": "host", "asOf": None, "error": None,
        }  # fmt: skip
        assert daemon.counts() == {"a": 1}


def test_the_daemon_needs_no_variable_but_a_home(tmp_path: Path) -> None:
    variables = {name: environment(tmp_path)[name] for name in ("PATH", "HOME", "DOCKER_HOST")}
    done = perry(variables, "agent", "token")
    kept = tmp_path / "home" / ".local" / "state" / "perry" / "agent" / "token"
    assert done.stdout.strip() == kept.read_text()


def test_only_a_port_that_one_comes_back_to_has_a_ledger_that_stays(tmp_path: Path) -> None:
    kept = tmp_path / "state" / "perry" / "agent"
    with AgentProcess(tmp_path) as daemon:
        assert [*kept.glob(f"ledger-{daemon.port}.sqlite*")]
        daemon.end()
        assert not [*kept.glob("ledger-*")]
    port = free_port()
    with AgentProcess(tmp_path, port=port) as daemon:
        daemon.end()
        assert [*kept.glob("ledger-*")] == [kept / f"ledger-{port}.sqlite"]
