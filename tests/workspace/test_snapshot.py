"""What a hostile archive can't do to this machine, and what is told of it."""

from __future__ import annotations

import base64
import io
import json
import os
import stat
import tarfile
import time
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perry.errors import EngineUnreachable
from perry.sessions.index import SOURCES, SessionIndex
from perry.sessions.jsonl import fingerprint
from perry.workspace.archive import MAX_HEADER, OutOfTime, members, until
from perry.workspace.look import look
from perry.workspace.objects import PathStat
from perry.workspace.replica import MAX_PROBLEMS, Limits, Replica
from perry.workspace.wanted import Wanted, readers
from tests.sessions.homes import as_bytes, user
from tests.workspace.engine_answers import engine_of

HOME = "/home/dev"
PLACE = f"{HOME}/.claude/projects"
OLD = 1_700_000_000
SETTLED = (OLD + 10) * 1_000_000_000


class Copy:
    """A copy of a container's home, taken from tars that are made by hand."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.root.mkdir(exist_ok=True)
        self.sources, _ = readers(self.root, HOME, {})
        self.wanted = Wanted(self.root, self.sources)

    def begin(self, limits: Limits | None = None, settled: int = SETTLED) -> Replica:
        draft = self.directory / "draft"
        return Replica(self.root, draft, self.wanted, limits or Limits(), settled=settled)

    def take(self, *entries: Entry, limits: Limits | None = None) -> Replica:
        """Look at a tar that has all there is."""
        replica = self.begin(limits)
        replica.take(PLACE, members([tar_of(*entries)]))
        replica.drop_others(())
        return replica

    @property
    def files(self) -> dict[str, bytes]:
        place = Path(f"{self.root}{PLACE}")
        return {
            str(path.relative_to(place)): path.read_bytes()
            for path in place.rglob("*")
            if not path.is_dir()
        }


Entry = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"{}\n", mtime: float = OLD) -> Entry:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(content), mtime
    return entry, content


def special(name: str, kind: bytes, target: str = "") -> Entry:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry, b""


def tar_of(*entries: Entry, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def everything_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_files_come_with_their_times_and_for_nobody_else_to_read(copy: Copy) -> None:
    replica = copy.take(file("./p/s.jsonl", b"{}\n", OLD + 0.5), file("p/t/tool-results/r.txt"))
    assert copy.files == {"p/s.jsonl": b"{}\n", "p/t/tool-results/r.txt": b"{}\n"}
    status = Path(f"{copy.root}{PLACE}/p/s.jsonl").stat()
    assert status.st_mtime_ns == OLD * 1_000_000_000 + 500_000_000
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert stat.S_IMODE(Path(f"{copy.root}{PLACE}/p").stat().st_mode) == 0o700
    assert (replica.copied, replica.received, replica.problems) == (2, 6, {})


@pytest.mark.parametrize(
    "name", ["../x.jsonl", "p/../../x.jsonl", "/etc/x.jsonl", "p/..", "//x.jsonl", "./../x.jsonl"]
)
def test_a_name_that_leads_out_is_refused(copy: Copy, name: str) -> None:
    replica = copy.take(file(name), file("p/good.jsonl"))
    assert list(copy.files) == ["p/good.jsonl"]
    assert list(replica.problems.values()) == ["its name leads out of its directory"]
    assert everything_below(copy.directory) == {
        "root", "root/home", "root/home/dev", "root/home/dev/.claude",
        "root/home/dev/.claude/projects", "root/home/dev/.claude/projects/p",
        "root/home/dev/.claude/projects/p/good.jsonl",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "good.jsonl", "../../../../x"])
def test_no_link_is_made_or_followed(copy: Copy, kind: bytes, target: str) -> None:
    replica = copy.take(file("p/good.jsonl"), special("p/link.jsonl", kind, target))
    assert list(copy.files) == ["p/good.jsonl"]
    assert replica.problems == {f"{PLACE}/p/link.jsonl": "a link, and links are not followed"}


def test_what_lies_behind_a_link_stays_inside(copy: Copy, tmp_path: Path) -> None:
    """The link isn't made, so a file of the same tar that goes through it has a real directory."""
    outside = tmp_path / "outside"
    outside.mkdir()
    copy.take(special("p", tarfile.SYMTYPE, str(outside)), file("p/s.jsonl"))
    assert list(outside.iterdir()) == []
    assert copy.files == {"p/s.jsonl": b"{}\n"}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_not_made(copy: Copy, kind: bytes) -> None:
    replica = copy.take(special("p/s.jsonl", kind))
    assert copy.files == {}
    assert replica.problems == {f"{PLACE}/p/s.jsonl": "not a regular file"}


