"""Writes what Claude Code would have written: lines of a session, made up from a seed.

The shapes and the mix of bytes are those of real logs. Old versions hold little but messages;
middle ones repeat each tool result beside itself; in the newest, 9 of 10 bytes are attachments and
recorded requests that are nobody's messages. Texts are drawn from a pool that is built once, so a
line costs a few microseconds. This module must not know where a log lies, or who reads it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

AGES = {"old": "1.0.128", "middle": "2.1.2", "new": "2.1.330"}

_TEXT = (
    "index watcher session offset the a reads writes file line page cache when after because test "
    "fails passes container worker socket token daemon event queue lock thread parse decode count "
    "ünïcødé naïve größe → ✓ should must never always only twice once again new old last first"
)
_WORDS = _TEXT.split()
_CODE = (
    "def refresh(self) -> None:\n    with self._lock:\n        self.version += 1\n",
    '  File "/home/dev/work/app.py", line 42, in run\n    raise ValueError("no such \\"id\\"")\n',
    "drwxr-xr-x  5 dev dev  4096 Jan  1 12:00 src\n-rw-r--r--  1 dev dev 18231 app.py\n",
    '{"name": "app", "scripts": {"test": "vitest run --coverage"}}\n',
    "\t\tif err != nil {\n\t\t\treturn fmt.Errorf(`open %s: %w`, name, err)\n\t\t}\n",
)


@dataclass(frozen=True)
class Pool:
    """Texts as they stand inside JSON strings, by what they are used for."""

    prompts: tuple[bytes, ...]
    answers: tuple[bytes, ...]
    thoughts: tuple[bytes, ...]
    results: tuple[bytes, ...]
    inputs: tuple[bytes, ...]
    attachments: tuple[bytes, ...]
    requests: tuple[bytes, ...]


@functools.cache
def pool() -> Pool:
    """Build the texts; always the same ones."""
    rng = Random("perry bench texts")  # noqa: S311 - made-up texts are no secrets

    def texts(number: int, least: int, most: int, *, code: bool = False) -> tuple[bytes, ...]:
        # Many short ones and a few long ones, as everywhere.
        sizes = (int(least * (most / least) ** (rng.random() ** 1.5)) for _ in range(number))
        return tuple(_escaped(_text(rng, size, code)) for size in sizes)

    return Pool(
        prompts=texts(200, 20, 600),
        answers=texts(200, 40, 2_500),
        thoughts=texts(100, 100, 1_500),
        results=texts(200, 60, 16_000, code=True),
        inputs=texts(100, 30, 2_500, code=True),
        attachments=texts(40, 500, 30_000, code=True),
        requests=tuple(_request(rng) for _ in range(30)),
    )


def _text(rng: Random, size: int, code: bool) -> str:
    parts: list[str] = []
    length = 0
    while length < size:
        part = rng.choice(_CODE) if code else " ".join(rng.choices(_WORDS, k=12)) + ".\n"
        parts.append(part)
        length += len(part)
    return "".join(parts)[:size]


def _escaped(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()


def _request(rng: Random) -> bytes:
    """Make a recorded request: a system prompt, tools with their schemas, and messages."""
    tools = [
        {
            "name": f"Tool{number}",
            "description": _text(rng, rng.randrange(200, 2_500), code=False),
            "input_schema": {
                "type": "object",
                "properties": {
                    name: {"type": "string", "description": _text(rng, 80, code=False)}
                    for name in ("path", "pattern", "description", "limit")
                },
            },
        }
        for number in range(rng.randrange(8, 18))
    ]
    messages = [
        {"role": role, "content": [{"type": "text", "text": _text(rng, size, code=True)}]}
        for role in ("user", "assistant")
        for size in (rng.randrange(200, 6_000), rng.randrange(200, 6_000))
    ]
    system = [{"type": "text", "text": _text(rng, 9_000, code=False)}]
    body = {"model": "claude-opus-4-5", "system": system, "tools": tools, "messages": messages}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


class Transcript:
    """One session being written; `messages` counts what a reader would show so far.

    `now` is in milliseconds since the epoch. `parent` is the id of the session that this one is a
    subagent of.
    """

    def __init__(
        self, rng: Random, identifier: str, *, age: str, project: str, now: int, parent: str = ""
    ) -> None:
        self.messages = 0
        self.now = now
        self._rng = rng
        self._age = age
        self._session = (parent or identifier).encode()
        agent = b',"agentId":"%b"' % identifier.removeprefix("agent-").encode() if parent else b""
        self._envelope = (
            b'{"parentUuid":%%b,"isSidechain":%b%b,"userType":"external","cwd":"%b",'
            b'"sessionId":"%b","version":"%b","gitBranch":"%b",'
            % (
                b"true" if parent else b"false",
                agent,
                f"/home/dev/work/{project}".encode(),
                self._session,
                AGES[age].encode(),
                rng.choice((b"main", b"main", b"fix/watcher", b"feature/pages")),
            )
        )
        self._previous = b"null"
        self._model = rng.choice((b"claude-sonnet-4-5-20250929", b"claude-opus-4-5-20251101"))

    def lines(self, size: int) -> Iterator[bytes]:
        """Write lines, whole turns of a conversation, until `size` bytes have been written."""
        written = 0
        for line in self._all():
            yield line
            written += len(line)
            if written >= size:
                return

    def reply(self) -> bytes:
        """Write one line with one message of the assistant."""
        return self._assistant(b'{"type":"text","text":"%b"}' % self._pick(pool().answers), "live")

    def _all(self) -> Iterator[bytes]:
        yield from self._head()
        turn = 0
        while True:
            yield from self._turn()
            turn += 1
            if turn == 1 and self._age != "old" and self._rng.random() < 0.7:
                yield self._bare("ai-title", b'"aiTitle":"%b"' % self._title())
            if self._rng.random() < 0.01:
                yield self._bare("custom-title", b'"customTitle":"%b"' % self._title())

    def _head(self) -> Iterator[bytes]:
        if self._age == "old":
            if self._rng.random() < 0.2:
                leaf = self._uuid()
                yield b'{"type":"summary","summary":"%b","leafUuid":"%b"}\n' % (self._title(), leaf)
            return
        yield self._bare("queue-operation", b'"operation":"dequeue"', stamped=True)
        yield self._snapshot()
        if self._age == "new":
            yield self._bare("mode", b'"mode":"normal"')
            yield self._bare("permission-mode", b'"permissionMode":"default"')

    def _turn(self) -> Iterator[bytes]:
        prompt = self._pick(pool().prompts)
        yield self._user(b'"%b"' % prompt)
        if self._age == "new":
            yield self._bare("last-prompt", b'"lastPrompt":"%b"' % prompt)
            for _ in range(self._rng.randrange(1, 5)):
                yield self._attachment()
        for _ in range(self._rng.randrange(1, 9)):
            yield from self._step()
        yield self._assistant(b'{"type":"text","text":"%b"}' % self._pick(pool().answers))
        if self._age != "old":
            yield self._record(b'"type":"system","subtype":"turn_duration","durationMs":8123,')
            yield self._snapshot()
        if self._age == "new":
            yield self._bare("cost-state", b'"totalCostUSD":0.123,"totalAPIDuration":5123')

    def _step(self) -> Iterator[bytes]:
        """One answer of the model: what it thinks, says and calls, and what came of the call."""
        if self._age == "new":
            yield self._bare("api-request", b'"request":%b' % self._pick(pool().requests), True)
        answer = self._token()
        if self._rng.random() < 0.4:
            thought = b'{"type":"thinking","thinking":"%b","signature":"%b"}'
            yield self._assistant(thought % (self._pick(pool().thoughts), b"c2ln" * 60), answer)
        if self._rng.random() < 0.5:
            said = self._pick(pool().answers)
            yield self._assistant(b'{"type":"text","text":"%b"}' % said, answer)
        call = b"toolu_" + self._token().encode()
        use = b'{"type":"tool_use","id":"%b","name":"%b","input":{"command":"%b","timeout":120000}}'
        tool = self._rng.choice((b"Bash", b"Read", b"Edit", b"Grep"))
        yield self._assistant(use % (call, tool, self._pick(pool().inputs)), answer)
        yield self._result(call)

    def _user(self, content: bytes, rest: bytes = b"") -> bytes:
        self.messages += 1
        return self._record(
            b'"type":"user","message":{"role":"user","content":%b},%b' % (content, rest)
        )

    def _result(self, call: bytes) -> bytes:
        text = self._pick(pool().results)
        if self._rng.random() < 0.0005:
            text += b"\\ud83d"  # half a character, as JavaScript cuts strings
        block = b'[{"tool_use_id":"%b","type":"tool_result","content":"%b","is_error":false}]'
        beside = b'"toolUseResult":{"stdout":"%b","stderr":"","interrupted":false},' % text
        return self._user(block % (call, text), beside)

    def _assistant(self, block: bytes, answer: str = "") -> bytes:
        self.messages += 1
        name = (answer or self._token()).encode()
        return self._record(
            b'"message":{"id":"msg_%b","type":"message","role":"assistant","model":"%b",'
            b'"content":[%b],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":%d,'
            b'"cache_creation_input_tokens":811,"cache_read_input_tokens":22123,'
            b'"output_tokens":%d,"service_tier":"standard"}},"requestId":"req_%b",'
            b'"type":"assistant",' % (name, self._model, block, len(block), len(block) // 4, name)
        )

    def _attachment(self) -> bytes:
        text = self._pick(pool().attachments)
        inner = b'{"type":"file","filename":"app.py","content":{"text":"%b"}}' % text
        return self._record(b'"type":"attachment","attachment":%b,' % inner)

    def _snapshot(self) -> bytes:
        return (
            b'{"type":"file-history-snapshot","messageId":"%b","snapshot":{"trackedFileBackups":{},'
            b'"timestamp":"%b"},"isSnapshotUpdate":false}\n' % (self._uuid(), self._stamp())
        )

    def _record(self, middle: bytes) -> bytes:
        uuid = self._uuid()
        line = b'%b%b"uuid":"%b","timestamp":"%b"}\n' % (
            self._envelope % self._previous, middle, uuid, self._stamp(),
        )  # fmt: skip
        self._previous = b'"%b"' % uuid
        return line

    def _bare(self, kind: str, rest: bytes, stamped: bool = False) -> bytes:
        stamp = b'"timestamp":"%b",' % self._stamp() if stamped else b""
        head = b'{"type":"%b",%b"sessionId":"%b",' % (kind.encode(), stamp, self._session)
        return b"%b%b}\n" % (head, rest)

    def _stamp(self) -> bytes:
        self.now += self._rng.randrange(20, 4_000)
        moment = datetime.fromtimestamp(self.now // 1000, UTC)
        return b"%b.%03dZ" % (moment.strftime("%Y-%m-%dT%H:%M:%S").encode(), self.now % 1000)

    def _uuid(self) -> bytes:
        return uuid_of(self._rng).encode()

    def _token(self) -> str:
        return f"{self._rng.getrandbits(96):024x}"

    def _title(self) -> bytes:
        return b" ".join(word.encode() for word in self._rng.choices(_WORDS, k=6))

    def _pick(self, texts: tuple[bytes, ...]) -> bytes:
        return texts[int(self._rng.random() * len(texts))]


def uuid_of(rng: Random) -> str:
    """Draw a random identifier as Claude Code names sessions and records."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
