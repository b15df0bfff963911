"""What has been read so far of one Claude Code log file, and how each next line changes it.

A log only grows, so its state is a fold over lines: byte offsets of the records that hold messages
(never their texts), and the latest of everything a session is described by. The file's own session
is one thread; sidechains that stand inline are threads of their own. This module must not open
files, or know where a log lies.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from perry.sessions.claude_content import (
    Record,
    command_of,
    messages_of,
    prompt_of,
    says_nothing_known,
)
from perry.sessions.jsonl import LineLog, Track
from perry.sessions.records import Undecodable, decode, epoch, text_or_none, token_count

MAIN = ""
"""The key of the thread that is the file's own session."""


@dataclass
class Thread(Track):
    """One session within a log: where its messages stand, and what describes it."""

    usage: dict[str, tuple[int, int]] = field(default_factory=dict)
    prompt: str | None = None
    command: str | None = None
    directory: str | None = None
    branch: str | None = None
    model: str | None = None

    def add(self, record: Record, offset: int, count: int) -> None:
        """Take in one record that holds `count` messages."""
        self._describe(record)
        self.put(offset, count)
        if self.prompt is None:
            self.prompt = prompt_of(record)
            self.command = self.command or command_of(record)

    def _describe(self, record: Record) -> None:
        self.saw(epoch(record.timestamp))
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
        tokens = token_count(usage.get("input_tokens")), token_count(usage.get("output_tokens"))
        key = message.get("id") or uuid
        self.usage[key if isinstance(key, str) else f"#{len(self.usage)}"] = tokens


@dataclass
class Log(LineLog):
    """The state of a whole log.

    `is_child` says whether the whole file is a subagent's; None until a record tells.
    `summaries` are pairs of a leaf's uuid and a title.
    """

    stem: str = ""
    is_child: bool | None = None
    threads: dict[str, Thread] = field(default_factory=lambda: {MAIN: Thread()})
    seen: set[str] = field(default_factory=set)
    chains: dict[str, str] = field(default_factory=dict)
    owner: str | None = None
    custom_title: str | None = None
    ai_title: str | None = None
    summaries: list[tuple[str, str]] = field(default_factory=list)

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
            parent = text_or_none(record.parent_uuid) or ""
            key = self.chains.get(parent) or f"{self.stem}-sidechain-{len(self.threads)}"
        if isinstance(record.uuid, str):
            self.chains[record.uuid] = key
        return self.threads.setdefault(key, Thread())