def test_only_what_a_reader_reads_is_copied(copy: Copy) -> None:
    replica = copy.take(file("p/credentials"), file("p/s.jsonl.bak"), special("x", tarfile.DIRTYPE))
    assert (copy.files, replica.problems, replica.copied) == ({}, {}, 0)


def test_a_file_that_is_too_large_is_left_out_and_the_next_one_is_read(copy: Copy) -> None:
    large, small = file("p/large.jsonl", bytes(5000)), file("p/small.jsonl")
    replica = copy.take(large, small, limits=Limits(file=4999))
    assert list(copy.files) == ["p/small.jsonl"]
    assert "5000 bytes" in replica.problems[f"{PLACE}/p/large.jsonl"]


def test_all_files_together_are_bounded_in_bytes_and_in_number(copy: Copy) -> None:
    entries = [file(f"p/{number}.jsonl", bytes(100)) for number in range(5)]
    assert len(copy.take(*entries, limits=Limits(total=250)).problems) == 3
    assert len(copy.files) == 2
    assert len(copy.take(*entries, limits=Limits(files=3)).problems) == 2
    assert len(copy.files) == 3


def test_the_list_of_problems_is_bounded(copy: Copy) -> None:
    links = [special(f"p/{number}.jsonl", tarfile.SYMTYPE, "/") for number in range(MAX_PROBLEMS)]
    replica = copy.take(*links, *(special(f"q/{n}.jsonl", tarfile.SYMTYPE, "/") for n in range(7)))
    assert len(replica.problems) == MAX_PROBLEMS + 1
    assert replica.problems["…"] == "and 7 more"


def test_of_two_entries_of_one_name_the_first_counts(copy: Copy) -> None:
    replica = copy.take(file("p/s.jsonl", b"one"), file("./p//s.jsonl", b"other"))
    assert copy.files == {"p/s.jsonl": b"one"}
    assert replica.problems == {f"{PLACE}/p/s.jsonl": "a second file of the same name"}


def test_a_path_through_a_file_is_left_out(copy: Copy) -> None:
    replica = copy.take(file("p/a.jsonl"), file("p/a.jsonl/b.jsonl"), file("p/c.jsonl"))
    assert sorted(copy.files) == ["p/a.jsonl", "p/c.jsonl"]
    assert list(replica.problems) == [f"{PLACE}/p/a.jsonl/b.jsonl"]


def test_a_file_in_place_of_a_directory_that_is_used_is_left_out(copy: Copy) -> None:
    replica = copy.take(file("p/a.jsonl/b.jsonl"), file("p/a.jsonl"))
    assert list(copy.files) == ["p/a.jsonl/b.jsonl"]
    assert list(replica.problems) == [f"{PLACE}/p/a.jsonl"]


def test_a_directory_may_become_a_file_and_a_file_a_directory(copy: Copy) -> None:
    copy.take(file("p/a.jsonl/b.jsonl"), file("p/c.jsonl"))
    replica = copy.take(file("p/a.jsonl"), file("p/c.jsonl/d.jsonl"))
    assert sorted(copy.files) == ["p/a.jsonl", "p/c.jsonl/d.jsonl"]
    assert replica.problems == {}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_name_of_any_bytes_is_kept_as_it_is(copy: Copy, form: int) -> None:
    name = os.fsdecode(b"p\xff/caf\xc3\xa9 \xe9\n.jsonl")
    replica = copy.begin()
    replica.take(PLACE, members([tar_of(file(name), form=form)]))
    assert replica.problems == {}
    assert [os.fsencode(path) for path in copy.files] == [os.fsencode(name)]


def test_names_that_no_file_can_have_are_left_out(copy: Copy) -> None:
    long, deep = f"p/{'x' * 300}.jsonl", "/".join(["d"] * 100) + "/s.jsonl"
    replica = copy.take(file(long), file(deep), file("p/good.jsonl"))
    assert list(copy.files) == ["p/good.jsonl"]
    assert len(replica.problems) == 2


@pytest.mark.parametrize("mtime", [-1.0, 1e30, 0.0])
def test_a_time_that_no_file_can_have_does_no_harm(copy: Copy, mtime: float) -> None:
    entry, content = file("p/s.jsonl")
    entry.pax_headers = {"mtime": str(mtime)}
    replica = copy.take((entry, content))
    assert (copy.files, replica.problems) == ({"p/s.jsonl": b"{}\n"}, {})


def test_a_sparse_file_is_left_out(copy: Copy) -> None:
    """Its own headers say how large it is: here a terabyte, of which the tar has three bytes."""
    entry, content = file("p/s.jsonl")
    entry.pax_headers = {"GNU.sparse.map": "0,3", "GNU.sparse.size": str(1 << 40)}
    replica = copy.take((entry, content), file("p/good.jsonl"))
    assert list(copy.files) == ["p/good.jsonl"]
    assert replica.problems == {f"{PLACE}/p/s.jsonl": "not a regular file"}


@pytest.mark.parametrize("size", ["-5", "99999999"])
def test_a_size_that_lies_ends_the_reading(copy: Copy, size: str) -> None:
    entry, content = file("p/s.jsonl")
    entry.pax_headers = {"size": size}
    with pytest.raises(tarfile.TarError):
        copy.take((entry, content))
    assert copy.files == {}


@given(cut=st.integers(min_value=0, max_value=5 * 512 + 511))
def test_an_archive_that_ends_too_early_is_never_taken_for_a_whole_one(cut: int) -> None:
    """Up to the first of the two empty blocks at its end, which tells that nothing is missing."""
    whole = tar_of(file("p/a.jsonl", bytes(600)), file("p/b.jsonl", bytes(500)))
    with pytest.raises(tarfile.TarError):
        list(chain.from_iterable(member.content for member in members([whole[:cut]])))


def test_what_came_before_a_broken_end_is_kept_and_nothing_is_dropped(copy: Copy) -> None:
    copy.take(file("p/old.jsonl"))
    replica = copy.begin()
    with pytest.raises(tarfile.TarError):
        replica.take(PLACE, members([tar_of(file("p/new.jsonl"), file("p/z.jsonl"))[:1300]]))
    replica.drop_others([PLACE])
    assert sorted(copy.files) == ["p/new.jsonl", "p/old.jsonl"]


def test_headers_without_an_end_are_not_read(copy: Copy) -> None:
    entry, content = file("p/s.jsonl")
    entry.pax_headers = {"comment": "x" * (3 * MAX_HEADER)}
    with pytest.raises(tarfile.TarError, match="headers"):
        copy.take((entry, content))


def test_an_endless_archive_is_given_up_at_its_deadline(copy: Copy) -> None:
    endless = chain([tar_of(file("p/s.jsonl"))[:1024]], endless_entries())
    began = time.monotonic()
    replica = copy.begin()
    with pytest.raises(OutOfTime):
        replica.take(PLACE, members(until(began + 0.3, endless)))
    assert 0.3 < time.monotonic() - began < 2
    assert copy.files == {"p/s.jsonl": b"{}\n"}


def endless_entries() -> Iterator[bytes]:
    entry = tarfile.TarInfo("p/endless.bin")
    entry.size = 1 << 50
    yield entry.tobuf(tarfile.GNU_FORMAT)
    yield from repeat(bytes(65536))


def test_what_is_known_is_passed_over(copy: Copy) -> None:
    copy.take(file("p/s.jsonl", b"one\n"))
    before = fingerprint(Path(f"{copy.root}{PLACE}/p/s.jsonl").stat())
    replica = copy.take(file("p/s.jsonl", b"two\n"))  # same size, same time: can't be told
    assert (replica.copied, replica.received) == (0, 0)
    assert copy.files == {"p/s.jsonl": b"one\n"}
    assert fingerprint(Path(f"{copy.root}{PLACE}/p/s.jsonl").stat()) == before


def test_what_changed_when_it_was_last_looked_at_is_copied_again(copy: Copy) -> None:
    copy.take(file("p/s.jsonl", b"one\n", mtime=OLD + 10))
    replica = copy.take(file("p/s.jsonl", b"two\n", mtime=OLD + 10))
    assert replica.copied == 1
    assert copy.files == {"p/s.jsonl": b"two\n"}


@given(before=st.binary(max_size=50), after=st.binary(max_size=50), grows=st.booleans())
def test_the_copy_is_what_came_last_whatever_was_there(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes, *, grows: bool
) -> None:
    copy = Copy(tmp_path_factory.mktemp("copy"))
    after = before + after if grows else after
    copy.take(file("p/s.jsonl", before))
    inode = Path(f"{copy.root}{PLACE}/p/s.jsonl").stat().st_ino
    copy.take(file("p/s.jsonl", after, mtime=OLD + 1))
    assert copy.files == {"p/s.jsonl": after}
    if grows:  # then whoever reads it can go on where it ended
        assert Path(f"{copy.root}{PLACE}/p/s.jsonl").stat().st_ino == inode


def test_a_large_file_that_was_rewritten_is_replaced_from_where_it_differs(copy: Copy) -> None:
    before = os.urandom(900_000)
    after = before[:600_000] + os.urandom(700_000)
    copy.take(file("p/s.jsonl", before))
    copy.take(file("p/s.jsonl", after, mtime=OLD + 1))
    assert copy.files == {"p/s.jsonl": after}


