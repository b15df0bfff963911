"""The archive against a model of what should be kept, and in the hands of killers."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perry.archive.archive import Archive
from perry.archive.database import set_aside
from perry.archive.models import Filters, Found, Kept, Piece
from perry.archive.terms import parse
from perry.errors import ArchiveBroken, ArchiveUnusable, SessionNotFound
from perry.sessions.models import Message, Session

NOW = 1_790_000_000_000


def session(name: str = "s", count: int = 0, **more: object) -> Session:
    known = {
        "id": name,
        "agent_type": "claude",
        "title": "Something",
        "directory": "/home/me/shop",
        "file_path": f"/logs/{name}.jsonl",
        "message_count": count,
        "first_prompt": "Something else",
        "last_activity": NOW,
    }
    return Session(**{**known, **more})  # type: ignore[arg-type]


def said(text: str, **more: object) -> Message:
    known = {"type": "user", "content": text, "timestamp": "2026-09-21T14:13:20.000Z"}
    return Message(**{**known, **more})  # type: ignore[arg-type]


def whole(
    messages: list[Message], name: str = "s", workspace: str = "demo", **more: object
) -> Piece:
    return Piece(workspace, session(name, len(messages), **more), 0, tuple(messages), is_last=True)


def everything(archive: Archive, name: str = "s", workspace: str = "demo") -> list[Message]:
    return list(archive.messages((workspace, "claude", name), limit=10**6).messages)


def find(
    archive: Archive, words: str, limit: int = 100, offset: int = 0, **filters: object
) -> Found:
    asked = Filters(**filters)  # type: ignore[arg-type]
    return archive.search(parse(words), asked, limit=limit, offset=offset)


def texts(found: Found) -> list[str]:
    return [hit.snippet for hit in found.hits]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive.sqlite")


def index_is_sound(archive: Archive) -> None:
    """What FTS5 has indexed is what it would index of the blocks, no more and no less."""
    with archive._database.writing() as connection:
        rows = connection.execute("SELECT count(*) FROM word_docsize").fetchone()[0]
        kept = connection.execute("SELECT ifnull(sum(count), 0) FROM block").fetchone()[0]
        connection.execute("INSERT INTO word (word) VALUES ('integrity-check')")
    assert rows == kept


def taken_in(archive: Archive, now: list[Message], start: int, step: int) -> bool:
    """Take in a session from `start` on, or where that is needed from 0; tells if it was."""
    begun = start
    goes_on = False
    for _ in range(4 * len(now) + 8):
        stop = min(len(now), start + step)
        part = tuple(now[start:stop])
        piece = Piece("demo", session("s", len(now)), start, part, stop == len(now), goes_on)
        [merged] = archive.merge([piece])
        if merged == "again":
            assert start
            begun = start = 0
            goes_on = False
        elif stop == len(now):
            return begun == 0
        else:
            start, goes_on = stop, True
    pytest.fail("it has no end")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_comes_in_the_archive_ends_with_what_there_is_now(
    tmp_path: Path, data: st.DataObject
) -> None:
    """Appended, cut, changed in its midst or rewritten: told piece by piece, from anywhere."""
    path = tmp_path / "any.sqlite"
    archive = Archive(path)
    now: list[Message] = []
    word = st.sampled_from(["red", "green", "blue", "lime", "pink"])
    for _ in range(data.draw(st.integers(1, 6))):
        kept = data.draw(st.integers(0, len(now)))
        now = now[:kept] + [said(data.draw(word)) for _ in range(data.draw(st.integers(1, 70)))]
        if data.draw(st.booleans()):
            now[data.draw(st.integers(0, len(now) - 1))] = said("changed")
        start = data.draw(st.integers(0, len(now)))
        step = data.draw(st.integers(1, 80))
        if not taken_in(archive, now, start, step) and everything(archive) != now:
            archive.merge([whole(now)])  # a change before the piece, which no piece can tell of
        assert everything(archive) == now
        index_is_sound(archive)
        for asked in ("red", "changed"):
            wanted = sum(message.content == asked for message in now)
            assert len(find(archive, asked, limit=1000).hits) == wanted
    archive.close()
    for file in tmp_path.iterdir():
        file.unlink()


def test_the_same_piece_twice_changes_nothing(archive: Archive) -> None:
    messages = [said(f"number {number}") for number in range(100)]
    archive.merge([whole(messages)])
    before = archive.statistics()
    archive.merge([whole(messages)])
    assert msgspec.structs.replace(archive.statistics(), size=0) == msgspec.structs.replace(
        before, size=0
    )


def test_every_page_of_every_size_gives_the_same_messages(archive: Archive) -> None:
    messages = [said(f"number {number}" * (number % 7)) for number in range(150)]
    archive.merge([whole(messages)])
    key = ("demo", "claude", "s")
    for limit in (1, 7, 32, 33, 149, 150, 151):
        pages: list[Message] = []
        for offset in range(0, 150, limit):
            page = archive.messages(key, limit=limit, offset=offset)
            assert page.total == 150
            pages = [*page.messages, *pages]
        assert pages == messages
    assert archive.session(key).session.message_count == 150


def test_two_workspaces_may_have_the_same_session(archive: Archive) -> None:
    archive.merge([whole([said("one")], workspace="a"), whole([said("two")], workspace="b")])
    assert everything(archive, workspace="a") == [said("one")]
    assert everything(archive, workspace="b") == [said("two")]
    archive.delete(("a", "claude", "s"))
    assert [kept.workspace for kept in archive.sessions()] == ["b"]


def test_only_what_is_not_kept_as_it_is_now_is_stale(archive: Archive) -> None:
    kept, grown = session("kept", 1), session("grown", 1)
    archive.merge([Piece("demo", one, 0, (said("a"),), is_last=True) for one in (kept, grown)])
    half = Piece("demo", session("half", 2), 0, (said("a"),), is_last=False)
    archive.merge([half])
    now = session("grown", 2)
    found = archive.stale("demo", [kept, now, half.session, session("new", 1)])
    assert [one.id for one in found] == ["grown", "half", "new"]


def test_what_was_deleted_is_neither_listed_nor_found_until_it_is_restored(
    archive: Archive,
) -> None:
    archive.merge([whole([said("apple")]), whole([said("apple")], "child", parent_id="s")])
    key = ("demo", "claude", "s")
    archive.delete(key)
    assert archive.sessions() == []
    assert {kept.session.id for kept in archive.sessions(deleted=True)} == {"s", "child"}
    assert find(archive, "apple") == Found((), ())
    with pytest.raises(SessionNotFound):
        archive.session(key)
    with pytest.raises(SessionNotFound):
        archive.messages(key, limit=1)
    assert archive.merge([whole([said("apple")])]) == ["late"]  # told of before it was deleted
    assert archive.sessions() == []
    archive.restore(key)
    assert {kept.session.id for kept in archive.sessions()} == {"s", "child"}
    assert len(find(archive, "apple").hits) == 2


def test_what_is_deleted_for_good_is_gone_at_once_with_its_children(archive: Archive) -> None:
    archive.merge([whole([said("apple")]), whole([said("apple")], "child", parent_id="s")])
    archive.delete(("demo", "claude", "s"), for_good=True)
    assert (archive.sessions(), archive.sessions(deleted=True)) == ([], [])
    index_is_sound(archive)


def test_a_session_emptied_in_its_place_stays_and_goes_on_when_it_is_written_again(
    archive: Archive,
) -> None:
    archive.merge([whole([said("apple"), said("pear")], title="Fruit", first_prompt="apple")])
    emptied = Piece("demo", session("s", 2), 0, (), is_last=True)
    assert archive.merge([emptied]) == ["same"]
    assert archive.merge([msgspec.structs.replace(emptied, start=1)]) == ["again"]
    assert everything(archive) == [said("apple"), said("pear")]
    archive.merge([whole([said("plum")], title="Fruit", first_prompt="plum")])
    assert everything(archive) == [said("plum")]
    index_is_sound(archive)


def test_what_is_told_late_of_a_session_deleted_for_good_does_not_come_back(
    archive: Archive,
) -> None:
    archive.merge([whole([said("apple")])])
    for name in ("s", "never-taken-in"):
        archive.delete(("demo", "claude", name), for_good=True)
        late = [whole([said("apple")], name), Piece("demo", session(name), 5, (said("b"),), False)]
        assert archive.merge(late) == ["late", "late"]
    unknown = Piece("demo", session("unknown"), 5, (said("secret"),), is_last=False)
    assert archive.merge([unknown]) == ["again"]
    assert (archive.sessions(), archive.sessions(deleted=True)) == ([], [])
    with archive._database.reading() as connection:
        rows = connection.execute("SELECT id, shown, messages FROM session").fetchall()
    assert sorted(rows) == [("never-taken-in", "", 0), ("s", "", 0)]


def test_of_what_is_deleted_for_good_no_word_is_left_in_the_file(archive: Archive) -> None:
    archive.merge([whole([said("hello")], "other")])
    archive.merge([whole([said("hush zyzzyva")], title="zyzzyva")])
    archive.delete(("demo", "claude", "s"), for_good=True)
    files = archive.path.parent.glob("archive.sqlite*")
    assert b"zyzzyva" not in b"".join(file.read_bytes() for file in files)
    assert len(find(archive, "hello").hits) == 1


def test_what_was_put_back_a_while_after_its_deletion_is_due_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = session("s", 1)
    archive.merge([Piece("demo", one, 0, (said("apple"),), is_last=True)])
    archive.delete(("demo", "claude", "s"))
    assert archive.stale("demo", [one]) == []
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    assert archive.stale("demo", [one]) == [one]
    archive.merge([Piece("demo", one, 0, (said("apple"),), is_last=True)])
    assert [kept.session for kept in archive.sessions()] == [one]


def test_a_child_deleted_before_its_parent_stays_deleted_when_that_is_restored(
    archive: Archive,
) -> None:
    archive.merge([whole([said("a")]), whole([said("b")], "child", parent_id="s")])
    archive.delete(("demo", "claude", "child"))
    time.sleep(0.002)  # the moments of both deletions are told apart in milliseconds
    archive.delete(("demo", "claude", "s"))
    archive.restore(("demo", "claude", "s"))
    assert [kept.session.id for kept in archive.sessions()] == ["s"]
    with pytest.raises(SessionNotFound):
        archive.restore(("demo", "claude", "s"))


def test_what_was_not_kept_yet_when_it_was_deleted_comes_in_once_it_is_restored(
    archive: Archive,
) -> None:
    key = ("demo", "claude", "s")
    archive.delete(key)
    assert archive.merge([whole([said("apple")])]) == ["late"]
    assert archive.hidden("demo", "s") == key
    with pytest.raises(SessionNotFound):
        archive.restore(key)
    assert archive.hidden("demo", "s") is None
    assert archive.merge([whole([said("apple")])]) == ["taken"]


def test_a_clock_that_is_ahead_makes_no_floor_above_now(archive: Archive) -> None:
    archive.merge([whole([said("a")], last_activity=2**62)])
    assert archive.prune(oldest=2**60) == 1
    now = session("now", 1, last_activity=int(time.time() * 1000) + 1000)
    assert archive.stale("demo", [now]) == [now]


def test_a_damaged_block_is_said_to_be_one(archive: Archive) -> None:
    archive.merge([whole([said("apple")])])
    with archive._database.writing() as connection:
        connection.execute("UPDATE block SET body = x'00112233' WHERE start >= 0")
    with pytest.raises(ArchiveBroken, match="are damaged"):
        everything(archive)


def test_set_aside_at_the_same_moment_by_two_no_archive_is_lost(archive: Archive) -> None:
    archive.merge([whole([said("old")])])
    other = Archive(archive.path)
    aside = archive.set_aside()
    new = Archive(archive.path)
    new.merge([whole([said("new")])])
    assert other.set_aside() is None
    assert aside is not None
    assert everything(Archive(aside)) == [said("old")]
    assert everything(new) == [said("new")]


def test_turned_off_in_between_nothing_is_taken_in(archive: Archive) -> None:
    archive.turn(on=False)
    assert archive.merge([whole([said("one")])]) == ["off"]
    assert archive.sessions() == []


def test_what_was_deleted_long_ago_is_gone_for_good(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.merge([whole([said("apple")])])
    archive.delete(("demo", "claude", "s"))
    assert archive.prune() == 0
    later = time.time() + 31 * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert archive.prune() == 1
    assert archive.sessions(deleted=True) == []
    index_is_sound(archive)
    assert archive.statistics().content == 0


def test_sessions_beyond_the_age_are_pruned_and_not_taken_in_again(archive: Archive) -> None:
    old = whole([said("old")], "old", last_activity=NOW - 1000)
    archive.merge([old, whole([said("new")], "new")])
    assert archive.prune(oldest=NOW) == 1
    assert [kept.session.id for kept in archive.sessions()] == ["new"]
    assert archive.stale("demo", [old.session]) == []
    index_is_sound(archive)


def test_the_oldest_sessions_are_pruned_until_the_size_is_kept(archive: Archive) -> None:
    rng = random.Random(7)  # noqa: S311 - texts that don't pack well
    for number in range(60):
        text = " ".join(f"{rng.randrange(10**9):x}" for _ in range(3000))
        archive.merge([whole([said(text)], f"s{number:02}", last_activity=NOW + number)])
    archive.close()
    archive = Archive(archive.path)
    before = archive.statistics()
    largest = before.size // 3
    assert archive.prune(largest=largest) > 0
    after = archive.statistics()
    assert largest / 2 < after.size <= largest * 1.1
    names = [kept.session.id for kept in archive.sessions()]
    assert names == [f"s{number:02}" for number in range(59, 59 - len(names), -1)]
    index_is_sound(archive)


def test_only_its_user_may_look_into_it(archive: Archive) -> None:
    archive.merge([whole([said("secret")])])
    files = list(archive.path.parent.glob("archive.sqlite*"))
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b""])
def test_a_damaged_file_is_said_to_be_and_can_be_set_aside(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "archive.sqlite"
    archive = Archive(path)
    archive.merge([whole([said(f"word{number} " * 50) for number in range(500)])])
    archive.close()
    size = path.stat().st_size
    if damage:
        path.write_bytes(damage)
    else:
        with path.open("r+b") as file:
            for page in range(1, size // 4096):
                file.seek(page * 4096)
                file.write(b"\xff" * 64)
    with pytest.raises(ArchiveBroken, match="damaged"):
        everything(Archive(path))
    aside = set_aside(path)
    assert aside is not None
    assert aside.exists()
    assert Archive(path).sessions() == []


def test_an_archive_of_a_newer_perry_is_left_alone(archive: Archive) -> None:
    with archive._database.writing() as connection:
        connection.execute("PRAGMA user_version = 99")
    archive.close()
    with pytest.raises(ArchiveUnusable, match="newer perry"):
        Archive(archive.path)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveUnusable, match=str(tmp_path / "file")):
        Archive(tmp_path / "file" / "archive.sqlite")


def test_readers_wait_for_no_writer(archive: Archive) -> None:
    archive.merge([whole([said("one")])])
    with archive._database.writing():
        began = time.monotonic()
        assert [kept.session.id for kept in archive.sessions()] == ["s"]
        assert time.monotonic() - began < 1


def test_many_threads_and_two_archives_of_one_file_lose_nothing(archive: Archive) -> None:
    """Two daemons started by mistake take in the same."""
    other = Archive(archive.path)
    messages = [said(f"number {number}") for number in range(200)]
    failures: list[Exception] = []

    def take_in(into: Archive, step: int) -> None:
        try:
            for start in range(0, 200, step):
                held = into.held(("demo", "claude", "s"))
                for_now = min(start, held)
                part = tuple(messages[for_now : start + step])
                is_last = start + step >= 200
                into.merge([Piece("demo", session("s", 200), for_now, part, is_last)])
        except Exception as error:  # noqa: BLE001 - whatever it is fails the test
            failures.append(error)

    threads = [
        threading.Thread(target=take_in, args=(into, step))
        for into, step in ((archive, 7), (other, 11), (archive, 50))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    archive.merge([whole(messages)])
    assert everything(other) == messages
    index_is_sound(archive)


KILLED = """
import sys
from pathlib import Path
from perry.archive.archive import Archive
from tests.archive.test_archive import Piece, said, session
archive = Archive(Path(sys.argv[1]))
messages = [said(f"number {number} of all") for number in range(5000)]
held = archive.held(("demo", "claude", "s"))
print("began", flush=True)
for start in range(held, 5000, 20):
    part = tuple(messages[max(0, start - 4) : start + 20])
    last = start + 20 >= 5000
    archive.merge([Piece("demo", session("s", 5000), max(0, start - 4), part, last)])
    print(start + 20, flush=True)
    if start % 200 == 0:
        archive.merge([Piece("demo", session("t", 40), 0, tuple(messages[:40]), True)])
        archive.delete(("demo", "claude", "t"))
        archive.restore(("demo", "claude", "t"))
        archive.delete(("demo", "claude", "t"), for_good=True)
