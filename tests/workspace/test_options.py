from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from perry.errors import UsageError
from perry.workspace import options
from perry.workspace.address import OWN_BINDING
from perry.workspace.models import WorkspaceSpec


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (None, None),
        ("6m", 6 * 1024**2),
        ("512M", 512 * 1024**2),
        ("4g", 4 * 1024**3),
        ("4gb", 4 * 1024**3),
        ("1t", 1024**4),
        ("7000000", 7_000_000),
        ("8000k", 8000 * 1024),
    ],
)
def test_memory_is_bytes(text: str | None, size: int | None) -> None:
    assert options.memory(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1g", "1.5g", "5m", "0", "g", "1 g", "1x"])
def test_what_is_no_memory_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--memory {re.escape(text)} is"):
        options.memory(text)


def test_processors_are_billionths() -> None:
    assert options.nano_cpus(None) is None
    assert options.nano_cpus(0.5) == 500_000_000
    assert options.nano_cpus(2) == 2_000_000_000


@pytest.mark.parametrize("cpus", [0, -1, float("inf"), float("nan")])
def test_what_is_no_number_of_processors_is_refused(cpus: float) -> None:
    with pytest.raises(UsageError, match=f"--cpus {cpus:g} is"):
        options.nano_cpus(cpus)


def test_a_path_is_bound_and_a_name_is_a_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    made = options.mounts(("./a:/a", "~/b:/b:ro", "/c:/c/:rw", "d:/d", "..:/e"))
    assert [(it["Type"], it["Source"], it["Target"], it["ReadOnly"]) for it in made] == [
        ("bind", f"{tmp_path}/a", "/a", False),
        ("bind", "/home/me/b", "/b", True),
        ("bind", "/c", "/c", False),
        ("volume", "d", "/d", False),
        ("bind", str(tmp_path.parent), "/e", False),
    ]


@pytest.mark.parametrize("text", ["a", ":/a", "a:", "a:b", "a:/b:x", "a:/b:ro:z"])
def test_what_is_no_volume_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--volume {re.escape(text)} is"):
        options.mounts((text,))


def test_ports_may_have_an_address_of_either_kind_and_a_protocol() -> None:
    published = ("8080:80", "127.0.0.1:8081:80", "[::1]:53:53/udp", ":9000", "9001:9000/tcp")
    assert options.port_bindings(published) == {
        "80/tcp": [
            {"HostIp": "", "HostPort": "8080"},
            {"HostIp": "127.0.0.1", "HostPort": "8081"},
        ],
        "53/udp": [{"HostIp": "::1", "HostPort": "53"}],
        "9000/tcp": [{"HostIp": "", "HostPort": ""}, {"HostIp": "", "HostPort": "9001"}],
    }


@pytest.mark.parametrize(
    "text", ["80", "", ":", "80:", "x:80", "80:0", "65536:80", "80:65536", "1:2:3:4", "80:80/sctp"]
)
def test_what_says_no_ports_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--publish {re.escape(text)} is"):
        options.port_bindings((text,))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "host"},
        {"memory": "x"},
        {"cpus": 0.0},
        {"volumes": ("x",)},
        {"publish": ("x",)},
        {"clone": "http://h/x"},
        {"clone": "https://h/"},
    ],
)
def test_every_option_is_checked_before_anything_is_made(wrong: dict[str, Any]) -> None:
    options.check(WorkspaceSpec("a"))
    with pytest.raises(UsageError):
        options.check(WorkspaceSpec(**{"name": "a", **wrong}))


def test_a_plain_workspace_idles_in_place_of_its_entrypoint() -> None:
    settings = options.container_settings(WorkspaceSpec("a", image="i"), home="/h")
    assert settings["entrypoint"] == ["/opt/perry/busybox"]
    assert settings["command"] == ["sleep", "infinity"]
    assert settings["environment"] == {"HOME": "/h"}
    assert settings["labels"] == {"perry.workspace": "a"}
    assert settings["hostname"] == "a"
    host = settings["host_config"]
    assert host["restart_policy"] == {"Name": "unless-stopped"}
    assert host["init"] is True
    bundle, home = host["mounts"]
    assert (bundle["Target"], bundle["ReadOnly"]) == ("/opt/perry", True)
    assert bundle["VolumeOptions"] == {"NoCopy": True}
    assert (home["Source"], home["Target"]) == ("workspace-a-home", "/h")
    assert {"mem_limit", "nano_cpus", "network_mode"}.isdisjoint(host)


def test_every_option_reaches_the_engine() -> None:
    spec = WorkspaceSpec(
        "a",
        image="i",
        env={"K": "v", "HOME": "/elsewhere"},
        volumes=("d:/d",),
        publish=("[::1]:53:53/udp",),
        memory="1g",
        cpus=1.5,
        command=("run", "it"),
        network="n",
        read_only=True,
    )
    settings = options.container_settings(spec, home="/h")
    assert settings["command"] == ["run", "it"]
    assert "entrypoint" not in settings
    assert settings["environment"] == {"K": "v", "HOME": "/elsewhere"}
    assert settings["ports"] == [("53", "udp"), ("7392", "tcp")]
    host = settings["host_config"]
    assert host["port_bindings"]["53/udp"] == [("::1", "53")]
    assert (host["mem_limit"], host["nano_cpus"]) == (1024**3, 1_500_000_000)
    assert (host["network_mode"], host["read_only"]) == ("n", True)
    assert host["mounts"][2]["Source"] == "d"


