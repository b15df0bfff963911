"""The session commands over the host, and an archive that has more than the host has."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perry.archive.archive import Archive
from perry.archive.models import Piece
from perry.cli.archived import Sources
from perry.cli.restore import bring_back, with_archived
from perry.errors import SessionNotFound
from perry.sessions.index import SessionIndex
from perry.sessions.models import Message, Session
from tests.worker.running import ClaudeHome

Perry = Callable[..., subprocess.CompletedProcess[str]]

LIVE = "aaaa1111-0000-4000-8000-000000000001"
PURGED = "aaaa2222-0000-4000-8000-000000000002"
GONE = "bbbb3333-0000-4000-8000-000000000003"
CHILD = "cccc4444-0000-4000-8000-000000000004"


@pytest.fixture
def home(tmp_path: Path) -> ClaudeHome:
    return ClaudeHome(tmp_path)


@pytest.fixture
def archive(home: ClaudeHome, make_session: Callable[..., Session]) -> Iterator[Archive]:
    """The host has one session; its archive has that one, one that was purged, and `gone`'s two."""
    live = home.session("Fix the empty cart", "And test it", session_id=LIVE)
    purged = home.session("Purged by its coding agent", session_id=PURGED)
    index = SessionIndex.of_home(home.home, {})
    index.refresh()
    path = home.home / ".local" / "share" / "perry" / "archive.sqlite"
    with contextlib.closing(Archive(path)) as made:
        for session in index.listing(agent=None, children=True):
            messages = index.messages(session.id, limit=100, offset=0).messages
            made.merge([Piece("host", session, 0, messages, is_last=True)])
        told = (Message("user", "Written in a workspace", None), Message("assistant", "Yes.", None))
        gone = make_session(id=GONE, title="Written in a workspace", message_count=2)
        child = make_session(id=CHILD, title="A child", parent_id=GONE, message_count=2)
        made.merge([Piece("gone", one, 0, told, is_last=True) for one in (gone, child)])
        purged.unlink()
        home.append(live, "And push it")
        yield made


def listed(perry: Perry, *arguments: str) -> dict[str, tuple[str, str, int]]:
    done = perry("session", "list", "--archived", "--json", *arguments)
    assert "Traceback" not in done.stderr
    return {
        one["id"]: (one["workspace"], one["standing"], one["messageCount"])
        for one in json.loads(done.stdout)["sessions"]
    }


@pytest.mark.usefixtures("archive")
def test_a_list_has_what_only_the_archive_has_and_tells_where_each_stands(perry: Perry) -> None:
    assert listed(perry) == {
        LIVE: ("host", "live", 3),
        PURGED: ("host", "archived", 1),
        GONE: ("gone", "archived", 2),
    }
    assert listed(perry, "--children")[CHILD] == ("gone", "archived", 2)
    assert listed(perry, "--agent", "pi") == {}
    assert len(listed(perry, "--limit", "2")) == 2
    assert set(listed(perry, "-w", "host")) == {LIVE, PURGED}
    done = perry("session", "list", "--archived", "-w", "host")
    assert done.stdout.splitlines()[0].endswith("STANDING")
    assert [line.split()[-1] for line in done.stdout.splitlines()[1:]] == ["live", "archived"]


@pytest.mark.usefixtures("archive")
def test_without_being_asked_nothing_archived_is_listed(perry: Perry) -> None:
    done = perry("session", "list", "--json", "-w", "host")
    (session,) = json.loads(done.stdout)["sessions"]
    assert session["id"] == LIVE
    assert "standing" not in session


@pytest.mark.usefixtures("archive")
def test_a_workspace_that_cannot_be_asked_is_listed_from_the_archive(perry: Perry) -> None:
    """There is no engine, so nobody knows whether the workspace is gone."""
    done = perry("session", "list", "--archived", "-w", "gone")
    assert (done.returncode, done.stdout.split()[8]) == (0, GONE)
    assert "No Docker engine answers" in done.stderr
    done = perry("session", "list", "--archived", "-w", "nowhere")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.usefixtures("archive")
