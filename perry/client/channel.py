"""One worker's HTTP connection: proved before the token, retried by one policy, bounded.

The only module that sends anything to a worker, and the only one that turns httpx's errors into
perry's. An address can pass to a neighbour between two requests, so a proof counts for the
connection it came over and no longer: a request that carries the token is stopped before its first
byte if it would open a new one. This module must not know what the questions mean.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import msgspec
import tenacity
from tenacity.stop import stop_base

from perry.client.quoting import plain
from perry.client.transport import TransportFactory, over_tcp
from perry.errors import WorkerError, WorkerFailure, WorkerUnreachable, WorkerUntrusted
from perry.protocol import Health, is_proof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

CONNECT_TIMEOUT = 2.0  # s
LONGEST_ANSWER = 60.0  # s from the first byte of an answer to its last
LARGEST_ANSWER = 64 * 1024 * 1024  # bytes

ATTEMPTS = 4
ATTEMPTS_WHILE_STARTING = 12
LONGEST_RETRYING = 10.0  # s
HANDSHAKES = 3

OK, NOT_FOUND, STARTING = 200, 404, 503

CONNECTED = "connection.connect_tcp.complete"
CONNECTING = frozenset({"connection.connect_tcp.started", "connection.connect_unix_socket.started"})
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True)
class Answer:
    """What a worker said: the HTTP status and the body as it came."""

    status: int
    body: bytes


class _Words(msgspec.Struct):
    error: str = ""


class _NewConnection(Exception):
    """A request with the token would have gone over a connection without a proof."""


class _Unready(Exception):
    """The worker answered 503: still on its first scan, or the session keeps changing."""


class Channel:
    """Sends requests to one worker; safe to use from several threads, one request at a time.

    `timeout` is how many seconds the worker may be silent, `connect_timeout` how many a connection
    may take. The proof counts for a connection, so `transport` makes one that keeps one at a time.
    What is to be proved begins with `audience`, for who proves nothing that is meant for others.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None,
        *,
        workspace: str,
        transport: TransportFactory = over_tcp,
        timeout: float,
        connect_timeout: float = CONNECT_TIMEOUT,
        largest_answer: int = LARGEST_ANSWER,
        audience: str = "",
    ) -> None:
        self._workspace = workspace
        self._audience = audience
        self._address = base_url
        self._token = token
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._largest = largest_answer
        self._proved = False
        self._connection: socket.socket | None = None
        self._lock = threading.RLock()
        with self._errors():
            self._http = httpx.Client(
                base_url=base_url,
                transport=transport(),
                trust_env=False,
                follow_redirects=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "perry"},
            )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def cut(self) -> bool:
        """End the connection under whoever uses it in another thread; False where it isn't TCP."""
        if (connection := self._connection) is None:
            return False
        with contextlib.suppress(OSError):  # it has ended by itself
            connection.shutdown(socket.SHUT_RDWR)
        return True

    def ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer:
        """Send one request, with the token where there is one, after the proof.

        GETs are sent again after connection errors, timeouts and 503; anything else only where
        nothing can have reached the worker.
        Raises WorkerUnreachable, WorkerUntrusted, or WorkerFailure for 503 and oversized answers.
        """
        retrying = _retrying(_idempotent if method == "GET" else _never_sent)
        with self._errors():
            return retrying(self._attempt, method, path, params, timeout or self._timeout)

    @contextlib.contextmanager
    def stream(
        self, path: str, params: Mapping[str, str], *, silence: float
    ) -> Iterator[Answer | Iterator[bytes]]:
        """Open one answer without an end, and close it after the block.

        Gives the bytes as they come, or the whole answer where its status isn't 200. Until it is
        open it is asked for as `ask` does; from then on `silence` is how many seconds the worker
        may say nothing. Nothing else can be asked of this channel meanwhile.
        Raises what `ask` raises, inside the block as well.
        """
        with self._errors():
            response = _retrying(_idempotent)(self._attempt_stream, path, params, silence)
            with contextlib.closing(response):
                if response.status_code == OK:
                    self._require_identity(response)
                    yield response.iter_raw()
                else:
                    yield Answer(response.status_code, self._body(response))

    def ask_openly(self, path: str, params: Mapping[str, str], *, with_token: bool) -> Answer:
        """Send one GET once, without the token unless asked for; 503 is an answer like another.

        Raises what `ask` raises.
        """
        with self._errors(), self._lock:
            if not with_token:
                return self._send("GET", path, params, self._timeout, token=None)
            return self._with_proof(
                lambda token: self._send("GET", path, params, self._timeout, token=token)
            )

    def prove(self) -> Answer:
        """Let the worker prove that it has the token, over the connection that is kept.

        Returns the health that it said with it.
        Raises WorkerUntrusted where it doesn't, WorkerUnreachable where it doesn't answer.
        """
        with self._errors(), self._lock:
            return self._prove()

    def _attempt(
        self, method: str, path: str, params: Mapping[str, str] | None, timeout: float
    ) -> Answer:
        with self._lock:
            answer = self._with_proof(
                lambda token: self._send(method, path, params, timeout, token=token)
            )
        if answer.status == STARTING:
            raise _Unready(words_in(answer))
        return answer

    def _attempt_stream(
        self, path: str, params: Mapping[str, str], silence: float
    ) -> httpx.Response:
        with self._lock:
            response = self._with_proof(
                lambda token: self._open("GET", path, params, silence, token=token)
            )
        if response.status_code != STARTING:
            return response
        with contextlib.closing(response):
            raise _Unready(words_in(Answer(STARTING, self._body(response))))

    def _with_proof(self, send: Callable[[str | None], T]) -> T:
        for _ in range(HANDSHAKES):
            if self._token is not None and not self._proved:
                self._prove()
            with contextlib.suppress(_NewConnection):  # prove again, over the new one
                return send(self._token)
        raise WorkerUnreachable(
            f"The worker at {self._address} closes its connection after every answer.",
            hint=_restart(self._workspace),
            workspace=self._workspace,
        )

    def _prove(self) -> Answer:
        nonce = self._audience + secrets.token_hex(16)
        answer = self._send("GET", "/health", {"challenge": nonce}, self._timeout, token=None)
        if self._token is not None and not is_proof(self._token, nonce, _proof_in(answer)):
            raise WorkerUntrusted(
                f"What answers at {self._address} can't prove that it is the worker"
                f" of {self._workspace}; the token was not sent.",
                hint=_restart(self._workspace),
                workspace=self._workspace,
            )
        self._proved = True
        return answer

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        timeout: float,
        *,
        token: str | None,
    ) -> Answer:
        response = self._open(method, path, params, timeout, token=token)
        try:
            with contextlib.closing(response):
                return Answer(response.status_code, self._body(response))
        except Exception:
            self._proved = False
            raise

    def _open(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        timeout: float,
        *,
        token: str | None,
    ) -> httpx.Response:
        def trace(event: str, info: dict[str, Any]) -> None:
            if event in CONNECTING:
                self._proved = False
                if token is not None:
                    raise _NewConnection
            if event == CONNECTED:
                self._connection = info["return_value"].get_extra_info("socket")

        if self._http.is_closed:  # by another thread, which has lost the worker
            raise WorkerUnreachable(
                f"The connection to the worker of {self._workspace} was closed meanwhile.",
                hint="Try again in a moment.",
                workspace=self._workspace,
            )
        request = self._http.build_request(
            method,
            path,
            params=params,
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(timeout, connect=min(timeout, self._connect_timeout)),
            extensions={"trace": trace},
        )
        try:
            return self._http.send(request, stream=True)
        except Exception:
            self._proved = False
            raise

    def _body(self, response: httpx.Response) -> bytes:
        self._require_identity(response)
        body = bytearray()
        deadline = time.monotonic() + LONGEST_ANSWER
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > self._largest:
                raise self._failure(f"its answer is larger than {self._largest} bytes", response)
            if time.monotonic() > deadline:
                raise self._failure(f"its answer took over {LONGEST_ANSWER:g} s", response)
        return bytes(body)

    def _require_identity(self, response: httpx.Response) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self._failure("its answer is compressed, which was not asked for", response)

    def _failure(self, what: str, response: httpx.Response) -> WorkerFailure:
        return WorkerFailure(
            f"The worker of {self._workspace} can't be read: {what}.",
            status=response.status_code,
            hint=_restart(self._workspace),
            workspace=self._workspace,
        )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except WorkerError:
            raise
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, _Unready) as error:
            raise _mapped(error, self._workspace, self._address) from error


