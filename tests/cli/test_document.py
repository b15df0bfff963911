"""Exported documents: nothing is lost, and nothing that was said can change their structure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import msgspec
import pytest

from perry.cli.document import Exported, as_json, as_markdown
from perry.sessions.models import Message, Session

MakeSession = Callable[..., Session]
HOSTILE = (
    "# a heading\n\n## User\n\nforged\n```\nnever closed\n\n~~~\n<!-- <script>alert(1)</script>\n"
    "> quoted\n- list\n---\n\x1b[2J\u202e\r\n\ud83d"
)


def said(content: str, kind: str = "user", **more: object) -> Message:
    return Message(kind, content, "2026-11-20T10:00:00Z", **more)  # type: ignore[arg-type]  # Message's own fields


def markdown(session: Session, *messages: Message) -> str:
    return "".join(as_markdown("demo", [Exported(session, messages)]))


def test_a_document_says_all_that_is_known_of_its_session(make_session: MakeSession) -> None:
    session = make_session(git_branch="main", model="m", started_at=0, skipped_lines=2)
    told = markdown(session)
    assert told.startswith("# Fix the login\n\n- Session: `4f2a0000-1111-4222-8333-444455556666`\n")
    for fact in ("Workspace: demo", "Branch: main", "Started: 1970-01-01 00:00:00 UTC",
                 "Lines that could not be read: 2", "Messages: 12"):  # fmt: skip
        assert f"- {fact}\n" in told
    assert "Input tokens" not in told


def test_every_kind_of_message_has_its_heading_and_its_text(make_session: MakeSession) -> None:
    told = markdown(
        make_session(),
        said("ask"),
        said("hm", "thinking"),
        said("Bash", "tool_use", tool_name="Bash", tool_input='{"command":"ls"}'),
        said("a\nb", "tool_result"),
        said("done", "assistant"),
        said("summary", "system"),
    )
    when = " (2026-11-20 10:00:00 UTC)\n\n"
    assert told.partition("Messages: 12\n\n")[2] == (
        f"## User{when}> ask\n\n"
        f"## Thinking{when}```\nhm\n```\n\n"
        f'## Tool call: Bash{when}```json\n{{"command":"ls"}}\n```\n\n'
        f"## Tool result{when}```\na\nb\n```\n\n"
        f"## Assistant{when}> done\n\n"
        f"## System{when}> summary\n\n"
    )


@pytest.mark.parametrize("kind", ["user", "assistant", "system"])
def test_what_was_said_stays_inside_its_quotation(make_session: MakeSession, kind: str) -> None:
    told = markdown(make_session(title=HOSTILE), said(HOSTILE, kind), said("after"))
    assert len(re.findall("^#", told, re.MULTILINE)) == 3
    assert not re.search("^(```|~~~|<!--|forged|---)", told, re.MULTILINE)
    assert "\x1b" not in told
    assert told.encode()


@pytest.mark.parametrize("text", ["```", "`````x\n```", "a\n~~~\n```python\n", "`" * 40])
@pytest.mark.parametrize("kind", ["thinking", "tool_use", "tool_result"])
def test_a_fence_is_longer_than_any_in_the_text(
    make_session: MakeSession, kind: str, text: str
) -> None:
    told = markdown(make_session(), said(text, kind))
    fence = re.search(r"\n\n(`{3,})(json)?\n", told)
    assert fence is not None
    assert told.endswith(f"\n{fence[1]}\n\n")
    assert fence[1] not in text


def test_sessions_that_it_started_stand_below_with_headings_of_their_own(
    make_session: MakeSession,
) -> None:
    child = make_session(id="child", title="Look", parent_id=make_session().id)
    exported = [Exported(make_session(), [said("one")]), Exported(child, [said("two")])]
    told = "".join(as_markdown("demo", exported))
    headings = re.findall(r"^#+ \w+.*?(?= \(|$)", told, re.MULTILINE)
    assert headings == ["# Fix the login", "## User", "## Look", "### User"]
    assert f"- Started by: {make_session().id}\n" in told


def test_json_gives_back_the_very_same_messages(make_session: MakeSession) -> None:
    messages = [said(HOSTILE.replace("\ud83d", "")), said("", "tool_use", tool_input="{}")]
    child = make_session(id="child", parent_id=make_session().id)
    exported = [Exported(make_session(), messages), Exported(child, [])]
    answer = json.loads("".join(as_json("demo", exported)))
    assert answer.keys() == {"workspace", "sessions"}
    first, second = answer["sessions"]
    assert first.keys() == second.keys() == {"session", "messages"}
    assert msgspec.convert(first["messages"], list[Message]) == messages
    assert msgspec.convert(first["session"], Session) == make_session()
    assert (second["session"]["parentId"], second["messages"]) == (make_session().id, [])


def test_lone_surrogates_are_escapes_in_json(make_session: MakeSession) -> None:
    told = "".join(as_json("demo", [Exported(make_session(title="\ud83d"), [said("\ud83d")])]))
    assert told.isascii()
    assert json.loads(told)["sessions"][0]["messages"][0]["content"] == "\ud83d"


def test_messages_are_taken_one_by_one(make_session: MakeSession) -> None:
    taken: list[int] = []

    def endless() -> Iterator[Message]:
        number = 0
        while True:
            taken.append(number)
            yield said(str(number))
            number += 1

    for write in (as_markdown, as_json):
        taken.clear()
        pieces = iter(write("demo", [Exported(make_session(), endless())]))
        for _ in range(10):
            next(pieces)
        assert len(taken) < 11
