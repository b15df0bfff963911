from __future__ import annotations

from collections.abc import Generator

import pytest

from perry.cli import steps
from perry.errors import WorkerUnreachable
from perry.workspace.models import Step


def work(*given: Step) -> Generator[Step, None, str]:
    yield from given
    return "made"


def test_in_a_pipe_each_finished_step_and_each_note_is_one_plain_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = steps.follow(
        work(
            Step("image", "begun"),
            Step("image", "note", "building it\x1b[2J\nnow"),
            Step("image", "progress", "Step 3/9"),
            Step("image", "done", "perry-workspace:1", 0.021),
            Step("worker", "done", "172.17.0.2:7392", 12.5),
        )
    )
    assert result == "made"
    assert capsys.readouterr().out.splitlines() == [
        "image               building it\\x1b[2J now",
        "image       0.02 s  perry-workspace:1",
        "worker      12.5 s  172.17.0.2:7392",
    ]


def test_a_note_is_read_before_what_it_is_about_is_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said: list[str] = []

    def slow() -> Generator[Step, None, None]:
        yield Step("image", "note", "about a minute")
        said.append(capsys.readouterr().out)

    steps.follow(slow())
    assert said == ["image               about a minute\n"]


def test_steps_end_when_showing_them_fails() -> None:
    ended: list[bool] = []

    def failing() -> Generator[Step, None, None]:
        try:
            yield Step("image", "begun")
            raise WorkerUnreachable("no answer")
        finally:
            ended.append(True)

    with pytest.raises(WorkerUnreachable):
        steps.follow(failing())
    assert ended == [True]
