"""Every line of the Gemini CLI format that readers get wrong, one test a claim."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from perry.errors import SessionNotFound
from perry.sessions.index import SessionIndex
from tests.sessions.homes import Home, assert_invariant, every_message, shape

if TYPE_CHECKING:
    from pathlib import Path

ID = "4d339ce1-3438-4b3f-9526-78bd5d181725"
LOG = ".gemini/tmp/proj/chats/session-2026-01-02T03-04-4d339ce1.jsonl"
STAMP = "2026-01-02T03:04:05.000Z"
HEADER = {"sessionId": ID, "projectHash": "h", "startTime": STAMP, "lastUpdated": STAMP}
CONTEXT = (
    "<session_context>\nThis is the Gemini CLI.\n- **Workspace Directories:**\n"
    "  - /home/dev/noted\n- **Directory Structure:**\n</session_context>"
)
CALL = {
    "id": "c1",
    "name": "read_file",
    "args": {"path": "a"},
    "status": "success",
    "result": [{"functionResponse": {"id": "c1", "name": "x", "response": {"output": "a.txt"}}}],
    "resultDisplay": "shown",
}


def said(identifier: str, kind: str, content: object, **more: Any) -> dict[str, Any]:
    return {"id": identifier, "type": kind, "timestamp": STAMP, "content": content, **more}


def contents(index: SessionIndex) -> list[str]:
    return [content for _, content in shape(index, ID)]


def test_thoughts_texts_and_calls_become_messages(home: Home) -> None:
    home.write(
        LOG,
        [
            HEADER,
            said("0", "user", [{"text": CONTEXT}]),
            said("1", "user", [{"text": "hi"}, {"inlineData": {"mimeType": "image/png"}}]),
            said(
                "2",
                "gemini",
                "hello",
                thoughts=[{"subject": "S", "description": "d", "timestamp": STAMP}],
                toolCalls=[CALL, {"id": "c2", "name": "run", "args": {}, "status": "executing"}],
                tokens={"input": 10, "output": 3},
                model="g1",
            ),
            said("3", "gemini", [{"text": "so", "thought": True}, "plain", {"text": ""}]),
            said("4", "info", "an info"),
            said("5", "error", [{"text": "an error"}]),
            said("6", "warning", "a warning"),
        ],
    )
    index = home.index()
    messages = every_message(index, ID)
    assert [(m.type, m.content) for m in messages] == [
        ("user", "hi"),
        ("user", "[image image/png]"),
        ("thinking", "S\nd"),
        ("assistant", "hello"),
        ("tool_use", "read_file"),
        ("tool_result", "a.txt"),
        ("tool_use", "run"),
        ("thinking", "so"),
        ("assistant", "plain"),
        ("system", "an info"),
        ("system", "an error"),
        ("system", "a warning"),
    ]
    assert messages[4].tool_input == '{"path":"a"}'
    assert messages[4].tool_id == messages[5].tool_id == "c1"
    session = index.get(ID)
    assert (session.title, session.first_prompt, session.model) == ("hi", "hi", "g1")
    assert (session.input_tokens, session.output_tokens) == (10, 3)
    assert session.directory == "/home/dev/noted"
    assert session.started_at == session.last_activity == 1_767_323_045_000
    assert_invariant(index)


def test_a_result_repeated_as_a_user_message_counts_once(home: Home) -> None:
    response = [{"functionResponse": {"id": "c1", "response": {"output": "a.txt"}}}]
    home.write(
        LOG,
        [HEADER, said("1", "gemini", "", toolCalls=[CALL]), said("2", "user", response)],
    )
    index = home.index()
    assert shape(index, ID) == [("tool_use", "read_file"), ("tool_result", "a.txt")]
    index.apply([home.append(LOG, [{"$rewindTo": "1"}, said("2", "user", response)])])
    assert shape(index, ID) == [("tool_result", "a.txt")]
    assert_invariant(index)


def test_a_part_that_is_a_call_and_a_result_is_a_call(home: Home) -> None:
    part = {"functionCall": {"id": "c1"}, "functionResponse": {"id": "c1"}}
    home.write(LOG, [HEADER, said("1", "gemini", "", toolCalls=[CALL]), said("2", "user", [part])])
    index = home.index()
    assert [kind for kind, _ in shape(index, ID)] == ["tool_use", "tool_result", "tool_use"]
    assert_invariant(index)


def test_calls_of_a_resumed_history_stand_in_the_content(home: Home) -> None:
    call = [{"functionCall": {"id": "c9", "name": "run", "args": {"a": 1}}}]
    response = [{"functionResponse": {"id": "c9", "name": "run", "response": {"error": "no"}}}]
    history = [said("1", "gemini", call), said("2", "user", response)]
    home.write(LOG, [HEADER, {"$set": {"messages": history}}])
    messages = every_message(home.index(), ID)
    assert [(m.type, m.content, m.tool_id) for m in messages] == [
        ("tool_use", "run", "c9"),
        ("tool_result", "no", "c9"),
    ]


def test_a_record_of_a_known_id_replaces_the_earlier_one_in_its_place(home: Home) -> None:
    home.write(LOG, [HEADER, said("1", "gemini", "draft"), said("2", "user", "next")])
    index = home.index()
    index.apply([home.append(LOG, [said("1", "gemini", ["final", "more"])])])
    assert contents(index) == ["final", "more", "next"]
    assert_invariant(index)


def test_a_rewind_drops_its_message_and_all_after_it(home: Home) -> None:
    home.write(LOG, [HEADER, *(said(str(n), "user", f"m{n}") for n in range(5))])
    index = home.index()
    index.apply([home.append(LOG, [{"$rewindTo": "2"}, said("9", "user", "instead")])])
    assert contents(index) == ["m0", "m1", "instead"]
    index.apply([home.append(LOG, [{"$rewindTo": "unknown"}])])
    assert index.list() == []


def test_set_merges_and_its_messages_replace_all(home: Home) -> None:
    home.write(LOG, [HEADER, said("1", "user", "first"), said("2", "user", "second")])
    index = home.index()
    later = "2026-01-02T04:00:00.000Z"
    index.apply([home.append(LOG, [{"$set": {"lastUpdated": later, "summary": "about"}}])])
    session = index.get(ID)
    assert (session.title, session.last_activity) == ("about", 1_767_326_400_000)
    replaced = [said("1", "user", "first"), "odd", said("3", "user", "third")]
    index.apply([home.append(LOG, [{"$set": {"messages": replaced}}, said("3", "user", "3rd")])])
    assert contents(index) == ["first", "3rd"]
    assert index.get(ID).skipped_lines == 1
    assert_invariant(index)


def test_a_resumed_log_describes_itself_again(home: Home) -> None:
    again = {**HEADER, "startTime": "2026-01-03T00:00:00.000Z"}
    context = {"$set": {"messages": [said("0", "user", [{"text": CONTEXT}])]}}
    history = {"$set": {"messages": [said("1", "user", "first")]}}
    home.write(
        LOG, [HEADER, said("1", "user", "first"), again, context, history, said("2", "user", "x")]
    )
    index = home.index()
    assert contents(index) == ["first", "x"]
    assert index.get(ID).started_at == 1_767_323_045_000
    assert index.get(ID).first_prompt == "first"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["/help", "?", "real"], "real"),
        (["/help"], "/help"),
        ([CONTEXT, "real"], "real"),
        (
            [[{"text": "see @a"}, {"text": "\n--- Content from referenced files ---"}, "x"]],
            "see @a",
        ),
    ],
)
def test_the_first_prompt_is_what_a_person_typed(
    home: Home, texts: list[object], expected: str
) -> None:
    home.write(LOG, [HEADER, *(said(str(n), "user", text) for n, text in enumerate(texts))])
    session = home.index().get(ID)
    assert (session.first_prompt, session.title) == (expected, expected)


DOCUMENT = {
    "sessionId": ID,
    "projectHash": "h",
    "startTime": STAMP,
    "lastUpdated": STAMP,
    "summary": "A summary",
    "messages": [said("1", "user", "hi"), said("1", "gemini", "hello", toolCalls=[CALL])],
}


def test_a_document_is_read_whole_and_again_when_it_changes(home: Home) -> None:
    name = LOG.removesuffix("l")
    path = home.write(name, DOCUMENT)
    index = home.index()
    assert contents(index) == ["hi", "hello", "read_file", "a.txt"]
    assert index.get(ID).title == "A summary"
    assert_invariant(index)
    messages = [*DOCUMENT["messages"], said("3", "user", "bye")]
    index.apply([home.write(name, {**DOCUMENT, "messages": messages})])
    assert contents(index)[-1] == "bye"
    path.write_bytes(path.read_bytes()[:-9])
    index.apply([path])
    assert index.list() == []
    assert index.skipped_lines() == 1


def test_a_document_carried_on_as_a_log_is_one_session_and_is_deleted_as_one(home: Home) -> None:
    document = home.write(LOG.removesuffix("l"), DOCUMENT)
    index = home.index()
    index.apply([home.write(LOG, [HEADER, said("1", "user", "hi"), said("2", "user", "more")])])
    assert [s.id for s in index.list(children=True)] == [ID]
    assert contents(index) == ["hi", "more"]
    index.delete(ID)
    assert not document.exists()
    assert home.index().list() == []


def test_a_page_of_a_document_replaced_behind_the_index_is_the_new_ones(home: Home) -> None:
    name = LOG.removesuffix("l")
    home.write(name, DOCUMENT)
    index = home.index()
    home.write(name, {**DOCUMENT, "messages": [said("1", "user", "new")]})
    page = index.messages(ID, limit=10, offset=0)
    assert ([m.content for m in page.messages], page.total) == (["new"], 1)


def test_subagents_are_children_of_the_session_whose_folder_they_are_in(home: Home) -> None:
    home.write(LOG, [HEADER, said("1", "user", "main")])
    sub = {**HEADER, "sessionId": "sub", "kind": "subagent"}
    index = home.index()
    path = home.write(f".gemini/tmp/proj/chats/{ID}/sub.jsonl", [sub, said("1", "user", "do")])
    index.apply([path])
    assert [s.id for s in index.list()] == [ID]
    assert index.get("sub").parent_id == ID
    index.delete(ID)
    assert index.list(children=True) == []
    assert not path.parent.exists()


def directory(home: Home) -> str:
    return home.index().get(ID).directory


def test_the_projects_own_file_tells_the_directory(home: Home) -> None:
    home.write(LOG, [HEADER, said("0", "user", CONTEXT), said("1", "user", "hi")])
    home.write(".gemini/projects.json", {"projects": {"/home/dev/listed": "proj"}})
    assert directory(home) == "/home/dev/listed"
    index = home.index()
    index.apply([home.write(".gemini/tmp/proj/.project_root", [b"/home/dev/own"])])
    assert index.get(ID).directory == "/home/dev/own"


@pytest.mark.parametrize("place", ["folder", "record"])
def test_a_hash_is_matched_with_the_directories_that_are_known(home: Home, place: str) -> None:
    digest = hashlib.sha256(b"/home/dev/known").hexdigest()
    project = digest if place == "folder" else "nameless"
    header = HEADER if place == "folder" else {**HEADER, "projectHash": digest}
    home.write(LOG.replace("proj", project), [header, said("1", "user", "hi")])
    assert directory(home) == ""
    home.write(".gemini/projects.json", {"projects": {"/home/dev/known": "other"}})
    assert directory(home) == "/home/dev/known"


def test_bad_lines_are_counted_and_cost_nothing_else(home: Home) -> None:
    home.write(LOG, [HEADER, b"{broken\n", b"[1]\n", {"odd": 1}, said("1", "user", "hi")])
    session = home.index().get(ID)
    assert (session.message_count, session.skipped_lines) == (1, 3)


def test_other_files_of_a_project_are_no_sessions(home: Home) -> None:
    home.write(LOG, [HEADER, said("1", "user", "hi")])
    for name in ("logs.json", "checkpoint-x.json", "shell_history", "chats/notes.txt"):
        path = home.write(f".gemini/tmp/proj/{name}", [b"{}"])
        index = home.index()
        index.apply([path])
        assert [s.id for s in index.list()] == [ID]
        assert index.skipped_lines() == 0


def test_a_new_or_deleted_directory_is_looked_through_whole(home: Home) -> None:
    index = home.index()
    path = home.write(LOG, [HEADER, said("1", "user", "hi")])
    for changed in (path.parent, path.parent.parent, home.home / ".gemini"):
        fresh = SessionIndex.of_home(home.home, {})
        fresh.apply([changed])
        assert [s.id for s in fresh.list()] == [ID]
    index.apply([path.parent])
    path.unlink()
    path.parent.rmdir()
    index.apply([path.parent])
    assert index.list() == []


def test_the_configured_home_is_read_instead(tmp_path: Path) -> None:
    home = Home(tmp_path, GEMINI_CLI_HOME=str(tmp_path / "mine"))
    home.write(f"mine/{LOG}", [HEADER, said("1", "user", "hi")])
    home.write(LOG, [{**HEADER, "sessionId": "x"}, said("1", "user", "not here")])
    assert [s.id for s in home.index().list()] == [ID]


def test_delete_takes_the_side_files_of_that_session_only(home: Home) -> None:
    path = home.write(LOG, [HEADER, said("1", "user", "hi")])
    mine = [
        home.write(f".gemini/tmp/proj/tool-outputs/session-{ID}/out.txt", [b"x"]),
        home.write(f".gemini/tmp/proj/logs/session-{ID}.jsonl", [b"x"]),
        home.write(f".gemini/tmp/proj/{ID}/plans/plan.md", [b"x"]),
    ]
    other = home.write(".gemini/tmp/proj/logs.json", [b"[]"])
    index = home.index()
    index.delete(ID)
    assert not any(file.exists() for file in (path, *mine))
    assert other.exists()
    with pytest.raises(SessionNotFound):
        index.get(ID)
