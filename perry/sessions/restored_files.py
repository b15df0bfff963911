"""Puts kept files back where they were, all of them or none.

What is kept may say anything: only places below the reader's roots are written to, no link on the
way is followed, and nothing that is there is written over. Files are made in a directory of their
own first, whole, and then linked to where they belong. This module must not know where things are
kept, or what any file holds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from perry.errors import SessionInTheWay
from perry.sessions.kept_files import CHUNK, Item
from perry.sessions.source import shown

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
_ANY = 0o7777
_PLAIN = 0o777  # no file of a session runs as somebody else

Read = Callable[[int], bytes]


class Restoration:
    """Puts items below `roots`: `stage`, `place` and `finish`, or `leave` at any time before."""

    def __init__(self, roots: Sequence[Path], items: Sequence[Item], name: str) -> None:
        """`name` is this restoration's own, the same one where it has to be done again."""
        self._roots = [os.fsencode(root) for root in roots]
        self._items = items
        self._staging = b".perry-restoring-" + os.fsencode(name)
        self._staged: set[int] = set()
        self._made: list[Item] = []
        self._before = {
            place: self._modified(item) for place, item in enumerate(items) if item.kind == "above"
        }

    def stage(self, read: Read) -> None:
        """Make the files that are missing, still elsewhere.

        Raises SessionInTheWay where something else is in the place of one, and OSError.
        """
        self._clean()  # what a restoration that was killed has left
        for place, item in enumerate(self._items):
            if item.kind != "file":
                self._require_fitting(item)
            elif self._is_there(item):
                self._require_same(item, read)
            else:
                self._make(place, item, read)

    def place(self) -> None:
        """Bring all to where it belongs. Raises SessionInTheWay and OSError."""
        for place, item in enumerate(self._items):
            if item.kind in ("above", "directory"):
                self._make_directory(item)
            elif place in self._staged:
                self._link(place, item)
            elif item.kind != "file" and not self._is_there(item):
                self._make_special(item)

    def finish(self, settled: Mapping[int, int]) -> None:
        """Give directories their owners, modes and times. Raises OSError.

        `settled` tells when directories above were changed last as of the deletion, by their places
        among the items: those that nobody has changed since get their old time back.
        """
        self._clean()
        made = {(item.root, item.path) for item in self._made}
        touched = {(item.root, b"/".join(item.parts[:-1])) for item in self._made if item.path}
        for place, item in reversed([*enumerate(self._items)]):  # those furthest down first
            key, before = (item.root, item.path), self._before.get(place)
            if item.kind == "directory" or (item.kind == "above" and key in made):
                self._own(item)
            elif before is not None and before == settled.get(place):
                self._date(item, item.modified)
            elif before is not None and key not in touched:
                self._date(item, before)

    def sync(self) -> None:
        """See that all of it is on the disk, and wait for nothing of other disks. Raises OSError.

        By file systems: one by one thousands of files take minutes.
        """
        done: set[int] = set()
        for root, parts in {(one.root, one.parts[:-1]) for one in self._items}:
            with self._opened(root, parts) as handle:
                device = os.fstat(handle).st_dev
                if device not in done and not _sync_all(handle):
                    return self._sync_each()
                done.add(device)
        return None

    def _sync_each(self) -> None:
        for item in self._items:
            if item.kind == "file":
                with self._parent(item) as parent:
                    _sync(os.open(item.parts[-1], _FILE, dir_fd=parent))
        for root, parts in {(one.root, one.parts[:-1]) for one in self._items}:
            with self._opened(root, parts) as handle:
                os.fsync(handle)

    def leave(self) -> None:
        """Take back what was done. Raises OSError."""
        for item in reversed(self._made):
            if not item.path:
                continue  # an empty root does no harm
            with self._parent(item) as parent:
                if item.kind in ("above", "directory"):
                    os.rmdir(item.parts[-1], dir_fd=parent)
                else:
                    os.unlink(item.parts[-1], dir_fd=parent)
        self._made = []
        self._clean()
        for place, before in reversed(self._before.items()):
            if before is not None:
                self._date(self._items[place], before)

    def _clean(self) -> None:
        for root in {self._roots[item.root] for item in self._items}:
            path = os.path.join(root, self._staging)  # noqa: PTH118  (bytes)
            if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114  (bytes)
                shutil.rmtree(path)

    def _is_there(self, item: Item) -> bool:
        try:
            with self._parent(item) as parent:
                os.lstat(item.parts[-1], dir_fd=parent)
        except FileNotFoundError:
            return False
        return True

    def _require_fitting(self, item: Item) -> None:
        """See that nothing else is where a directory, a link or a pipe belongs."""
        if item.kind == "above" and not item.path:
            return  # a root may be a link: the user's own word, and the reader's
        try:
            with self._parent(item) as parent:
                status = os.lstat(item.parts[-1], dir_fd=parent)
                target = (
                    os.readlink(item.parts[-1], dir_fd=parent)
                    if stat.S_ISLNK(status.st_mode)
                    else b""
                )
        except FileNotFoundError:
            return
        kinds = {"link": stat.S_IFLNK, "pipe": stat.S_IFIFO}
        expected = kinds.get(item.kind, stat.S_IFDIR)
        if stat.S_IFMT(status.st_mode) != expected or target != item.target:
            raise self._in_the_way(item)

    def _require_same(self, item: Item, read: Read) -> None:
        with self._parent(item) as parent, contextlib.ExitStack() as stack:
            try:
                handle = os.open(item.parts[-1], _FILE, dir_fd=parent)
            except OSError as error:
                raise self._in_the_way(item) from error
            file = stack.enter_context(open(handle, "rb"))  # noqa: PTH123  (of a handle)
            status = os.fstat(handle)
            same = stat.S_ISREG(status.st_mode) and status.st_size == item.size
            if not same or any(file.read(len(data)) != data for data in _chunks(item, read)):
                raise self._in_the_way(item)

    def _make(self, place: int, item: Item, read: Read) -> None:
        with self._staging_directory(item.root) as directory:
            handle = os.open(str(place), _NEW, 0o600, dir_fd=directory)
        with open(handle, "wb", buffering=0) as file:  # noqa: PTH123  (of a handle)
            for data in _chunks(item, read):
                _write_all(handle, data)
            _give(handle, item)
            os.fchmod(file.fileno(), item.mode & _PLAIN)
            os.utime(file.fileno(), ns=(item.modified, item.modified))
        self._staged.add(place)

    @contextlib.contextmanager
    def _staging_directory(self, root: int) -> Iterator[int]:
        base = self._roots[root]
        path = os.path.join(base, self._staging)  # noqa: PTH118  (bytes)
        os.makedirs(base, exist_ok=True)  # noqa: PTH103  (bytes)
        with contextlib.suppress(FileExistsError):  # the last file made it
            os.mkdir(path, 0o700)  # noqa: PTH102  (bytes)
        handle = os.open(path, _DIRECTORY)
        try:
            yield handle
        finally:
            os.close(handle)

    def _link(self, place: int, item: Item) -> None:
        name = item.parts[-1]
        with self._parent(item) as parent, self._staging_directory(item.root) as directory:
            try:
                os.link(str(place), name, src_dir_fd=directory, dst_dir_fd=parent)
            except FileExistsError as error:
                raise self._in_the_way(item) from error
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._move(place, item, directory, parent)
        self._made.append(item)

    def _move(self, place: int, item: Item, directory: int, parent: int) -> None:
        """Do without links: over to another file system, or on one that has none."""
        hidden = self._staging + f"-{place}".encode()
        with contextlib.suppress(FileNotFoundError):  # else one that was killed has left it
            os.unlink(hidden, dir_fd=parent)
        source = os.open(str(place), os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
        with (
            open(source, "rb") as staged,  # noqa: PTH123  (of a handle)
            open(os.open(hidden, _NEW, 0o600, dir_fd=parent), "wb") as file,  # noqa: PTH123  (as above)
        ):
            shutil.copyfileobj(staged, file, CHUNK)
            file.flush()
            _give(file.fileno(), item)
            os.fchmod(file.fileno(), item.mode & _PLAIN)
            os.utime(file.fileno(), ns=(item.modified, item.modified))
        if self._is_there(item):
            os.unlink(hidden, dir_fd=parent)
            raise self._in_the_way(item)
        os.rename(hidden, item.parts[-1], src_dir_fd=parent, dst_dir_fd=parent)

    def _make_directory(self, item: Item) -> None:
        if not item.path:
            root = self._roots[item.root]
            if not os.path.isdir(root):  # noqa: PTH112  (bytes)
                os.makedirs(root)  # noqa: PTH103  (bytes)
                self._made.append(item)
            return
        with self._parent(item) as parent:
            try:
                os.mkdir(item.parts[-1], item.mode & _ANY | 0o700, dir_fd=parent)
            except FileExistsError:
                return  # `stage` has seen that it is a directory, and `_open` sees it again
        self._made.append(item)

    def _make_special(self, item: Item) -> None:
        name = item.parts[-1]
        with self._parent(item) as parent:
            if item.kind == "link":
                os.symlink(item.target, name, dir_fd=parent)
            else:
                os.mkfifo(name, item.mode & _PLAIN, dir_fd=parent)
            with contextlib.suppress(PermissionError):  # only root gives files away: it stays ours
                os.chown(name, item.user, item.group, dir_fd=parent, follow_symlinks=False)
            times = (item.modified, item.modified)
            os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        self._made.append(item)

    def _own(self, item: Item) -> None:
        with self._opened(item.root, item.parts) as handle:
            _give(handle, item)
            with contextlib.suppress(PermissionError):  # somebody else made it meanwhile
                os.fchmod(handle, item.mode & _ANY)
        self._date(item, item.modified)

    def _date(self, item: Item, modified: int) -> None:
        with (
            self._opened(item.root, item.parts) as handle,
            contextlib.suppress(PermissionError),  # of somebody else's, only he sets the time
        ):
            os.utime(handle, ns=(modified, modified))

    def _modified(self, item: Item) -> int | None:
        try:
            with self._opened(item.root, item.parts) as handle:
                return os.fstat(handle).st_mtime_ns
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def _parent(self, item: Item) -> Iterator[int]:
        if not item.path:
            raise self._in_the_way(item)
        with self._opened(item.root, item.parts[:-1]) as handle:
            yield handle

    @contextlib.contextmanager
    def _opened(self, root: int, parts: Sequence[bytes]) -> Iterator[int]:
        """Open a directory below a root. Raises SessionInTheWay where a link leads there."""
        handle = os.open(self._roots[root], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in parts:
                try:
                    inner = os.open(name, _DIRECTORY, dir_fd=handle)
                except OSError as error:
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):  # a file, or a link
                        raise
                    raise _in_the_way(self._roots[root], parts) from error
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    def _in_the_way(self, item: Item) -> SessionInTheWay:
        return _in_the_way(self._roots[item.root], item.parts)


def _in_the_way(root: bytes, parts: Sequence[bytes]) -> SessionInTheWay:
    path = shown(os.fsdecode(b"/".join([root, *parts])))
    return SessionInTheWay(
        f"Something else is at {path} by now",
        hint="Nothing was restored. Move that away, or keep it.",
    )


def _chunks(item: Item, read: Read) -> Iterator[bytes]:
    left = item.size
    while left:
        data = read(min(left, CHUNK))
        left -= len(data)
        yield data


def _sync_all(handle: int) -> bool:
    """Write out the file system that something open is on; False where no system call does that."""
    import ctypes  # noqa: PLC0415  # takes a while, and hardly anybody restores

    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except AttributeError:
        return False
    if call(handle) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.ENOSYS:
        return False
    raise OSError(number, os.strerror(number))


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _give(handle: int, item: Item) -> None:
    status = os.fstat(handle)
    if (status.st_uid, status.st_gid) != (item.user, item.group):
        with contextlib.suppress(PermissionError):  # only root gives files away: it stays ours
            os.fchown(handle, item.user, item.group)
