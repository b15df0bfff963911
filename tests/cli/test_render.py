from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from perry.cli import render
from perry.cli.fleet import NONE_RUNNING, Found, Gathered
from perry.cli.health import workspace_views
from perry.errors import UsageError, WorkerUnreachable
from perry.sessions.models import Session
from perry.workspace.models import Overlooked, Ready, Removed, Worker, Workspace

WORKER = Worker("172.17.0.2:7392", "address", "0.1.0", "abcdef0123456789", 3)


def test_ready_tells_the_address_and_the_sessions(
    make_workspace: Callable[..., Workspace], capsys: pytest.CaptureFixture[str]
) -> None:
    render.ready(Ready(make_workspace(), WORKER))
    said = capsys.readouterr()
    assert said.out == "workspace demo is ready: worker at 172.17.0.2:7392, 3 sessions\n"
    assert said.err == ""


def test_a_workspace_without_a_worker_is_one_warning_on_stderr(
    make_workspace: Callable[..., Workspace], capsys: pytest.CaptureFixture[str]
) -> None:
    render.ready(Ready(make_workspace(), None, "the image is for another processor"))
    assert capsys.readouterr().err == "warning: demo: the image is for another processor\n"


@pytest.fixture
def gathered(
    make_session: Callable[..., Session], make_workspace: Callable[..., Workspace]
) -> Gathered:
    title = "A title that is much longer than any column of eighty can be, surely"
    found = tuple(
        Found(make_session(id=f"{n:08d}-and-more-of-it", title=title), make_workspace())
        for n in range(3)
    )
    return Gathered(found, {}, ("demo",))


def test_sessions_fit_an_80_column_terminal(
    gathered: Gathered, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    render.sessions(gathered, everywhere=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("00000000  demo ")


def test_sessions_in_a_pipe_keep_whole_ids_and_titles(
    gathered: Gathered, capsys: pytest.CaptureFixture[str]
) -> None:
    render.sessions(gathered, everywhere=True)
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("00000000-and-more-of-it  demo       claude  A title")
    assert "surely  ~/site " in line


def test_a_workspace_that_cannot_be_asked_is_told_and_hides_nothing(
    gathered: Gathered, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = {"other": WorkerUnreachable("nothing answers", workspace="other")}
    render.sessions(Gathered(gathered.found, failures, ("demo", "other")), everywhere=True)
    said = capsys.readouterr()
    assert said.err == "warning: other: nothing answers\n"
    assert len(said.out.splitlines()) == 4


@pytest.mark.parametrize(
    ("asked", "everywhere", "told"),
    [
        (("host",), False, "no sessions on the host"),
        (("demo",), False, "no sessions in 1 workspace"),
        (("host", "a", "b"), True, "no sessions on the host and in 2 workspaces"),
        (("host",), True, f"no sessions on the host; {NONE_RUNNING}"),
    ],
)
def test_without_sessions_stdout_stays_empty_and_stderr_says_where_was_looked(
    capsys: pytest.CaptureFixture[str], asked: tuple[str, ...], everywhere: bool, told: str
) -> None:
    render.sessions(Gathered((), {}, asked), everywhere=everywhere)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"{told}\n")


def views(make_workspace: Callable[..., Workspace]) -> list[dict[str, Any]]:
    names = {"healthy": "running", "none": "running", "unreachable": "running", "gone": "exited"}
    workspaces = [make_workspace(name=name, state=state) for name, state in names.items()]

    def worker(name: str) -> Worker | None:
        if name == "unreachable":
            raise WorkerUnreachable("nothing answers")
        return WORKER if name == "healthy" else None

    return workspace_views(workspaces, worker)


def test_workspace_json_has_exactly_the_promised_keys(
    make_workspace: Callable[..., Workspace],
) -> None:
    told = views(make_workspace)
    assert set(told[0]) == {
        "name", "containerId", "image", "state", "createdAt", "startedAt", "user", "home",
        "homeVolume", "addresses", "ports", "adopted", "health", "worker", "problem", "revival",
    }  # fmt: skip
    assert told[0]["worker"] == {
        "address": "172.17.0.2:7392",
        "via": "address",
        "version": "0.1.0",
        "digest": "abcdef0123456789",
        "sessionCount": 3,
    }
    assert [view["health"] for view in told] == ["healthy", "none", "unreachable", "stopped"]
    assert [view["problem"] for view in told] == [None, None, "nothing answers", None]


def test_workspaces_show_the_health_of_their_workers(
    make_workspace: Callable[..., Workspace], capsys: pytest.CaptureFixture[str]
) -> None:
    render.workspaces(views(make_workspace))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "IMAGE", "WORKER", "SESSIONS", "CREATED"]
    assert [line.split()[3:5] for line in lines[1:]] == [
        ["healthy", "3"], ["none", "-"], ["unreachable", "-"], ["-", "-"],
    ]  # fmt: skip


def test_a_workspace_shows_which_way_its_worker_is_reached(
    make_workspace: Callable[..., Workspace], capsys: pytest.CaptureFixture[str]
) -> None:
    streamed = Worker("exec", "exec", "0.1.0", "abcdef0123456789", 3)
    [view] = workspace_views([make_workspace()], lambda _: streamed)
    render.workspace(view)
    assert "reached via  exec" in capsys.readouterr().out
    render.ready(Ready(make_workspace(), streamed))
    assert "worker reached through docker exec, 3 sessions" in capsys.readouterr().out


def test_an_adopted_workspace_is_marked_as_one(
    make_workspace: Callable[..., Workspace], capsys: pytest.CaptureFixture[str]
) -> None:
    adopted = make_workspace(name="theirs", adopted=True)
    told = workspace_views([make_workspace(), adopted], lambda _: None)
    render.workspaces(told)
    own, other = capsys.readouterr().out.splitlines()[1:]
    assert "adopted" not in own
    assert "running, adopted" in other
    render.workspace(told[1])
    assert "remove only lets go of it" in capsys.readouterr().out


def test_a_container_that_claims_in_vain_is_told_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    render.overlooked([Overlooked("b", "'b' claims the name of 'a'", "Give it another name")])
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "warning: 'b' claims the name of 'a'.\nGive it another name\n"


def test_removed_json_has_exactly_the_promised_keys_and_says_what_was_let_go(
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = Removed("demo", (), (), let_go="shop-app-1", warning="/opt/perry stays there")
    render.as_json(gone)
    keys = {"name", "containers", "volumes", "letGo", "warning"}
    assert set(json.loads(capsys.readouterr().out)) == keys
    render.removed(gone)
    said = capsys.readouterr()
    assert said.out == "let go of demo: the container shop-app-1 stays as it is\n"
    assert said.err == "warning: demo: /opt/perry stays there\n"


def test_ready_json_has_exactly_the_promised_keys(
    make_workspace: Callable[..., Workspace], capsys: pytest.CaptureFixture[str]
) -> None:
    render.as_json(Ready(make_workspace(), WORKER))
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"workspace", "worker", "warning"}
    assert set(told["worker"]) == {"address", "via", "version", "digest", "sessionCount"}


def test_json_with_half_a_character_in_it_can_be_printed_and_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    render.as_json({"title": "x\ud83d"})
    said = capsys.readouterr().out
    said.encode()
    assert json.loads(said) == {"title": "x\ud83d"}


def test_nothing_is_lost_where_nobody_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(UsageError, match="nobody to ask"):
        render.confirm("Remove demo", yes=False)
    render.confirm("Remove demo", yes=True)
