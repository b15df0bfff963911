"""The default user of an image or a container, and where its home is.

Read from the image's own passwd file (passwd(5)): the home volume is mounted there, and the worker
runs as that user. An image may have no such file, or not name the user. It must not know Docker's
API beyond reading a file.
"""

from __future__ import annotations

import contextlib
import re

import msgspec

from perry.errors import EngineFailure, ImageUnusable
from perry.workspace import cache
from perry.workspace.engine import Engine
from perry.workspace.helper import helper
from perry.workspace.objects import Container, Image

_NO_HOMES = ("/", "/nonexistent", "/dev/null", "/proc", "/sys", "/var/empty")
"""Homes that passwd files name for users who have none."""

_NUMBER = re.compile(r"[0-9]{1,10}")


class Account(msgspec.Struct, frozen=True):
    """A user of an image: numeric ids and home.

    `owns_home` says that the image has that home and that it is the user's, so that a fresh volume
    mounted there gets the right owner from the engine.
    """

    uid: int
    gid: int
    home: str
    owns_home: bool


def read_account(engine: Engine, image: Image) -> Account:
    """Return the account of an image's default user.

    The first time it looks into a container made for that, never started, and removed at once.
    An image's id names its content, so the answer is cached for good. Raises ImageUnusable where
    the user is a name that the image doesn't know.
    """
    key = f"{image.id} {image.user}"
    with contextlib.suppress(msgspec.MsgspecError):  # cached by another perry, in another shape
        known = cache.read("accounts", key)
        if known is not None:
            return msgspec.json.decode(known, type=Account)
    account = _look_into(engine, image)
    cache.write("accounts", key, msgspec.json.encode(account))
    return account


def _look_into(engine: Engine, image: Image) -> Account:
    with helper(engine, "probe", image.id, config={"entrypoint": ["/probe"]}) as probe:
        passwd = (engine.read_file(probe, "/etc/passwd") or b"").decode(errors="replace")
        found = account_in(passwd, image.user)
        if found is None:
            raise ImageUnusable(
                f"The image's user '{image.user}' is not in its passwd file: nothing can run in it",
                hint="Add the user to the image, or name it by its number (USER 1000).",
            )
        uid, gid, home = found
        owner = engine.read_owner(probe, home)
    return Account(uid, gid, home, owns_home=owner == (uid, gid))


def account_in(passwd: str, user: str) -> tuple[int, int, str] | None:
    """Find a user (`name`, `uid`, either with `:group`, or empty for root) in a passwd file.

    Returns uid, gid and home. Without an entry root lives in /root, and everybody else, or a user
    whose entry names no real home, in /home/workspace. None for a name without an entry: no engine
    runs anything as that user, and it must not pass for root.
    """
    wanted, _, group = user.partition(":")
    wanted = wanted or "0"
    fields = _entry(passwd, wanted)
    if fields is not None:
        gid = int(group) if _NUMBER.fullmatch(group) else int(fields[3])
        return int(fields[2]), gid, _real_home(fields[5], int(fields[2]))
    if not _NUMBER.fullmatch(wanted):
        return None
    uid = int(wanted)
    gid = int(group) if _NUMBER.fullmatch(group) else 0
    return uid, gid, _real_home("", uid)


def read_home(engine: Engine, container: Container) -> str:
    """Return what `find_home` does, and `/` for a container that can't be looked into."""
    try:
        return find_home(engine, container)
    except EngineFailure:
        return "/"  # it is just being removed: the others must be told all the same


def find_home(engine: Engine, container: Container) -> str:
    """Return the home that programs of a container's user have, whoever made the container.

    HOME of its variables, else what its passwd file says, else `/`: as the engine itself has it.
    Looked up once a start, since the file may change. Raises EngineError.
    """
    config = container.raw["Config"]
    variables = dict(item.partition("=")[::2] for item in config.get("Env") or ())
    if variables.get("HOME"):
        return str(variables["HOME"])
    start, _, known = (cache.read("homes", container.id) or b"").partition(b"\n")
    if known and start == container.started_at.encode():
        return known.decode()
    passwd = engine.read_file(container.id, "/etc/passwd") or b""
    wanted = (config.get("User") or "").partition(":")[0] or "0"
    fields = _entry(passwd.decode(errors="replace"), wanted)
    home = (fields[5] if fields else "") or "/"
    cache.write("homes", container.id, f"{container.started_at}\n{home}".encode())
    return home


def forget_home(container_id: str) -> None:
    """Drop what this user's cache knows of a container's home."""
    cache.forget("homes", container_id)


def _entry(passwd: str, wanted: str) -> list[str] | None:
    """Return the fields of a user, by name or number, in a passwd file."""
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) < 6 or not all(map(_NUMBER.fullmatch, fields[2:4])):  # noqa: PLR2004 - passwd(5)
            continue
        if wanted in (fields[0], fields[2]):
            return fields
    return None


def _real_home(home: str, uid: int) -> str:
    if home.startswith("/") and home.rstrip("/") and home not in _NO_HOMES:
        return home.rstrip("/")
    return "/root" if uid == 0 else "/home/workspace"
