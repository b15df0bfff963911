"""The archive is filled with what a home's files say, whatever happens to them and to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perry.agent.host import Host
from perry.agent.intake import Intake
from perry.agent.ledger import Ledger
from perry.agent.mirror import Mirror
from perry.archive.archive import Archive
from perry.archive.models import Filters
from perry.archive.redaction import redactor
from perry.archive.terms import parse
from perry.client.local_client import LocalClient
from perry.config import ArchiveConfig
from perry.errors import ArchiveError, SessionNotFound, WorkerUnreachable
from perry.sessions.models import Message, MessagePage, Session
from tests.e2e.eventually import eventually


class Home:
    """A home with Claude sessions, its watcher, mirror and archive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.home = path / "home"
        self.project = self.home / ".claude/projects/-shop"
        self.project.mkdir(parents=True)
        self.file = path / "data" / "archive.sqlite"
        self.is_away = False
        self.asked = 0
        self.running = False

    def start(self, **more: object) -> None:
        self.ledger = Ledger(self.path / "ledger.sqlite")
        self.mirror = Mirror(self.ledger)
        self.host = Host(self.home, {}, self.mirror)
        settings = {"config": ArchiveConfig(), **more}
        self.intake = Intake(self.file, self.mirror, self.ledger.journal, self.client, **settings)  # type: ignore[arg-type]
        self.host.start()
        self.intake.start()
        self.running = True

    def stop(self) -> None:
        if self.running:
            self.intake.stop()
            self.intake._thread.join(10)
            self.host.stop()
            self.ledger.close()
            self.running = False

    def client(self, place: str) -> LocalClient:
        assert place == "host"
        self.asked += 1
        if self.is_away:
            raise WorkerUnreachable("away")
        return self.host.client()

    def write(self, name: str, *texts: str, mode: str = "a") -> None:
        with (self.project / f"{name}.jsonl").open(mode) as log:
            for text in texts:
                record = {
                    "type": "user",
                    "sessionId": name,
                    "cwd": "/shop",
                    "timestamp": "2026-09-21T14:13:20.000Z",
                    "message": {"role": "user", "content": text},
                }
                log.write(json.dumps(record) + "\n")

    def kept(self, name: str) -> list[str]:
        try:
            page = self.intake.archive.messages(("host", "claude", name), limit=10**6)
        except (SessionNotFound, ArchiveError):
            return []
        return [message.content for message in page.messages]

    def until_kept(self, name: str, texts: list[str]) -> None:
        eventually(lambda: self.kept(name), lambda seen: seen == texts, within=20)

    def found(self, words: str) -> int:
        return len(self.intake.archive.search(parse(words), Filters(), limit=1000).hits)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.stop()


def test_what_is_there_and_what_comes_is_taken_in(home: Home) -> None:
    home.write("s", "one", "two")
    home.start()
    home.until_kept("s", ["one", "two"])
    home.write("s", "three")
    home.until_kept("s", ["one", "two", "three"])
    home.write("new", "apple")
    eventually(lambda: home.found("apple"), lambda hits: hits == 1, within=20)


def test_a_long_session_is_taken_in_whole(home: Home) -> None:
    texts = [f"number {number}" for number in range(1500)]
    home.write("long", *texts)
    home.start()
    home.until_kept("long", texts)


def test_what_its_coding_agent_purges_stays(home: Home) -> None:
    home.write("s", "apple")
    home.start()
    home.until_kept("s", ["apple"])
    (home.project / "s.jsonl").unlink()
    eventually(home.mirror.sessions, lambda seen: not seen, within=20)
    home.write("next", "pear")
    home.until_kept("next", ["pear"])
    assert home.kept("s") == ["apple"]
    assert home.found("apple") == 1


@pytest.mark.parametrize("count", [3, 40, 900])
def test_a_session_rewritten_from_scratch_is_kept_as_it_is_now(home: Home, count: int) -> None:
    home.write("s", *[f"old {number}" for number in range(300)])
    home.start()
    eventually(lambda: len(home.kept("s")), lambda seen: seen == 300, within=20)
    texts = [f"new {number}" for number in range(count)]
    home.write("other", *texts)
    (home.project / "other.jsonl").rename(home.project / "s.jsonl")
    home.until_kept("s", texts)
    assert home.found("old") == 0


def test_what_was_missed_while_nobody_listened_is_taken_in_at_the_next_start(home: Home) -> None:
    home.write("s", "one")
    home.write("t", "one")
    home.start()
    home.until_kept("s", ["one"])
    home.until_kept("t", ["one"])
    home.stop()
    home.write("s", "two")
    home.write("u", "one")
    (home.project / "t.jsonl").unlink()
    home.start()
    home.until_kept("s", ["one", "two"])
    home.until_kept("u", ["one"])
    assert home.kept("t") == ["one"]


def test_nothing_is_asked_of_a_place_of_which_nothing_is_new(home: Home) -> None:
    home.write("s", "one")
    home.start()
    home.until_kept("s", ["one"])
    home.stop()
    home.asked = 0
    home.start()
    home.write("t", "two")
    home.until_kept("t", ["two"])
    assert home.asked <= 2


