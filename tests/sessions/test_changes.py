"""Whatever happens to files, one by one: an index that follows shows what a fresh one would.

So does one that is restarted in between and remembers.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perry.sessions.index import SessionIndex
from tests.sessions.fuzzing import examples
from tests.sessions.homes import assert_invariant, assistant, user

if TYPE_CHECKING:
    from pathlib import Path

CLAUDE = ".claude/projects/p"
CODEX = ".codex/sessions/2026/01/02"
GEMINI = ".gemini/tmp"


def summary(title: str, leaf: str) -> dict[str, Any]:
    return {"type": "summary", "summary": title, "leafUuid": leaf}


CLAUDE_LINES = [
    user("a", uuid="u1"),
    user("b", uuid="u2", timestamp="2026-01-05T00:00:00Z"),
    assistant("c", uuid="u3", inner={"id": "m", "usage": {"input_tokens": 3}}),
    user("side", uuid="u4", isSidechain=True),
    summary("about one", "u1"),
    summary("about two", "u2"),
    summary("nowhere", "u9"),
    {"type": "custom-title", "customTitle": "named"},
]
CODEX_LINES = [
    {"type": "session_meta", "payload": {"id": "c1", "cwd": "/x"}},
    {"type": "response_item", "payload": {"type": "message", "role": "user", "content": "hi"}},
]
GEMINI_LINES = [
    {"sessionId": "g1", "startTime": "2026-01-02T03:04:05Z", "directories": ["/home/g"]},
    {"sessionId": "g2", "projectHash": "f" * 64},
    {"id": "1", "type": "user", "content": "hi"},
]
FILES: dict[str, list[Any]] = {
    f"{CLAUDE}/one.jsonl": CLAUDE_LINES,
    f"{CLAUDE}/two.jsonl": CLAUDE_LINES,
    ".claude/projects/q/one.jsonl": CLAUDE_LINES,
    f"{CLAUDE}/one/subagents/agent-x.jsonl": CLAUDE_LINES,
    f"{CODEX}/rollout-a.jsonl": CODEX_LINES,
    f"{CODEX}/rollout-b.jsonl": CODEX_LINES,
    ".codex/session_index.jsonl": [
        {"id": "c1", "thread_name": "a name"},
        {"id": "c1", "thread_name": "another"},
    ],
    f"{GEMINI}/g/chats/session-1.jsonl": GEMINI_LINES,
    f"{GEMINI}/g/chats/session-1.json": [{"sessionId": "g1", "messages": [GEMINI_LINES[2]]}],
    f"{GEMINI}/h/chats/session-2.jsonl": GEMINI_LINES,
    f"{GEMINI}/h/.project_root": ["/home/h"],
}
STEP = st.sampled_from(sorted(FILES)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.sampled_from(["append", "append", "append", "replace", "delete", "restart"]),
        st.sampled_from(FILES[name]),
    )
)


def take(home: Path, name: str, action: str, line: Any) -> Path:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = line.encode() if isinstance(line, str) else json.dumps(line).encode() + b"\n"
    match action:
        case "append":
            before = path.read_bytes() if path.exists() and path.suffix == ".jsonl" else b""
            with path.open("ab" if before else "wb") as file:
                file.write(data)
        case "replace":
            other = path.with_name("other.tmp")
            other.write_bytes(data * 2 if path.suffix == ".jsonl" else data)
            other.replace(path)
        case "delete":
            path.unlink(missing_ok=True)
    return path


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEP, max_size=14))
def test_an_index_that_follows_shows_what_a_fresh_one_would(
    tmp_path: Path, steps: list[tuple[str, str, Any]]
) -> None:
    for left in tmp_path.iterdir():
        shutil.rmtree(left)
    index = SessionIndex.of_home(tmp_path, {}, remember=True)
    index.refresh()
    for name, action, line in steps:
        if action == "restart":
            assert index.save()
            index = SessionIndex.of_home(tmp_path, {}, remember=True)
            index.refresh()
        else:
            index.apply([take(tmp_path, name, action, line)])
        fresh = SessionIndex.of_home(tmp_path, {})
        fresh.refresh()
        for children in (False, True):
            assert index.list(children=children) == fresh.list(children=children)
            assert index.list(agent="claude", children=children) == fresh.list(
                agent="claude", children=children
            )
        assert index.skipped_lines() == fresh.skipped_lines()
    assert_invariant(index)
