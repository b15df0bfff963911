from __future__ import annotations

from typing import Any

import pytest

from perry.workspace.address import worker_addresses
from tests.workspace.engine_answers import container, engine_of


def addresses(network_settings: dict[str, Any] | None) -> tuple[str, ...]:
    inspected = container(NetworkSettings=network_settings)
    with engine_of({"/containers/c1/json": lambda: (200, inspected)}) as engine:
        found = engine.get_container("c1")
    assert found is not None
    return worker_addresses(found)


def endpoint(ipv4: str = "", ipv6: str = "") -> dict[str, str]:
    return {"IPAddress": ipv4, "GlobalIPv6Address": ipv6}


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
def test_without_a_network_there_is_no_address(settings: dict[str, Any] | None) -> None:
    assert addresses(settings) == ()


def test_dockers_old_top_level_field_is_not_believed() -> None:
    assert addresses({"IPAddress": "172.17.0.9", "Networks": {"none": endpoint()}}) == ()
