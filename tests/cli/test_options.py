from __future__ import annotations

from typing import Any

import pytest

from perry.cli.options import workspace_spec
from perry.errors import UsageError
from perry.workspace.models import WorkspaceSpec


def test_a_variable_is_given_or_taken_from_the_environment() -> None:
    spec = workspace_spec("demo", {"EDITOR": "vi"}, env=["A=b=c", "EMPTY=", "EDITOR"])
    assert spec.env == {"A": "b=c", "EMPTY": "", "EDITOR": "vi"}


def test_a_command_is_split_as_a_shell_would() -> None:
    assert workspace_spec("demo", {}, command="sh -c 'a b'").command == ("sh", "-c", "a b")


def test_what_is_known_to_the_workspace_package_is_handed_on_as_it_was_typed() -> None:
    typed: dict[str, Any] = {"volumes": ("./a:/b", "?"), "publish": ("?",), "memory": "?"}
    assert workspace_spec("demo", {}, **typed) == WorkspaceSpec("demo", **typed)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("env", ["=x"]),
        ("env", ["NOT_SET"]),
        ("command", "'open"),
        ("command", " "),
    ],
)
def test_a_slip_in_an_option_is_a_usage_error_that_names_it(option: str, value: Any) -> None:
    with pytest.raises(UsageError, match=r"--(env|command)\b"):
        workspace_spec("demo", {}, **{option: value})