@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (("aaaa2",), "from the archive: the host has it no more"),
        (
            ("bbbb", "-w", "gone"),
            "from the archive: the workspace 'gone' can't be asked: No Docker",
        ),
        (("bbbb",), "from the archive: the workspace 'gone' can't be asked: No Docker engine"),
        (("bbbb", "--archived"), "from the archive: as it was seen last"),
    ],
)
def test_what_is_nowhere_else_is_shown_and_exported_from_the_archive(
    perry: Perry, arguments: tuple[str, ...], where: str
) -> None:
    done = perry("session", "show", *arguments, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert where in done.stderr
    assert told["session"]["standing"] == "archived"
    assert len(told["messages"]) == told["session"]["messageCount"] > 0
    assert perry("session", "show", *arguments).stdout.startswith(told["session"]["title"])
    done = perry("session", "export", *arguments)
    assert where in done.stderr
    assert done.stdout.startswith(f"# {told['session']['title']}\n")


@pytest.mark.usefixtures("archive")
def test_the_archived_children_of_an_archived_session_are_exported_with_it(perry: Perry) -> None:
    assert "\n## A child\n" in perry("session", "export", "bbbb", "--archived").stdout
    assert f"started session {CHILD}" in perry("session", "show", "bbbb").stdout


@pytest.mark.usefixtures("archive")
def test_what_is_live_is_read_live_unless_the_archive_is_asked_for(perry: Perry) -> None:
    shown = json.loads(perry("session", "show", "aaaa1", "--json").stdout)
    assert [each["content"] for each in shown["messages"]][-1] == "And push it"
    assert "standing" not in shown["session"]
    shown = json.loads(perry("session", "show", "aaaa1", "--archived", "--json").stdout)
    assert [each["content"] for each in shown["messages"]][-1] == "And test it"
    # A prefix that fits a live session and an archived one is the live one's.
    assert json.loads(perry("session", "show", "aaaa", "--json").stdout)["session"]["id"] == LIVE


@pytest.mark.usefixtures("archive")
def test_a_prefix_that_fits_several_archived_sessions_lists_them(perry: Perry) -> None:
    done = perry("session", "show", "--archived", "aaaa")
    assert (done.returncode, done.stdout) == (1, "")
    assert LIVE in done.stderr
    assert PURGED in done.stderr


@pytest.mark.usefixtures("archive")
def test_what_is_in_no_place_and_not_archived_is_not_found(perry: Perry) -> None:
    done = perry("session", "show", "zzzz", "-w", "host")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        "perry: No session has the id 'zzzz'.",
    )


def test_without_an_archive_none_is_made(perry: Perry, home: ClaudeHome) -> None:
    home.session("one", session_id=LIVE)
    assert set(listed(perry, "-w", "host")) == {LIVE}
    assert perry("session", "show", "zzzz", "-w", "host").returncode == 1
    assert perry("session", "show", "aaaa", "--archived").returncode == 1
    assert perry("session", "delete", "aaaa", "--yes").returncode == 0
    assert not (home.home / ".local").exists()


def test_a_deleted_session_is_deleted_in_the_archive_too(perry: Perry, archive: Archive) -> None:
    done = perry("session", "delete", "aaaa1", "--yes")
    assert (done.returncode, done.stdout) == (0, f"deleted {LIVE} from host\n")
    assert {kept.session.id for kept in archive.sessions()} == {PURGED, GONE, CHILD}
    assert perry("session", "show", "aaaa1", "--archived").returncode == 1
    done = perry("session", "restore", "aaaa1")
    assert (done.returncode, done.stdout) == (0, f"restored {LIVE} to host\n")
    assert len(archive.sessions()) == 4
    assert listed(perry)[LIVE] == ("host", "live", 3)


def test_what_only_the_archive_had_is_restored_to_it(perry: Perry, archive: Archive) -> None:
    assert perry("session", "delete", "aaaa2", "--yes").returncode == 0
    [told] = json.loads(perry("session", "restore", "--list", "--json", "-w", "host").stdout)[
        "deleted"
    ]
    assert (told["id"], told["workspace"], told["standing"]) == (PURGED, "host", "archived")
    done = perry("session", "restore", "aaaa2", "-w", "host")
    assert (done.returncode, done.stdout) == (0, f"restored {PURGED} to the archive of host\n")
    assert len(archive.sessions()) == 4
    assert perry("session", "restore", "aaaa2", "-w", "host").returncode == 1


def test_what_the_archive_lost_meanwhile_is_not_said_to_be_restored(
    archive: Archive,
    home: ClaudeHome,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(home.home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home.home / ".local" / "share"))
    archive.delete(("host", "claude", PURGED))
    [one] = with_archived([], archive.sessions("host", deleted=True))
    archive.delete(("host", "claude", PURGED), for_good=True)
    with Sources("host") as sources, pytest.raises(SessionNotFound, match=f"{PURGED} any more"):
        bring_back(sources, one)
    assert capsys.readouterr().out == ""


def test_of_what_is_deleted_for_good_the_archive_keeps_nothing(
    perry: Perry, archive: Archive
) -> None:
    for prefix in ("aaaa1", "bbbb"):
        assert perry("session", "delete", prefix, "--yes", "--for-good").returncode == 0
    assert [kept.session.id for kept in archive.sessions()] == [PURGED]
    assert archive.sessions(deleted=True) == []


def test_what_only_the_archive_has_is_deleted_there_with_its_children(
    perry: Perry, archive: Archive
) -> None:
    done = perry("session", "delete", "bbbb", "--yes")
    assert (done.returncode, done.stdout) == (0, f"deleted {GONE} from the archive of gone\n")
    assert {kept.session.id for kept in archive.sessions()} == {LIVE, PURGED}
    assert {kept.session.id for kept in archive.sessions(deleted=True)} == {GONE, CHILD}


def test_a_session_that_could_not_be_deleted_in_the_archive_is_told_of(
    perry: Perry, home: ClaudeHome
) -> None:
    path = home.session("one", session_id=LIVE)
    archive = home.home / ".local" / "share" / "perry" / "archive.sqlite"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"no database at all" * 500)
    done = perry("session", "delete", "aaaa", "--yes")
    assert (done.returncode, done.stdout, path.exists()) == (1, "", False)
    assert "It was deleted from host, but not from the archive: " in done.stderr
