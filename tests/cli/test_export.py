"""Exports to files: whole or not at all, with the right sessions in them."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perry.cli.export import descendants, write_whole
from perry.cli.fleet import Found, Gathered
from perry.errors import UsageError, WorkerUnreachable
from perry.sessions.models import Session
from perry.workspace.models import Workspace

MakeSession = Callable[..., Session]
MakeWorkspace = Callable[..., Workspace]


def failing(error: BaseException) -> Iterator[str]:
    yield "half"
    raise error


def test_a_file_is_written_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "session.md"
    write_whole(path, ["one ", "grün\n"])
    assert path.read_text(encoding="utf-8") == "one grün\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [WorkerUnreachable("lost"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there_and_no_draft(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "session.md"
    with pytest.raises(type(error)):
        write_whole(path, failing(error))
    assert list(tmp_path.iterdir()) == []
    path.write_text("before")
    with pytest.raises(type(error)):
        write_whole(path, failing(error))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "before"


def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "x.md", tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match="can't be written"):
            write_whole(path, ["text"])
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    write_whole(path, ["text"])
    reader.join(5)
    assert read == ["text"]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_link_goes_on_pointing_at_its_file(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    write_whole(link, ["text"])
    assert link.is_symlink()
    assert target.read_text() == "text"


def test_the_descendants_of_a_session_come_with_it_oldest_first(
    make_session: MakeSession, make_workspace: MakeWorkspace
) -> None:
    here, there = make_workspace(), make_workspace(name="other")

    def found(name: str, parent: str | None, at: int = 0, **more: object) -> Found:
        session = make_session(id=name, parent_id=parent, started_at=at, **more)
        return Found(session, here)

    root = found("root", "late")  # a circle, which a broken log can make
    family = [root, found("late", "root", 3), found("early", "root", 1), found("deep", "late", 2)]
    strangers = [
        found("alone", None),
        found("pi", "root", agent_type="pi"),
        Found(make_session(id="x", parent_id="root"), there),
    ]
    gathered = Gathered((*strangers, *family), {}, ("demo", "other"))
    assert [one.id for one in descendants(root, gathered)] == ["early", "deep", "late"]
    assert descendants(strangers[0], gathered) == []
