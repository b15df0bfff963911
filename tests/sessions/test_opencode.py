"""OpenCode's database and JSON layouts, read as its clients wrote them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from perry.errors import SessionNotFound
from perry.sessions.index import SessionIndex
from tests.sessions.homes import assert_invariant, every_message

SCHEMA = """
CREATE TABLE session (id text PRIMARY KEY, project_id text, parent_id text, slug text,
  directory text NOT NULL, title text NOT NULL, version text, time_created integer NOT NULL,
  time_updated integer NOT NULL, time_archived integer);
CREATE TABLE message (id text PRIMARY KEY, session_id text NOT NULL REFERENCES session(id)
  ON DELETE CASCADE, time_created integer NOT NULL, time_updated integer NOT NULL,
  data text NOT NULL);
CREATE TABLE part (id text PRIMARY KEY, message_id text NOT NULL, session_id text NOT NULL,
  time_created integer NOT NULL, time_updated integer NOT NULL, data text NOT NULL);
CREATE TABLE event_sequence (aggregate_id text PRIMARY KEY, seq integer NOT NULL);
CREATE TABLE event (id text PRIMARY KEY, aggregate_id text NOT NULL, seq integer NOT NULL);
"""
TOOL = {
    "type": "tool",
    "tool": "bash",
    "callID": "c1",
    "state": {"status": "completed", "input": {"command": "ls"}, "output": "a.txt"},
}


class Database:
    def __init__(self, home: Path, name: str = "opencode.db") -> None:
        self.home = home
        self.path = home / ".local" / "share" / "opencode" / name
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.clock = 1_700_000_000_000

    def run(self, *statements: tuple[str, tuple[Any, ...]], schema: str = "") -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(schema)
            for sql, values in statements:
                connection.execute(sql, values)
            connection.commit()

    def session(self, identifier: str, title: str = "A title", parent: str | None = None) -> None:
        self.run(
            (
                "INSERT INTO session VALUES (?, 'p', ?, 's', '/home/dev', ?, '1', ?, ?, NULL)",
                (identifier, parent, title, self.clock, self.clock),
            ),
            ("INSERT INTO event_sequence VALUES (?, 1)", (identifier,)),
            ("INSERT INTO event VALUES (?, ?, 1)", (f"evt_{identifier}", identifier)),
        )

    def say(self, session: str, role: str, *parts: dict[str, Any] | str, **more: Any) -> None:
        self.clock += 1000
        message = f"msg_{self.clock}"
        rows: list[tuple[str, tuple[Any, ...]]] = [
            (
                "INSERT INTO message VALUES (?, ?, ?, ?, ?)",
                (message, session, self.clock, self.clock, json.dumps({"role": role, **more})),
            )
        ]
        for number, part in enumerate(parts):
            data = part if isinstance(part, str) else json.dumps(part)
            key = f"prt_{self.clock}_{number}"
            rows.append(
                (
                    "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)",
                    (key, message, session, self.clock, self.clock, data),
                )
            )
        self.run(*rows)

    def index(self, **env: str) -> SessionIndex:
        index = SessionIndex.of_home(self.home, env)
        index.refresh()
        return index

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.path.parent.iterdir())}

    def count(self, table: str) -> int:
        with closing(sqlite3.connect(self.path)) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(tmp_path)
    database.run(schema=SCHEMA)
    return database


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def test_parts_become_messages_in_their_order(database: Database) -> None:
    database.session("ses_1")
    database.say("ses_1", "user", text("hi"), {"type": "file", "mime": "image/png", "url": "data:"})
    reasoning = {"type": "reasoning", "text": "hm"}
    steps = {"type": "step-start"}, {"type": "step-finish"}, {"type": "reasoning", "text": ""}
    tokens = {"input": 7, "output": 3}
    database.say(
        "ses_1", "assistant", *steps, reasoning, TOOL, text("done"), modelID="m1", tokens=tokens
    )
    index = database.index()
    messages = every_message(index, "ses_1")
    assert [(m.type, m.content) for m in messages] == [
        ("user", "hi"),
        ("user", "[image image/png]"),
        ("thinking", "hm"),
        ("tool_use", "bash"),
        ("tool_result", "a.txt"),
        ("assistant", "done"),
    ]
    assert {m.tool_id for m in messages[3:5]} == {"c1"}
    session = index.get("ses_1")
    assert (session.title, session.first_prompt, session.model) == ("A title", "hi", "m1")
    assert (session.input_tokens, session.output_tokens) == (7, 3)
    assert session.directory == "/home/dev"
    assert_invariant(index)


def test_a_running_call_has_no_result_yet_and_a_failed_one_has(database: Database) -> None:
    database.session("ses_1")
    running = {**TOOL, "state": {"status": "running", "input": {}}}
    failed = {**TOOL, "state": {"status": "error", "input": {}, "error": "no"}}
    database.say("ses_1", "assistant", running, failed)
    kinds = [(m.type, m.content) for m in every_message(database.index(), "ses_1")]
    assert kinds == [("tool_use", "bash"), ("tool_use", "bash"), ("tool_result", "no")]


def test_a_title_that_means_none_yet_gives_way_to_the_prompt(database: Database) -> None:
    database.session("ses_1", "New session - 2026-01-02T03:04:05.678Z")
    database.say("ses_1", "user", text('"fix it"'))
    assert database.index().get("ses_1").title == "fix it"


def test_children_are_listed_only_when_asked_for(database: Database) -> None:
    for name, parent in (("ses_1", None), ("ses_2", "ses_1")):
        database.session(name, parent=parent)
        database.say(name, "user", text("hi"))
    index = database.index()
    assert [s.id for s in index.list()] == ["ses_1"]
    assert {s.parent_id for s in index.list(children=True)} == {None, "ses_1"}


def test_a_row_that_is_no_json_is_counted_and_costs_nothing_else(database: Database) -> None:
    database.session("ses_1")
    database.say("ses_1", "user", text("hi"), "{broken", '{"type":"text","text":"a\\ud83d"}')
    session = database.index().get("ses_1")
    assert (session.message_count, session.skipped_lines) == (2, 1)


def test_only_the_columns_that_exist_are_asked_for(tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.run(
        ("INSERT INTO session VALUES ('ses_1', 'old')", ()),
        ("INSERT INTO message VALUES ('m', 'ses_1', '{\"role\":\"user\"}')", ()),
        ('INSERT INTO part VALUES (\'p\', \'m\', \'{"type":"text","text":"hi"}\')', ()),
        schema="CREATE TABLE session (id, title); CREATE TABLE message (id, session_id, data);"
        "CREATE TABLE part (id, message_id, data);",
    )
    assert database.index().get("ses_1").message_count == 1


def test_new_rows_appear_when_the_wal_changes(database: Database) -> None:
    database.session("ses_1")
    database.say("ses_1", "user", text("a"))
    index = database.index()
    database.say("ses_1", "assistant", text("b"))
    index.apply([database.path.with_name("opencode.db-wal")])
    assert index.get("ses_1").message_count == 2


WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA journal_mode=wal")
connection.execute("PRAGMA wal_autocheckpoint=0")
connection.execute("UPDATE session SET title = 'in the wal'")
connection.commit()
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_database_that_a_client_holds_open_is_read_without_changing_a_byte(
    database: Database,
) -> None:
    database.session("ses_1")
    database.say("ses_1", "user", text("hi"))
    command = [sys.executable, "-c", WRITER, str(database.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        before = database.files()
        assert set(before) == {"opencode.db", "opencode.db-wal", "opencode.db-shm"}
        index = database.index()
        assert index.get("ses_1").title == "in the wal"
        assert_invariant(index)
        assert database.files() == before
        assert writer.stdin is not None
        writer.stdin.close()


@pytest.mark.parametrize("kept", [("-wal", "-shm"), ("-wal",)])
def test_what_a_dead_client_left_in_the_wal_is_read_without_changing_a_byte(
    database: Database, tmp_path: Path, kept: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    database.session("ses_1")
    database.say("ses_1", "user", text("hi"))
    left = Database(tmp_path / "left")
    with closing(sqlite3.connect(database.path)) as client:
        client.execute("PRAGMA journal_mode=wal")
        client.execute("UPDATE session SET title = 'in the wal'")
        client.commit()
        for suffix in ("", *kept):
            shutil.copyfile(f"{database.path}{suffix}", f"{left.path}{suffix}")
    before = left.files()
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    index = left.index()
    assert index.get("ses_1").title == "in the wal"
    assert_invariant(index)
    assert left.files() == before
    assert list(copies.iterdir()) == []


def test_a_database_in_wal_mode_without_a_wal_is_left_alone(database: Database) -> None:
    database.session("ses_1")
    database.say("ses_1", "user", text("hi"))
    database.run(("PRAGMA journal_mode=wal", ()))
    before = database.files()
    assert database.index().get("ses_1").message_count == 1
    assert database.files() == before


def test_a_file_that_is_no_database_is_named_with_its_reason(database: Database) -> None:
    database.path.write_bytes(b"nothing of the kind" * 300)
    index = database.index()
    assert index.list() == []
    assert list(index.unreadable().values()) == ["file is not a database"]


def test_opencode_db_names_another_database_and_channels_have_their_own(tmp_path: Path) -> None:
    for name in ("mine.sqlite", "opencode-dev.db"):
        database = Database(tmp_path, name)
        database.run(schema=SCHEMA)
        database.session(f"ses_{name}")
        database.say(f"ses_{name}", "user", text("hi"))
    ids = {s.id for s in database.index(OPENCODE_DB="mine.sqlite").list()}
    assert ids == {"ses_mine.sqlite", "ses_opencode-dev.db"}


def test_delete_takes_children_messages_parts_and_events(database: Database) -> None:
    for name, parent in (("ses_1", None), ("ses_2", "ses_1"), ("ses_3", None)):
        database.session(name, parent=parent)
        database.say(name, "user", text("hi"))
    index = database.index()
    index.delete("ses_1")
    assert [s.id for s in index.list(children=True)] == ["ses_3"]
    tables = ("session", "message", "part", "event", "event_sequence")
    assert {table: database.count(table) for table in tables} == dict.fromkeys(tables, 1)


class Files:
    """The JSON layout of 1.1."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.storage = home / ".local" / "share" / "opencode" / "storage"

    def put(self, place: str, data: object) -> Path:
        path = self.storage / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        return path

    def session(self, identifier: str, **more: Any) -> Path:
        info = {
            "id": identifier,
            "directory": "/home/dev",
            "title": "T",
            "time": {"created": 5_000},
        }
        return self.put(f"session/p1/{identifier}.json", {**info, **more})

    def say(self, session: str, message: str, role: str, *parts: object, created: int) -> Path:
        data = {"id": message, "role": role, "time": {"created": 1_700_000_000_000 + created}}
        path = self.put(f"message/{session}/{message}.json", data)
        for number, part in enumerate(parts):
            self.put(f"part/{message}/prt_{number}.json", part)
        return path

    def index(self) -> SessionIndex:
        index = SessionIndex.of_home(self.home, {})
        index.refresh()
        return index


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(tmp_path)
    files.session("ses_1")
    files.say("ses_1", "msg_b", "user", text("first"), created=1)
    files.say("ses_1", "msg_a", "assistant", TOOL, text("second"), created=2)
    return files


