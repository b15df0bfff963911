"""The Docker engine, as perry sees it: the only module that imports docker.

Everything else speaks of containers, volumes and images in the shapes of `objects.py`. docker-py's
errors become perry's here and nowhere else. It must not know what a workspace or a worker is.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, BinaryIO

import docker
import docker.errors
import requests
import requests.exceptions
import urllib3.exceptions
from docker.context import ContextAPI
from docker.context.config import get_current_context_name
from docker.types import CancellableStream
from docker.utils import parse_repository_tag

from perry.errors import EngineFailure, EngineUnreachable
from perry.workspace import archive
from perry.workspace.attachment import Attachment
from perry.workspace.frames import Frames
from perry.workspace.objects import (
    Container,
    EngineEvent,
    Execution,
    Image,
    ListedContainer,
    PathStat,
    Volume,
)
from perry.workspace.ssh import Destination, SshAdapter
from perry.workspace.unreachable import unreachable

TIMEOUT = 60
"""Seconds that one call to the engine may take without answering a byte."""

CONFLICT = 409
"""The engine's status where a name is taken, or something is in use."""

NOT_FOUND = 404
"""The engine's status where there is no such thing, be it a path in a container."""


EVENTS = (
    "start", "die", "pause", "unpause", "destroy", "rename", "exec_start", "exec_die",
    "connect", "disconnect",
)  # fmt: skip
"""What happens to containers and is told of; the last two in networks."""

_CHUNK = 256 * 1024

_NO_NAME = "<none>:<none>"
"""How engines before 24 call an image that has no name."""


_BROKEN = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,  # of streams, which docker-py reads past requests
    ConnectionError,  # of an exec's streams, which it reads past both
)
"""What says that there is no talking to the engine, or no more."""


