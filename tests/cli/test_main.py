from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import perry as package
from perry.sessions.index import coding_agents

Perry = Callable[..., subprocess.CompletedProcess[str]]

HEAVY = (
    *("rich", "docker", "requests", "httpx", "watchfiles", "uvicorn", "starlette", "pip"),
    *("perry.cli.spinner", "perry.cli.terminal"),
)


def imported_by(*arguments: str) -> set[str]:
    """Name the heavy modules that a command has loaded by its end."""
    program = (
        "import sys\n"
        f"sys.argv = ['perry', *{arguments!r}]\n"
        "from perry.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit:\n    pass\n"
        f"print(*sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("workspace", "--help"),
        ("session", "list", "--help"),
        ("archive", "--help"),
        ("doctor", "--help"),
    ],
)
def test_help_loads_no_docker_http_or_terminal_library(arguments: tuple[str, ...]) -> None:
    assert imported_by(*arguments) == set()


def test_workspace_list_loads_nothing_of_the_server_or_of_live_lines() -> None:
    # httpx itself loads rich wherever click happens to be installed, so perry's own use counts.
    unused = {"perry.cli.spinner", "perry.cli.terminal", "watchfiles", "uvicorn", "starlette"}
    assert not imported_by("workspace", "list") & unused


def test_version_is_printed(perry: Perry) -> None:
    done = perry("--version")
    assert (done.returncode, done.stdout) == (0, f"perry {package.__version__}\n")


def test_help_names_every_group_and_fits_80_columns(perry: Perry) -> None:
    done = perry("--help")
    for group in ("workspace", "session", "archive", "worker", "image", "doctor", "uninstall"):
        assert f"\n  {group} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


COMMANDS = [
    *(
        ("workspace", verb)
        for verb in ["init", "adopt", "list", "show", "start", "stop", "restart", "remove"]
    ),
    *(("workspace", verb) for verb in ("sync", "exec", "shell", "logs")),
    *(("session", verb) for verb in ("list", "show", "search", "tail", "export", "delete")),
    *(("archive", verb) for verb in ("status", "prune", "off", "on", "path")),
    ("worker", "serve"),
    ("agent", "serve"),
    ("image", "build"),
    ("doctor",),
    ("uninstall",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_examples(perry: Perry, command: tuple[str, ...]) -> None:
    done = perry(*command, "--help")
    assert done.returncode == 0
    assert f"Examples:\n    perry {' '.join(command)}" in done.stdout


ASKING = [
    ("list",),
    ("tail",),
    *((verb, "x") for verb in ("show", "search", "tail", "export")),
    ("delete", "x", "--yes"),
]


@pytest.mark.parametrize("rest", ASKING, ids=" ".join)
def test_an_agent_that_nobody_knows_is_told_which_there_are(
    perry: Perry, rest: tuple[str, ...]
) -> None:
    for name in ("Foo", "Claude", ""):
        done = perry("session", *rest, "--agent", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert "claude, opencode, codex, pi, gemini" in done.stderr


def test_the_agents_that_help_names_are_those_there_are(perry: Perry) -> None:
    told = " ".join(perry("session", "list", "--help").stdout.split())
    *first, last = coding_agents()
    assert f"Only that coding agent: {', '.join(first)} or {last}." in told


@pytest.mark.parametrize("command", [(), ("session",), *COMMANDS], ids=" ".join)
def test_h_is_help_and_says_of_every_option_what_it_does(
    perry: Perry, command: tuple[str, ...]
) -> None:
    done = perry(*command, "-h")
    told = done.stdout
    assert (done.returncode, "-h, --help" in told) == (0, True)
    assert told.startswith(" ".join(("Usage: perry", *command)))
    options = re.findall(r"^  +((?:-\w, )?--[\w-]+).*?  +(\S.*)$", told, re.MULTILINE)
    assert options
    for option, words in options:
        assert len(words.split()) >= 3, f"{option}: {words}"
        assert not re.search(r"\b(it|Don't ask)\.$", words), f"{option}: {words}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("workspace", "nonsense"),
        ("workspace", "list", "--nonsense"),
        ("workspace", "init", "Not_Valid"),
        ("workspace", "init", "host"),
        ("workspace", "init", "a" * 64),
        ("workspace", "init", "demo", "--env", "=x"),
        ("workspace", "init", "demo", "--cpus", "many"),
        ("workspace", "show"),
        ("workspace", "sync"),
        ("workspace", "sync", "demo", "--all"),
        ("workspace", "remove", "demo"),
        ("workspace", "exec", "demo", "--"),
        ("workspace", "logs", "demo", "--tail", "-1"),
        ("workspace", "logs", "demo", "--worker", "--follow"),
        ("session", "list", "--limit", "0"),
        ("archive", "prune"),
        ("archive", "prune", "--largest", "many"),
        ("session", "list", "--workspace", "../x"),
        *(("session", *rest, "--agent", "Foo") for rest in ASKING),
        ("worker", "serve", "--port", "70000"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_asked_for_exits_with_2_and_says_why(
    perry: Perry, arguments: tuple[str, ...]
) -> None:
    done = perry(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("workspace", "list"),
        ("workspace", "init"),
        ("session", "list", "--json", "--workspace", "demo"),
        ("workspace", "remove", "demo", "--yes"),
        ("uninstall", "--yes"),
    ],
    ids=" ".join,
)
def test_without_an_engine_one_line_and_a_hint_are_said(
    perry: Perry, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    done = perry(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("perry: ")
    assert str(tmp_path / "no.sock") in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_ends_with_130_and_a_word(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "sys.argv = ['perry', 'workspace', 'list']\n"
        "from perry.cli import connection, main, workspace\n"
        "workspace.connect_manager = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "main.run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "perry: Interrupted.\n")


def test_a_reader_that_has_gone_ends_it_silently(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "perry", "--help"],
            cwd=tmp_path, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_closed_standard_streams_are_no_reason_to_fail(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m perry workspace remove demo <&- >&-"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "nobody to ask" in done.stderr
