"""What has been read so far of one Claude Code log file, and how each next line changes it.

A log only grows, so its state is a fold over lines: byte offsets of the records that hold messages
(never their texts), and the latest of everything a session is described by. The file's own session
is one thread; sidechains that stand inline are threads of their own. This module must not open
files, or know where a log lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import msgspec

from perry.sessions.claude_content import Record, command_of, prompt_of
from perry.sessions.claude_line import Line, may_be_typed, read_line, read_quickly
from perry.sessions.jsonl import LineLog, Track
from perry.sessions.packed import Keys, Sums, hash_of
from perry.sessions.records import Undecodable, decode, milliseconds, text_or_none, token_count

MAIN = ""
"""The key of the thread that is the file's own session."""

SYNTHETIC = "<synthetic>"
"""The model that answers which the client made up itself are said to be of."""

_NEWLINE = ord("\n")


class Thread(Track, array_like=True, gc=False):
    """One session within a log: where its messages stand, and what describes it.

    `tokens` are sent and received, by the answers of the model: each counts once, as last told.
    """

    tokens: Sums = msgspec.field(default_factory=Sums)
    prompt: str | None = None
    command: str | None = None
    directory: str | None = None
    branch: str | None = None
    model: str | None = None

    def add(self, line: Line, offset: int, count: int) -> None:
        """Take in one record that holds `count` messages."""
        self.saw(None if line.timestamp is None else milliseconds(line.timestamp))
        if self.directory is None:
            self.directory = text_or_none(line.cwd)
        if line.git_branch is not None:
            self.branch = line.git_branch or None
        self.put(offset, count)
        if line.type == "assistant":
            self.answered(line)

    def answered(self, line: Line) -> None:
        """Take in what an answer of the model tells of itself."""
        message = line.message
        if message is None:
            return
        if message.model and message.model != SYNTHETIC and message.model.strip():
            self.model = message.model
        usage = message.usage
        if usage is not None:
            answer = message.id or line.uuid or f"#{len(self.tokens)}"
            self.tokens.put(
                answer, token_count(usage.input_tokens), token_count(usage.output_tokens)
            )

    @property
    def is_described(self) -> bool:
        """Whether all is known of it that later lines don't change."""
        known = (self.prompt, self.directory, self.started_at, self.last_activity)
        return None not in known

    def read_prompt(self, data: bytes) -> None:
        """Look whether a record is what somebody typed, or a command."""
        try:
            record = decode(data, Record)
        except Undecodable:
            return  # only the fast way takes it: it has no more to say
        self.prompt = prompt_of(record)
        self.command = self.command or command_of(record)


class Places(msgspec.Struct, array_like=True):
    """The beginning of a packed log, for its pages: the hashes of its records are left packed."""

    end: int
    skipped: int
    seen: msgspec.Raw
    stem: str
    is_child: bool | None
    threads: dict[str, Track]
    chains: msgspec.Raw
    owner: str | None


class Log(LineLog, array_like=True):
    """The state of a whole log.

    `is_child` says whether the whole file is a subagent's; None until a record tells.
    `chains` has the thread of each sidechain's record by the record's hash. `summaries` are pairs
    of a leaf's uuid and a title.
    """

    seen: Keys = msgspec.field(default_factory=Keys)
    stem: str = ""
    is_child: bool | None = None
    threads: dict[str, Thread] = msgspec.field(default_factory=lambda: {MAIN: Thread()})
    chains: dict[int, str] = msgspec.field(default_factory=dict)
    owner: str | None = None
    custom_title: str | None = None
    ai_title: str | None = None
    summaries: list[tuple[str, str]] = msgspec.field(default_factory=list)

    def take(self, line: bytes, offset: int) -> bool:
        """Take in a line if it is a record; say whether it was."""
        found = read_line(line)
        if found is None:
            return False
        record, count = found
        if self._is_repeated(record, count):
            return True
        self._learn(record)
        thread = self._thread_of(record)
        thread.add(record, offset, count)
        if thread.prompt is None and may_be_typed(record):
            thread.read_prompt(line)
        return True

    def take_all(self, lines: Iterable[bytes]) -> bytes:
        """Take in the lines that follow; gives what there is of an unfinished last one."""
        following = iter(lines)
        while line := self._take_plain(following):
            if not line.endswith(b"\n"):
                return line
            self.take_whole(line)
        return b""

    def _take_plain(self, lines: Iterator[bytes]) -> bytes:
        """Take in lines as `take` does, until one that is special, which is given back.

        Nearly all lines are plain: once a session is described, they add messages and tokens. This
        is where the time of a scan goes, hence one loop over local variables.
        """
        main = self.threads[MAIN]
        if self.owner is None or not main.is_described:
            return next(lines, b"")
        offsets: list[int] = []
        ends: list[int] = []
        offset, total, branch = self.end, main.total, main.branch
        latest = datetime.fromtimestamp((main.last_activity or 0) / 1000, UTC)
        for data in lines:
            found = read_quickly(data) if data[-1] == _NEWLINE else None
            if found is None or self._is_special(found[0]):
                break
            line, count = found
            offset += len(data)
            if self._is_repeated(line, count):
                continue
            if count:
                total += count
                offsets.append(offset - len(data))
                ends.append(total)
            if line.timestamp is not None and line.timestamp > latest:
                latest = line.timestamp
            if line.git_branch is not None:
                branch = line.git_branch
            if line.type == "assistant":
                main.answered(line)
        else:
            data = b""
        self.end = offset
        main.add_all(offsets, ends)
        main.branch = branch or None
        main.saw(milliseconds(latest))
        return data

    def _is_special(self, line: Line) -> bool:
        """Tell whether a line is more than one more record of the main thread."""
        side = line.is_sidechain
        if side is not None and not self.is_child and (side or self.is_child is None):
            return True
        return bool(line.ai_title or line.custom_title)

    def _is_repeated(self, record: Line, count: int) -> bool:
        """Tell whether a record of this uuid was there; if it says something, remember it."""
        uuid = record.uuid
        if uuid is None:
            return False
        if count or record.type in ("user", "assistant", "system"):
            return not self.seen.put(uuid)[1]
        return uuid in self.seen

    def _learn(self, record: Line) -> None:
        if self.owner is None:
            self.owner = text_or_none(record.session_id)
        if self.is_child is None and record.is_sidechain is not None:
            self.is_child = record.is_sidechain and self.owner not in (None, self.stem)
        if record.custom_title or record.ai_title:
            self.custom_title = text_or_none(record.custom_title) or self.custom_title
            self.ai_title = text_or_none(record.ai_title) or self.ai_title
        if record.type == "summary" and text_or_none(record.summary):
            self.summaries.append((str(record.leaf_uuid), record.summary or ""))

    def _thread_of(self, record: Line) -> Thread:
        """Find the thread of a record; a sidechain is followed by agent id or parent."""
        if record.is_sidechain is not True or self.is_child:
            return self.threads[MAIN]
        agent = text_or_none(record.agent_id)
        if agent is not None:
            key = f"agent-{agent}"
        else:
            known = self.chains.get(hash_of(record.parent_uuid or ""))
            key = known or f"{self.stem}-sidechain-{len(self.threads)}"
        if record.uuid is not None:
            self.chains[hash_of(record.uuid)] = key
        if key not in self.threads:
            self.threads[key] = Thread()
        return self.threads[key]
