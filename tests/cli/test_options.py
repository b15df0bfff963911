from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perry.cli.options import workspace_spec
from perry.errors import UsageError


def test_a_variable_is_given_or_taken_from_the_environment() -> None:
    spec = workspace_spec("demo", {"EDITOR": "vi"}, env=["A=b=c", "EMPTY=", "EDITOR"])
    assert spec.env == {"A": "b=c", "EMPTY": "", "EDITOR": "vi"}


def test_a_relative_source_is_a_path_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = workspace_spec("demo", {}, volumes=["./data:/data:ro", "cache:/cache", "/srv:/srv"])
    assert spec.volumes == (f"{tmp_path}/data:/data:ro", "cache:/cache", "/srv:/srv")


def test_a_command_is_split_as_a_shell_would() -> None:
    assert workspace_spec("demo", {}, command="sh -c 'a b'").command == ("sh", "-c", "a b")


def test_ports_may_name_an_address_and_a_protocol() -> None:
    published = ("8080:80", "127.0.0.1:8080:80", "[::1]:53:53/udp")
    assert workspace_spec("demo", {}, publish=published).publish == published


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("env", ["=x"]),
        ("env", ["NOT_SET"]),
        ("volumes", ["data"]),
        ("volumes", [":/data"]),
        ("volumes", ["a:data"]),
        ("volumes", ["a:/data:rx"]),
        ("publish", ["80"]),
        ("publish", ["0:80"]),
        ("publish", ["80:65536"]),
        ("publish", ["a:b"]),
        ("memory", "lots"),
        ("memory", "-1"),
        ("cpus", 0.0),
        ("cpus", float("nan")),
        ("command", "'open"),
        ("command", " "),
    ],
)
def test_a_slip_in_an_option_is_a_usage_error_that_names_it(option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=r"--(env|volume|publish|memory|cpus|command)\b"):
        workspace_spec("demo", {}, **{option: value})