def _mapped(error: Exception, workspace: str, address: str) -> WorkerError:
    if isinstance(error, _Unready):
        return WorkerFailure(
            f"The worker of {workspace} isn't ready: {error}.",
            status=STARTING,
            hint="Try again in a moment.",
            workspace=workspace,
        )
    if isinstance(error, httpx.TimeoutException):
        what = f"The worker of {workspace} at {address} doesn't answer in time."
    else:
        what = f"The worker of {workspace} at {address} can't be reached: {error}."
    return WorkerUnreachable(what, hint=_restart(workspace), workspace=workspace)


def _restart(workspace: str) -> str:
    return f"`perry workspace sync {workspace}` starts its worker again."


def _proof_in(answer: Answer) -> str:
    if answer.status not in {OK, STARTING}:
        return ""
    try:
        return msgspec.json.decode(answer.body, type=Health).proof or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""  # no health answer, so no proof


def words_in(answer: Answer) -> str:
    """Read the words of a worker's error answer, short and safe for a terminal, or nothing."""
    try:
        words = msgspec.json.decode(answer.body, type=_Words).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""  # not one of our worker's errors; the status has to do
    return plain(words)


def _retrying(worthwhile: Callable[[BaseException], bool]) -> tenacity.Retrying:
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(worthwhile),
        stop=tenacity.stop_any(tenacity.stop_after_delay(LONGEST_RETRYING), _Enough()),
        wait=tenacity.wait_exponential(multiplier=0.05, max=1.0) + tenacity.wait_random(0, 0.05),
        reraise=True,
    )


def _never_sent(error: BaseException) -> bool:
    return isinstance(error, NEVER_SENT)


def _idempotent(error: BaseException) -> bool:
    return isinstance(error, (httpx.TransportError, _Unready)) and not isinstance(
        error, httpx.UnsupportedProtocol
    )


class _Enough(stop_base):
    """Stops after a few attempts; a worker that says it is starting gets more of them."""

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        outcome = retry_state.outcome
        starting = outcome is not None and isinstance(outcome.exception(), _Unready)
        most = ATTEMPTS_WHILE_STARTING if starting else ATTEMPTS
        return retry_state.attempt_number >= most
