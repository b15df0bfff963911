"""The installed command, piped and at a terminal, on an engine that is the tests' own."""

from __future__ import annotations

import json
import os
import re
import time

import pytest

from tests.e2e.command import KILL_WORKER, Perry
from tests.e2e.eventually import eventually
from tests.e2e.own_engine import OwnEngine
from tests.e2e.terminal import at_a_terminal
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_session

STEPS = ["image", "bundle", "volume", "container", "start", "worker", "health"]


@pytest.fixture(scope="module")
def own(second_engine: OwnEngine) -> OwnEngine:
    second_engine.reset()
    return second_engine


@pytest.fixture(scope="module")
def perry(own: OwnEngine, tmp_path_factory: pytest.TempPathFactory) -> Perry:
    directory = tmp_path_factory.mktemp("My Project")
    cache = str(directory / "cache")
    return Perry(directory, {"DOCKER_HOST": own.address, "XDG_CACHE_HOME": cache})


@pytest.fixture(scope="module")
def demo(perry: Perry) -> str:
    """A workspace with three sessions, of which two ids begin alike."""
    perry.ok("workspace", "init", "demo")
    for session in ("abc-one", "abc-two", "xyz"):
        put_session(perry, "demo", session)
    listed = ("session", "list", "--workspace", "demo")
    eventually(lambda: perry.json(*listed)["sessions"], lambda found: len(found) == 3)
    return "demo"


@pytest.fixture
def spare(perry: Perry) -> str:
    """A workspace that a test may do anything to."""
    perry.ok("workspace", "init", "spare")
    return "spare"


def put_session(perry: Perry, workspace: str, session: str) -> None:
    text = claude_session(f"Prompt of {session}").replace(
        '"sessionId": "s"', f'"sessionId": "{session}"'
    )
    path = f"/home/workspace/{CLAUDE_DIRECTORY}"
    script = (
        f"/opt/perry/busybox mkdir -p {path} && /opt/perry/busybox cat > {path}/{session}.jsonl"
    )
    perry.ok("workspace", "exec", workspace, "sh", "-c", script, stdin=text)


def on_terminal(
    perry: Perry, *arguments: str, typing: tuple[tuple[str, str], ...]
) -> tuple[int, str]:
    environment = {**os.environ, **perry.environment, "TERM": "xterm"}
    return at_a_terminal(perry.argv(*arguments), environment, *typing)


# init


def test_init_in_a_pipe_prints_a_line_a_step_and_nothing_for_terminals(perry: Perry) -> None:
    done = perry.run("workspace", "init", "lines")
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:7]] == STEPS
    assert all(re.match(r"\w+ +[\d.]+ m?s\b", line) for line in lines[:7]), "with its duration"
    assert lines[7].startswith("workspace lines is ready: worker at ")
    assert lines[7].endswith(":7392, 0 sessions")
    assert all(letter.isprintable() or letter == "\n" for letter in done.stdout)


def test_init_as_json_prints_nothing_else_on_stdout(perry: Perry, own: OwnEngine) -> None:
    done = perry.run("workspace", "init", "json", "--json")
    answer = json.loads(done.stdout)
    assert set(answer) == {"workspace", "worker", "warning"}
    assert set(answer["worker"]) == {"address", "via", "version", "digest", "sessionCount"}
    assert set(answer["workspace"]) == {
        "name", "containerId", "image", "state", "createdAt", "startedAt", "user", "home",
        "homeVolume", "addresses", "ports", "adopted",
    }  # fmt: skip
    assert answer["workspace"]["containerId"] == own.client.containers.get("workspace-json").id
    assert [line.split()[0] for line in done.stderr.splitlines()] == STEPS


def test_without_a_name_it_takes_the_directorys(perry: Perry) -> None:
    said = perry.ok("workspace", "init")
    assert "workspace my-project0 is ready" in said
    perry.ok("workspace", "remove", "my-project0", "--yes")


def test_a_second_init_says_that_all_is_there(perry: Perry, demo: str) -> None:
    before = perry.json("workspace", "show", demo)
    said = perry.ok("workspace", "init", demo)
    assert "runs already" in said
    assert "is ready" in said
    assert perry.json("workspace", "show", demo) == before


def test_a_contradicting_option_is_named_and_changes_nothing(perry: Perry, demo: str) -> None:
    before = perry.json("workspace", "show", demo)
    done = perry.run("workspace", "init", demo, "--memory", "1g", "--env", "A=secret")
    assert done.returncode == 1
    assert "--memory 1g" in done.stderr
    assert "--env A" in done.stderr
    assert "secret" not in done.stderr
    assert perry.json("workspace", "show", demo) == before


# The life cycle


