"""Homes with one session of each coding agent that has all that can go with it, and others beside.

And the questions of who deletes it: what exactly there is, down to modes and times, and all rows.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from perry.sessions.index import SessionIndex
from tests.sessions import test_codex, test_gemini, test_opencode, test_pi
from tests.sessions.homes import ClaudeHome, Home, user

Tree = dict[str, tuple[object, ...]]


def claude(home: Path) -> str:
    of = ClaudeHome(home)
    of.write("one.jsonl", [user("a"), user("side", isSidechain=True, agentId="x")])
    of.write("one.meta.json", [b"{}"])
    of.write("one/subagents/agent-b.jsonl", [user("b")])
    of.write("one/subagents/agent-b.meta.json", [b"{}"])
    of.write("one/tool-results/r.txt", [b"%d\n" % number for number in range(40_000)])
    of.write("agent-c.jsonl", [user("c", isSidechain=True)])
    of.write("two.jsonl", [user("d", sessionId="two")])
    (of.project / "one" / "empty").mkdir()
    (of.project / "one" / "a link").symlink_to("/etc/passwd")
    os.mkfifo(of.project / "one" / "pipe")
    (of.project / "one" / os.fsdecode(b"no text \xff")).write_bytes(b"\0\xff")
    return "one"


def opencode_files(home: Path) -> str:
    files = test_opencode.Files(home)
    for number in range(1, 4):
        files.session(f"ses_{number}", **({"parentID": "ses_1"} if number == 2 else {}))
        for turn in range(3):
            said = test_opencode.text(f"text {turn}")
            files.say(f"ses_{number}", f"msg_{number}{turn}", "user", said, said, created=turn)
    return "ses_1"


def opencode_database(home: Path) -> str:
    database = test_opencode.Database(home)
    database.run(schema=test_opencode.SCHEMA + "CREATE TABLE todo (session_id, position, any);")
    for number in range(1, 4):
        database.session(f"ses_{number}", parent="ses_1" if number == 2 else None)
        for turn in range(3):
            database.say(f"ses_{number}", "user", test_opencode.text(f"text {turn}"))
    values = (None, 1.5, 2**62, b"\0\xff", "text\0 and \N{SNOWMAN}", float("inf"))
    database.run(
        *(("INSERT INTO todo VALUES ('ses_1', ?, ?)", pair) for pair in enumerate(values)),
        ("INSERT INTO todo VALUES ('ses_3', 0, 'stays')", ()),
        ("INSERT INTO todo VALUES ('ses_1', 9, CAST(? AS TEXT))", (b"no text \xff",)),
    )
    return "ses_1"


def opencode_both(home: Path) -> str:
    opencode_files(home)
    return opencode_database(home)


def codex(home: Path) -> str:
    of = Home(home)
    of.write(test_codex.LOG, [*test_codex.START, test_codex.said("user", "hi")])
    of.write(test_codex.LOG.replace(test_codex.ID, "z"), [test_codex.said("user", "stays")])
    return test_codex.ID


def pi(home: Path) -> str:
    of = Home(home)
    of.write(test_pi.LOG, [test_pi.HEADER, test_pi.said("user", "hi")])
    of.write(
        test_pi.LOG.replace("one", "two"),
        [{**test_pi.HEADER, "id": "two"}, test_pi.said("user", "stays")],
    )
    return "one"


def gemini(home: Path) -> str:
    of, project, name = Home(home), ".gemini/tmp/proj", test_gemini.ID
    of.write(test_gemini.LOG, [test_gemini.HEADER, test_gemini.said("1", "user", "hi")])
    of.write(test_gemini.LOG.removesuffix("l"), test_gemini.DOCUMENT)
    sub = {**test_gemini.HEADER, "sessionId": "sub", "kind": "subagent"}
    of.write(f"{project}/chats/{name}/sub.jsonl", [sub, test_gemini.said("1", "user", "do")])
    of.write(f"{project}/tool-outputs/session-{name}/out.txt", [b"x"])
    of.write(f"{project}/logs/session-{name}.jsonl", [b"x"])
    of.write(f"{project}/{name}/plans/plan.md", [b"x"])
    of.write(f"{project}/logs.json", [b"[]"])
    of.write(".gemini/projects.json", {"projects": {"/home/dev": "proj"}})
    return name


HOMES: dict[str, Callable[[Path], str]] = {
    made.__name__: made
    for made in (claude, opencode_files, opencode_database, opencode_both, codex, pi, gemini)
}


def age(home: Path) -> None:
    """Give everything times and modes of its own, the times of long ago."""
    paths = sorted(home.rglob("*"), reverse=True)
    for number, path in enumerate(paths):
        modified = 1_600_000_000_123_456_789 + number * 1_000_000_007
        if path.is_file() and not path.is_symlink() and ".db" not in path.name:
            path.chmod((0o600, 0o640, 0o444)[number % 3])
        os.utime(path, ns=(modified, modified), follow_symlinks=False)


def tree(home: Path) -> Tree:
    """Tell all that there is but databases: kinds, modes, owners, times, and every byte."""
    found: Tree = {}
    for path in sorted(home.rglob("*")):
        if ".db" in path.name or path.name == "opencode" or ".cache" in path.parts:
            continue
        status = path.lstat()
        held: object = None
        if path.is_symlink():
            held = path.readlink()
        elif path.is_file():
            held = path.read_bytes()
        found[str(path.relative_to(home))] = (
            oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, held,
        )  # fmt: skip
    return found


def rows(home: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Give all rows of all tables of all databases, with the types of their values."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for path in sorted(home.rglob("*.db")):
        with closing(sqlite3.connect(path)) as connection:
            connection.text_factory = lambda data: ("text", data)
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for ((_, name),) in names.fetchall():
                table = name.decode()
                sql = f'SELECT rowid, * FROM "{table}" ORDER BY rowid'  # noqa: S608
                found[f"{path.name} {table}"] = connection.execute(sql).fetchall()
    return found


def remembering(home: Path) -> SessionIndex:
    """Read a home, and keep what is deleted in its cache directory."""
    index = SessionIndex.of_home(home, {}, remember=True)
    index.refresh()
    return index


def kept(home: Path) -> list[Path]:
    """What is kept of deletions."""
    directory = home / ".cache" / "perry" / "deleted"
    return sorted(path for path in directory.glob("*") if path.name != "lock")
