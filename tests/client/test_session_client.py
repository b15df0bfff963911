"""Whoever answers for a place's sessions says the same: a worker, an index here, the archive.

Every claim here is made of the first two, over real files; what doesn't speak of changes, of the
archive as well, which has taken in the same files.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

from perry.archive.archive import Archive
from perry.archive.models import Piece
from perry.client.archive_client import ArchiveClient
from perry.client.events import Event
from perry.client.follow import Follower
from perry.client.local_client import LocalClient
from perry.client.session_client import SessionClient
from perry.client.worker_client import WorkerClient
from perry.errors import (
    SessionInTheWay,
    SessionNotFound,
    SessionNotKept,
    WorkerError,
    WorkerFailure,
)
from perry.sessions.index import SessionIndex
from perry.sessions.models import SearchPage
from perry.worker.watcher import Watcher
from tests.sessions.test_opencode import SCHEMA, Database, text
from tests.worker.running import ClaudeHome, WorkerProcess, eventually

if TYPE_CHECKING:
    from pathlib import Path

Connect = Callable[[], SessionClient]
Serve = Callable[["Path"], AbstractContextManager[Connect]]

KEPT = (
    "CREATE TRIGGER kept BEFORE DELETE ON session BEGIN SELECT RAISE(ABORT, 'this is kept'); END;"
)

PROMPTS = tuple(f"prompt {number}" for number in range(25))


@contextlib.contextmanager
def by_worker(home: Path) -> Iterator[Connect]:
    with WorkerProcess(home) as worker:
        url = f"http://127.0.0.1:{worker.port}"
        yield lambda: WorkerClient(url, worker.token, workspace="ws")


@contextlib.contextmanager
def in_process(home: Path) -> Iterator[Connect]:
    index = SessionIndex.of_home(home, {}, remember=True)
    watcher = Watcher(index)
    watcher.start()
    eventually(watcher.ready.is_set, "the first scan is whole")
    try:
        yield lambda: LocalClient(index, workspace="ws")
    finally:
        watcher.stop()


@contextlib.contextmanager
def archived(home: Path) -> Iterator[Connect]:
    """The sessions as they are now, of a workspace that is gone; another has the same."""
    with contextlib.closing(Archive(home / "archive.sqlite")) as archive:
        for session in (index := refreshed(home)).listing(agent=None, children=True):
            messages = index.messages(session.id, limit=10**6, offset=0).messages
            archive.merge([Piece(ws, session, 0, messages, is_last=True) for ws in ("ws", "other")])
        yield lambda: ArchiveClient(archive, workspace="ws")


def refreshed(home: Path) -> SessionIndex:
    index = SessionIndex.of_home(home, {})
    index.refresh()
    return index


@pytest.fixture(params=[by_worker, in_process], scope="module")
def serve(request: pytest.FixtureRequest) -> Serve:
    made: Serve = request.param
    return made


@pytest.fixture(params=[by_worker, in_process, archived], scope="module")
def connect(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Connect]:
    """A place with two sessions that no test changes."""
    home = ClaudeHome(tmp_path_factory.mktemp("home"))
    home.session(*PROMPTS, session_id="long")
    home.session("Grüße & needle=?", session_id="%2e")
    with request.param(home.home) as made:
        yield made


@pytest.fixture
def client(connect: Connect) -> Iterator[SessionClient]:
    with connect() as made:
        yield made


def test_a_client_names_its_place(client: SessionClient) -> None:
    assert client.workspace == "ws"


def test_sessions_are_listed(client: SessionClient) -> None:
    assert {each.id for each in client.list_sessions()} == {"long", "%2e"}
    assert len(client.list_sessions(limit=1)) == 1
    assert client.list_sessions(limit=1) + client.list_sessions(offset=1) == client.list_sessions()
    assert client.list_sessions(offset=2) == client.list_sessions(limit=0) == ()
    assert client.list_sessions(agent="opencode") == ()
    assert len(client.list_sessions(agent="claude", children=True)) == 2


def test_a_session_is_the_one_that_is_listed(client: SessionClient) -> None:
    session = client.get_session("long", agent="claude")
    assert (session.agent_type, session.message_count) == ("claude", 25)
    assert session in client.list_sessions()
    assert client.get_session("%2e").first_prompt == "Grüße & needle=?"


def test_an_agent_of_no_letters_is_any(client: SessionClient) -> None:
    assert len(client.list_sessions(agent="")) == 2
    assert client.get_session("long", agent="").id == "long"
    assert client.list_messages("long", agent="").total == 25
    assert len(client.search("prompt", agent="").hits) == 25


def test_messages_come_in_pages(client: SessionClient) -> None:
    page = client.list_messages("long", limit=3, offset=1)
    assert (page.id, page.total) == ("long", 25)
    assert [each.content for each in page.messages] == list(PROMPTS[21:24])
    assert client.list_messages("long", limit=0).messages == ()
    assert client.list_messages("long", offset=25).messages == ()


@pytest.mark.parametrize("page", [1, 2, 7, 24, 25, 26, 100])
def test_all_messages_come_in_order_whatever_the_page(client: SessionClient, page: int) -> None:
    assert [each.content for each in client.iterate_messages("long", page=page)] == list(PROMPTS)
    late = [each.content for each in client.iterate_messages("long", page=page, start=20)]
    assert late == list(PROMPTS[20:])


def test_words_are_found(client: SessionClient) -> None:
    page = client.search("grüße NEEDLE=?")
    assert [session.id for session in page.sessions] == ["%2e"]
    (hit,) = page.hits
    marked = [hit.snippet[start:stop] for start, stop in hit.marks]
    assert [word.rstrip("=?") for word in marked] == ["Grüße", "needle"]
    assert client.search("needle", agent="pi") == SearchPage((), ())
    assert client.search("needle", since=2**52) == SearchPage((), ())
    assert client.search("needle", limit=0) == SearchPage((), ())
    assert client.search(" ") == SearchPage((), ())
    whole = client.search("prompt").hits
    assert client.search("prompt", limit=5).hits + client.search("prompt", offset=5).hits == whole


def test_a_title_is_found_too(serve: Serve, tmp_path: Path) -> None:
    path = ClaudeHome(tmp_path).session("one", session_id="mine")
    with path.open("a") as file:
        file.write('{"type": "custom-title", "customTitle": "The needle"}\n')
    with serve(tmp_path) as connect, connect() as client:
        (hit,) = client.search("NEEDLE the").hits
    assert (hit.session_id, hit.type, hit.snippet) == ("mine", "title", "The needle")


def test_a_search_in_this_process_ends_when_nobody_waits_for_it(tmp_path: Path) -> None:
    for number in range(20):
        ClaudeHome(tmp_path).session("needle", session_id=f"s-{number}")
    asked: list[int] = []

    def go_on() -> bool:
        asked.append(len(asked))
        return len(asked) < 12

    with in_process(tmp_path) as connect:
        client = connect()
        assert isinstance(client, LocalClient)
        assert len(client.search("needle").hits) == 20
        assert 0 < len(client.search("needle", go_on=go_on).hits) < 12


def test_a_search_gives_1000_hits_at_most(serve: Serve, tmp_path: Path) -> None:
    ClaudeHome(tmp_path).session(*["needle"] * 1100, session_id="many")
    with serve(tmp_path) as connect, connect() as client:
        assert len(client.search("needle", limit=5000).hits) == 1000


@pytest.mark.parametrize(
    "session_id",
    ["", ".", "..", "../health", "a/b", "gone", "%2e%2e", "a?b", "\x00", "\udcff", "x" * 9999],
)
def test_an_id_of_no_session_is_not_found(client: SessionClient, session_id: str) -> None:
    for ask in (client.get_session, client.list_messages, client.delete_session):
        with pytest.raises(SessionNotFound) as caught:
            ask(session_id)
        assert caught.value.workspace == "ws"
        assert len(caught.value.message) < 300
        assert "perry session list --workspace ws" in caught.value.hint
    with pytest.raises(SessionNotFound):
        list(client.iterate_messages(session_id))


def test_an_id_of_another_coding_agent_is_not_found(client: SessionClient) -> None:
    with pytest.raises(SessionNotFound):
        client.get_session("long", agent="pi")


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.list_sessions(limit=-1),
        lambda client: client.list_sessions(offset=-1),
        lambda client: client.list_messages("long", limit=-1),
        lambda client: client.list_messages("long", offset=-1),
        lambda client: client.search("prompt", since=-1),
        lambda client: client.search("x" * 1001),
    ],
)
def test_what_makes_no_sense_is_refused(
    client: SessionClient, ask: Callable[[SessionClient], object]
) -> None:
    with pytest.raises(WorkerFailure, match="ws") as caught:
        ask(client)
    assert caught.value.status == 400
    assert caught.value.workspace == "ws"


def test_what_is_written_while_it_is_read_comes_too(serve: Serve, tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    path = home.session(*PROMPTS, session_id="mine")
    with serve(tmp_path) as connect, connect() as client:
        got = []
        for message in client.iterate_messages("mine", page=4):
            got.append(message.content)
            if len(got) in {3, 11, 12, 20}:
                home.append(path, f"late {len(got)}")
                client.refresh()
    assert got == [*PROMPTS, "late 3", "late 11", "late 12", "late 20"]


def test_a_deleted_session_is_gone_with_its_files(serve: Serve, tmp_path: Path) -> None:
    path = ClaudeHome(tmp_path).session("one", session_id="mine")
    with serve(tmp_path) as connect, connect() as client:
        client.delete_session("mine")
        assert not path.exists()
        assert client.list_sessions() == ()
        with pytest.raises(SessionNotFound):
            client.delete_session("mine")


def test_a_deleted_session_can_be_restored(serve: Serve, tmp_path: Path) -> None:
    path = ClaudeHome(tmp_path).session("one", session_id="mine")
    before = path.read_bytes()
    with serve(tmp_path) as connect, connect() as client:
        assert client.list_deleted() == ()
        session = client.get_session("mine")
        client.delete_session("mine")
        [deleted] = client.list_deleted()
        assert deleted.session == session
        assert deleted.until - deleted.deleted_at == 30 * 24 * 3600 * 1000
        client.restore_session("mine", agent="claude")
        assert path.read_bytes() == before
        assert client.list_sessions() == (session,)
        assert client.list_deleted() == ()
        client.restore_session("mine")


def test_what_is_deleted_for_good_cannot_be_restored(serve: Serve, tmp_path: Path) -> None:
    ClaudeHome(tmp_path).session("one", session_id="mine")
    with serve(tmp_path) as connect, connect() as client:
        client.delete_session("mine", for_good=True)
        assert client.list_deleted() == ()
        with pytest.raises(SessionNotFound, match="kept in ws") as caught:
            client.restore_session("mine")
        assert "restore --list --workspace ws" in caught.value.hint


def test_what_is_in_the_way_of_a_session_is_named(serve: Serve, tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    path = home.session("one", session_id="mine")
    with serve(tmp_path) as connect, connect() as client:
        client.delete_session("mine")
        home.session("another", session_id="mine")
        with pytest.raises(SessionInTheWay, match=r"mine\.jsonl") as caught:
            client.restore_session("mine")
        assert (caught.value.workspace, bool(caught.value.hint)) == ("ws", True)
        assert "another" in path.read_text()
        assert len(client.list_deleted()) == 1


def test_what_cannot_be_kept_is_not_deleted(serve: Serve, tmp_path: Path) -> None:
    path = ClaudeHome(tmp_path).session("one", session_id="mine")
    with serve(tmp_path) as connect, connect() as client:
        cache = tmp_path / ".cache" / "perry"
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "deleted").write_bytes(b"no directory")
        with pytest.raises(SessionNotKept, match="kept") as caught:
            client.delete_session("mine")
        assert "--for-good" in caught.value.hint
        assert path.exists()
        client.delete_session("mine", for_good=True)
        assert not path.exists()


def test_what_cannot_be_deleted_is_an_error_that_says_why(serve: Serve, tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.run(schema=SCHEMA + KEPT)
    database.session("ses_1")
    database.say("ses_1", "user", text("hi"))
    with serve(tmp_path) as connect, connect() as client:
        with pytest.raises(WorkerFailure, match="this is kept") as caught:
            client.delete_session("ses_1")
        assert (caught.value.status, caught.value.workspace) == (503, "ws")
        assert caught.value.hint
        assert client.get_session("ses_1").message_count == 1


def test_refresh_is_over_when_it_returns(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path) as connect, connect() as client:
        ClaudeHome(tmp_path).session("one", session_id="mine")
        client.refresh()
        assert [each.id for each in client.list_sessions()] == ["mine"]


def test_threads_can_share_a_client(client: SessionClient) -> None:
    got: list[int] = []

    def read() -> None:
        got.extend(len(list(client.iterate_messages("long", page=5))) for _ in range(5))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert got == [25] * 20


def test_events_tell_what_changes_and_leave_the_client_free_for_questions(
    serve: Serve, tmp_path: Path
) -> None:
    home = ClaudeHome(tmp_path)
    with serve(tmp_path) as connect, connect() as client:
        events = client.events()
        ready = next(events)
        assert (ready.kind, ready.session) == ("ready", None)
        path = home.session("one", session_id="mine")
        created = next(events)
        assert created.kind == "created"
        assert created.session == client.get_session("mine")
        assert (created.session_id, created.agent_type) == ("mine", "claude")
        home.append(path, "two")
        updated = next(events)
        assert updated.session is not None
        assert (updated.kind, updated.session.message_count) == ("updated", 2)
        client.delete_session("mine")
        deleted = next(events)
        assert (deleted.kind, deleted.session) == ("deleted", None)
        assert (deleted.session_id, deleted.agent_type) == ("mine", "claude")
        client.restore_session("mine")
        restored = next(events)
        assert (restored.kind, restored.session) == ("created", updated.session)
        events.close()


def test_events_go_on_after_an_id_over_another_client(serve: Serve, tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    with serve(tmp_path) as connect:
        with connect() as client, contextlib.closing(client.events()) as events:
            ready = next(events)
        home.session("one", session_id="mine")
        with connect() as client:
            client.refresh()
            with contextlib.closing(client.events(ready.id)) as resumed:
                assert next(resumed) == Event(ready.id, "ready")
                assert (created := next(resumed)).kind == "created"
            with contextlib.closing(client.events("another-1")) as strange:
                assert next(strange) == Event(created.id, "reset")


def test_events_wait_until_something_happens(serve: Serve, tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    got: list[tuple[Event, float]] = []
    with serve(tmp_path) as connect, connect() as client:
        events = client.events()

        def read() -> None:
            with contextlib.suppress(WorkerError):  # the worker has ended with the test
                got.extend((event, time.monotonic()) for event in events)

        threading.Thread(target=read, daemon=True).start()
        eventually(lambda: len(got) == 1, "the stream is open")
        time.sleep(0.3)
        assert [event.kind for event, _ in got] == ["ready"]
        written = time.monotonic()
        home.session("one", session_id="mine")
        eventually(lambda: len(got) > 1, "the change is told")
        assert got[1][1] - written < 2


def test_a_follower_follows(serve: Serve, tmp_path: Path) -> None:
    home = ClaudeHome(tmp_path)
    with serve(tmp_path) as connect:
        follower = Follower(connect)
        told = iter(follower)
        assert next(told).kind == "ready"
        home.session("one", session_id="mine")
        created = next(told)
        assert follower.client.get_session("mine") == created.session
        follower.again(WorkerFailure("not taken in", status=503))
        assert [next(told).kind for _ in range(2)] == ["ready", "created"]
        told.close()  # type: ignore[attr-defined]  # it is a generator


@pytest.fixture
def of_archive(tmp_path: Path) -> Iterator[SessionClient]:
    home = ClaudeHome(tmp_path)
    home.session("one needle", session_id="mine")
    home.session("two", session_id="theirs")
    with archived(tmp_path) as connect, connect() as client:
        yield client


def test_what_is_deleted_in_the_archive_stays_in_files_and_under_other_names(
    of_archive: SessionClient, tmp_path: Path
) -> None:
    of_archive.delete_session("mine")
    assert [each.id for each in of_archive.list_sessions()] == ["theirs"]
    assert of_archive.search("needle") == SearchPage((), ())
    with pytest.raises(SessionNotFound):
        of_archive.delete_session("mine")
    assert len([*tmp_path.rglob("*.jsonl")]) == 2
    with contextlib.closing(Archive(tmp_path / "archive.sqlite")) as archive:
        assert len(ArchiveClient(archive, workspace="other").list_sessions()) == 2


def test_the_archive_finds_phrases_and_prefixes(of_archive: SessionClient) -> None:
    assert len(of_archive.search('"one needle"').hits) == 1
    assert of_archive.search('"needle one"').hits == ()
    assert len(of_archive.search("need*").hits) == 1


def test_what_is_archived_cannot_be_followed(of_archive: SessionClient) -> None:
    of_archive.refresh()
    with pytest.raises(WorkerFailure, match="ws don't change"):
        of_archive.events()
