"""The default user of an image, and where its home is.

Read from the image's own passwd file (passwd(5)): the home volume is mounted there, and the worker
runs as that user. An image may have no such file, or not name the user. It must not know Docker's
API beyond reading a file.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from pathlib import Path

import msgspec
import platformdirs

from perry.workspace.engine import Engine, Image
from perry.workspace.helper import helper

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
    An image's id names its content, so the answer is cached for good.
    """
    cache = _cache_file(image)
    try:
        return msgspec.json.decode(cache.read_bytes(), type=Account)
    except (FileNotFoundError, msgspec.MsgspecError):
        account = _look_into(engine, image)  # not looked at yet, or cached by another perry
    cache.parent.mkdir(parents=True, exist_ok=True)
    draft = cache.with_name(f".{cache.name}-{secrets.token_hex(4)}")
    draft.write_bytes(msgspec.json.encode(account))
    draft.replace(cache)
    return account


def _look_into(engine: Engine, image: Image) -> Account:
    with helper(engine, "probe", image.id, config={"entrypoint": ["/probe"]}) as probe:
        passwd = (engine.read_file(probe, "/etc/passwd") or b"").decode(errors="replace")
        uid, gid, home = account_in(passwd, image.user)
        owner = engine.read_owner(probe, home)
    return Account(uid, gid, home, owns_home=owner == (uid, gid))


def account_in(passwd: str, user: str) -> tuple[int, int, str]:
    """Find a user (`name`, `uid`, either with `:group`, or empty for root) in a passwd file.

    Returns uid, gid and home. Without an entry root lives in /root, and everybody else, or a user
    whose entry names no real home, in /home/workspace.
    """
    wanted, _, group = user.partition(":")
    wanted = wanted or "0"
    for line in passwd.splitlines():
        fields = line.split(":")
        if len(fields) < 6 or not all(map(_NUMBER.fullmatch, fields[2:4])):  # noqa: PLR2004 - passwd(5)
            continue
        if wanted in (fields[0], fields[2]):
            gid = int(group) if _NUMBER.fullmatch(group) else int(fields[3])
            return int(fields[2]), gid, _real_home(fields[5], int(fields[2]))
    uid = int(wanted) if _NUMBER.fullmatch(wanted) else 0
    gid = int(group) if _NUMBER.fullmatch(group) else 0
    return uid, gid, _real_home("", uid)


def _cache_file(image: Image) -> Path:
    name = hashlib.sha256(f"{image.id} {image.user}".encode()).hexdigest()[:32]
    return Path(platformdirs.user_cache_dir("perry"), "accounts", f"{name}.json")


def _real_home(home: str, uid: int) -> str:
    if home.startswith("/") and home.rstrip("/") and home not in _NO_HOMES:
        return home.rstrip("/")
    return "/root" if uid == 0 else "/home/workspace"