def test_what_is_gone_is_dropped_with_its_directories(copy: Copy) -> None:
    copy.take(file("p/s.jsonl"), file("q/t.jsonl"))
    copy.take(file("q/t.jsonl"))
    assert everything_below(Path(f"{copy.root}{PLACE}")) == {"q", "q/t.jsonl"}


def test_no_environment_leads_a_reader_out_of_the_copy(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for value in ("/../../../etc", "../../../../../../../../etc", "~/../../../../../.."):
        names = (
            "CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_DATA_HOME", "PI_CODING_AGENT_DIR",
            "GEMINI_CLI_HOME", "PI_CODING_AGENT_SESSION_DIR", "OPENCODE_DB",
        )  # fmt: skip
        kept, problems = readers(root, HOME, dict.fromkeys(names, value))
        for source in kept:
            for place in (*source.roots, *(files.directory for files in source.files)):
                assert Path(os.path.normpath(place)).is_relative_to(root), (value, place)
        assert len(kept) < len(SOURCES)
        assert problems


def test_the_environment_moves_what_is_wanted(tmp_path: Path) -> None:
    environment = {"CODEX_HOME": "/data/codex", "OPENCODE_DB": "/data/a.db", "PATH": "/bin"}
    sources, _ = readers(tmp_path, "/home/dev/", environment)
    wanted = Wanted(tmp_path, sources)
    assert wanted.is_file("/data/codex/sessions/2026/01/02/rollout-x.jsonl")
    assert not wanted.is_file("/data/codex/auth.json")
    assert wanted.is_database("/data/codex/state_5.sqlite")
    assert not wanted.is_file("/home/dev/.codex/sessions/2026/01/02/rollout-x.jsonl")
    assert wanted.databases == {"/data/a.db"}
    assert wanted.lone == {"/home/dev/.gemini/projects.json"}
    assert "/data/codex" in wanted.trees
    assert "/data/codex/sessions" not in wanted.trees


def test_a_copied_index_tells_paths_and_ids_as_they_are_in_the_container(tmp_path: Path) -> None:
    """Sessions that share an id are told apart by their places: they have the same ids anywhere."""
    told = []
    line = as_bytes([user("hello")])
    for place in (tmp_path / "a", tmp_path / "elsewhere" / "b"):
        place.mkdir(parents=True)
        copy = Copy(place)
        copy.take(file("p/one.jsonl", line * 2), file("q/one.jsonl", line))
        index = SessionIndex(copy.sources, root=str(copy.root))
        index.refresh()
        told.append([(session.id, session.file_path) for session in index.list()])
        for session in index.list():
            assert Path(index.located(session)).read_bytes().startswith(line)
    assert told[0] == told[1]
    assert {path for _, path in told[0]} == {f"{PLACE}/p/one.jsonl", f"{PLACE}/q/one.jsonl"}
    assert len({identifier for identifier, _ in told[0]}) == 2


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-11-24T10:00:00Z", 1_795_514_400_000_000_000),
        ("2026-11-24T10:00:00.123456789Z", 1_795_514_400_123_456_789),
        ("2026-11-24T12:00:00.5+02:00", 1_795_514_400_500_000_000),
    ],
)
def test_a_paths_time_is_read_to_the_nanosecond(moment: str, expected: int) -> None:
    assert stat_of(mtime=moment).modified == expected


@pytest.mark.parametrize(
    ("mode", "is_file"),
    [(0o644, True), (0o4755 | 1 << 23, True), (1 << 31 | 0o755, False), (1 << 27 | 0o777, False)],
)
def test_only_a_regular_file_is_one(mode: int, *, is_file: bool) -> None:
    """Modes are Go's: a directory, a link, and a file that sets the user."""
    assert stat_of(mode=mode).is_file is is_file


def stat_of(**changes: object) -> PathStat:
    told = {"name": "a", "size": 1, "mode": 0o644, "mtime": "2026-11-24T10:00:00Z", **changes}
    return PathStat.from_header(base64.b64encode(json.dumps(told).encode()).decode())


def test_an_engine_that_hangs_up_while_it_sends_an_archive_is_an_error_in_the_end(
    copy: Copy,
) -> None:
    asked = []

    def half() -> tuple[int, bytes]:
        asked.append(1)
        return 200, b"400\r\n" + tar_of(file("p/s.jsonl"))[:600]

    table = {"/containers/c1/archive": half}
    with engine_of(table) as engine, pytest.raises(EngineUnreachable):
        look(engine, "c1", copy.directory, copy.wanted, Limits(), settled=0)
    assert len(asked) == 3
