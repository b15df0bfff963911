from __future__ import annotations

from typing import Any

import pytest

from perry.workspace.address import OWN_BINDING, Way, shown_ports, ways
from perry.workspace.objects import Container
from tests.workspace.engine_answers import container

EXEC = Way("exec", "exec")


def inspected(network_settings: dict[str, Any] | None, **more: Any) -> Container:
    return Container.from_inspection(container(NetworkSettings=network_settings, **more))


def addresses(network_settings: dict[str, Any] | None) -> tuple[str, ...]:
    found = ways(inspected(network_settings))
    return tuple(way.address for way in found if way.rung == "address")


def endpoint(ipv4: str = "", ipv6: str = "") -> dict[str, str]:
    return {"IPAddress": ipv4, "GlobalIPv6Address": ipv6}


def bound(*bindings: tuple[str, str]) -> list[dict[str, str]]:
    return [{"HostIp": ip, "HostPort": port} for ip, port in bindings]


def test_a_container_is_reached_in_each_of_its_networks() -> None:
    networks = {"bridge": endpoint("172.17.0.2"), "mine": endpoint("10.0.0.9")}
    assert addresses({"Networks": networks}) == ("172.17.0.2:7392", "10.0.0.9:7392")


def test_an_ipv6_address_stands_in_brackets_and_behind_the_others() -> None:
    networks = {"one": endpoint("172.17.0.2", "fd00::2"), "two": endpoint("", "fd01::3")}
    assert addresses({"Networks": networks}) == (
        "172.17.0.2:7392", "[fd00::2]:7392", "[fd01::3]:7392",
    )  # fmt: skip


@pytest.mark.parametrize(
    "settings", [None, {}, {"Networks": None}, {"Networks": {}}, {"Networks": {"none": None}}]
)
def test_without_a_network_there_is_the_stream_alone(settings: dict[str, Any] | None) -> None:
    assert ways(inspected(settings)) == (EXEC,)


def test_dockers_old_top_level_field_is_not_believed() -> None:
    assert addresses({"IPAddress": "172.17.0.9", "Networks": {"none": endpoint()}}) == ()


def test_the_ways_are_the_address_then_the_published_port_then_the_stream() -> None:
    settings = {
        "Networks": {"bridge": endpoint("172.17.0.2")},
        "Ports": {
            "7392/tcp": bound(("198.51.100.1", "8000"), ("127.0.0.1", "32768")),
            "80/tcp": None,
        },
    }
    assert ways(inspected(settings)) == (
        Way("address", "172.17.0.2:7392"), Way("published", "127.0.0.1:32768"), EXEC,
    )  # fmt: skip


def test_nothing_leads_to_a_container_that_does_not_run() -> None:
    settings = {"Networks": {"bridge": endpoint("172.17.0.2")}}
    assert ways(inspected(settings, State={**container()["State"], "Status": "paused"})) == ()


@pytest.mark.parametrize(
    ("asked", "given", "shown"),
    [
        ([OWN_BINDING], [("127.0.0.1", "32768")], ()),
        ([OWN_BINDING], [], ()),
        ([], [("198.51.100.1", "8000")], ("198.51.100.1:8000->7392/tcp",)),
        (
            [*bound(("127.0.0.1", "8000")), OWN_BINDING],
            [("127.0.0.1", "32768"), ("127.0.0.1", "8000")],
            ("127.0.0.1:8000->7392/tcp",),
        ),
        (
            [OWN_BINDING, OWN_BINDING],
            [("127.0.0.1", "32768"), ("127.0.0.1", "32769")],
            ("127.0.0.1:32768->7392/tcp",),
        ),
    ],
)
def test_the_port_that_perry_published_is_shown_to_nobody(
    asked: list[dict[str, str]], given: list[tuple[str, str]], shown: tuple[str, ...]
) -> None:
    found = inspected(
        {"Ports": {"7392/tcp": bound(*given)}}, HostConfig={"PortBindings": {"7392/tcp": asked}}
    )
    assert shown_ports(found) == shown


def test_other_ports_are_shown_as_they_are() -> None:
    ports = {"80/tcp": bound(("198.51.100.1", "8080"), ("::", "8080")), "53/udp": None}
    assert shown_ports(inspected({"Ports": ports})) == (
        "198.51.100.1:8080->80/tcp",
        ":::8080->80/tcp",
    )