def test_list_and_show_tell_what_runs(perry: Perry, demo: str) -> None:
    (line,) = [it for it in perry.ok("workspace", "list").splitlines() if it.split()[0] == demo]
    assert "running" in line
    assert "healthy" in line
    shown = perry.ok("workspace", "show", demo)
    assert "/home/workspace" in shown
    assert ":7392" in shown
    view = perry.json("workspace", "show", demo)["workspace"]
    assert view in perry.json("workspace", "list")["workspaces"]


def test_stop_start_restart_and_sync(perry: Perry, spare: str) -> None:
    assert perry.ok("workspace", "stop", spare) == "stopped spare\n"
    assert perry.json("workspace", "show", spare)["workspace"]["health"] == "stopped"
    refused = perry.run("workspace", "sync", spare)
    assert refused.returncode == 1
    assert "perry workspace start spare" in refused.stderr
    for verb in ("start", "restart", "sync"):
        assert perry.json("workspace", verb, spare)["worker"]["sessionCount"] == 0


def test_remove_asks_at_a_terminal_and_takes_no_for_an_answer(
    perry: Perry, own: OwnEngine, spare: str
) -> None:
    remove = ("workspace", "remove", spare)
    unasked = perry.run(*remove)
    assert unasked.returncode == 2
    assert "--yes" in unasked.stderr
    code, screen = on_terminal(perry, *remove, typing=(("[y/N]", "n\r"),))
    assert code == 1
    assert "Nothing was changed" in screen
    assert f"workspace-{spare}" in own.containers()
    code, screen = on_terminal(perry, *remove, typing=(("[y/N]", "y\r"),))
    assert code == 0, screen
    assert f"workspace-{spare}" not in own.containers()
    assert f"workspace-{spare}-home" not in own.volumes()


def test_remove_of_several_keeps_their_homes_when_told(perry: Perry, own: OwnEngine) -> None:
    perry.ok("workspace", "init", "kept")
    gone = perry.json("workspace", "remove", "kept", "nobody", "--yes", "--keep-volume")
    assert [it["containers"] for it in gone["removed"]] == [["workspace-kept"], []]
    assert "workspace-kept-home" in own.volumes()
    perry.ok("workspace", "remove", "kept", "--yes")
    assert "workspace-kept-home" not in own.volumes()


# JSON


def test_the_outer_keys_of_json_are_pinned(perry: Perry, demo: str, spare: str) -> None:
    session = {
        "id", "agentType", "title", "directory", "filePath", "messageCount", "firstPrompt",
        "lastActivity", "workspace",
    }  # fmt: skip
    message = {"type", "content", "timestamp"}
    ready = {"workspace", "worker", "warning"}
    listed = perry.json("session", "list", "--workspace", demo)
    shown = perry.json("session", "show", "xyz", "--workspace", demo)
    assert set(listed) == {"sessions"}
    assert set(shown) == {"session", "messages"}
    assert all(set(it) >= session for it in [*listed["sessions"], shown["session"]])
    assert all(set(it) >= message for it in shown["messages"])
    views = perry.json("workspace", "list")
    view = perry.json("workspace", "show", demo)
    assert set(views) == {"workspaces"}
    assert set(view) == {"workspace"}
    assert all(set(it) == set(view["workspace"]) for it in views["workspaces"])
    synced = perry.json("workspace", "sync", "--all")
    assert set(synced) == {"workspaces"}
    assert all(set(it) == ready for it in synced["workspaces"])
    for verb in ("init", "start", "restart", "sync"):
        assert set(perry.json("workspace", verb, spare)) == ready
    removed = perry.json("workspace", "remove", spare, "--yes")
    assert set(removed) == {"removed"}
    gone = {"name", "containers", "volumes", "letGo", "warning"}
    assert [set(it) for it in removed["removed"]] == [gone]


# Programs


