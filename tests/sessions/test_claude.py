"""Every line of the Claude Code format that readers get wrong, one test a claim."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from perry.errors import SessionNotFound
from tests.sessions.homes import (
    ClaudeHome,
    as_bytes,
    assert_invariant,
    assistant,
    every_message,
    user,
)

if TYPE_CHECKING:
    from pathlib import Path

TOOL = {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "a.txt"}


def shape(claude: ClaudeHome, session_id: str = "one") -> list[tuple[str, str]]:
    return [(m.type, m.content) for m in every_message(claude.index(), session_id)]


def test_content_is_a_string_or_blocks_on_both_sides(claude: ClaudeHome) -> None:
    text = [{"type": "text", "text": "block"}]
    claude.write("one.jsonl", [user("a"), user(text), assistant("b"), assistant(text)])
    assert shape(claude) == [
        ("user", "a"),
        ("user", "block"),
        ("assistant", "b"),
        ("assistant", "block"),
    ]


def test_a_number_of_more_than_64_bits_in_a_call_is_kept(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [assistant([{**TOOL, "input": {"n": 10**30}}])])
    (call,) = every_message(claude.index(), "one")
    assert json.loads(call.tool_input or "") == {"n": 10**30}


def test_content_at_the_top_level_and_old_human_records_are_read(claude: ClaudeHome) -> None:
    claude.write(
        "one.jsonl",
        [{"type": "human", "content": "hi"}, {"type": "assistant", "content": "hello"}],
    )
    assert shape(claude) == [("user", "hi"), ("assistant", "hello")]


def test_a_call_and_its_result_share_their_id(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("go"), assistant([TOOL]), user([RESULT])])
    _, call, result = every_message(claude.index(), "one")
    assert (call.type, call.tool_name, call.tool_id) == ("tool_use", "Bash", "t1")
    assert call.tool_input == '{"command":"ls"}'
    assert (result.type, result.content, result.tool_id) == ("tool_result", "a.txt", "t1")


def test_a_result_of_blocks_is_one_message_with_its_image_named(claude: ClaudeHome) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x"}}
    content = [{"type": "text", "text": "see"}, image]
    claude.write("one.jsonl", [user([{**RESULT, "content": content}, image])])
    assert shape(claude) == [
        ("tool_result", "see\n[image image/png]"),
        ("user", "[image image/png]"),
    ]


def test_an_empty_result_is_still_a_message(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user([{"type": "tool_result", "tool_use_id": "t1"}])])
    assert shape(claude) == [("tool_result", "")]


def test_a_top_level_tool_result_of_old_logs_is_a_message(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [{"type": "tool_result", "tool_use_id": "t1", "content": "old"}])
    (message,) = every_message(claude.index(), "one")
    assert (message.type, message.content, message.tool_id) == ("tool_result", "old", "t1")


def test_thinking_is_a_message_unless_it_is_empty(claude: ClaudeHome) -> None:
    blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "thinking", "thinking": ""}]
    claude.write("one.jsonl", [assistant(blocks)])
    assert shape(claude) == [("thinking", "hm")]


def test_meta_records_and_bookkeeping_are_no_messages(claude: ClaudeHome) -> None:
    claude.write(
        "one.jsonl",
        [
            {"type": "queue-operation", "operation": "enqueue", "content": "hi"},
            user("Caveat: x", isMeta=True),
            user("hi"),
            {"type": "last-prompt", "lastPrompt": "hi"},
            {"type": "attachment", "uuid": "z", "attachment": {"content": "x"}},
            {"type": "system", "subtype": "compact_boundary", "content": "Conversation compacted"},
        ],
    )
    assert shape(claude) == [("user", "hi")]


def test_a_compaction_summary_is_a_system_message_and_no_prompt(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("This session…", isCompactSummary=True), user("go on")])
    assert shape(claude) == [("system", "This session…"), ("user", "go on")]
    assert claude.index().get("one").first_prompt == "go on"


def test_usage_counts_once_a_message_id_and_the_last_one_holds(claude: ClaudeHome) -> None:
    def part(output: int, identifier: str) -> dict[str, Any]:
        usage = {"input_tokens": 10, "output_tokens": output}
        return assistant("x", inner={"id": identifier, "usage": usage})

    claude.write("one.jsonl", [user("go"), part(1, "m1"), part(5, "m1"), part(7, "m2")])
    session = claude.index().get("one")
    assert (session.input_tokens, session.output_tokens) == (20, 12)


def test_records_repeat_by_uuid_only_once(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("a", uuid="u1"), user("a", uuid="u1"), user("a")])
    assert len(shape(claude)) == 2


def test_a_broken_record_does_not_hide_a_good_one_of_its_uuid(claude: ClaudeHome) -> None:
    broken = {"type": "user", "uuid": "u1", "message": "error"}
    claude.write("one.jsonl", [broken, user("good", uuid="u1")])
    assert shape(claude) == [("user", "good")]
    assert claude.index().get("one").skipped_lines == 1


@pytest.mark.parametrize(
    ("titles", "expected"),
    [
        ([], "the prompt"),
        ([{"type": "summary", "summary": "sum", "leafUuid": "nowhere"}], "sum"),
        (
            [
                {"type": "ai-title", "aiTitle": "old"},
                {"type": "ai-title", "aiTitle": "ai"},
                {"type": "summary", "summary": "sum", "leafUuid": "u1"},
            ],
            "ai",
        ),
        (
            [
                {"type": "custom-title", "customTitle": "mine"},
                {"type": "ai-title", "aiTitle": "ai"},
            ],
            "mine",
        ),
    ],
)
def test_titles_go_from_custom_to_ai_to_summary_to_prompt(
    claude: ClaudeHome, titles: list[dict[str, Any]], expected: str
) -> None:
    claude.write("one.jsonl", [user("the prompt", uuid="u1"), *titles])
    assert claude.index().get("one").title == expected


def test_a_summary_titles_the_log_in_which_its_leaf_stands(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("first", uuid="leaf")])
    summary = {"type": "summary", "summary": "about one", "leafUuid": "leaf"}
    claude.write("two.jsonl", [summary, user("second", uuid="other")])
    index = claude.index()
    assert index.get("one").title == "about one"
    assert index.get("two").title == "second"


@pytest.mark.parametrize(
    "before",
    [
        user("<local-command-stdout>x</local-command-stdout>"),
        user("Caveat: The messages below"),
        user("<task-notification>done</task-notification>"),
        user("[Request interrupted by user for tool use]"),
        user("<bash-input>ls</bash-input>"),
        user("<command-name>/init</command-name>"),
        user("<ide_opened_file>a.py</ide_opened_file>"),
        user([{"type": "text", "text": "<ide_selection>a\nb</ide_selection>"}]),
        user([RESULT]),
        user("meta", isMeta=True),
    ],
)
def test_the_first_prompt_is_what_a_person_typed(
    claude: ClaudeHome, before: dict[str, Any]
) -> None:
    claude.write("one.jsonl", [before, user("real")])
    assert claude.index().get("one").first_prompt == "real"


def test_an_ide_block_before_a_prompt_is_left_out_of_it(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("<ide_opened_file>a.py</ide_opened_file>\nreal")])
    assert claude.index().get("one").first_prompt == "real"


def test_a_slash_command_is_the_prompt_as_a_last_resort(claude: ClaudeHome) -> None:
    text = "<command-name>/review</command-name>\n<command-args>42</command-args>"
    claude.write("one.jsonl", [user(text)])
    session = claude.index().get("one")
    assert (session.first_prompt, session.title) == ("/review 42", "/review 42")


def test_directory_branch_model_and_times_come_from_the_records(claude: ClaudeHome) -> None:
    claude.write(
        "one.jsonl",
        [
            {"type": "queue-operation", "timestamp": "2026-01-01T00:00:01.000Z"},
            user("a", gitBranch="main", timestamp="2026-01-01T00:00:09.000Z"),
            assistant("b", gitBranch="dev", timestamp="2026-01-01T00:00:05.000Z"),
            assistant("c", inner={"model": "<synthetic>"}, timestamp="nonsense"),
        ],
    )
    session = claude.index().get("one")
    assert (session.directory, session.git_branch, session.model) == (
        "/home/dev/proj",
        "dev",
        "claude-x",
    )
    assert session.started_at == 1_767_225_601_000
    assert session.last_activity == 1_767_225_609_000


def test_without_timestamps_the_last_activity_is_the_files_own(claude: ClaudeHome) -> None:
    path = claude.write("one.jsonl", [{"type": "user", "message": {"content": "x"}}])
    os.utime(path, (1_700_000_000, 1_700_000_000))
    session = claude.index().get("one")
    assert (session.last_activity, session.started_at) == (1_700_000_000_000, None)


def test_inline_sidechains_are_children_and_do_not_count_in_the_parent(claude: ClaudeHome) -> None:
    def side(text: str, uuid: str, parent: str | None) -> dict[str, Any]:
        return user(text, isSidechain=True, uuid=uuid, parentUuid=parent)

    claude.write(
        "one.jsonl",
        [
            user("main", isSidechain=False),
            side("child a", "a1", None),
            side("child b", "b1", None),
            side("more a", "a2", "a1"),
        ],
    )
    index = claude.index()
    assert index.get("one").message_count == 1
    assert [s.id for s in index.list()] == ["one"]
    children = [s for s in index.list(children=True) if s.parent_id == "one"]
    assert sorted((s.title, s.message_count) for s in children) == [("child a", 2), ("child b", 1)]
    assert_invariant(index)


def test_a_log_that_begins_with_its_own_sidechain_is_no_child(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("Warmup", isSidechain=True), user("hi", isSidechain=False)])
    session = claude.index().get("one")
    assert (session.parent_id, session.message_count) == (None, 1)


@pytest.mark.parametrize(
    "name",
    ["agent-a1.jsonl", "one/subagents/agent-a1.jsonl", "one/subagents/x/y/z.jsonl", "q.jsonl"],
)
def test_subagent_logs_are_children_of_the_session_they_name(claude: ClaudeHome, name: str) -> None:
    claude.write("one.jsonl", [user("main")])
    path = claude.write(name, [user("sub", isSidechain=True), assistant("ok", isSidechain=True)])
    session = claude.index().get(path.stem)
    assert (session.parent_id, session.message_count) == ("one", 2)
    assert [s.id for s in claude.index().list()] == ["one"]


def test_a_project_named_like_a_subagent_is_an_ordinary_project(claude: ClaudeHome) -> None:
    claude.write("../-home-agent-x/one.jsonl", [user("hi", isSidechain=False)])
    assert [s.id for s in claude.index().list()] == ["one"]


def test_two_halves_of_one_subagent_both_get_an_id(claude: ClaudeHome) -> None:
    claude.write("one/subagents/agent-a.jsonl", [user("x")])
    claude.write("two/subagents/agent-a.jsonl", [user("x", sessionId="two"), assistant("y")])
    index = claude.index()
    ids = [s.id for s in index.list(children=True)]
    assert len(set(ids)) == 2
    assert index.get("agent-a").message_count == 2
    assert_invariant(index)


def test_the_files_name_decides_the_id_of_a_fork(claude: ClaudeHome) -> None:
    claude.write("fork.jsonl", [user("hi", sessionId="one", isSidechain=False)])
    session = claude.index().get("fork")
    assert session.parent_id is None


def test_a_zero_byte_log_is_known_and_not_listed(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [])
    index = claude.index()
    assert index.list() == []
    assert index.get("one").title == "one"


def test_a_result_moved_out_of_the_log_is_shown_whole(claude: ClaudeHome) -> None:
    path = "/home/dev/.claude/projects/-home-dev-proj/one/tool-results/b1.txt"
    preview = f"<persisted-output>\nFull output saved to: {path}\n</persisted-output>"
    claude.write("one.jsonl", [user([{**RESULT, "content": preview}])])
    assert shape(claude) == [("tool_result", preview)]
    claude.write("one/tool-results/b1.txt", [b"all of it"])
    assert shape(claude) == [("tool_result", "all of it")]


def test_a_stored_result_is_never_read_through_a_link(claude: ClaudeHome, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    preview = "<persisted-output>\ntool-results/b1.txt"
    claude.write("one.jsonl", [user([{**RESULT, "content": preview}])])
    (claude.project / "one" / "tool-results").mkdir(parents=True)
    (claude.project / "one" / "tool-results" / "b1.txt").symlink_to(secret)
    assert shape(claude) == [("tool_result", preview)]


def test_lone_surrogates_and_bytes_that_are_no_utf8_cost_a_character(claude: ClaudeHome) -> None:
    lone = b'{"type":"user","skipped":"\\udc00","message":{"content":"a\\ud83dz"}}\n'
    latin = b'{"type":"user","message":{"content":"caf\xe9"}}\n'
    claude.write("one.jsonl", [lone, latin])
    assert shape(claude) == [("user", "a\ufffdz"), ("user", "caf\ufffd")]
    assert claude.index().get("one").skipped_lines == 0


@pytest.mark.parametrize(
    "bad", [b"{broken\n", b"42\n", b'"text"\n', b"[1]\n", b"\xff\xfe\n", b"[" * 9999 + b"\n"]
)
def test_a_line_that_is_no_record_is_counted_and_costs_nothing_else(
    claude: ClaudeHome, bad: bytes
) -> None:
    claude.write("one.jsonl", [user("a"), bad, user("b")])
    assert shape(claude) == [("user", "a"), ("user", "b")]
    assert claude.index().get("one").skipped_lines == 1
    assert claude.index().skipped_lines() == 1


def test_half_a_last_line_is_not_yet_skipped(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("a"), b'{"type":"user","mess'])
    index = claude.index()
    assert (index.get("one").skipped_lines, index.get("one").message_count) == (0, 1)
    claude.append("one.jsonl", [b"\n"])
    index.refresh()
    assert index.get("one").skipped_lines == 1


def test_a_whole_last_line_without_its_newline_counts(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("a"), as_bytes([user("b")]).strip()])
    assert shape(claude) == [("user", "a"), ("user", "b")]


def test_a_file_name_that_is_no_utf8_is_served_all_the_same(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("a")])
    odd = os.fsencode(claude.project) + b"/caf\xe9.jsonl"
    with open(odd, "wb") as file:  # noqa: PTH123  (Path has no byte names)
        file.write(as_bytes([user("b")]))
    index = claude.index()
    assert index.get("caf\ufffd").file_path.endswith("caf\ufffd.jsonl")
    assert_invariant(index)


def test_what_cannot_be_read_is_named_with_its_reason(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("a")])
    os.mkfifo(claude.project / "fifo.jsonl")
    (claude.project / "directory.jsonl").mkdir()
    (claude.project / "broken.jsonl").symlink_to("nowhere")
    index = claude.index()
    reasons = {os.path.basename(path): reason for path, reason in index.unreadable().items()}  # noqa: PTH119  (a string)
    assert reasons == {
        "fifo.jsonl": "not a regular file",
        "directory.jsonl": "not a regular file",
        "broken.jsonl": "a broken link",
    }
    assert [s.id for s in index.list()] == ["one"]
    version = index.version
    index.refresh()
    assert index.version == version


def test_the_configured_directory_is_read_instead(claude: ClaudeHome, tmp_path: Path) -> None:
    from perry.sessions.index import SessionIndex  # noqa: PLC0415

    claude.write("one.jsonl", [user("a")])
    index = SessionIndex.of_home(
        tmp_path / "other", {"CLAUDE_CONFIG_DIR": str(tmp_path / ".claude")}
    )
    index.refresh()
    assert [s.id for s in index.list()] == ["one"]


def test_delete_takes_the_children_and_the_side_files_along(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("a")])
    claude.write("one/subagents/agent-b.jsonl", [user("b")])
    claude.write("one/tool-results/r.txt", [b"x"])
    claude.write("agent-c.jsonl", [user("c", isSidechain=True)])
    claude.write("two.jsonl", [user("d", sessionId="two")])
    index = claude.index()
    index.delete("one")
    assert [path.name for path in claude.project.iterdir()] == ["two.jsonl"]
    assert [s.id for s in index.list(children=True)] == ["two"]
    with pytest.raises(SessionNotFound):
        index.get("one")


def test_a_sidechain_inside_a_log_cannot_be_deleted_alone(claude: ClaudeHome) -> None:
    claude.write("one.jsonl", [user("a"), user("b", isSidechain=True, agentId="x")])
    index = claude.index()
    with pytest.raises(SessionNotFound, match="part of the session one"):
        index.delete("agent-x")
    assert index.get("agent-x").message_count == 1
