"""What is said of workspaces that were read from a snapshot."""

from __future__ import annotations

import pytest

from perry.cli import render
from perry.cli.fleet import Gathered
from perry.cli.snapshots import Taken, notes, view
from perry.errors import WorkerCannotRun, WorkerUnreachable

NOW = 1_700_000_000.0
AT = int((NOW - 200) * 1000)


def test_a_stopped_workspace_and_the_age_of_its_snapshot_are_told() -> None:
    told = [*notes("demo", Taken("exited", AT), NOW)]
    assert told == ["demo is exited; read from a snapshot taken 3 min ago"]


def test_of_a_running_workspace_is_told_why_no_worker_can_run() -> None:
    named = WorkerCannotRun("No worker can run in 'demo': read-only\nreally")
    (told,) = notes("demo", Taken("running", AT, {}, named), NOW)
    assert told == (
        "No worker can run in 'demo': read-only really; read from a snapshot taken 3 min ago"
    )
    (told,) = notes("demo", Taken("running", AT, {}, WorkerCannotRun("killed " * 200)), NOW)
    assert told.startswith("demo: killed killed")
    assert len(told) < 300


def test_few_of_the_files_that_were_left_out_are_named_and_the_others_counted() -> None:
    problems = {f"/home/x/{number}\n.jsonl": "a link" for number in range(3)}
    assert [*notes("demo", Taken("exited", AT, problems), NOW)][1:] == [
        f"demo: the snapshot leaves out /home/x/{number} .jsonl: a link" for number in range(3)
    ]
    more = problems | {f"/home/y/{number}": "a link" for number in range(97)}
    told = [*notes("demo", Taken("exited", AT, more), NOW)]
    assert (len(told), told[-1]) == (5, "demo: the snapshot leaves out 97 more files")


def test_json_tells_of_a_snapshot_as_the_agent_daemon_does() -> None:
    assert view(Taken("exited", AT)) == {"via": "snapshot", "asOf": AT}
    assert view(None) == {}


def test_notes_go_to_stderr_before_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    failures = {"bad": WorkerUnreachable("nothing answers in bad")}
    taken = {"b": Taken("exited", 0), "a": Taken("paused", 0, {"/x\x1b": "a link"})}
    render.sessions(Gathered((), failures, ("a", "b", "bad"), taken), everywhere=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "note: a is paused; read from a snapshot taken 1970-01-01",
        "note: a: the snapshot leaves out /x\\x1b: a link",
        "note: b is exited; read from a snapshot taken 1970-01-01",
        "warning: nothing answers in bad",
    ]