def test_exec_passes_input_output_errors_and_the_exit_code(perry: Perry, demo: str) -> None:
    script = "/opt/perry/busybox tr a-z A-Z; echo oops >&2; exit 7"
    done = perry.run("workspace", "exec", demo, "sh", "-c", script, stdin="hello\nworld\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "HELLO\nWORLD\n", "oops\n")


def test_exec_runs_as_the_user_that_is_named(perry: Perry, demo: str) -> None:
    who = ("/opt/perry/busybox", "id", "-u")
    assert perry.ok("workspace", "exec", demo, *who) == "1000\n"
    assert perry.ok("workspace", "exec", "--user", "0", demo, *who) == "0\n"


def test_exec_of_what_is_not_there_fails_with_the_engines_code(perry: Perry, demo: str) -> None:
    done = perry.run("workspace", "exec", demo, "no-such-program")
    assert done.returncode in (126, 127), done.stderr
    assert "no-such-program" in done.stderr + done.stdout


def test_a_shell_at_a_terminal(perry: Perry, demo: str) -> None:
    code, screen = on_terminal(
        perry, "workspace", "shell", demo, typing=(("$ ", "tty; echo $((40 + 2)); exit 3\r"),)
    )
    assert code == 3, screen
    assert "42" in screen


def test_a_shell_in_a_pipe_reads_its_script(perry: Perry, demo: str) -> None:
    assert perry.run("workspace", "shell", demo, stdin="echo hi; exit 4\n").returncode == 4


def test_logs_of_the_command_and_of_the_worker(perry: Perry) -> None:
    command = "sh -c 'echo begun; echo bad >&2; exec /opt/perry/busybox sleep 1000'"
    perry.ok("workspace", "init", "talks", "--command", command)
    assert sorted(perry.ok("workspace", "logs", "talks").split()) == ["bad", "begun"]
    assert perry.ok("workspace", "logs", "talks", "--tail", "0") == ""
    assert "7392" in perry.ok("workspace", "logs", "talks", "--worker")


# Sessions


def test_session_list_tells_all_that_is_known(perry: Perry, demo: str) -> None:
    title, *rows = perry.ok("session", "list", "--workspace", demo).splitlines()
    assert title.split() == ["ID", "WORKSPACE", "AGENT", "TITLE", "DIRECTORY", "MSGS", "ACTIVE"]
    assert sorted(row.split()[0] for row in rows) == ["abc-one", "abc-two", "xyz"]
    assert all("claude" in row and "/home/dev/shop" in row and "6" in row for row in rows)
    assert all("Prompt of " in row for row in rows)


def test_session_list_is_kept_to_an_agent_a_limit_or_a_workspace(perry: Perry, demo: str) -> None:
    put_session(perry, demo, "abc-one")
    everywhere = perry.json("session", "list")["sessions"]
    assert {session["workspace"] for session in everywhere} == {demo}
    assert len(perry.json("session", "list", "--agent", "claude")["sessions"]) == 3
    assert perry.json("session", "list", "--agent", "opencode")["sessions"] == []
    (newest,) = perry.json("session", "list", "--limit", "1")["sessions"]
    assert newest == everywhere[0]


def test_session_show_takes_any_unique_prefix(perry: Perry, demo: str) -> None:
    shown = perry.ok("session", "show", "x", "--workspace", demo)
    assert "Prompt of xyz" in shown
    assert "Let me look." in shown
    assert "  → Bash  command: ls" in shown
    answer = perry.json("session", "show", "abc-t")
    assert answer["session"]["id"] == "abc-two"
    assert len(answer["messages"]) == answer["session"]["messageCount"] == 6


@pytest.mark.parametrize("verb", [("show",), ("delete", "--yes")])
def test_an_ambiguous_id_lists_the_candidates(
    perry: Perry, demo: str, verb: tuple[str, ...]
) -> None:
    done = perry.run("session", verb[0], "abc", *verb[1:])
    assert done.returncode == 1
    assert done.stdout == ""
    assert "abc-one" in done.stderr
    assert "abc-two" in done.stderr
    assert "xyz" not in done.stderr
    assert len(perry.json("session", "list", "--workspace", demo)["sessions"]) == 3


def test_session_delete_takes_the_session_alone(perry: Perry, demo: str) -> None:
    put_session(perry, demo, "gone")
    find = ("session", "list", "--workspace", demo)
    eventually(lambda: perry.json(*find)["sessions"], lambda found: len(found) == 4)
    assert perry.run("session", "delete", "gone").returncode == 2, "there is nobody to ask"
    assert perry.ok("session", "delete", "gon", "--yes") == f"deleted gone from {demo}\n"
    left = [session["id"] for session in perry.json(*find)["sessions"]]
    assert sorted(left) == ["abc-one", "abc-two", "xyz"]


def test_session_list_revives_a_dead_worker(perry: Perry, demo: str) -> None:
    perry.ok("workspace", "exec", demo, *KILL_WORKER)
    assert perry.json("workspace", "show", demo)["workspace"]["health"] == "none"
    assert len(perry.json("session", "list", "--workspace", demo)["sessions"]) == 3
    assert perry.json("workspace", "show", demo)["workspace"]["health"] == "healthy"


@pytest.mark.usefixtures("demo")
def test_a_workspace_that_cannot_answer_hides_no_other(perry: Perry) -> None:
    perry.ok("workspace", "init", "mute")
    perry.ok("workspace", "stop", "mute")
    snapshots = perry.directory / "cache/perry/snapshots"
    snapshots.write_text("no directory, so nothing can be copied")
    began = time.monotonic()
    done = perry.run("session", "list", "--json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["sessions"]) == 3
    assert "The sessions of 'mute' can't be copied" in done.stderr
    assert time.monotonic() - began < 20
    perry.ok("workspace", "remove", "mute", "--yes")
    snapshots.unlink()
