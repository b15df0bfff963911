"""How findings look, and what is said where there is no engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from perry.cli import diagnosis, render
from perry.workspace.doctor.finding import Finding

Perry = Callable[..., subprocess.CompletedProcess[str]]

WELL = Finding("python", "host", None, "ok", "Python 3.11.2", "")
OTHERS = "the worker is another version's: " + "0123abcd " * 20
SYNC = "perry workspace sync demo " * 4
LONG = Finding("digest", "workspace", "demo", "warning", OTHERS, SYNC)
NASTY = Finding("worker", "workspace", "demo", "failure", "it said \x1b[2Jgone", "see \x07 there")


def plain(text: str, _: str) -> str:
    return text


def test_a_finding_fits_a_terminal_and_goes_on_below_its_own_column() -> None:
    first, *more = diagnosis.lines(LONG, 80, plain)
    assert first.startswith("  warning  digest        the worker is another version's: ")
    assert max(map(len, (first, *more))) <= 80
    margin = " " * first.index("the worker")
    assert all(line.startswith(margin) for line in more)
    assert f"{margin}→ perry workspace sync demo" in "\n".join(more)


def test_a_finding_in_a_pipe_is_one_whole_line_and_one_for_what_to_do() -> None:
    found, advice = diagnosis.lines(LONG, None, plain)
    assert found.endswith(LONG.found.strip())
    assert advice.strip() == f"→ {LONG.advice.strip()}"


def test_what_others_said_is_made_harmless() -> None:
    told = "\n".join(diagnosis.lines(NASTY, 80, plain))
    assert "\x1b" not in told
    assert "\x07" not in told
    assert "gone" in told


def test_a_heading_stands_where_the_subject_changes(capsys: pytest.CaptureFixture[str]) -> None:
    render.finding(WELL, after=None)
    render.finding(WELL, after=WELL)
    render.finding(NASTY, after=WELL)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["host", "", "workspace demo"]


@pytest.mark.parametrize(
    ("findings", "told"),
    [
        ([WELL], "all is well"),
        ([WELL, LONG], "1 warning"),
        ([NASTY, LONG, NASTY], "2 failures, 1 warning"),
    ],
)
def test_the_summary_counts_what_is_bad(findings: list[Finding], told: str) -> None:
    assert diagnosis.summary(findings) == told


def test_without_an_engine_the_host_is_told_and_the_exit_code_is_1(
    perry: Perry, tmp_path: Path
) -> None:
    done = perry("doctor")
    assert (done.returncode, done.stderr) == (1, "")
    assert f"  failure  connection    No Docker engine answers at unix://{tmp_path}/no.sock" in (
        done.stdout
    )
    assert "→ Start it (sudo systemctl start docker)" in done.stdout
    assert "  ok       python " in done.stdout
    assert done.stdout.endswith("\n\n1 failure\n")
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("tcp://127.0.0.1:1", "tcp://127.0.0.1:1"),
        ("ssh://nobody@127.0.0.1:1", "ssh://nobody@127.0.0.1:1"),
        ("nonsense://x", "nonsense://x"),
    ],
)
def test_whatever_way_the_engine_is_not_there_it_is_one_failure(
    perry: Perry, host: str, words: str
) -> None:
    done = perry("doctor", "--json", DOCKER_HOST=host)
    assert (done.returncode, done.stderr) == (1, "")
    (failure,) = [one for one in json.loads(done.stdout)["findings"] if one["level"] == "failure"]
    assert (failure["name"], failure["subject"]) == ("connection", "engine")
    assert words in failure["found"]
    assert failure["advice"]


def test_the_keys_of_json_are_pinned(perry: Perry) -> None:
    answer = json.loads(perry("doctor", "--json").stdout)
    assert set(answer) == {"level", "findings"}
    assert answer["level"] == "failure"
    keys = {"name", "subject", "workspace", "level", "found", "advice"}
    assert all(set(one) == keys for one in answer["findings"])


def test_a_daemon_whose_token_cannot_be_read_is_a_failure(perry: Perry, tmp_path: Path) -> None:
    """A directory in the token's place can be read by nobody, not even by root."""
    (tmp_path / "state/perry/agent/token").mkdir(parents=True)
    done = perry("doctor", "--json", XDG_STATE_HOME=str(tmp_path / "state"))
    (daemon,) = [one for one in json.loads(done.stdout)["findings"] if one["name"] == "daemon"]
    assert daemon["level"] == "failure"
    assert "token" in daemon["found"]
