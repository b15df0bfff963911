from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perry.workspace import archive


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def entry(name: str = "f", kind: bytes = tarfile.REGTYPE, size: int = 0) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, size
    made.linkname = "/etc/shadow"
    made.uid, made.gid = 12, 34
    return made


def test_a_tar_of_files_has_their_directories_first_and_belongs_to_root() -> None:
    packed = archive.pack({"b/c/d": b"deep", "a": b"flat"})
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert tar.getnames() == ["b", "b/c", "a", "b/c/d"]
        assert {(it.uid, it.gid, it.mtime) for it in tar} == {(0, 0, 0)}
        assert [it.mode for it in tar] == [0o755, 0o755, 0o644, 0o644]
        content = tar.extractfile("b/c/d")
        assert content is not None
        assert content.read() == b"deep"


def test_the_same_files_give_the_same_bytes_in_any_order() -> None:
    one, other = {"a": b"1", "b": b"2"}, {"b": b"2", "a": b"1"}
    assert archive.pack(one) == archive.pack(other)
    assert archive.pack(one) != archive.pack({"a": b"1", "c": b"2"})
    assert archive.pack(one) != archive.pack({"a": b"1", "b": b"3"})


def test_a_directory_belongs_to_whom_it_is_given() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive.directory("home", 1000, 1001, 0o755))) as tar:
        (made,) = tar.getmembers()
    assert made.isdir()
    assert (made.name, made.uid, made.gid, made.mode) == ("home", 1000, 1001, 0o755)


@given(st.binary(max_size=3000), st.integers(min_value=1, max_value=2000))
def test_a_file_comes_out_whole_however_the_stream_is_cut(content: bytes, step: int) -> None:
    packed = archive.pack({"f": content})
    chunks = [packed[start : start + step] for start in range(0, len(packed), step)]
    assert archive.only_file(chunks) == content


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_what_is_no_regular_file_is_none_and_no_link_is_followed(kind: bytes) -> None:
    packed = tar_of((entry(kind=kind), b""), (entry("g", size=1), b"x"))
    assert archive.only_file([packed]) is None
    assert archive.first_owner([packed]) == (12, 34)


def test_an_oversized_file_is_none_and_is_not_read() -> None:
    header = entry(size=archive.MAX_FILE + 1).tobuf()
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        yield header
        while True:
            read += 1
            yield bytes(65536)

    assert archive.only_file(endless()) is None
    assert read < 10
    assert archive.first_owner(endless()) == (12, 34)


def test_a_file_of_the_greatest_size_is_read() -> None:
    content = bytes(archive.MAX_FILE)
    found = archive.only_file([tar_of((entry(size=len(content)), content))])
    assert found == content


@pytest.mark.parametrize("read", [archive.only_file, archive.first_owner])
def test_an_empty_tar_has_nothing(read: Callable[[list[bytes]], object]) -> None:
    assert read([tar_of()]) is None


@pytest.mark.parametrize("read", [archive.only_file, archive.first_owner])
@pytest.mark.parametrize("broken", [b"", b"no tar at all", b"x" * 2000])
def test_what_is_no_tar_is_an_error_of_tars(
    read: Callable[[list[bytes]], object], broken: bytes
) -> None:
    """The engine's adapter turns it into perry's."""
    with pytest.raises(tarfile.TarError):
        read([broken])


def test_a_tar_that_ends_too_early_is_an_error_of_tars() -> None:
    packed = archive.pack({"f": b"x" * 5000})
    with pytest.raises(tarfile.TarError):
        archive.only_file([packed[:3000]])


def test_directories_are_roots_readable_and_new() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive.directories(["a", "a/b"]))) as tar:
        entries = tar.getmembers()
    assert [(it.name, it.isdir(), it.uid, it.mode) for it in entries] == [
        ("a", True, 0, 0o755),
        ("a/b", True, 0, 0o755),
    ]
    assert all(abs(it.mtime - time.time()) < 60 for it in entries)