def test_a_place_that_cannot_be_asked_is_asked_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perry.agent.intake.RETRY", 0.2)
    home.is_away = True
    home.write("s", "one")
    home.start()
    eventually(lambda: home.asked, lambda times: times > 1, within=20)
    assert home.intake.pending == 1
    home.is_away = False
    home.until_kept("s", ["one"])
    eventually(lambda: home.intake.pending, lambda due: due == 0, within=20)


def test_a_damaged_archive_is_set_aside_and_filled_again(home: Home) -> None:
    home.write("s", "one")
    home.file.parent.mkdir()
    home.file.write_bytes(b"no database " * 1000)
    home.start()
    home.until_kept("s", ["one"])
    [aside] = home.file.parent.glob("*.broken-*")
    assert aside.read_bytes().startswith(b"no database")


def test_an_archive_damaged_while_it_is_used_is_set_aside_too(home: Home) -> None:
    home.write("s", *["one"] * 3000)
    home.start()
    eventually(lambda: len(home.kept("s")), lambda seen: seen == 3000, within=20)
    home.intake.archive._database.give_back()
    size = home.file.stat().st_size
    with home.file.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    home.write("t", "two")
    home.until_kept("t", ["two"])
    eventually(lambda: len(home.kept("s")), lambda seen: seen == 3000, within=20)
    assert len(list(home.file.parent.glob("*.broken-*"))) >= 1


def test_turned_off_it_takes_nothing_in(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perry.agent.intake.RETRY", 0.2)
    archive = Archive(home.file)
    archive.turn(on=False)
    home.write("s", "one")
    home.start()
    eventually(home.mirror.sessions, lambda seen: len(seen) == 1, within=20)
    home.intake.settle("host", 0.5)
    assert home.kept("s") == []
    archive.turn(on=True)
    home.until_kept("s", ["one"])


def test_a_secret_never_comes_in_where_that_is_wanted(home: Home) -> None:
    key = "ghp_" + "a1B2" * 9
    home.write("s", f"use {key} for it", "another")
    home.start(redactor=redactor())
    blotted = "use [redacted: GitHub Token] for it"
    home.until_kept("s", [blotted, "another"])
    home.write("s", key)
    home.until_kept("s", [blotted, "another", "[redacted: GitHub Token]"])
    [kept] = home.intake.archive.sessions()
    assert (kept.session.title, kept.session.first_prompt) == (blotted, blotted)
    home.stop()
    home.asked = 0
    home.start(redactor=redactor())
    home.write("t", "two")
    home.until_kept("t", ["two"])
    assert home.asked <= 2, "what is blotted out counts as changed"
    home.intake.archive._database.give_back()
    assert key.encode() not in b"".join(file.read_bytes() for file in home.file.parent.iterdir())


def test_what_is_older_than_its_bounds_is_not_kept(home: Home) -> None:
    home.write("s", "one")
    home.write("t", "two")
    home.start(config=ArchiveConfig(keep_days=1))
    eventually(home.mirror.sessions, lambda seen: len(seen) == 2, within=20)
    eventually(lambda: home.intake.pending, lambda due: due == 0, within=20)
    assert (home.kept("s"), home.kept("t")) == ([], [])
    home.stop()
    home.start(config=ArchiveConfig(keep_days=100_000))
    home.until_kept("s", ["one"])
    home.stop()
    home.start(config=ArchiveConfig(keep_days=1))
    eventually(Archive(home.file).sessions, lambda kept: kept == [])


def test_a_settled_place_is_one_of_which_all_that_was_told_is_taken_in(home: Home) -> None:
    home.write("s", *[f"number {number}" for number in range(1000)])
    home.start()
    eventually(home.mirror.sessions, lambda seen: len(seen) == 1, within=20)
    home.intake.settle("host", 20)
    assert len(home.kept("s")) == 1000


def test_one_session_that_cannot_be_read_holds_up_no_other(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest one, so that it is the first to be read each time."""
    unreadable = LocalClient.list_messages

    def list_messages(client: LocalClient, session_id: str, **more: Any) -> MessagePage:
        if session_id == "bad":
            raise WorkerUnreachable("it takes too long")
        return unreadable(client, session_id, **more)

    monkeypatch.setattr(LocalClient, "list_messages", list_messages)
    home.write("bad", "one")
    home.start()
    for name in ("a", "b", "c"):
        home.write(name, name)
        home.until_kept(name, [name])
    assert home.intake.pending == 1


def test_a_session_that_defeats_the_archive_holds_up_no_other(home: Home) -> None:
    class Surrogates:
        """What is to be kept of one session can't be encoded."""

        def __call__(self, message: Message) -> Message:
            return Message("user", message.content.replace("bad", "\ud83d"), None)

        def session(self, session: Session) -> Session:
            return session

    home.write("s", "bad", "worse")
    home.write("t", "good")
    home.start(redactor=Surrogates())
    home.until_kept("t", ["good"])
    assert home.kept("s") == []
    assert home.intake.problem is None
