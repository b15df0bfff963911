"""`perry archive`, over an archive that something else has filled."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perry.archive.archive import Archive
from perry.archive.database import set_aside
from perry.archive.models import Piece
from perry.cli.text import DAY
from perry.sessions.models import Message, Session

Perry = Callable[..., subprocess.CompletedProcess[str]]

KEYS = {
    "path", "exists", "isOff", "size", "sessions", "messages", "deleted", "oldest", "keepDays",
    "largest", "redact", "setAside",
}  # fmt: skip


def put(archive: Archive, session: Session, *texts: str, workspace: str = "gone") -> None:
    messages = tuple(Message("user", text, None) for text in texts)
    archive.merge([Piece(workspace, session, 0, messages, is_last=True)])


def path_in(home: Path) -> Path:
    return home / ".local" / "share" / "perry" / "archive.sqlite"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """The archive of the `perry` fixture's user."""
    with contextlib.closing(Archive(path_in(tmp_path))) as made:
        yield made


@pytest.fixture
def old_and_new(archive: Archive, make_session: Callable[..., Session]) -> Archive:
    now = int(time.time() * 1000)
    put(archive, make_session(id="old", last_activity=now - 40 * DAY * 1000), "one", "two")
    put(archive, make_session(id="new", last_activity=now - DAY * 1000), "three")
    return archive


def names(archive: Archive) -> list[str]:
    return [kept.session.id for kept in archive.sessions()]


def test_without_an_archive_each_command_says_so_and_makes_none(
    perry: Perry, tmp_path: Path
) -> None:
    for arguments in (("status",), ("prune", "--days", "1"), ("on",)):
        done = perry("archive", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "there is no archive yet; perry agent serve makes it" in done.stdout
    told = json.loads(perry("archive", "status", "--json").stdout)
    assert (told["exists"], told["sessions"], told["path"]) == (False, 0, str(path_in(tmp_path)))
    assert perry("archive", "path").stdout == f"{path_in(tmp_path)}\n"
    assert not path_in(tmp_path).parent.exists()


def test_off_holds_also_where_there_is_no_archive_yet(perry: Perry, tmp_path: Path) -> None:
    done = perry("archive", "off")
    assert done.stdout == "the archive is off: nothing is taken in any more\n"
    with contextlib.closing(Archive(path_in(tmp_path))) as archive:
        assert archive.is_off


@pytest.mark.usefixtures("old_and_new")
def test_status_says_what_there_is(perry: Perry, tmp_path: Path) -> None:
    (tmp_path / ".config" / "perry").mkdir(parents=True)
    (tmp_path / ".config" / "perry" / "config.toml").write_text(
        '[archive]\nkeep_days = 400\nlargest = "2g"\n'
    )
    done = perry("archive", "status")
    path, *facts = done.stdout.splitlines()
    assert path == str(path_in(tmp_path))
    told = dict(line.split(None, 1) for line in facts)
    assert told["sessions"] == "2, 3 messages"
    assert told["bounds"] == "400 days and 2.0 GB"
    assert told["size"].endswith("KB")
    assert told["takes"] == "in   what the agent daemon sees"
    assert "set" not in told
    assert max(map(len, facts)) <= 80


@pytest.mark.usefixtures("old_and_new")
def test_the_keys_of_the_status_are_pinned(perry: Perry) -> None:
    told = json.loads(perry("archive", "status", "--json").stdout)
    assert told.keys() == KEYS
    assert (told["exists"], told["sessions"], told["messages"]) == (True, 2, 3)
    assert (told["keepDays"], told["largest"], told["redact"]) == (None, None, False)


def test_a_damaged_file_that_was_set_aside_is_named(
    perry: Perry, archive: Archive, tmp_path: Path
) -> None:
    archive.close()
    aside = set_aside(path_in(tmp_path))
    assert aside is not None
    told = json.loads(perry("archive", "status", "--json").stdout)
    assert told["setAside"] == [aside.name]
    assert f"set aside  {aside.name}: damaged" in perry("archive", "status").stdout


def test_a_damaged_archive_is_told_of_in_one_line(perry: Perry, tmp_path: Path) -> None:
    path_in(tmp_path).parent.mkdir(parents=True)
    path_in(tmp_path).write_bytes(b"no database at all" * 500)
    done = perry("archive", "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is damaged" in done.stderr
    assert "perry agent serve" in done.stderr


def test_prune_removes_what_is_beyond_the_bounds_that_are_given(
    perry: Perry, old_and_new: Archive
) -> None:
    done = perry("archive", "prune", "--days", "30", "--yes")
    assert done.stdout.startswith("removed 1 session, ")
    assert "; 1 session, " in done.stdout
    assert names(old_and_new) == ["new"]
    assert perry("archive", "prune", "--days", "30").stdout == "nothing is beyond the bounds\n"


def test_prune_goes_by_the_configuration(
    perry: Perry, old_and_new: Archive, tmp_path: Path
) -> None:
    (tmp_path / ".config" / "perry").mkdir(parents=True)
    (tmp_path / ".config" / "perry" / "config.toml").write_text("[archive]\nkeep_days = 30\n")
    assert perry("archive", "prune", "-y").returncode == 0
    assert names(old_and_new) == ["new"]


def test_prune_asks_before_anything_is_lost(perry: Perry, old_and_new: Archive) -> None:
    done = perry("archive", "prune", "--days", "30")
    assert (done.returncode, done.stdout) == (2, "")
    assert "for good, 1 session? There is nobody to ask" in done.stderr
    assert names(old_and_new) == ["new", "old"]


def test_nothing_is_left_of_0_days(
    perry: Perry, archive: Archive, make_session: Callable[..., Session]
) -> None:
    put(archive, make_session(last_activity=int(time.time() * 1000) + DAY * 1000), "from tomorrow")
    assert perry("archive", "prune", "--days", "0", "--yes").returncode == 0
    assert names(archive) == []


def test_of_what_was_pruned_no_word_is_left_in_the_files(
    perry: Perry, archive: Archive, make_session: Callable[..., Session], tmp_path: Path
) -> None:
    def words_are_there() -> bool:
        return any(b"xylophon" in file.read_bytes() for file in path_in(tmp_path).parent.iterdir())

    put(archive, make_session(last_activity=5), "xylophonists", "xylophone")
    archive.close()
    assert words_are_there()
    assert perry("archive", "prune", "--days", "0", "--yes").returncode == 0
    assert not words_are_there()


def test_off_and_on_are_said_and_kept_sessions_stay(perry: Perry, old_and_new: Archive) -> None:
    done = perry("archive", "off")
    assert "2 sessions stay in it: perry archive prune --days 0" in done.stdout
    assert "takes in   nothing: it is off" in perry("archive", "status").stdout
    assert (old_and_new.is_off, names(old_and_new)) == (True, ["new", "old"])
    assert perry("archive", "on").returncode == 0
    assert not old_and_new.is_off
