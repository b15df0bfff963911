"""A worker runs in any Linux image, whatever is in it and whatever isn't."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import docker
import pytest

from perry.workspace import bundle
from perry.workspace.models import Ready, Workspace
from perry.workspace.progress import finish
from perry.workspace.worker_process import WorkerProcess
from tests.conftest import Workspaces
from tests.e2e.eventually import eventually
from tests.e2e.labels import LABEL
from tests.e2e.transcripts import CLAUDE_DIRECTORY, claude_session

Build = Callable[..., str]


def processes(workspaces: Workspaces, workspace: Workspace) -> list[str]:
    return workspaces.engine.list_processes(workspace.container_id)


def assert_sessions_can_be_seen(workspaces: Workspaces, ready: Ready) -> None:
    """A session that the workspace's own user writes is listed, by this worker and the next."""
    assert ready.worker is not None, ready.warning
    workspace = ready.workspace
    WorkerProcess(
        workspaces.engine, workspace.container_id, finish(bundle.ensure_bundle(workspaces.engine))
    ).stop()
    assert not any("/opt/perry/layers" in it for it in processes(workspaces, workspace))
    workspaces.run(
        workspace.name,
        f"mkdir -p ~/{CLAUDE_DIRECTORY} && cat > ~/{CLAUDE_DIRECTORY}/s.jsonl <<'EOF'\n"
        f"{claude_session()}EOF",
    )
    with workspaces.manager.connect(workspace) as client:
        (session,) = eventually(client.list_sessions, lambda found: len(found) == 1)
        assert session.message_count == len(list(client.iterate_messages("s"))) == 6


def test_a_scratch_image_with_one_static_binary(
    workspaces: Workspaces, build: Build, runtime_image: str
) -> None:
    tag = build("scratch", f"FROM scratch\nCOPY --from={runtime_image} /runtime/busybox /tool\n")
    ready = workspaces.init(image=tag)
    assert ready.workspace.home == "/root"
    assert_sessions_can_be_seen(workspaces, ready)
    assert workspaces.manager.shell_argv(ready.workspace.name) == ("/opt/perry/busybox", "sh", "-l")


def test_a_user_that_no_passwd_file_names(
    workspaces: Workspaces, build: Build, runtime_image: str
) -> None:
    tag = build(
        "nobody",
        f"FROM scratch\nCOPY --from={runtime_image} /runtime/busybox /tool\nUSER 1234:4321\n",
    )
    ready = workspaces.init(image=tag)
    assert ready.workspace.home == "/home/workspace"
    assert_sessions_can_be_seen(workspaces, ready)
    assert workspaces.run(ready.workspace.name, "stat -c %u:%g ~") == "1234:4321\n"


def test_a_distroless_image_with_a_user_and_an_entrypoint(
    workspaces: Workspaces, build: Build, runtime_image: str
) -> None:
    tag = build(
        "distroless",
        f"FROM scratch\nCOPY --from={runtime_image} /runtime/busybox /app\n"
        'COPY passwd /etc/passwd\nUSER nonroot\nENTRYPOINT ["/app", "false"]\n',
        passwd="root:x:0:0::/root:/sbin/nologin\nnonroot:x:65532:65532::/home/nonroot:/none\n",
    )
    ready = workspaces.init(image=tag)
    assert ready.workspace.home == "/home/nonroot"
    assert_sessions_can_be_seen(workspaces, ready)


def test_a_musl_image(workspaces: Workspaces, build: Build, workspace_image: str) -> None:
    """Nothing of glibc in it: a program linked to musl, and musl's loader."""
    tag = build(
        "musl",
        f"FROM {workspace_image} AS build\nUSER root\n"
        "RUN apt-get update && apt-get install --yes --no-install-recommends binutils musl-tools\n"
        "RUN cd /root && printf 'int main(){return 0;}' > a.c && musl-gcc -o /app a.c"
        " && cp -L /lib/ld-musl-*.so.1 /\n"
        "FROM scratch\nCOPY --from=build /app /app\nCOPY --from=build /ld-musl-* /lib/\n"
        'CMD ["/app"]\n',
    )
    ready = workspaces.init(image=tag)
    assert_sessions_can_be_seen(workspaces, ready)
    ran = workspaces.engine.run(ready.workspace.container_id, ["/app"])
    assert ran.exit_code == 0


