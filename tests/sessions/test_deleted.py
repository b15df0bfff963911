"""What was deleted comes back as it was, or all stays as it is."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from perry.errors import SessionError, SessionInTheWay, SessionNotFound, SessionNotKept
from perry.sessions.index import SessionIndex
from perry.sessions.kept import Contents, KeptFile, Label, write_kept
from perry.sessions.kept_files import Item
from perry.sessions.models import KEPT_FOR
from tests.sessions.deletable import (
    HOMES,
    age,
    claude,
    kept,
    opencode_database,
    opencode_files,
    remembering,
    rows,
    tree,
)
from tests.sessions.homes import ClaudeHome, every_message, user
from tests.sessions.test_opencode import Database


@pytest.mark.parametrize("name", HOMES)
def test_what_was_deleted_comes_back_to_every_byte_mode_and_time(name: str, tmp_path: Path) -> None:
    session_id = HOMES[name](tmp_path)
    age(tmp_path)
    index = remembering(tmp_path)
    before, stored = tree(tmp_path), rows(tmp_path)
    listed = index.list(children=True)
    said = every_message(index, session_id)
    index.delete(session_id)
    assert session_id not in {session.id for session in index.list(children=True)}
    assert (tree(tmp_path), rows(tmp_path)) != (before, stored)
    [deleted] = index.deleted()
    assert deleted.session in listed
    assert deleted.until - deleted.deleted_at == KEPT_FOR * 1000
    index.restore(session_id)
    assert tree(tmp_path) == before
    assert rows(tmp_path) == stored
    assert index.list(children=True) == listed
    assert every_message(index, session_id) == said
    assert (index.deleted(), kept(tmp_path)) == ((), [])


@pytest.mark.parametrize("name", HOMES)
def test_another_process_restores_too_and_twice_does_no_harm(name: str, tmp_path: Path) -> None:
    session_id = HOMES[name](tmp_path)
    before, stored = tree(tmp_path), rows(tmp_path)
    remembering(tmp_path).delete(session_id)
    index = remembering(tmp_path)
    index.restore(session_id)
    index.restore(session_id)
    assert (tree(tmp_path), rows(tmp_path)) == (before, stored)


@pytest.mark.parametrize("name", HOMES)
def test_for_good_keeps_nothing(name: str, tmp_path: Path) -> None:
    session_id = HOMES[name](tmp_path)
    index = remembering(tmp_path)
    index.delete(session_id, for_good=True)
    index.refresh()
    assert (index.deleted(), kept(tmp_path)) == ((), [])
    with pytest.raises(SessionNotFound, match="No deleted session"):
        index.restore(session_id)


def test_a_session_that_comes_back_is_told_of_as_created(tmp_path: Path) -> None:
    index = remembering(tmp_path)
    position = index.journal.position
    claude(tmp_path)
    index.refresh()
    index.delete("two")
    index.restore("two")
    unread = index.journal.since(position)
    assert unread is not None
    kinds = [change.kind for change in unread.changes if change.key[1] == "two"]
    assert kinds == ["created", "deleted", "created"]


def test_what_is_kept_is_nobody_elses_to_read(tmp_path: Path) -> None:
    claude(tmp_path)
    remembering(tmp_path).delete("one")
    [file] = kept(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_same_id_deleted_again_comes_back_as_it_was_last(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    index = remembering(tmp_path)
    for prompt in ("first", "second"):
        index.apply([home.write("one.jsonl", [user(prompt)])])
        index.delete("one")
    assert [one.session.title for one in index.deleted()] == ["second", "first"]
    index.restore("one")
    assert index.get("one").title == "second"
    with pytest.raises(SessionInTheWay, match=r"one\.jsonl"):
        index.restore("one")
    assert [one.session.title for one in index.deleted()] == ["first"]


def test_sessions_of_one_directory_come_back_in_any_order(tmp_path: Path) -> None:
    claude(tmp_path)
    before = tree(tmp_path)
    index = remembering(tmp_path)
    index.delete("one")
    index.delete("two")
    index.restore("one")
    index.restore("two")
    after = tree(tmp_path)
    project = ".claude/projects/-home-dev-proj"
    assert {**after, project: None} == {**before, project: None}


def test_directories_that_went_since_are_made_again(tmp_path: Path) -> None:
    claude(tmp_path)
    age(tmp_path)
    index = remembering(tmp_path)
    before = tree(tmp_path)
    index.delete("two")
    index.delete("one")
    shutil.rmtree(tmp_path / ".claude")
    index.restore("one")
    index.restore("two")
    shown = [name for name in before if "/" in name.removeprefix(".claude/projects/")]
    assert {name: before[name][:3] for name in shown} == {
        name: what[:3] for name, what in tree(tmp_path).items() if name in shown
    }


@pytest.mark.parametrize("place", ["one.jsonl", "one/tool-results/r.txt", "one/subagents", "one"])
def test_what_is_in_the_way_is_named_and_all_stays_as_it_is(place: str, tmp_path: Path) -> None:
    claude(tmp_path)
    index = remembering(tmp_path)
    index.delete("one")
    project = tmp_path / ".claude" / "projects" / "-home-dev-proj"
    (project / place).parent.mkdir(parents=True, exist_ok=True)
    (project / place).write_bytes(b"mine")
    age(tmp_path / ".claude")
    before = tree(tmp_path)
    with pytest.raises(SessionInTheWay, match=place) as caught:
        index.restore("one")
    assert caught.value.hint
    assert tree(tmp_path) == before
    assert len(index.deleted()) == 1
    (project / place).unlink()
    index.restore("one")
    assert index.get("one").message_count == 1


def test_rows_that_are_in_the_way_stay_and_nothing_else_is_restored(tmp_path: Path) -> None:
    opencode_files(tmp_path)
    opencode_database(tmp_path)
    index = remembering(tmp_path)
    index.delete("ses_1")
    remembering(tmp_path).delete("ses_3", for_good=True)
    database = Database(tmp_path)
    database.session("ses_1", "made anew")
    before, stored = tree(tmp_path), rows(tmp_path)
    with pytest.raises(SessionInTheWay, match="table"):
        index.restore("ses_1")
    assert (tree(tmp_path), rows(tmp_path)) == (before, stored)
    assert len(index.deleted()) == 1


def test_rows_find_another_place_where_theirs_is_taken(tmp_path: Path) -> None:
    opencode_database(tmp_path)
    index = remembering(tmp_path)
    index.delete("ses_1")
    database = Database(tmp_path)
    database.session("ses_9")
    database.run(("INSERT INTO todo (rowid, session_id) VALUES (1, 'ses_9')", ()))
    index.restore("ses_1")
    assert index.get("ses_1").message_count == 3
    assert database.count("todo WHERE session_id = 'ses_1'") == 7
    assert database.count("todo WHERE session_id = 'ses_9'") == 1


def test_a_column_that_is_gone_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    opencode_database(tmp_path)
    index = remembering(tmp_path)
    index.delete("ses_1")
    Database(tmp_path).run(("ALTER TABLE session DROP COLUMN version", ()))
    stored = rows(tmp_path)
    with pytest.raises(SessionError, match="no column version"):
        index.restore("ses_1")
    assert rows(tmp_path) == stored
    assert len(index.deleted()) == 1


def test_after_thirty_days_it_is_gone(tmp_path: Path) -> None:
    claude(tmp_path)
    index = remembering(tmp_path)
    index.delete("one")
    index.delete("two")
    old = next(path for path in kept(tmp_path) if _label(path).session.id == "one")
    moment = int((time.time() - KEPT_FOR - 60) * 1000)
    for again in (index.deleted, lambda: remembering(tmp_path)):
        old = old.rename(old.with_name(f"{moment}-{old.name.partition('-')[2]}"))
        data = old.read_bytes()
        again()
        assert not old.exists()
        assert [_label(path).session.id for path in kept(tmp_path)] == ["two"]
        old.write_bytes(data)
    assert [one.session.id for one in index.deleted()] == ["two"]
    with pytest.raises(SessionNotFound):
        index.restore("one")


def test_a_log_that_is_written_to_all_the_time_is_kept_whole_or_not_deleted(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    path = home.write("one.jsonl", [user("x" * 1000)] * 3000)
    index = remembering(tmp_path)
    done = threading.Event()

    def write() -> None:
        with path.open("ab") as file:
            while not done.is_set():
                file.write(b"{}\n")
                file.flush()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with pytest.raises(SessionError, match="keep changing"):
            index.delete("one")
    finally:
        done.set()
        thread.join()
    assert path.exists()
    assert kept(tmp_path) == []
    index.delete("one")
    index.restore("one")
    assert index.get("one").message_count == 3000


def test_what_a_link_leads_to_elsewhere_is_only_deleted_for_good(tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    home.project.parent.mkdir(parents=True)
    home.project.symlink_to(elsewhere)
    path = home.write("one.jsonl", [user("a")])
    index = remembering(tmp_path)
    with pytest.raises(SessionNotKept, match="outside"):
        index.delete("one")
    assert path.exists()
    index.delete("one", for_good=True)
    assert not path.exists()


def test_a_directory_that_is_reached_through_a_link_is_restored_to(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    (tmp_path / ".claude").symlink_to("dotfiles")
    claude(tmp_path)
    before = tree(tmp_path)
    index = remembering(tmp_path)
    index.delete("one")
    index.restore("one")
    assert tree(tmp_path) == before


def test_no_link_is_followed_on_the_way_back(tmp_path: Path) -> None:
    claude(tmp_path)
    index = remembering(tmp_path)
    index.delete("one")
    project = tmp_path / ".claude" / "projects" / "-home-dev-proj"
    moved = project.rename(tmp_path / "moved")
    project.symlink_to(moved)
    before = tree(moved)
    with pytest.raises(SessionInTheWay, match="-home-dev-proj"):
        index.restore("one")
    assert tree(moved) == before


@pytest.mark.parametrize(
    "path", [b"../../../out", b"/out", b"-home-dev-proj/../../../out", b"a//b", b"link/out", b"."]
)
def test_what_is_kept_is_not_believed_about_places(path: bytes, tmp_path: Path) -> None:
    claude(tmp_path)
    index = remembering(tmp_path)
    index.delete("one")
    [file] = kept(tmp_path)
    projects = tmp_path / ".claude" / "projects"
    (tmp_path / "target").mkdir()
    (projects / "link").symlink_to(tmp_path / "target")
    plain = Item(0, b"x", "file", 0o644, 0, os.getuid(), os.getgid(), 4)
    _forge(file, path, plain)
    before = tree(tmp_path)
    with pytest.raises(SessionError):
        index.restore("one")
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_a_root_that_the_reader_does_not_have_is_not_written_to(tmp_path: Path) -> None:
    claude(tmp_path)
    index = remembering(tmp_path)
    index.delete("one")
    [file] = kept(tmp_path)
    _forge(file, b"x", Item(7, b"x", "file", 0o644, 0, 0, 0, 4))
    with pytest.raises(SessionError, match="not there"):
        index.restore("one")
    label = msgspec.structs.replace(_label(file), roots=(os.fsencode(tmp_path),))
    with file.open("wb") as forged:
        write_kept(forged, label, Contents((), (), ()), lambda _: None)
    assert index.deleted() == ()


def test_a_damaged_file_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    claude(tmp_path)
    index = remembering(tmp_path)
    index.delete("one")
    [file] = kept(tmp_path)
    before, whole = tree(tmp_path), file.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 200):
        file.write_bytes(whole[:cut])
        with suppress(SessionError, SessionNotFound):
            index.restore("one")
            pytest.fail("half of a session was restored")
        assert tree(tmp_path) == before
    for place in range(len(whole) // 2, len(whole) - 100, max(1, len(whole) // 50)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with suppress(SessionError):
            index.restore("one")
            pytest.fail("a damaged session was restored")
        assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "row", [b"\xc1", b"\x91\x80", b"\x91\xcf" + b"\xff" * 8, b"\x91\x01"],
    ids=["no row", "no value", "too large", "too short"],
)  # fmt: skip
def test_rows_that_cannot_be_read_keep_no_index_from_starting(row: bytes, tmp_path: Path) -> None:
    opencode_database(tmp_path)
    index = remembering(tmp_path)
    index.delete("ses_1")
    [file] = kept(tmp_path)
    with KeptFile(file) as whole:
        label, contents = whole.label(), whole.contents()
    data = len(row).to_bytes(4, "big") + row + bytes(4)
    with file.open("wb") as forged:
        write_kept(forged, label, contents, lambda write: write(data))
    stored = rows(tmp_path)
    with pytest.raises(SessionError, match="A row of what was kept"):
        index.restore("ses_1")
    file.rename(file.with_name(f"{file.name}.unfinished"))
    assert len(remembering(tmp_path).deleted()) == 1
    assert rows(tmp_path) == stored


def test_restoring_waits_for_no_other_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claude(tmp_path)
    index = remembering(tmp_path)
    index.delete("one")
    monkeypatch.setattr(os, "sync", lambda: pytest.fail("all file systems were written out"))
    index.restore("one")
    assert index.get("one").message_count == 1


def test_where_no_file_system_can_be_written_out_whole_each_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Libc:
        """The system's library as it is where the kernel lacks the call."""

        def __init__(self, *_: object, **__: object) -> None: ...

        @staticmethod
        def syncfs(_: int) -> int:
            ctypes.set_errno(errno.ENOSYS)
            return -1

    written: set[int] = set()
    fsync = os.fsync

    def noting(handle: int) -> None:
        written.add(os.fstat(handle).st_ino)
        fsync(handle)

    claude(tmp_path)
    index = remembering(tmp_path)
    project = tmp_path / ".claude" / "projects" / "-home-dev-proj"
    index.delete("one")
    monkeypatch.setattr(ctypes, "CDLL", Libc)
    monkeypatch.setattr(os, "fsync", noting)
    index.restore("one")
    of_it = [project, project / "one.jsonl", *(project / "one").rglob("*")]
    made = {p.stat().st_ino for p in of_it if not p.is_symlink() and (p.is_file() or p == project)}
    assert len(made) > 4
    assert made <= written


