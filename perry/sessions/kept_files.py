"""Files and directories that go with a session: what they are, and how they are taken away.

Places are told below one of the reader's roots, through no link: what lies elsewhere could not be
put back, as only the roots are written to. `restored_files.py` puts back. This module must not
know where things are kept, or what any file holds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from perry.errors import SessionNotKept
from perry.sessions.source import shown

CHUNK = 256 * 1024  # bytes

Kind = Literal["above", "directory", "file", "link", "pipe"]
Write = Callable[[bytes], object]


class Changed(Exception):
    """Something is no longer as it was found."""


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One file or directory as it was found, without its bytes.

    `root` counts the reader's roots, `path` is below it; `kind` is `above` for a directory that
    stays where it is. Times are in ns, `target` is a link's.
    """

    root: int
    path: bytes
    kind: Kind
    mode: int
    modified: int
    user: int
    group: int
    size: int = 0
    target: bytes = b""

    def __post_init__(self) -> None:
        if self.root < 0 or self.size < 0 or not {b"", b".", b".."}.isdisjoint(self.parts):
            raise ValueError(f"there is no such place: {self.path!r}")

    @property
    def parts(self) -> tuple[bytes, ...]:
        """The names from below the root on; none for the root itself."""
        return tuple(self.path.split(b"/")) if self.path else ()


class Found(msgspec.Struct, frozen=True):
    """An item, and where it lies now."""

    item: Item
    path: bytes
    stamp: tuple[int, ...]


def find_files(paths: Iterable[Path], roots: Sequence[Path]) -> list[Found]:
    """Find what is to go, directories before what they hold, and the directories above it.

    Raises Changed where something goes meanwhile, SessionNotKept where something could not be put
    back, and OSError.
    """
    try:
        return _found_below(paths, roots)
    except FileNotFoundError as error:
        raise Changed from error


def place_of(path: Path, roots: Sequence[Path]) -> tuple[int, bytes]:
    """Tell below which root a file lies, and where there, links on the way to it resolved.

    Raises SessionNotKept where it lies below none.
    """
    parent = os.path.realpath(os.fsencode(path.parent))
    place = os.path.join(parent, os.fsencode(path.name))  # noqa: PTH118  (bytes)
    for number, root in enumerate(roots):
        base = os.path.realpath(os.fsencode(root)) + b"/"
        if place.startswith(base):
            return number, place[len(base) :]
    raise SessionNotKept(
        f"{shown(os.fsdecode(place))} is outside of the directories that sessions are restored to",
        hint="A link leads there.",
    )


def copy_files(found: Iterable[Found], write: Write) -> None:
    """Write the bytes of all files, one after the other. Raises Changed and OSError."""
    for one in found:
        if one.item.kind == "file":
            _copy(one, write)


def require_unchanged(found: Iterable[Found]) -> None:
    """See that all is as it was found, and nothing was added. Raises Changed."""
    for one in found:
        if one.item.kind != "above" and _stamp_now(one.path) != one.stamp:
            raise Changed


def remove_found(found: Sequence[Found]) -> None:
    """Remove what was found and nothing else. Raises OSError, also where something was added."""
    directories = [one for one in found if one.item.kind == "directory"]
    for one in found:
        if one.item.kind not in ("above", "directory"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(one.path)  # noqa: PTH108  (bytes)
    for one in reversed(directories):
        os.rmdir(one.path)  # noqa: PTH106  (bytes)


def remove_paths(paths: Iterable[Path]) -> None:
    """Remove files and directories with all that they hold by now. Raises OSError."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def modified_above(found: Sequence[Found]) -> Mapping[int, int]:
    """Tell when each directory above was changed last, by its place among the items."""
    times = {}
    for place, one in enumerate(found):
        if one.item.kind == "above":
            with contextlib.suppress(OSError):  # it is gone too, and will be made as it was
                times[place] = os.stat(one.path).st_mtime_ns  # noqa: PTH116  (bytes)
    return times


def _found_below(paths: Iterable[Path], roots: Sequence[Path]) -> list[Found]:
    found: dict[bytes, Found] = {}
    for path in paths:
        root, below = place_of(path, roots)
        base = os.path.realpath(os.fsencode(roots[root]))
        place = base + b"/" + below
        if os.path.lexists(place):
            for one in [*_above(place, root, base), *_below(place, root, base)]:
                known = found.get(one.path)
                if known is None or known.item.kind == "above":
                    found[one.path] = one
    return list(found.values())


def _above(place: bytes, root: int, base: bytes) -> Iterator[Found]:
    """Find the directories from the root down to the one that holds a place."""
    names = place[len(base) + 1 :].split(b"/")[:-1]
    for count in range(len(names) + 1):
        yield _found(b"/".join([base, *names[:count]]), root, base, above=True)


def _below(place: bytes, root: int, base: bytes) -> Iterator[Found]:
    one = _found(place, root, base)
    yield one
    if one.item.kind == "directory":
        for name in sorted(os.listdir(place)):  # noqa: PTH208  (bytes)
            yield from _below(os.path.join(place, name), root, base)  # noqa: PTH118  (bytes)


def _found(path: bytes, root: int, base: bytes, *, above: bool = False) -> Found:
    status = os.lstat(path)
    kind = "above" if above else _kind_of(path, status)
    item = Item(
        root=root,
        path=path[len(base) + 1 :],
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        modified=status.st_mtime_ns,
        user=status.st_uid,
        group=status.st_gid,
        size=status.st_size if kind == "file" else 0,
        target=os.readlink(path) if kind == "link" else b"",  # noqa: PTH115  (bytes)
    )
    return Found(item, path, _stamp(status))


def _kind_of(path: bytes, status: os.stat_result) -> Kind:
    kinds: dict[int, Kind] = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "link",
        stat.S_IFIFO: "pipe",
    }
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        raise SessionNotKept(f"{shown(os.fsdecode(path))} is neither a file nor a directory")
    return kind


def _copy(one: Found, write: Write) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(one.path, flags)
    except FileNotFoundError as error:
        raise Changed from error
    with open(handle, "rb", buffering=0) as file:  # noqa: PTH123  (of a handle)
        if _stamp(os.fstat(file.fileno())) != one.stamp:
            raise Changed
        left = one.item.size
        while left:
            data = file.read(min(left, CHUNK))
            if not data:
                raise Changed
            write(data)
            left -= len(data)


def _stamp_now(path: bytes) -> tuple[int, ...] | None:
    try:
        return _stamp(os.lstat(path))
    except FileNotFoundError:
        return None


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns
