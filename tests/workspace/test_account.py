from __future__ import annotations

import re
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perry.workspace import archive
from perry.workspace.account import account_in, read_home
from perry.workspace.objects import Container
from tests.workspace.engine_answers import Table, container, engine_of

PASSWD = """\
# a comment
root:x:0:0:root:/root:/bin/bash
broken line
short:x:5:5
words:x:five:six::/home/words:/bin/sh
circled:x:²:²::/home/circled:/bin/sh
huge:x:99999999999999999999:0::/home/huge:/bin/sh
workspace:x:1000:1001:Some, One:/home/workspace:/bin/bash
second:x:1000:2000::/home/second:/bin/bash
slash:x:1002:1002::/:/bin/sh
nowhere:x:1003:1003::/nonexistent:/bin/sh
empty:x:1004:1004:::/bin/sh
relative:x:1005:1005::home/relative:/bin/sh
trailing:x:1006:1006::/srv/trailing/:/bin/sh
slashes:x:1007:1007::///:/bin/sh
noshell:x:1008:1008::/srv/noshell
"""


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("", (0, 0, "/root")),
        ("root", (0, 0, "/root")),
        ("0", (0, 0, "/root")),
        (":50", (0, 50, "/root")),
        ("workspace", (1000, 1001, "/home/workspace")),
        ("1000", (1000, 1001, "/home/workspace")),
        ("second", (1000, 2000, "/home/second")),
        ("workspace:7", (1000, 7, "/home/workspace")),
        ("workspace:staff", (1000, 1001, "/home/workspace")),
        ("slash", (1002, 1002, "/home/workspace")),
        ("nowhere", (1003, 1003, "/home/workspace")),
        ("empty", (1004, 1004, "/home/workspace")),
        ("relative", (1005, 1005, "/home/workspace")),
        ("trailing", (1006, 1006, "/srv/trailing")),
        ("slashes", (1007, 1007, "/home/workspace")),
        ("noshell", (1008, 1008, "/srv/noshell")),
        ("4321", (4321, 0, "/home/workspace")),
        ("4321:99", (4321, 99, "/home/workspace")),
        ("unknown", None),
        ("unknown:0", None),
        ("words", None),
        ("circled", None),
        ("huge", None),
    ],
)
def test_a_user_is_found_as_the_engine_would_find_it(
    user: str, account: tuple[int, int, str] | None
) -> None:
    assert account_in(PASSWD, user) == account


@pytest.mark.parametrize("passwd", ["", "\n\n", "\0\ufffd:::::", "root"])
def test_without_an_entry_there_is_still_a_home(passwd: str) -> None:
    assert account_in(passwd, "") == (0, 0, "/root")
    assert account_in(passwd, "1234:4321") == (1234, 4321, "/home/workspace")


@given(st.text(alphabet=st.sampled_from("a0²:/\n-x9٣")), st.text(alphabet="a0²:٣"))
def test_whatever_an_image_says_the_home_is_a_whole_path_and_not_the_root(
    passwd: str, user: str
) -> None:
    account = account_in(passwd, user)
    if account is None:
        assert not re.fullmatch("[0-9]*", user.partition(":")[0]), "a number needs no entry"
        return
    uid, gid, home = account
    assert uid >= 0
    assert gid >= 0
    assert home.startswith("/")
    assert home.strip("/")


def inspected(user: str, *variables: str) -> Container:
    started = {"Status": "running", "ExitCode": 0, "StartedAt": secrets.token_hex(8)}
    config = {"Image": "i", "Labels": None, "User": user, "Env": list(variables)}
    return Container.from_inspection(container(State=started, Config=config))


@pytest.mark.parametrize(
    ("user", "home"),
    [
        ("", "/root"),
        ("workspace", "/home/workspace"),
        ("1000:5", "/home/workspace"),
        ("nowhere", "/nonexistent"),
        ("empty", "/"),
        ("4321", "/"),
        ("unknown", "/"),
    ],
)
def test_a_containers_home_is_what_the_engine_gives_its_programs(user: str, home: str) -> None:
    """Looked up once a start: the engine is asked no second time."""
    found = inspected(user, "PATH=/bin", "HOME=")
    tar = archive.pack({"passwd": PASSWD.encode()})
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(tar), tar)
    with engine_of({"/containers/c1/archive": lambda: (200, chunks)}) as engine:
        assert read_home(engine, found) == home
    with engine_of({}) as engine:
        assert read_home(engine, found) == home


def test_a_variable_for_the_home_comes_first() -> None:
    with engine_of({}) as engine:
        assert read_home(engine, inspected("workspace", "HOME=/data")) == "/data"


def test_a_container_that_cant_be_looked_into_has_a_home_all_the_same() -> None:
    table: Table = {"/containers/c1/archive": lambda: (500, {"message": "being removed"})}
    with engine_of(table) as engine:
        assert read_home(engine, inspected("")) == "/"
