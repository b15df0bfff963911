"""Every line of the Pi format that readers get wrong, one test a claim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from perry.errors import SessionNotFound
from tests.sessions.homes import Home, assert_invariant, every_message, shape

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ".pi/agent/sessions/--home-dev-proj--"
LOG = f"{FOLDER}/2026-01-02T03-04-05-000Z_one.jsonl"
STAMP = "2026-01-02T03:04:05.000Z"
HEADER = {"type": "session", "version": 3, "id": "one", "timestamp": STAMP, "cwd": "/home/dev/proj"}


def entry(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "id": "e", "parentId": None, "timestamp": STAMP, **more}


def said(role: str, content: object, **more: Any) -> dict[str, Any]:
    return entry("message", message={"role": role, "content": content, **more})


def test_blocks_become_messages_in_their_order(home: Home) -> None:
    call = {"type": "toolCall", "id": "c1", "name": "bash", "arguments": {"command": "ls"}}
    result = [{"type": "text", "text": "a.txt"}, {"type": "image", "mimeType": "image/png"}]
    home.write(
        LOG,
        [
            HEADER,
            entry("model_change", provider="p", modelId="other"),
            entry("thinking_level_change", thinkingLevel="high"),
            said("user", "plain"),
            said("user", [{"type": "text", "text": "block"}, {"type": "image", "data": "x"}]),
            said(
                "assistant",
                [
                    {"type": "thinking", "thinking": "hm"},
                    {"type": "thinking", "thinking": "", "redacted": True},
                    {"type": "text", "text": "hello"},
                    call,
                ],
                model="m1",
                usage={"input": 10, "output": 3, "cacheRead": 99},
            ),
            said("toolResult", result, toolCallId="c1", toolName="bash"),
            said("assistant", "done", model="m1", usage={"input": 20, "output": 4}),
            entry("label", targetId="e", label="x"),
            entry("custom", customType="state", data={"text": "hidden"}),
        ],
    )
    index = home.index()
    messages = every_message(index, "one")
    assert [(m.type, m.content) for m in messages] == [
        ("user", "plain"),
        ("user", "block"),
        ("user", "[image]"),
        ("thinking", "hm"),
        ("assistant", "hello"),
        ("tool_use", "bash"),
        ("tool_result", "a.txt\n[image image/png]"),
        ("assistant", "done"),
    ]
    assert (messages[5].tool_input, messages[5].tool_id) == ('{"command":"ls"}', "c1")
    assert (messages[6].tool_name, messages[6].tool_id) == ("bash", "c1")
    session = index.get("one")
    assert (session.title, session.directory, session.model) == ("plain", "/home/dev/proj", "m1")
    assert (session.input_tokens, session.output_tokens) == (30, 7)
    assert session.started_at == session.last_activity == 1_767_323_045_000
    assert_invariant(index)


def test_commands_of_the_user_are_messages_and_no_prompts(home: Home) -> None:
    ran = {"role": "bashExecution", "command": "ls", "output": "a.txt", "exitCode": 0}
    home.write(LOG, [HEADER, entry("message", message=ran), said("user", "go")])
    index = home.index()
    assert shape(index, "one") == [("user", "$ ls\na.txt"), ("user", "go")]
    assert index.get("one").first_prompt == "go"


def test_summaries_are_system_messages(home: Home) -> None:
    home.write(
        LOG,
        [
            HEADER,
            said("user", "go"),
            entry("compaction", summary="so far", firstKeptEntryId="e", tokensBefore=9),
            entry("branch_summary", summary="the other branch", fromId="e"),
        ],
    )
    assert shape(home.index(), "one")[1:] == [("system", "so far"), ("system", "the other branch")]


@pytest.mark.parametrize("display", [True, False])
@pytest.mark.parametrize("kind", ["custom_message", "custom", "hookMessage"])
def test_an_extensions_message_counts_unless_it_is_hidden(
    home: Home, kind: str, display: bool
) -> None:
    if kind == "custom_message":
        added = entry(kind, customType="x", content="note", display=display)
    else:
        added = said(kind, [{"type": "text", "text": "note"}], display=display)
    home.write(LOG, [HEADER, added, said("user", "go")])
    expected = [("system", "note")] if display else []
    assert shape(home.index(), "one") == [*expected, ("user", "go")]


def test_the_title_is_the_last_name_and_an_empty_one_clears_it(home: Home) -> None:
    home.write(LOG, [HEADER, said("user", "prompt"), entry("session_info", name="first")])
    index = home.index()
    assert index.get("one").title == "first"
    index.apply([home.append(LOG, [entry("session_info", name="second")])])
    assert index.get("one").title == "second"
    index.apply([home.append(LOG, [entry("session_info", name="")])])
    assert index.get("one").title == "prompt"


def test_failed_attempts_without_content_are_no_messages(home: Home) -> None:
    failed = said("assistant", [], stopReason="error", errorMessage="Connection error.")
    home.write(LOG, [HEADER, said("user", "go"), failed, failed])
    assert shape(home.index(), "one") == [("user", "go")]


def test_all_branches_are_shown_in_file_order(home: Home) -> None:
    branch = {**said("user", "again"), "id": "b2", "parentId": "root"}
    home.write(
        LOG, [HEADER, {**said("user", "first"), "id": "root"}, said("user", "tried"), branch]
    )
    assert [text for _, text in shape(home.index(), "one")] == ["first", "tried", "again"]


def test_the_first_version_has_no_ids_and_no_version(home: Home) -> None:
    header = {"type": "session", "id": "old", "timestamp": STAMP, "cwd": "/x", "modelId": "m0"}
    message = {"role": "user", "content": [{"type": "text", "text": "hi"}], "timestamp": 1}
    entries: list[dict[str, Any]] = [
        {"type": "message", "timestamp": STAMP, "message": message},
        {"type": "message", "message": {**message, "timestamp": 1_767_323_045_000}},
        {"type": "compaction", "timestamp": STAMP, "summary": "sum", "firstKeptEntryIndex": 0},
    ]
    home.write(LOG, [header, *entries])
    index = home.index()
    messages = every_message(index, "old")
    assert [(m.type, m.content) for m in messages] == [
        ("user", "hi"),
        ("user", "hi"),
        ("system", "sum"),
    ]
    assert messages[1].timestamp == STAMP
    assert index.get("old").model == "m0"


def test_a_fork_is_a_session_of_its_own(home: Home) -> None:
    fork = {**HEADER, "id": "two", "parentSession": f"/home/dev/{LOG}"}
    home.write(LOG, [HEADER, said("user", "hi")])
    home.write(LOG.replace("_one", "_two"), [fork, said("user", "hi"), said("user", "mine")])
    assert {(s.id, s.parent_id) for s in home.index().list()} == {("one", None), ("two", None)}


def test_bad_lines_are_counted_and_types_to_come_are_not(home: Home) -> None:
    home.write(
        LOG, [b"{broken\n", entry("message"), b"[1]\n", entry("new_type"), said("user", "x")]
    )
    session = home.index().get("one")
    assert (session.message_count, session.skipped_lines) == (1, 3)


@pytest.mark.parametrize(
    ("variable", "value", "place"),
    [
        ("PI_CODING_AGENT_DIR", "{home}/mine", "mine/sessions/--x--/t_one.jsonl"),
        ("PI_CODING_AGENT_DIR", "~/mine", "mine/sessions/--x--/t_one.jsonl"),
        ("PI_CODING_AGENT_SESSION_DIR", "{home}/flat", "flat/t_one.jsonl"),
    ],
)
def test_the_configured_directory_is_read_instead(
    tmp_path: Path, variable: str, value: str, place: str
) -> None:
    home = Home(tmp_path, **{variable: value.format(home=tmp_path)})
    index = home.index()
    path = home.write(place, [HEADER, said("user", "hi")])
    home.write(LOG.replace("_one", "_two"), [{**HEADER, "id": "two"}, said("user", "not here")])
    index.apply([path])
    assert [s.id for s in index.list()] == ["one"]
    index.refresh()
    assert [s.id for s in index.list()] == ["one"]


def test_delete_takes_the_log(home: Home) -> None:
    path = home.write(LOG, [HEADER, said("user", "hi")])
    index = home.index()
    index.delete("one")
    assert not path.exists()
    with pytest.raises(SessionNotFound):
        index.get("one")