def test_what_others_left_in_the_directory_does_no_harm(tmp_path: Path) -> None:
    claude(tmp_path)
    directory = tmp_path / ".cache" / "perry" / "deleted"
    directory.mkdir(parents=True)
    stamp = int(time.time() * 1000)
    (directory / f"{stamp}-{'0' * 16}").write_bytes(b"nothing of the kind")
    (directory / f"{stamp}-{'1' * 16}.unfinished").symlink_to("/etc/passwd")
    os.mkfifo(directory / f"{stamp}-{'2' * 16}")
    (directory / f"{stamp}-{'3' * 16}").mkdir()
    (directory / f"{stamp}-{'4' * 16}.part").write_bytes(b"half")
    index = remembering(tmp_path)
    assert index.deleted() == ()
    index.delete("one")
    index.restore("one")
    assert index.get("one").message_count == 1


def test_an_index_that_remembers_nothing_deletes_for_good(tmp_path: Path) -> None:
    claude(tmp_path)
    index = SessionIndex.of_home(tmp_path, {})
    index.refresh()
    index.delete("one")
    assert index.deleted() == ()
    assert not (tmp_path / ".cache").exists()
    index.restore("two")
    with pytest.raises(SessionNotFound):
        index.restore("one")


def test_where_nothing_can_be_kept_nothing_is_deleted(tmp_path: Path) -> None:
    claude(tmp_path)
    (tmp_path / ".cache").write_bytes(b"no directory")
    index = remembering(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(SessionNotKept) as caught:
        index.delete("one")
    assert "for good" in caught.value.hint
    assert tree(tmp_path) == before
    index.delete("one", for_good=True)


def _label(path: Path) -> Label:
    with KeptFile(path) as file:
        return file.label()


def _forge(file: Path, path: bytes, item: Item) -> None:
    """Write a file that is kept as somebody would who wants to have something written elsewhere."""
    label = _label(file)
    contents = Contents((item,), (), ())
    with file.open("wb") as forged:
        write_kept(forged, label, contents, lambda write: write(b"evil"))
    data = file.read_bytes()
    plain = msgspec.msgpack.encode(contents)
    wanted = plain.replace(msgspec.msgpack.encode(b"x"), msgspec.msgpack.encode(path), 1)
    assert _framed(plain) in data
    file.write_bytes(data.replace(_framed(plain), _framed(wanted)))


def _framed(part: bytes) -> bytes:
    return len(part).to_bytes(8, "big") + zlib.crc32(part).to_bytes(4, "big") + part
