"""The recipe of perry's images: what they are built from, and what they are named by."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import perry
from perry.workspace import image


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A copy of perry and its recipe at another place."""
    shutil.copytree(Path(perry.__file__).parent, tmp_path / "perry")
    shutil.copytree(image.recipe(), tmp_path / "container")
    return tmp_path


def run_there(place: Path, program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=place,
        env={"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_all_that_the_dockerfile_copies_is_in_the_build_context(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    with tarfile.open(fileobj=image._context(tmp_path / "site")) as tar:
        present = set(tar.getnames())
    dockerfile = (image.recipe() / "Dockerfile").read_text()
    copied = re.findall(r"^(?:COPY|ADD) (?!--from)(\S+) \S+$", dockerfile, re.MULTILINE)
    assert copied
    assert set(copied) <= present
    assert dockerfile.count("COPY ") == len(copied) + dockerfile.count("COPY --from=")


def test_the_build_context_says_nothing_of_who_built_it(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "module.py").write_text("")
    with tarfile.open(fileobj=image._context(tmp_path / "site")) as tar:
        assert {(it.uid, it.gid, it.uname, it.gname, it.mtime) for it in tar} == {(0, 0, "", "", 0)}


def test_the_recipes_digest_changes_with_each_of_its_files_and_with_nothing_else(
    elsewhere: Path,
) -> None:
    program = """
from pathlib import Path
from perry.workspace import image
def show():
    image.recipe_digest.cache_clear()
    print(image.recipe_digest())
show()
Path("container/unrelated").write_text("x")
show()
for name in image._RECIPE:
    path = Path("container", name)
    before = path.read_bytes()
    path.write_bytes(before + b"#")
    show()
    path.write_bytes(before)
show()
"""
    first, unrelated, *changed, last = run_there(elsewhere, program)
    assert first == unrelated == last == image.recipe_digest()
    assert len({first, *changed}) == len(image._RECIPE) + 1


def test_a_recipe_inside_the_package_is_the_one_that_counts(elsewhere: Path) -> None:
    (elsewhere / "container").rename(elsewhere / "perry" / "container")
    (found,) = run_there(elsewhere, "from perry.workspace import image; print(image.recipe())")
    assert found == str(elsewhere / "perry" / "container")


@pytest.mark.parametrize("who", ["worker", "agent"])
def test_every_pinned_requirement_has_a_hash_and_none_an_address(who: str) -> None:
    lock = (image.recipe() / f"{who}-requirements.txt").read_text()
    assert "://" not in lock
    assert "index" not in lock
    entries = lock.replace("\\\n", " ").splitlines()
    assert all(re.match(r"[a-z0-9.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", it) for it in entries)
    wanted = (image.recipe() / f"{who}-requirements.in").read_text().splitlines()
    pinned = {entry.partition("==")[0] for entry in entries}
    assert {it.partition("<")[0] for it in wanted if it[:1] not in "#-"} <= pinned


@pytest.mark.parametrize(
    ("name", "is_ours"),
    [
        ("perry-workspace:0123456789ab", True),
        ("perry-runtime:latest", True),
        ("perry-agent:0123456789ab", True),
        ("perry-workspace:mine", False),
        ("mine/perry-workspace:latest", False),
        ("shop:latest", False),
    ],
)
def test_an_image_is_perrys_by_its_name(name: str, is_ours: bool) -> None:
    assert bool(image._OURS.fullmatch(name)) is is_ours
    assert image._OURS.fullmatch(image.workspace_reference())
    assert image._OURS.fullmatch(image.runtime_reference())