def test_an_old_debian_with_an_old_python(
    workspaces: Workspaces, debian: Callable[[str], str]
) -> None:
    assert_sessions_can_be_seen(workspaces, workspaces.init(image=debian("bullseye")))


def test_an_environment_of_nonsense(
    workspaces: Workspaces, build: Build, workspace_image: str
) -> None:
    tag = build(
        "nonsense",
        f"FROM {workspace_image}\nENV PYTHONPATH=/nonsense PYTHONHOME=/nonsense"
        " LD_LIBRARY_PATH=/nonsense LD_PRELOAD=/nonsense.so PYTHONSTARTUP=/nonsense.py"
        " PYTHONWARNINGS=error LANG=xx_XX.nonsense LC_ALL=nonsense\n",
    )
    assert_sessions_can_be_seen(workspaces, workspaces.init(image=tag))


def test_an_image_with_its_own_opt_perry(
    workspaces: Workspaces, build: Build, workspace_image: str
) -> None:
    tag = build(
        "own",
        f"FROM {workspace_image}\nUSER root\nRUN mkdir -p /opt/perry/layers && "
        "echo own > /opt/perry/busybox\nUSER workspace\n",
    )
    assert_sessions_can_be_seen(workspaces, workspaces.init(image=tag))


def test_a_read_only_root_and_an_unprivileged_user(workspaces: Workspaces) -> None:
    ready = workspaces.init(read_only=True)
    assert_sessions_can_be_seen(workspaces, ready)
    denied = workspaces.engine.run(ready.workspace.container_id, ["touch", "/x"])
    assert "Read-only file system" in denied.output


@pytest.fixture
def internal_network(client: docker.DockerClient) -> Iterator[str]:
    name = f"perry-test-{secrets.token_hex(4)}"
    network = client.networks.create(name, internal=True, labels={LABEL: "1"})
    yield name
    network.reload()
    for container in network.containers:
        network.disconnect(container, force=True)
    network.remove()


def test_no_way_out_to_any_network(workspaces: Workspaces, internal_network: str) -> None:
    ready = workspaces.init(network=internal_network)
    assert_sessions_can_be_seen(workspaces, ready)


def test_without_any_network_a_workspace_has_its_sessions_too(workspaces: Workspaces) -> None:
    assert_sessions_can_be_seen(workspaces, workspaces.init(network="none"))


def test_a_command_that_ends_at_once_is_explained(workspaces: Workspaces) -> None:
    ready = workspaces.init(command=("false",))
    assert ready.worker is None
    assert ready.warning is not None
    assert ready.workspace.name in ready.warning


LISTENER = """
import socket, threading
server = socket.create_server(("0.0.0.0", 7392))
body = b'{"status":"ok","version":"0","digest":"x","sessionCount":0}'
answer = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body
while True:
    connection, _ = server.accept()
    with connection, open("/home/workspace/heard", "ab") as heard:
        heard.write(connection.recv(65536))
        connection.sendall(answer)
"""


def test_a_program_that_took_the_workers_port_is_explained_and_gets_no_token(
    workspaces: Workspaces, build: Build, workspace_image: str
) -> None:
    """The hostile program answers health like a worker, and keeps every byte it is sent."""
    tag = build(
        "hostile",
        f"FROM {workspace_image}\nUSER root\nRUN apt-get update && apt-get install --yes "
        "--no-install-recommends python3\nUSER workspace\n",
    )
    ready = workspaces.init(image=tag, command=("python3", "-c", LISTENER))
    name = ready.workspace.name
    assert ready.worker is None
    assert ready.warning is not None
    assert "7392" in ready.warning
    heard = workspaces.run(name, "cat ~/heard")
    assert "/health" in heard
    assert "authorization" not in heard.lower()
