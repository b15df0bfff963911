from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perry.errors import UsageError
from perry.workspace import names


@pytest.mark.parametrize("name", ["a", "7", "a-b", "a--b", "x" * 63, "hosts", "host-1"])
def test_a_valid_name_stays_as_it_is(name: str) -> None:
    assert names.validate(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a.b", "a b", "a\n", "ä", "../a", "a/b", "x" * 64, "host"]
)
def test_a_bad_name_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError):
        names.validate(name)


def test_a_bad_name_comes_with_one_that_would_do() -> None:
    with pytest.raises(UsageError, match="'my-shop'"):
        names.validate("My Shop")


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        ("shop", "shop"),
        ("My Shop (2)", "my-shop-2"),
        (".dotfiles", "dotfiles"),
        ("x" * 62 + "--y", "x" * 62),
        ("naïve", "na-ve"),
    ],
)
def test_a_directory_gives_its_name(tmp_path: Path, directory: str, name: str) -> None:
    assert names.from_directory(tmp_path / directory) == name


@pytest.mark.parametrize("directory", ["/", "/x/___", "/x/日本", "/x/Host"])
def test_a_directory_may_give_no_name(directory: str) -> None:
    with pytest.raises(UsageError, match="perry workspace init NAME"):
        names.from_directory(Path(directory))


@given(st.text(min_size=1, max_size=100))
def test_whatever_a_directory_is_called_its_name_is_valid_or_refused(text: str) -> None:
    last = re.sub(r"[/\0]", "-", text)
    try:
        name = names.from_directory(Path("/somewhere", last))
    except UsageError:
        return
    assert names.validate(name) == name


@pytest.mark.parametrize(
    ("container", "name"), [("shop-app-1", "shop-app-1"), ("My_App.2", "my-app-2")]
)
def test_a_container_gives_its_name(container: str, name: str) -> None:
    assert names.from_container(container) == name


@pytest.mark.parametrize("container", ["host", "_._"])
def test_a_container_may_give_no_name(container: str) -> None:
    with pytest.raises(UsageError, match=f"perry workspace adopt {container} NAME"):
        names.from_container(container)


@given(st.text(max_size=70))
def test_what_is_valid_is_what_validate_lets_pass(text: str) -> None:
    try:
        names.validate(text)
    except UsageError:
        assert not names.is_valid(text)
    else:
        assert names.is_valid(text)