def bindings(**spec: Any) -> dict[str, Any]:
    settings = options.container_settings(WorkspaceSpec("a", image="i", **spec), home="/h")
    assert [f"{port}/{protocol}" for port, protocol in settings["ports"]] == list(
        settings["host_config"]["port_bindings"]
    )
    return dict(settings["host_config"]["port_bindings"])


def test_the_workers_port_is_published_on_loopback_beside_what_was_asked_for() -> None:
    assert bindings() == {"7392/tcp": [("127.0.0.1", "")]}
    assert bindings(network="mine") == {"7392/tcp": [("127.0.0.1", "")]}
    asked = bindings(publish=("8000:7392", "8080:80"))
    assert asked == {"7392/tcp": [("", "8000"), ("127.0.0.1", "")], "80/tcp": [("", "8080")]}


@pytest.mark.parametrize("network", ["none", "host", "container:other"])
def test_nothing_is_published_where_the_engine_has_nowhere_to(network: str) -> None:
    assert bindings(network=network) == {}


def test_a_workspace_in_anothers_network_has_that_ones_host_name() -> None:
    spec = WorkspaceSpec("a", image="i", network="container:other")
    assert "hostname" not in options.container_settings(spec, home="/h")


@pytest.mark.parametrize("target", ["/opt/perry", "/opt/perry/", "/h", "/d"])
def test_nothing_is_mounted_where_something_is(target: str) -> None:
    spec = WorkspaceSpec("a", image="i", volumes=("d:/d", f"e:{target}"))
    with pytest.raises(UsageError, match="mounted already"):
        options.container_settings(spec, home="/h")


EXISTING: dict[str, Any] = {
    "Config": {"Image": "i", "Env": ["K=v", "EMPTY=", "PATH=/bin"], "Cmd": ["run", "it"]},
    "HostConfig": {
        "Mounts": [{"Type": "volume", "Source": "d", "Target": "/d"}],
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
        "Memory": 1024**3,
        "NanoCpus": 1_500_000_000,
        "NetworkMode": "n",
        "ReadonlyRootfs": False,
    },
}


def test_what_agrees_or_was_not_asked_is_no_difference() -> None:
    asked = WorkspaceSpec(
        "a",
        env={"K": "v", "EMPTY": ""},
        volumes=("d:/d",),
        publish=("8080:80",),
        memory="1024m",
        cpus=1.5,
        command=("run", "it"),
        network="n",
    )
    assert options.differences(asked, EXISTING, same_image=True) == []
    assert options.differences(WorkspaceSpec("a"), EXISTING, same_image=True) == []


def test_the_workers_own_port_is_no_difference_be_it_there_or_not() -> None:
    asked = WorkspaceSpec("a", publish=("8080:80",))
    newer = container_with(OWN_BINDING)
    assert options.differences(asked, newer, same_image=True) == []
    assert options.differences(WorkspaceSpec("a"), newer, same_image=True) == []
    named = WorkspaceSpec("a", publish=("8000:7392",))
    assert options.differences(named, newer, same_image=True) == ["--publish 8000:7392"]
    both = container_with({"HostIp": "", "HostPort": "8000"}, OWN_BINDING)
    assert options.differences(named, both, same_image=True) == []


def container_with(*bindings: dict[str, str]) -> dict[str, Any]:
    bound = {**EXISTING["HostConfig"]["PortBindings"], "7392/tcp": list(bindings)}
    return {**EXISTING, "HostConfig": {**EXISTING["HostConfig"], "PortBindings": bound}}


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"env": {"K": "secret"}}, "--env K"),
        ({"env": {"NEW": ""}}, "--env NEW"),
        ({"volumes": ("d:/d:ro",)}, "--volume d:/d:ro"),
        ({"publish": ("8081:80",)}, "--publish 8081:80"),
        ({"publish": ("8080:80/udp",)}, "--publish 8080:80/udp"),
        ({"memory": "2g"}, "--memory 2g"),
        ({"cpus": 2.0}, "--cpus 2"),
        ({"command": ("run",)}, "--command 'run'"),
        ({"network": "m"}, "--network m"),
        ({"read_only": True}, "--read-only"),
    ],
)
def test_a_contradicting_option_is_named(asked: dict[str, Any], named: str) -> None:
    assert options.differences(WorkspaceSpec("a", **asked), EXISTING, same_image=True) == [named]


def test_another_image_is_named_with_the_one_that_runs() -> None:
    differing = options.differences(WorkspaceSpec("a", image="j"), EXISTING, same_image=False)
    assert differing == ["--image j (it runs i)"]
