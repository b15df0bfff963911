"""How an engine is asked, and what becomes of its errors: the one place where they are perry's.

All parts of the engine are made of this. It must not know what is asked.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import docker
import docker.errors
import requests
import requests.exceptions
import urllib3.exceptions

from perry.errors import EngineFailure
from perry.workspace.unreachable import unreachable

TIMEOUT = 60
"""Seconds that one call to the engine may take without answering a byte."""

CONFLICT = 409
"""The engine's status where a name is taken, or something is in use."""

NOT_FOUND = 404
"""The engine's status where there is no such thing, be it a path in a container."""

CHUNK = 256 * 1024  # bytes of a stream that are handed on at once, at most

_BROKEN = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,  # of streams, which docker-py reads past requests
    ConnectionError,  # of an exec's streams, which it reads past both
)
"""What says that there is no talking to the engine, or no more."""


class Calls:
    """A connection to an engine, for the parts of its API."""

    def __init__(self, api: docker.APIClient) -> None:
        self._api = api

    def _ask(
        self,
        method: str,
        call: str,
        query: Mapping[str, str] | None = None,
        *,
        silence: float | None = TIMEOUT,
    ) -> requests.Response:
        """Ask what docker-py has no call for; the answer is closed by whoever gets it.

        `silence` is how many seconds may pass without a byte of it, None for no end of them.
        """
        url = f"{self._api.base_url}/v{self._api.api_version}{call}"
        plain = {"Accept-Encoding": "identity"}
        answer: requests.Response = self._api.request(
            method, url, params=query, headers=plain, stream=True, timeout=(TIMEOUT, silence)
        )
        if answer.status_code != NOT_FOUND:
            try:
                answer.raise_for_status()
            except requests.exceptions.HTTPError as error:
                docker.errors.create_api_error_from_http_exception(error)
        return answer


@contextmanager
def translated(base_url: str | None = None) -> Iterator[None]:
    """Turn docker-py's errors, and those of the connection below it, into perry's."""
    try:
        yield
    except docker.errors.APIError as error:
        words = str(error.explanation or error)
        raise EngineFailure(f"Docker: {words}", status=error.status_code or 0) from error
    except _BROKEN as error:
        raise unreachable(error, base_url) from error
    except tarfile.TarError as error:
        raise EngineFailure(f"Docker: an archive that ends too early ({error})") from error
