"""What has been read so far of one Claude Code log file, and how each next line changes it.

A log only grows, so its state is a fold over lines: byte offsets of the records that hold messages
(never their texts), and the latest of everything a session is described by. The file's own session
is one thread; sidechains that stand inline are threads of their own. This module must not open
files, or know where a log lies.
"""

from __future__ import annotations

import copy
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field

from perry.sessions.claude_content import (
    Record,
    command_of,
    messages_of,
    prompt_of,
    says_nothing_known,
)
from perry.sessions.records import Undecodable, decode, epoch, text_or_none

MAIN = ""
"""The key of the thread that is the file's own session."""


@dataclass
class Thread:
    """One session within a log: where its messages stand, and what describes it.

    `offsets` are the bytes where records with messages begin, `ends` how many messages there are
    up to and including each of them. Times are milliseconds since the epoch.
    """

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("Q"))
    usage: dict[str, tuple[int, int]] = field(default_factory=dict)
    prompt: str | None = None
    command: str | None = None
    started_at: int | None = None
    last_activity: int | None = None
    directory: str | None = None
    branch: str | None = None
    model: str | None = None

    @property
    def total(self) -> int:
        """The number of messages."""
        return self.ends[-1] if self.ends else 0

    def between(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Name the records that hold the messages from `start` up to `stop`.

        Each is its byte offset, its first message's number, and how many messages it holds.
        """
        found = []
        index = bisect_right(self.ends, start)
        while index < len(self.ends) and start < stop:
            first = self.ends[index - 1] if index else 0
            if first >= stop:
                break
            found.append((self.offsets[index], first, self.ends[index] - first))
            index += 1
        return found

    def add(self, record: Record, offset: int, count: int) -> None:
        """Take in one record that holds `count` messages."""
        self._describe(record)
        if count:
            self.offsets.append(offset)
            self.ends.append(self.total + count)
        if self.prompt is None:
            self.prompt = prompt_of(record)
            self.command = self.command or command_of(record)

    def _describe(self, record: Record) -> None:
        moment = epoch(record.timestamp)
        if moment is not None:
            self.started_at = moment if self.started_at is None else self.started_at
            self.last_activity = max(moment, self.last_activity or moment)
        if self.directory is None:
            self.directory = text_or_none(record.cwd)
        if isinstance(record.git_branch, str):
            self.branch = record.git_branch or None
        if isinstance(record.message, dict) and record.kind == "assistant":
            model = text_or_none(record.message.get("model"))
            self.model = model if model and model != "<synthetic>" else self.model
            self._count_usage(record.message, record.uuid)

    def _count_usage(self, message: dict[str, object], uuid: object) -> None:
        usage = message.get("usage")
        if not isinstance(usage, dict):
            return
        tokens = [usage.get(name) for name in ("input_tokens", "output_tokens")]
        sent, received = (t if isinstance(t, int) and t > 0 else 0 for t in tokens)
        key = message.get("id") or uuid
        self.usage[key if isinstance(key, str) else f"#{len(self.usage)}"] = (sent, received)


@dataclass
class Log:
    """The state after the bytes up to `end`, which is the beginning of a line.

    `is_child` says whether the whole file is a subagent's; None until a record tells.
    `summaries` are pairs of a leaf's uuid and a title.
    """

    stem: str
    is_child: bool | None = None
    end: int = 0
    skipped: int = 0
    threads: dict[str, Thread] = field(default_factory=lambda: {MAIN: Thread()})
    seen: set[str] = field(default_factory=set)
    chains: dict[str, str] = field(default_factory=dict)
    owner: str | None = None
    custom_title: str | None = None
    ai_title: str | None = None
    summaries: list[tuple[str, str]] = field(default_factory=list)

    def copy(self) -> Log:
        """Copy the state, so that a line which may yet change can be tried on it."""
        return copy.deepcopy(self)

    def feed(self, line: bytes, offset: int) -> None:
        """Take in one whole line that begins at byte `offset`."""
        if line.strip() and not self.take(line, offset):
            self.skipped += 1

    def take(self, line: bytes, offset: int) -> bool:
        """Take in a line if it is a record; say whether it was."""
        try:
            record = decode(line, Record)
        except Undecodable:
            return False
        if says_nothing_known(record):
            return False
        uuid = record.uuid if isinstance(record.uuid, str) else None
        if uuid is not None and uuid in self.seen:
            return True
        self._learn(record)
        count = len(messages_of(record))
        if uuid is not None and (count or record.kind in ("user", "assistant", "system")):
            self.seen.add(uuid)
        self._thread_of(record).add(record, offset, count)
        return True

    def _learn(self, record: Record) -> None:
        if self.owner is None:
            self.owner = text_or_none(record.session_id)
        if self.is_child is None and isinstance(record.is_sidechain, bool):
            self.is_child = record.is_sidechain and self.owner not in (None, self.stem)
        self.custom_title = text_or_none(record.custom_title) or self.custom_title
        self.ai_title = text_or_none(record.ai_title) or self.ai_title
        summary = text_or_none(record.summary)
        if record.kind == "summary" and summary:
            self.summaries.append((str(record.leaf_uuid), summary))

    def _thread_of(self, record: Record) -> Thread:
        """Find the thread of a record; a sidechain is followed by agent id or parent."""
        if self.is_child or record.is_sidechain is not True:
            return self.threads[MAIN]
        agent = text_or_none(record.agent_id)
        if agent is not None:
            key = f"agent-{agent}"
        else:
            key = self.chains.get(record.parent_uuid) if record.parent_uuid else None
            key = key or f"{self.stem}-sidechain-{len(self.threads)}"
        if isinstance(record.uuid, str):
            self.chains[record.uuid] = key
        return self.threads.setdefault(key, Thread())
