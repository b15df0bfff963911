"""Who is let in and who isn't, asked of a real daemon."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.routing import Route

from perry.agent.app import routes, told
from perry.agent.daemon import Daemon
from perry.agent.guard import OPEN_PATHS
from perry.config import ArchiveConfig
from perry.errors import EngineUnreachable
from perry.protocol import proof
from perry.worker.events import Streams
from tests.agent.daemon import AgentProcess
from tests.worker.running import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from perry.workspace.engine import Engine

NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
ELSEWHERE = ("http://evil.example", "null", "https://127.0.0.1:1", "http://localhost:3000")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with AgentProcess(tmp_path_factory.mktemp("agent")) as running:
        running.home.session("hello", session_id="one")
        yield running


@pytest.fixture
def stranger(daemon: AgentProcess) -> Iterator[httpx.Client]:
    with daemon.client() as client:
        yield client


@pytest.fixture
def browser(daemon: AgentProcess) -> Iterator[httpx.Client]:
    """A browser that was let in by the link."""
    with daemon.client() as client:
        assert client.get("/login", params={"token": daemon.token}).status_code == 200
        yield client


def every_route(directory: Path) -> list[tuple[str, str]]:
    """Each method and path of the table."""

    def connect() -> Engine:
        raise EngineUnreachable("there is none")

    parts = Daemon(
        directory,
        0,
        archive=directory / "archive.sqlite",
        config=ArchiveConfig(),
        home=directory,
        env={},
        connect=connect,
    )
    table = routes(parts, "token", Streams(parts.ledger.journal, told), lambda: None)
    parts.ledger.close()
    return [
        (method, route.path.format(name="host", id="one"))
        for route in table
        if isinstance(route, Route)
        for method in sorted(route.methods or ())
    ]


def test_no_route_but_the_open_ones_answers_without_the_token(
    stranger: httpx.Client, tmp_path: Path
) -> None:
    table = every_route(tmp_path)
    assert len(table) > 20
    assert {path for _, path in table if path in OPEN_PATHS} == {"/health", "/login"}
    for method, path in table:
        if path in OPEN_PATHS:
            continue
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic wrong"},
            {"Cookie": "perry_agent=wrong"},
            {"Cookie": "perry_agent="},
        ):
            answer = stranger.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, headers)
            assert answer.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                assert answer.json().keys() == {"error"}


def test_what_is_no_route_is_401_for_strangers_and_404_with_the_token(
    stranger: httpx.Client, daemon: AgentProcess
) -> None:
    for path in ("/nothing", "/api/", "/health/", "//health", "/api/sessions/"):
        assert stranger.get(path).status_code == 401, path
        answer = daemon.http.get(path)
        assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"}), path


def test_the_token_lets_in_however_the_scheme_is_spelled(
    stranger: httpx.Client, daemon: AgentProcess
) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {daemon.token}"}
        assert stranger.get("/api/status", headers=headers).status_code == 200
    for given in (daemon.token, f"Basic {daemon.token}", f"Bearer {daemon.token}x", "Bearer \xe9"):
        headers = {"Authorization": given}
        answer = stranger.get("/api/status", headers=httpx.Headers(headers, encoding="latin-1"))
        assert answer.status_code == 401, given


def test_the_token_is_not_taken_from_a_query(stranger: httpx.Client, daemon: AgentProcess) -> None:
    assert stranger.get("/api/status", params={"token": daemon.token}).status_code == 401


# The login


def test_the_link_sets_a_cookie_that_scripts_and_other_sites_do_not_have(
    stranger: httpx.Client, daemon: AgentProcess
) -> None:
    answer = stranger.get("/login", params={"token": daemon.token})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert (answer.headers["referrer-policy"], answer.headers["cache-control"]) == (
        "no-referrer",
        "no-store",
    )
    [cookie] = answer.headers.get_list("set-cookie")
    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert parts == {"httponly", "samesite=strict", "path=/", "max-age=2592000"}
    assert daemon.token not in cookie
    assert daemon.token not in answer.text
    assert stranger.get("/api/status").status_code == 200


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?token=%ff%00", "?token"])
def test_a_wrong_link_is_401_and_sets_nothing(stranger: httpx.Client, query: str) -> None:
    answer = stranger.get(f"/login{query}")
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "perry agent token --link" in answer.json()["error"]


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "same-origin"])
def test_a_link_that_was_clicked_elsewhere_lets_in_without_redirecting(
    stranger: httpx.Client, daemon: AgentProcess, site: str
) -> None:
    """A web terminal or a mail: the browser would follow a redirect without the new cookie."""
    headers = {"Sec-Fetch-Site": site, **NAVIGATION}
    answer = stranger.get("/login", params={"token": daemon.token}, headers=headers)
    assert answer.status_code == 200
    assert "set-cookie" in answer.headers
    assert stranger.get("/login", params={"token": "x"}, headers=headers).status_code == 401


@pytest.mark.parametrize(
    "more",
    [
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
        {},
    ],
)
def test_a_foreign_page_may_not_log_a_browser_in_unseen(
    stranger: httpx.Client, daemon: AgentProcess, more: dict[str, str]
) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", **more}
    answer = stranger.get("/login", params={"token": daemon.token}, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_the_cookie_is_found_among_those_of_others(
    browser: httpx.Client, daemon: AgentProcess
) -> None:
    ours = browser.cookies["perry_agent"]
    for cookies in (
        f'theirs="a;b; odd=[{{"x":1}}]; perry_agent={ours}',
        f"perry_agent=shadow; perry_agent={ours}",
        f"perry_agent={ours}; perry_agent=shadow",
        f"=; ;a;\xe9=\xe9;perry_agent={ours}",
    ):
        headers = httpx.Headers({"Cookie": cookies}, encoding="latin-1")
        answer = httpx.get(f"{daemon.url}/api/status", headers=headers, trust_env=False)
        assert answer.status_code == 200, cookies


def test_a_wrong_token_is_not_made_good_by_the_cookie(browser: httpx.Client) -> None:
    assert browser.get("/api/status", headers={"Authorization": "Bearer x"}).status_code == 401


# Proofs


def test_nobody_can_have_the_cookie_made_by_asking_for_a_proof(
    stranger: httpx.Client, browser: httpx.Client, daemon: AgentProcess
) -> None:
    for challenge in ("perry login cookie", f"127.0.0.1:{daemon.port}/perry login cookie"):
        answer = stranger.get("/health", params={"challenge": challenge})
        proved = answer.json().get("proof")
        assert proved != browser.cookies["perry_agent"]
        headers = {"Cookie": f"perry_agent={proved}"}
        assert stranger.get("/api/status", headers=headers).status_code == 401
    assert browser.cookies["perry_agent"] != proof(daemon.token, "perry login cookie")


def test_health_proves_the_token_to_who_names_the_address(
    stranger: httpx.Client, daemon: AgentProcess
) -> None:
    challenge = f"127.0.0.1:{daemon.port}/n0nce"
    answer = stranger.get("/health", params={"challenge": challenge})
    assert answer.json()["proof"] == proof(daemon.token, challenge)
    assert answer.json().keys() == {"status", "version", "proof"}
    assert stranger.get("/health").json().keys() == {"status", "version"}


@pytest.mark.parametrize("challenge", ["", "n0nce", "127.0.0.1:1/n0nce", "localhost:{port}/n0nce"])
def test_nothing_is_proved_that_names_another_address(
    stranger: httpx.Client, daemon: AgentProcess, challenge: str
) -> None:
    challenge = challenge.format(port=daemon.port)
    headers = {"Host": "127.0.0.1:1"}
    answer = stranger.get("/health", params={"challenge": challenge}, headers=headers)
    assert answer.status_code == 400
    assert answer.json() == {"error": f"challenge must begin with 127.0.0.1:{daemon.port}/"}


def test_a_challenge_too_long_is_refused(stranger: httpx.Client, daemon: AgentProcess) -> None:
    challenge = f"127.0.0.1:{daemon.port}/".ljust(257, "x")
    assert stranger.get("/health", params={"challenge": challenge}).status_code == 400


# Names and pages


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "localhost.evil.example",
        "localhost@evil.example",
        "evil.example@localhost",
        "127.0.0.1.evil.example",
        "127.0.0.1:{port}:{port}",
        "127.0.0.1/x",
        "localhost:x",
        "[::1",
        "[::1]x",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/health", "/login", "/api/sessions"])
def test_a_foreign_host_is_403_even_with_the_token(
    daemon: AgentProcess, browser: httpx.Client, host: str, path: str
) -> None:
    headers = {"Host": host.format(port=daemon.port)}
    assert daemon.http.get(path, headers=headers).status_code == 403
    assert browser.get(path, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:{port}", "127.0.0.1", "192.0.2.7:80", "[::1]", "[::1]:{port}"]
)
def test_addresses_and_localhost_are_ours(daemon: AgentProcess, host: str) -> None:
    headers = {"Host": host.format(port=daemon.port)}
    assert daemon.http.get("/api/status", headers=headers).status_code == 200


@pytest.mark.parametrize("origin", ELSEWHERE)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_a_foreign_origin_is_403_with_the_token_and_with_the_cookie(
    daemon: AgentProcess, browser: httpx.Client, origin: str, method: str
) -> None:
    headers = {"Origin": origin}
    assert daemon.http.request(method, "/api/sessions", headers=headers).status_code == 403
    answer = browser.request(method, "/api/sessions", headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/health", "/api/sessions", "/nothing"])
def test_another_origins_page_is_403_even_where_it_says_no_origin(
    daemon: AgentProcess, browser: httpx.Client, site: str, path: str
) -> None:
    headers = {"Sec-Fetch-Site": site}
    assert daemon.http.get(path, headers=headers).status_code == 403
    assert browser.get(path, headers={**headers, **NAVIGATION}).status_code == 403


def test_its_own_pages_may_ask(daemon: AgentProcess, browser: httpx.Client) -> None:
    for origin in (daemon.url, daemon.url.upper().replace("HTTP", "http")):
        headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        assert browser.get("/api/sessions", headers=headers).status_code == 200
    own = {"Host": f"localhost:{daemon.port}", "Origin": f"http://localhost:{daemon.port}"}
    assert daemon.http.get("/api/sessions", headers=own).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/login", "/api/sessions", "/nothing"])
def test_no_answer_can_be_used_as_another_pages_own(daemon: AgentProcess, path: str) -> None:
    answer = daemon.http.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["x-frame-options"] == "DENY"


# Requests out of shape


def raw(daemon: AgentProcess, *lines: str) -> bytes:
    """Send the lines of a request as they are, and return all of the answer."""
    with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as connection:
        connection.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_a_header_that_decides_and_is_given_twice_is_400(daemon: AgentProcess) -> None:
    token = f"Authorization: Bearer {daemon.token}"
    good = ["Host: localhost", "Connection: close"]
    assert raw(daemon, "GET /api/status HTTP/1.1", *good, token).startswith(b"HTTP/1.1 200")
    for twice in (
        [token, token],
        [token, "Authorization: Bearer x"],
        [token, "Host: evil.example"],
        [token, "Origin: http://localhost", "Origin: http://evil.example"],
        [token, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"],
        [token, "Cookie: a=b", "Cookie: c=d"],
    ):
        answer = raw(daemon, "GET /api/status HTTP/1.1", *good, *twice)
        assert answer.startswith(b"HTTP/1.1 400"), twice


def test_a_request_without_a_host_is_refused(daemon: AgentProcess) -> None:
    token = f"Authorization: Bearer {daemon.token}"
    assert raw(daemon, "GET /api/status HTTP/1.1", token).startswith(b"HTTP/1.1 400")
    assert raw(daemon, "GET /api/status HTTP/1.0", token).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("target", ["http://localhost/api/status", "*", "/api/../health", "/%2e"])
def test_other_forms_of_a_target_open_nothing(daemon: AgentProcess, target: str) -> None:
    answer = raw(daemon, f"GET {target} HTTP/1.1", "Host: localhost", "Connection: close")
    assert answer.split(b" ", 2)[1] in {b"400", b"401"}, answer


@pytest.mark.parametrize("path", ["/api/workspaces/a%2Fb", "/api/workspaces/host/sessions/a%2fb"])
def test_an_encoded_slash_never_becomes_a_path(
    daemon: AgentProcess, stranger: httpx.Client, path: str
) -> None:
    assert stranger.get(path).status_code == 401
    assert daemon.http.get(path).status_code == 404


def test_every_method_that_is_not_in_the_table_is_405_and_says_which_are(
    daemon: AgentProcess, tmp_path: Path
) -> None:
    allowed: dict[str, set[str]] = {}
    for method, path in every_route(tmp_path):
        allowed.setdefault(path, set()).add(method)
    every: Any = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
    for path, methods in allowed.items():
        for method in set(every) - methods:
            answer = daemon.http.request(method, path)
            assert answer.status_code == 405, (method, path)
            assert {one.strip() for one in answer.headers["allow"].split(",")} == methods
            if method != "HEAD":
                assert answer.json() == {"error": "Method Not Allowed"}
