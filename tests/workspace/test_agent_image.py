"""What the agent daemon's image is made of; tests/e2e/test_compose.py runs it."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

import perry
from perry.workspace import agent_image, image


def test_all_of_perry_and_its_recipes_is_in_the_build_context_and_nothing_compiled() -> None:
    files = agent_image._files()
    package = Path(perry.__file__).parent
    sources = {f"perry/{path.relative_to(package)}" for path in package.rglob("*.py")}
    recipes = {f"perry/container/{path.name}" for path in image.recipe().iterdir()}
    assert sources | recipes <= set(files)
    assert [path for path in files if path.endswith(".pyc")] == []


def test_all_that_its_dockerfile_copies_is_in_the_build_context() -> None:
    files = agent_image._files()
    copied = re.findall(r"^COPY (\S+) \S+$", files["Dockerfile"].decode(), re.MULTILINE)
    assert set(copied) <= {path.partition("/")[0] for path in files} | {"site"}
    assert len(copied) == files["Dockerfile"].count(b"COPY ") == 3


def test_it_needs_what_perry_needs_but_pip() -> None:
    listed = (image.recipe() / "agent-requirements.in").read_text().splitlines()
    requirements = {re.split("[<>=]", it)[0] for it in listed if it[:1] not in "#-"}
    needed = {re.split("[<>=]", it)[0] for it in metadata.requires("perry") or ()}
    assert requirements == needed - {"pip"}


@pytest.mark.parametrize("name", ["msgspec", "starlette", "uvicorn", "watchfiles"])
def test_it_has_what_the_workers_have_in_the_same_version(name: str) -> None:
    pinned = [
        re.findall(
            rf"^{name}==\S+", (image.recipe() / f"{who}-requirements.txt").read_text(), re.MULTILINE
        )
        for who in ("worker", "agent")
    ]
    assert pinned[0] == pinned[1] != []