"""


def test_killed_at_any_moment_it_keeps_what_it_said_it_has(tmp_path: Path) -> None:
    """25 kills while it takes in, deletes and restores; each time, it is as sound as before."""
    path = tmp_path / "archive.sqlite"
    rng = random.Random(1)  # noqa: S311 - moments
    acknowledged = 0
    for _ in range(25):
        argv = [sys.executable, "-c", KILLED, str(path)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "began\n"
            ending = threading.Timer(rng.uniform(0.0, 0.3), process.send_signal, [signal.SIGKILL])
            ending.start()
            for line in process.stdout:
                acknowledged = int(line)
            ending.cancel()
        archive = Archive(path)
        kept = everything(archive)
        assert len(kept) >= acknowledged
        assert kept == [said(f"number {number} of all") for number in range(len(kept))]
        index_is_sound(archive)
        archive.close()
    assert acknowledged > 0


def test_a_full_disk_is_said_and_nothing_half_made_stays(tmp_path: Path) -> None:
    """The disk is a file of a size that may not be exceeded."""
    script = f"""
import resource, signal, sys
from pathlib import Path
from perry.archive.archive import Archive
from perry.errors import ArchiveUnusable
from tests.archive.test_archive import said, whole, everything, index_is_sound
archive = Archive(Path({str(tmp_path / "archive.sqlite")!r}))
archive.merge([whole([said("kept")])])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
import random
text = [" ".join(str(random.random()) for _ in range(1000)) for _ in range(100)]
try:
    archive.merge([whole([said(one) for one in text], "large")])
except ArchiveUnusable as error:
    print(error.message)
    print(error.hint)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert everything(archive) == [said("kept")]
assert [kept.session.id for kept in archive.sessions()] == ["s"]
index_is_sound(archive)
archive.merge([whole([said(one) for one in text], "large")])
print(archive.held(("demo", "claude", "large")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said_so, hint, held = done.stdout.splitlines()
    assert "can't be used" in said_so
    assert "Make room" in hint
    assert held == "100"


def test_turned_off_it_says_so_and_keeps_what_it_has(archive: Archive) -> None:
    archive.merge([whole([said("one")])])
    archive.turn(on=False)
    assert archive.is_off
    assert archive.statistics().is_off
    assert len(archive.sessions()) == 1
    archive.turn(on=True)
    assert not archive.is_off


def test_a_kept_session_is_as_it_was_seen_last(archive: Archive) -> None:
    one = session("s", 2, git_branch="main", model="opus", parent_id=None, input_tokens=5)
    archive.merge([Piece("demo", one, 0, (said("a"), said("b")), is_last=True)])
    assert archive.session(("demo", "claude", "s")) == Kept("demo", one)
