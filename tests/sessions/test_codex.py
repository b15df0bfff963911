"""Every line of the Codex format that readers get wrong, one test a claim."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from perry.errors import SessionNotFound
from tests.sessions.homes import Home, assert_invariant, every_message, shape

if TYPE_CHECKING:
    from pathlib import Path

ID = "01a20c24-5510-7403-9152-3188c446ebf5"
LOG = f".codex/sessions/2026/01/02/rollout-2026-01-02T03-04-05-{ID}.jsonl"
STAMP = "2026-01-02T03:04:05.000Z"
META = {"id": ID, "timestamp": STAMP, "cwd": "/home/dev/proj", "git": {"branch": "main"}}
CONTEXT = "<environment_context>\n  <cwd>/home/dev/old</cwd>\n</environment_context>"


def line(kind: str, payload: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"timestamp": STAMP, "type": kind, "payload": payload, **more}


def item(**payload: Any) -> dict[str, Any]:
    return line("response_item", payload)


def said(role: str, *texts: str, kinds: list[str] | None = None) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": text} for text in texts]
    passed = {"internal_chat_message_metadata_passthrough": {"content_item_kinds": kinds}}
    return item(type="message", role=role, content=content, **(passed if kinds else {}))


def event(kind: str, **more: Any) -> dict[str, Any]:
    return line("event_msg", {"type": kind, **more})


START = [line("session_meta", META), line("turn_context", {"model": "gpt-x", "cwd": "/else"})]


def test_messages_come_from_response_items_and_not_from_events(home: Home) -> None:
    home.write(
        LOG,
        [
            *START,
            event("user_message", message="hi"),
            said("user", "hi"),
            item(
                type="reasoning",
                summary=[{"type": "summary_text", "text": "hm"}],
                content=[{"type": "reasoning_text", "text": "so"}],
            ),
            item(type="reasoning", summary=[], encrypted_content="x"),
            event("agent_message", message="hello"),
            event("item_completed", item={"type": "AgentMessage", "content": []}),
            said("assistant", "hello", "again"),
            line("world_state", {"full": True}, ordinal=7),
            line("token_usage_record", {"usage": {}}),
        ],
    )
    index = home.index()
    assert shape(index, ID) == [
        ("user", "hi"),
        ("thinking", "hm\n\nso"),
        ("assistant", "hello"),
        ("assistant", "again"),
    ]
    session = index.get(ID)
    assert (session.title, session.first_prompt, session.skipped_lines) == ("hi", "hi", 0)
    assert (session.directory, session.git_branch, session.model) == (
        "/home/dev/proj",
        "main",
        "gpt-x",
    )
    assert session.started_at == session.last_activity == 1_767_323_045_000
    assert_invariant(index)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"type": "function_call", "name": "shell", "arguments": '{"a": 1}'}, '{"a": 1}'),
        ({"type": "function_call", "name": "shell", "arguments": {"a": 1}}, '{"a":1}'),
        ({"type": "function_call", "name": "shell", "arguments": "{broken"}, '"{broken"'),
        ({"type": "function_call", "name": "shell"}, "{}"),
        ({"type": "custom_tool_call", "name": "shell", "input": "*** Begin"}, '"*** Begin"'),
        ({"type": "local_shell_call", "name": "shell", "action": {"a": 1}}, '{"a":1}'),
    ],
)
def test_a_calls_input_is_json_text_however_it_was_written(
    home: Home, call: dict[str, Any], expected: str
) -> None:
    home.write(LOG, [*START, item(**call, call_id="c1")])
    (message,) = every_message(home.index(), ID)
    assert (message.type, message.tool_name, message.tool_id, message.tool_input) == (
        "tool_use",
        "shell",
        "c1",
        expected,
    )


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("a.txt", "a.txt"),
        ("", ""),
        ({"content": "a.txt", "success": True}, "a.txt"),
        ({"odd": 1}, '{"odd":1}'),
        (
            [
                {"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA"},
            ],
            "see\n[image image/png]",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["function_call_output", "custom_tool_call_output"])
def test_a_result_is_one_message_and_shares_the_calls_id(
    home: Home, kind: str, output: object, expected: str
) -> None:
    home.write(LOG, [*START, item(type=kind, call_id="c1", output=output)])
    (message,) = every_message(home.index(), ID)
    assert (message.type, message.content, message.tool_id) == ("tool_result", expected, "c1")


def test_other_calls_are_named_by_their_kind(home: Home) -> None:
    home.write(LOG, [*START, item(type="web_search_call", action={"query": "q"}, id="w1")])
    (message,) = every_message(home.index(), ID)
    assert (message.type, message.tool_name, message.tool_id) == ("tool_use", "web_search", "w1")


def test_what_the_client_put_in_is_no_message(home: Home) -> None:
    home.write(
        LOG,
        [
            *START,
            said("developer", "<permissions instructions>"),
            said("user", "# AGENTS.md instructions for /x", CONTEXT),
            said("user", "<user_instructions>be nice</user_instructions>"),
            said("user", CONTEXT, "real"),
        ],
    )
    assert shape(home.index(), ID) == [("user", "real")]


def test_where_texts_are_marked_the_marks_decide(home: Home) -> None:
    home.write(
        LOG,
        [
            *START,
            said("user", "<skill>", "# AGENTS.md is wrong", kinds=["skills.body", "user.text"]),
            said("user", "new kind of context", kinds=["something.else"]),
            said("assistant", "ok", kinds=["unknown"]),
        ],
    )
    index = home.index()
    assert shape(index, ID) == [("user", "# AGENTS.md is wrong"), ("assistant", "ok")]
    assert index.get(ID).first_prompt == "# AGENTS.md is wrong"


def test_a_compactions_summary_is_a_system_message(home: Home) -> None:
    replaced = [{"type": "message", "role": "user", "content": []}]
    compacted = line("compacted", {"message": "so far", "replacement_history": replaced})
    home.write(LOG, [*START, said("user", "go"), compacted])
    assert shape(home.index(), ID) == [("user", "go"), ("system", "so far")]


def test_tokens_are_the_last_total_and_no_info_says_nothing(home: Home) -> None:
    def count(sent: int, received: int) -> dict[str, Any]:
        total = {"input_tokens": sent, "output_tokens": received}
        return event("token_count", info={"total_token_usage": total})

    home.write(LOG, [*START, count(1, 2), count(30, 40), event("token_count", info=None)])
    session = home.index().get(ID)
    assert (session.input_tokens, session.output_tokens) == (30, 40)


OLD: list[dict[str, Any]] = [
    {"id": ID, "timestamp": STAMP, "instructions": None, "git": {"branch": "dev"}},
    {"record_type": "state"},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": CONTEXT}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "old"}]},
    {"record_type": "state"},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
    {"type": "function_call", "name": "shell", "arguments": "{}", "call_id": "c1"},
    {"type": "function_call_output", "call_id": "c1", "output": "done"},
]


def test_the_oldest_age_has_bare_items_and_its_directory_in_the_context(home: Home) -> None:
    home.write(LOG, OLD)
    index = home.index()
    messages = every_message(index, ID)
    assert [(m.type, m.content) for m in messages] == [
        ("user", "old"),
        ("thinking", "hm"),
        ("tool_use", "shell"),
        ("tool_result", "done"),
    ]
    assert messages[0].timestamp is None
    session = index.get(ID)
    assert (session.directory, session.git_branch, session.skipped_lines) == (
        "/home/dev/old",
        "dev",
        0,
    )
    assert session.started_at == 1_767_323_045_000


def test_a_resumed_old_log_mixes_ages(home: Home) -> None:
    home.write(LOG, [*OLD, *START, said("assistant", "new")])
    index = home.index()
    assert shape(index, ID)[-1] == ("assistant", "new")
    session = index.get(ID)
    assert (session.directory, session.git_branch, session.model) == (
        "/home/dev/old",
        "dev",
        "gpt-x",
    )


def test_a_payload_without_a_type_is_a_message_by_its_role(home: Home) -> None:
    home.write(LOG, [*START, item(role="user", content="plain")])
    assert shape(home.index(), ID) == [("user", "plain")]


def test_a_fork_is_described_by_its_own_first_line(home: Home) -> None:
    own = {**META, "id": "fork", "forked_from_id": ID, "cwd": "/fork"}
    home.write(LOG, [*START, said("user", "parent")])
    home.write(
        LOG.replace(ID, "x"),
        [line("session_meta", own), *START, said("user", "parent"), said("user", "mine")],
    )
    index = home.index()
    session = index.get("fork")
    assert (session.directory, session.parent_id, session.message_count) == ("/fork", None, 2)
    assert {s.id for s in index.list()} == {"fork", ID}


def test_a_subagent_is_the_child_of_the_session_that_spawned_it(home: Home) -> None:
    source = {"subagent": {"thread_spawn": {"parent_thread_id": ID, "depth": 1}}}
    home.write(LOG, [*START, said("user", "main")])
    child = line("session_meta", {**META, "id": "child", "source": source})
    home.write(LOG.replace(ID, "y"), [child, said("user", "sub")])
    index = home.index()
    assert index.get("child").parent_id == ID
    assert [s.id for s in index.list()] == [ID]


def test_a_log_without_a_description_has_its_id_from_its_name(home: Home) -> None:
    home.write(LOG, [b"{broken\n", said("user", "hi")])
    session = home.index().get(ID)
    assert (session.message_count, session.skipped_lines) == (1, 1)


def test_an_interrupted_run_is_known_and_not_listed(home: Home) -> None:
    home.write(LOG, [*START, said("user", CONTEXT)])
    index = home.index()
    assert index.list() == []
    assert index.get(ID).title == ID


def test_an_archived_log_moves_and_keeps_its_id(home: Home) -> None:
    path = home.write(LOG, [*START, said("user", "hi")])
    index = home.index()
    archived = home.home / ".codex" / "archived_sessions" / path.name
    archived.parent.mkdir()
    shutil.move(path, archived)
    index.apply([path, archived])
    assert [(s.id, s.file_path) for s in index.list()] == [(ID, str(archived))]


def name(home: Home, number: int, title: str | None, column: str = "name TEXT") -> Path:
    path = home.home / ".codex" / f"state_{number}.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute(f"CREATE TABLE IF NOT EXISTS threads (id TEXT, {column})")
        connection.execute("INSERT INTO threads VALUES (?, ?)", (ID, title))
        connection.commit()
    return path


def test_the_title_is_the_name_in_the_newest_database(home: Home) -> None:
    home.write(LOG, [*START, said("user", "hi")])
    home.write(".codex/session_index.jsonl", [{"id": ID, "thread_name": "logged"}])
    name(home, 9, "older")
    name(home, 10, "newer")
    assert home.index().get(ID).title == "newer"


def test_a_database_without_names_leaves_the_title_to_the_log_of_names(home: Home) -> None:
    home.write(LOG, [*START, said("user", "hi")])
    name(home, 4, "not a name", "title TEXT")
    name(home, 5, None)
    assert home.index().get(ID).title == "hi"
    names: list[dict[str, Any] | bytes] = [
        {"id": ID, "thread_name": "first"},
        b"{broken\n",
        {"id": ID, "thread_name": "last"},
    ]
    home.write(".codex/session_index.jsonl", names)
    index = home.index()
    assert (index.get(ID).title, index.skipped_lines()) == ("last", 1)


def test_a_new_name_appears_when_its_file_changes(home: Home) -> None:
    home.write(LOG, [*START, said("user", "hi")])
    index = home.index()
    index.apply([home.write(".codex/session_index.jsonl", [{"id": ID, "thread_name": "one"}])])
    assert index.get(ID).title == "one"
    database = name(home, 5, "two")
    index.apply([database.with_name("state_5.sqlite-wal")])
    assert index.get(ID).title == "two"


def test_reading_names_changes_no_byte_beside_them(home: Home) -> None:
    home.write(LOG, [*START, said("user", "hi")])
    name(home, 5, "kept")
    base = home.home / ".codex"
    before = {p.name: p.read_bytes() for p in base.iterdir() if p.is_file()}
    assert home.index().get(ID).title == "kept"
    assert {p.name: p.read_bytes() for p in base.iterdir() if p.is_file()} == before


def test_a_database_that_is_none_is_named_and_costs_no_session(home: Home) -> None:
    home.write(LOG, [*START, said("user", "hi")])
    home.write(".codex/state_5.sqlite", [b"nothing of the kind" * 300])
    index = home.index()
    assert index.get(ID).title == "hi"
    assert list(index.unreadable().values()) == ["file is not a database"]


def test_codex_home_is_read_instead(tmp_path: Path) -> None:
    home = Home(tmp_path, CODEX_HOME=str(tmp_path / "elsewhere"))
    home.write(LOG.replace(".codex", "elsewhere"), [*START, said("user", "hi")])
    home.write(LOG.replace(ID, "z"), [said("user", "not here")])
    assert [s.id for s in home.index().list()] == [ID]


def test_delete_takes_the_log(home: Home) -> None:
    path = home.write(LOG, [*START, said("user", "hi")])
    index = home.index()
    index.delete(ID)
    assert not path.exists()
    with pytest.raises(SessionNotFound):
        index.get(ID)