class Engine:
    """One Docker engine.

    Every method raises EngineUnreachable where no engine answers and EngineFailure for its errors;
    what is looked up and isn't there is None, and removing what is gone succeeds.
    """

    def __init__(self, api: docker.APIClient) -> None:
        self._api = api

    @classmethod
    def connect(cls) -> Engine:
        """Connect to the engine that DOCKER_HOST or the current Docker context names."""
        with _translated():
            endpoint = _endpoint()
        address = endpoint.get("base_url")
        with _translated(address):
            try:
                if address is not None and address.startswith("ssh://"):
                    return cls(_over_ssh(address))
                return cls(docker.APIClient(version="auto", timeout=TIMEOUT, **endpoint))
            except ValueError as error:  # what urllib says of an address that is none
                raise unreachable(error, address) from error

    def close(self) -> None:
        """Give the connections back."""
        self._api.close()

    @cached_property
    def architecture(self) -> str:
        """The architecture of the images the engine runs, in Docker's words (`amd64`)."""
        with _translated():
            return str(self._api.version()["Arch"])

    @property
    def api_version(self) -> str:
        """The version of its API that the engine is asked in (`1.41`)."""
        return str(self._api.api_version)

    @cached_property
    def id(self) -> str:
        """The engine's own id."""
        return str(self.describe()["ID"])

    def now(self) -> int:
        """Return the time by the engine's own clock, in seconds since the epoch."""
        with _translated(), closing(self._ask("GET", "/_ping")) as answer:
            return int(parsedate_to_datetime(answer.headers["Date"]).timestamp())

    def describe(self) -> Mapping[str, Any]:
        """Return the engine's own description (`ID`, `Architecture`, `ServerVersion`…)."""
        with _translated():
            return dict(self._api.info())

    def events(self, since: float, until: float | None = None) -> Iterator[EngineEvent]:
        """Yield what happens to containers from a moment on, for good or until another.

        Both are in seconds since the epoch, by the engine's clock.
        """
        with _translated():
            stream = self._api.events(
                since=f"{since:.9f}",
                until=until,
                decode=True,
                filters={"type": ["container", "network"], "event": list(EVENTS)},
            )
            for found in stream:
                yield EngineEvent.from_message(found)

    # Images

    def get_image(self, reference: str) -> Image | None:
        """Look an image up by name, tag or id."""
        with _translated(), suppress(docker.errors.NotFound):
            return Image.from_inspection(self._api.inspect_image(reference))
        return None

    def list_images(self, label: str) -> list[str]:
        """List the names of the images that carry a label or inherited it."""
        with _translated():
            found = self._api.images(filters={"label": label})
        tags = [tag for image in found for tag in image.get("RepoTags") or ()]
        return [tag for tag in tags if tag != _NO_NAME]

    def list_leftovers(self, label: str) -> list[str]:
        """List the ids of the images that carry a label, have no name, and are no other's base."""
        with _translated():
            found = self._api.images(filters={"label": label, "dangling": True})
        return [image["Id"] for image in found]

    def pull_image(self, reference: str) -> Iterator[str]:
        """Pull an image, yielding the engine's words as it goes."""
        repository, tag = parse_repository_tag(reference)
        with _translated():
            stream = self._api.pull(repository, tag=tag or "latest", stream=True, decode=True)
            yield from _progress(stream)

    def build_image(
        self, context: BinaryIO, *, tag: str, target: str | None, arguments: Mapping[str, str]
    ) -> Iterator[str]:
        """Build an image from a tar of its context, yielding the lines of the build."""
        with _translated():
            stream = self._api.build(
                fileobj=context,
                custom_context=True,
                tag=tag,
                target=target,
                buildargs=dict(arguments),
                rm=True,
                forcerm=True,
                decode=True,
            )
            yield from _progress(stream)

    def import_image(self, path: str, *, repository: str, tag: str) -> None:
        """Make an image of a tar of its root file system."""
        with _translated(), open(path, "rb") as tar:  # noqa: PTH123 - docker-py wants a file object
            self._api.import_image_from_data(tar, repository=repository, tag=tag)

    def tag_image(self, reference: str, *, repository: str, tag: str) -> None:
        """Give an image another name."""
        with _translated():
            self._api.tag(reference, repository, tag)

    def remove_image(self, reference: str) -> None:
        """Remove an image's name, and the image with its last one."""
        with _translated(), suppress(docker.errors.NotFound):
            self._api.remove_image(reference)

    # Volumes

    def create_volume(self, name: str, labels: Mapping[str, str]) -> Volume:
        """Create a volume, or return the one of that name with the labels it has."""
        with _translated():
            found = self._api.create_volume(name, labels=dict(labels))
        return Volume.from_inspection(found)

    def get_volume(self, name: str) -> Volume | None:
        """Look a volume up by name."""
        with _translated(), suppress(docker.errors.NotFound):
            return Volume.from_inspection(self._api.inspect_volume(name))
        return None

    def list_volumes(self, label: str) -> list[Volume]:
        """List the volumes that carry a label (`key` or `key=value`)."""
        with _translated():
            found = self._api.volumes(filters={"label": label}).get("Volumes") or []
        return [Volume.from_inspection(volume) for volume in found]

    def remove_volume(self, name: str) -> None:
        """Remove a volume and what is in it."""
        with _translated(), suppress(docker.errors.NotFound):
            self._api.remove_volume(name)

    # Containers

    def create_container(self, name: str, image: str, **config: Any) -> str:  # noqa: ANN401 - docker-py's own open set of settings
        """Create a container and return its id; `host_config` is a mapping of docker-py's names."""
        with _translated():
            host = self._api.create_host_config(**config.pop("host_config", {}))
            network = config.pop("network", None)
            networking = None
            if network is not None:
                endpoint = self._api.create_endpoint_config()
                networking = self._api.create_networking_config({network: endpoint})
            created = self._api.create_container(
                image, name=name, host_config=host, networking_config=networking, **config
            )
            return str(created["Id"])

    def get_container(self, reference: str) -> Container | None:
        """Look a container up by name or id."""
        with _translated(), suppress(docker.errors.NotFound):
            return Container.from_inspection(self._api.inspect_container(reference))
        return None

    def list_containers(self, label: str) -> list[ListedContainer]:
        """List the containers, running or not, that carry a label (`key` or `key=value`)."""
        return self._list_containers({"label": label})

    def list_users(self, volume: str) -> list[ListedContainer]:
        """List the containers, running or not, that mount a volume."""
        return self._list_containers({"volume": volume})

    def _list_containers(self, filters: Mapping[str, str]) -> list[ListedContainer]:
        with _translated():
            found = self._api.containers(all=True, filters=dict(filters))
        return [ListedContainer.from_listing(container) for container in found]

    def list_processes(self, container_id: str) -> list[str]:
        """List the command lines of a container's processes; none where it has ended meanwhile."""
        try:
            with _translated(), suppress(docker.errors.NotFound):
                table = self._api.top(container_id, ps_args="-eo pid,args")
                return [row[-1] for row in table.get("Processes") or []]
        except EngineFailure as failure:
            if failure.status != CONFLICT:  # the engine's word for one that doesn't run
                raise
        return []

    def start_container(self, container_id: str) -> None:
        """Start a container; starting a running one succeeds."""
        with _translated():
            self._api.start(container_id)

    def unpause_container(self, container_id: str) -> None:
        """Let a paused container go on."""
        with _translated():
            self._api.unpause(container_id)

    def stop_container(self, container_id: str, *, timeout: int) -> None:
        """Stop a container, killing what is left after `timeout` seconds."""
        with _translated(), suppress(docker.errors.NotFound):
            self._api.stop(container_id, timeout=timeout)

    def wait_container(self, container_id: str) -> int:
        """Wait for a container to end and return its exit code."""
        with _translated():
            return int(self._api.wait(container_id)["StatusCode"])

    def rename_container(self, container_id: str, name: str) -> bool:
        """Rename a container; False where another has that name."""
        try:
            with _translated():
                self._api.rename(container_id, name)
        except EngineFailure as failure:
            if failure.status == CONFLICT:
                return False
            raise
        return True

    def remove_container(self, container_id: str) -> None:
        """Remove a container, running or not, with its anonymous volumes."""
        with _translated(), suppress(docker.errors.NotFound):
            self._api.remove_container(container_id, force=True, v=True)

    def read_logs(self, container_id: str, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        """Yield what a container printed, both streams, from its last `tail` lines on."""
        with _translated():
            yield from self._api.logs(
                container_id, stream=True, follow=follow, tail="all" if tail is None else tail
            )

    def follow_logs(
        self, container_id: str, *, tail: int
    ) -> tuple[Iterator[bytes], Callable[[], None]]:
        """Open what a container prints, both streams, from its last `tail` lines on.

        Returns what comes, for as long as the container runs, and what ends that from another
        thread.
        """
        query = {"stdout": "1", "stderr": "1", "follow": "1", "tail": str(tail)}
        with _translated():
            has_terminal = self._api.inspect_container(container_id)["Config"]["Tty"]
            answer = self._ask("GET", f"/containers/{container_id}/logs", query, silence=None)
        printed = CancellableStream(_printed(answer, framed=not has_terminal), answer)

        def end() -> None:
            with suppress(OSError), closing(answer):  # it has ended by itself
                printed.close()

        return printed, end

    # Files in containers, running or not

    def read_file(self, container_id: str, path: str) -> bytes | None:
        """Read a file through the archive API; None where there is none.

        Links are followed by the engine inside the container's own root only.
        """
        with _translated(), suppress(docker.errors.NotFound):
            stream, _ = self._api.get_archive(container_id, path)
            return archive.only_file(stream)
        return None

    def read_owner(self, container_id: str, path: str) -> tuple[int, int] | None:
        """Return the (uid, gid) of a path in a container; None where there is no such path."""
        with _translated(), suppress(docker.errors.NotFound):
            stream, _ = self._api.get_archive(container_id, path)
            return archive.first_owner(stream)
        return None

    def stat(self, container_id: str, path: str) -> PathStat | None:
        """Return what a path in a container is, of a link the link; None where there is nothing."""
        with _translated(), closing(self._archive("HEAD", container_id, path)) as answer:
            if answer.status_code == NOT_FOUND:
                return None
            return PathStat.from_header(answer.headers["X-Docker-Container-Path-Stat"])

    @contextmanager
    def open_archive(self, container_id: str, path: str) -> Iterator[Iterator[bytes] | None]:
        """Stream a tar of a path in a container; None where there is nothing.

        A path that ends in `/.` is a directory, and a link to one is followed, by the engine and
        inside the container's own root only.
        """
        with _translated(), closing(self._archive("GET", container_id, path)) as answer:
            missing = answer.status_code == NOT_FOUND
            yield None if missing else answer.iter_content(_CHUNK)

    def write_archive(self, container_id: str, path: str, tar: bytes) -> None:
        """Unpack a tar in a container, at a directory that exists."""
        with _translated():
            self._api.put_archive(container_id, path, tar)

    def copy(self, source_id: str, path: str, target_id: str, directory: str) -> None:
        """Copy a path of one container into a directory of another, as a stream."""
        with _translated():
            stream, _ = self._api.get_archive(source_id, path)
            try:
                self._api.put_archive(target_id, directory, stream)
            except requests.exceptions.ConnectionError as error:
                # It hangs up on a stream that it can't unpack any further, before it says why.
                raise EngineFailure(
                    f"Docker: broke off while it wrote to {directory}; its disk may be full"
                ) from error

    def _archive(self, method: str, container_id: str, path: str) -> requests.Response:
        # docker-py's own call can't stat, and waits forever for a stream that stalls.
        return self._ask(method, f"/containers/{container_id}/archive", {"path": path})

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

    # Programs in containers

    def run(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        user: str = "",
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> Execution:
        """Run a program in a container to its end and return what it came to."""
        exec_id = self.prepare_exec(container_id, argv, user=user, env=env, workdir=workdir)
        with _translated():
            output = self._api.exec_start(exec_id)
        code = self.exec_exit_code(exec_id)
        return Execution(-1 if code is None else code, output.decode(errors="replace"))

    def launch(self, container_id: str, argv: Sequence[str], *, env: Mapping[str, str]) -> str:
        """Start a program that outlives this call, and return the id of its exec."""
        exec_id = self.prepare_exec(container_id, argv, env=env, attach=False)
        with _translated():
            self._api.exec_start(exec_id, detach=True)
        return exec_id

    def prepare_exec(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        user: str = "",
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        tty: bool = False,
        stdin: bool = False,
        attach: bool = True,
    ) -> str:
        """Tell the engine of a program to run, and return the id of its exec."""
        with _translated():
            return str(
                self._api.exec_create(
                    container_id,
                    list(argv),
                    user=user,
                    environment=dict(env or {}),
                    workdir=workdir,
                    tty=tty,
                    stdin=stdin,
                    stdout=attach,
                    stderr=attach,
                )["Id"]
            )

    def attach_exec(self, exec_id: str, *, tty: bool) -> Attachment:
        """Start a prepared exec and return the connection that carries its streams."""
        with _translated():
            return Attachment.taken_over(self._api.exec_start(exec_id, tty=tty, socket=True))

    def resize_exec(self, exec_id: str, rows: int, columns: int) -> None:
        """Tell a running exec the size of its terminal."""
        with _translated(), suppress(docker.errors.NotFound):
            self._api.exec_resize(exec_id, height=rows, width=columns)

    def list_execs(self, container: Container) -> dict[str, str]:
        """Return the programs that run in a container by exec: id to the path of the program."""
        found = {}
        for exec_id in container.raw.get("ExecIDs") or ():
            with _translated(), suppress(docker.errors.NotFound):
                execution = self._api.exec_inspect(exec_id)
                if execution["Running"]:
                    found[exec_id] = str(execution["ProcessConfig"].get("entrypoint", ""))
        return found

    def exec_exit_code(self, exec_id: str) -> int | None:
        """Return the exit code of an exec, None while it runs."""
        with _translated():
            found = self._api.exec_inspect(exec_id)
        return None if found["Running"] else int(found["ExitCode"] or 0)


def _endpoint() -> dict[str, Any]:
    """Say where the engine is, as docker-py takes it.

    DOCKER_CONTEXT comes first, as with Docker's own command line, then DOCKER_HOST, then the
    context that is in use.
    """
    named = os.environ.get("DOCKER_CONTEXT")
    if not named and os.environ.get("DOCKER_HOST"):
        return dict(docker.utils.kwargs_from_env())
    return _context_endpoint(named or get_current_context_name() or "default")


def _context_endpoint(name: str) -> dict[str, Any]:
    context = ContextAPI.get_context(name)
    if context is None:
        raise EngineUnreachable(
            f"There is no Docker context '{name}'",
            hint="docker context ls shows them; docker context use default goes back.",
        )
    if name == "default" or context.Host is None:
        return dict(docker.utils.kwargs_from_env())
    return {"base_url": context.Host, "tls": context.TLSConfig or False}


def _over_ssh(address: str) -> docker.APIClient:
    """Make a client whose every connection is an ssh process.

    docker-py asks an engine for its version before anything else can be set, so the first client
    is made for that question.
    """
    adapter = SshAdapter(Destination.parse(address), timeout=TIMEOUT)
    version = docker.constants.MINIMUM_DOCKER_API_VERSION
    for _ in range(2):
        client = docker.APIClient("unix://ssh", version=version, timeout=TIMEOUT)
        client.mount("http+docker://", adapter)
        version = client.version(api_version=False)["ApiVersion"]
    return client


def _printed(answer: requests.Response, *, framed: bool) -> Iterator[bytes]:
    """Yield what a container printed; without a terminal it comes in frames."""
    frames = Frames()
    for chunk in answer.raw.stream(_CHUNK, decode_content=False):
        if framed:
            yield from (content for _, content in frames.feed(chunk))
        else:
            yield chunk


def _progress(stream: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    for entry in stream:
        if "error" in entry:
            raise EngineFailure(str(entry["error"]).strip())
        text = str(entry.get("stream") or entry.get("status") or "").strip()
        if text:
            yield text


@contextmanager
def _translated(base_url: str | None = None) -> Iterator[None]:
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
