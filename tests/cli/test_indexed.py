"""`perry session search` beside a real agent daemon, which answers out of its archive."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from perry.archive.models import Filters, KeptHit
from perry.cli.findings import ranked, ranked_views
from perry.client.agent_client import AgentClient, AgentFound, AgentSession
from perry.errors import AgentRefusal, AgentUnreachable
from perry.sessions.models import Session
from tests.agent.daemon import AgentProcess, free_port
from tests.worker.running import eventually

NOW = 1_700_000_000.0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """Two sessions on the host, and a third that its coding agent purged."""
    directory = tmp_path_factory.mktemp("daemon")
    with AgentProcess(directory) as running:
        running.home.session("where is the needle", "hay", session_id="aaaa-one")
        running.home.session("a NEEDLE in a haystack", session_id="bbbb-two", project="-srv-site")
        purged = running.home.session("one more needle", session_id="cccc-three")
        eventually(lambda: len(hits(running, "needle")) == 3, "it is taken in")
        purged.unlink()
        eventually(lambda: len(running.counts()) == 2, "the third is gone")
        yield running


def search(daemon: AgentProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return daemon.perry("session", "search", *arguments, "--port", str(daemon.port))


def hits(daemon: AgentProcess, *arguments: str) -> list[Any]:
    found: list[Any] = json.loads(search(daemon, "--json", *arguments).stdout)["hits"]
    return found


def test_what_is_gone_is_found_too_and_each_hit_says_where_it_stands(daemon: AgentProcess) -> None:
    assert {hit["sessionId"]: hit["standing"] for hit in hits(daemon, "needle")} == {
        "aaaa-one": "live",
        "bbbb-two": "live",
        "cccc-three": "archived",
    }
    done = search(daemon, "needle")
    assert (done.returncode, done.stderr) == (0, "")
    assert "cccc-three  host  claude  archived  one more needle\n" in done.stdout
    assert "aaaa-one  host  claude  where is the needle\n" in done.stdout


def test_the_keys_of_the_answer_are_pinned(daemon: AgentProcess) -> None:
    told = json.loads(search(daemon, "--json", "needle").stdout)
    assert told.keys() == {"hits", "pending"}
    for hit in told["hits"]:
        assert hit.keys() == {
            "workspace", "title", "standing", "sessionId", "agentType", "type", "position",
            "timestamp", "snippet", "marks",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (('"the needle"',), {"aaaa-one"}),
        (("hayst*",), {"bbbb-two"}),
        (("needle", "--role", "assistant"), set()),
        (("needle", "--role", "user", "-w", "host"), {"aaaa-one", "bbbb-two", "cccc-three"}),
        (("needle", "--tool", "Bash"), set()),
        (("needle", "--directory", "/srv"), {"aaaa-one", "bbbb-two", "cccc-three"}),
        (("needle", "--directory", "/elsewhere"), set()),
        (("needle", "--until", "2020-01-01"), set()),
        (("needle", "--since", "2020-01-01", "--until", "2027-01-01", "--limit", "1"), {1}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_phrases_prefixes_and_filters_are_the_archives(
    daemon: AgentProcess, arguments: tuple[str, ...], found: set[Any]
) -> None:
    ids = {hit["sessionId"] for hit in hits(daemon, *arguments)}
    assert ids == found or {len(ids)} == found


def test_nothing_found_and_a_limit_that_cuts_are_said(daemon: AgentProcess) -> None:
    done = search(daemon, "nowhere")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing found anywhere\n")
    done = search(daemon, "nowhere", "-w", "host")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing found in host\n")
    done = search(daemon, "needle", "--limit", "1")
    assert done.stderr == "only 1 hit; --limit shows more\n"


def test_a_workspace_that_the_daemon_does_not_know_is_asked_itself(daemon: AgentProcess) -> None:
    """And there is no engine to find it on."""
    done = search(daemon, "needle", "-w", "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert "No Docker engine answers" in done.stderr
    done = search(daemon, "needle", "-w", "nowhere", "--role", "user")
    assert "there is no workspace 'nowhere'" in done.stderr


@pytest.mark.parametrize("option", ["directory", "role", "tool", "until"])
def test_without_a_daemon_what_only_the_archive_knows_is_a_usage_error(
    daemon: AgentProcess, option: str
) -> None:
    value = {"until": "1d", "role": "user"}.get(option, "x")
    done = daemon.perry(
        "session", "search", "needle", f"--{option}", value, "--port", str(free_port())
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--{option} is for a search of the archive" in done.stderr
    assert "perry agent serve" in done.stderr


def test_without_a_daemon_each_place_searches_itself(daemon: AgentProcess) -> None:
    done = daemon.perry(
        "session", "search", "needle", "--json", "-w", "host", "--port", str(free_port())
    )
    told = json.loads(done.stdout)
    assert told.keys() == {"hits"}
    assert {hit["sessionId"] for hit in told["hits"]} == {"aaaa-one", "bbbb-two"}


def test_the_client_pages_through_what_the_daemon_finds(daemon: AgentProcess) -> None:
    with AgentClient(daemon.url, daemon.token) as client:
        whole = client.search("needle", Filters())
        assert (whole.by, whole.failures, len(whole.hits)) == ("archive", (), 3)
        first = client.search("needle", Filters(workspace="host", agent="claude"), limit=2)
        rest = client.search("needle", Filters(), limit=2, offset=2)
        assert first.hits + rest.hits == whole.hits
        with pytest.raises(AgentRefusal, match="no workspace") as raised:
            client.search("needle", Filters(workspace="nowhere"))
        assert raised.value.status == 404
    with (
        AgentClient(f"http://127.0.0.1:{free_port()}", "x" * 64) as client,
        pytest.raises(AgentUnreachable),
    ):
        client.search("needle", Filters())


def test_a_session_stands_where_its_best_hit_is_with_all_of_its_hits(
    make_session: Callable[..., Session],
) -> None:
    def hit(session: str, snippet: str) -> KeptHit:
        marks = ((0, 3),)
        return KeptHit(session, "claude", "user", 0, None, snippet, marks, workspace="gone")

    def standing(session: Session, stands: str) -> AgentSession:
        known = {name: getattr(session, name) for name in session.__struct_fields__}
        return AgentSession(**known, workspace="gone", standing=stands)

    sessions = (
        standing(make_session(id="4f2a0000-1"), "archived"),
        standing(make_session(id="beef0000-2", title="Other"), "live"),
    )
    found = AgentFound(
        (
            hit("beef0000-2", "the best"),
            hit("4f2a0000-1", "the good"),
            hit("beef0000-2", "the last"),
        ),
        sessions,
        (),
        "archive",
        0,
    )
    assert list(ranked(found, now=NOW, columns=80, paint=lambda text, _: text)) == [
        "beef0000  gone  claude  Other",
        "  user         just now      the best",
        "  user         just now      the last",
        "",
        "4f2a0000  gone  claude  archived  Fix the login",
        "  user         just now      the good",
    ]
    assert [view["standing"] for view in ranked_views(found)] == ["live", "live", "archived"]