def test_json_messages_are_ordered_by_creation(files: Files) -> None:
    index = files.index()
    contents = [m.content for m in every_message(index, "ses_1")]
    assert contents == ["first", "bash", "a.txt", "second"]
    assert index.get("ses_1").last_activity == 1_700_000_000_002
    assert_invariant(index)


def test_a_changed_part_or_message_belongs_to_its_session(files: Files) -> None:
    index = files.index()
    index.apply([files.put("part/msg_a/prt_9.json", text("third"))])
    assert index.get("ses_1").message_count == 5
    index.apply([files.say("ses_1", "msg_c", "user", text("fourth"), created=3)])
    assert index.get("ses_1").message_count == 6
    shutil.rmtree(files.storage / "part" / "msg_a")
    index.apply([files.storage / "part" / "msg_a"])
    assert index.get("ses_1").message_count == 2
    assert_invariant(index)


def test_a_half_written_json_file_is_counted_until_it_is_whole(files: Files) -> None:
    path = files.put("part/msg_a/prt_9.json", b'{"type":"te')
    index = files.index()
    assert (index.get("ses_1").message_count, index.get("ses_1").skipped_lines) == (4, 1)
    files.put("part/msg_a/prt_9.json", text("whole"))
    index.apply([path])
    assert (index.get("ses_1").message_count, index.get("ses_1").skipped_lines) == (5, 0)


def test_the_oldest_layout_is_read_too(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.storage = files.storage.parent / "project" / "home-dev" / "storage" / "session"
    files.put("info/ses_0.json", {"id": "ses_0", "title": "Old", "time": {"created": 1}})
    message = {"role": "assistant", "path": {"cwd": "/home/dev"}, "time": {"created": 2}}
    files.put("message/ses_0/msg_1.json", message)
    part = files.put("part/ses_0/msg_1/prt_1.json", text("hello"))
    index = files.index()
    session = index.get("ses_0")
    assert (session.title, session.directory, session.message_count) == ("Old", "/home/dev", 1)
    files.put("part/ses_0/msg_1/prt_2.json", text("more"))
    index.apply([part.with_name("prt_2.json")])
    assert index.get("ses_0").message_count == 2
    index.delete("ses_0")
    assert list(files.storage.rglob("*.json")) == []


def test_the_database_wins_over_json_files_of_the_same_id(files: Files, database: Database) -> None:
    files.session("ses_2")
    files.say("ses_2", "msg_z", "user", text("only in files"), created=9)
    database.session("ses_1", "From the database")
    database.say("ses_1", "user", text("hi"))
    index = files.index()
    assert {s.id: s.message_count for s in index.list()} == {"ses_1": 1, "ses_2": 1}
    assert index.get("ses_1").title == "From the database"


def test_delete_takes_the_json_copy_along_or_it_would_come_back(
    files: Files, database: Database
) -> None:
    database.session("ses_1")
    database.say("ses_1", "user", text("hi"))
    index = files.index()
    index.delete("ses_1")
    index.refresh()
    with pytest.raises(SessionNotFound):
        index.get("ses_1")
    assert list(files.storage.rglob("*.json")) == []
