"""The filler run for real, in directories of the test: at once, killed anywhere, and again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE = 60.0

DRIVER = """
import os, signal, sys
from pathlib import Path
from perry.workspace import fill

place = Path(sys.argv[1])
fill.VOLUME = place / "volume"
fill.LAYERS = fill.VOLUME / "layers"
fill.MARKERS = fill.VOLUME / "complete"
fill.KEY = place / "key" / "key"
fill.RUNTIME = place / "runtime"
fill.CODE = place / "code"

until, seen = int(sys.argv[2]), 0
def watch(event, arguments):
    # every way in which the filler touches files; it is killed just before the one that is due
    global seen
    if event in ("open", "os.rename", "os.mkdir", "os.link", "os.chmod", "os.remove", "os.rmdir"):
        # a tree is removed by paths that don't begin at its place
        seen += event in ("os.remove", "os.rmdir") or str(place) in str(arguments)
        if seen == until:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
fill.main(*sys.argv[3:])
print(seen)
"""


class Volumes:
    """The two volumes of an engine, and what a runtime image and a perry bring to them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for directory in ("volume", "key", "runtime/lib", "code/perry/worker"):
            (place / directory).mkdir(parents=True)
        (place / "runtime/busybox").write_text("busybox")
        (place / "runtime/lib/loader").symlink_to("ld.so")
        (place / "runtime/lib/ld.so").write_text("loader")
        (place / "code/perry/__init__.py").write_text("")
        (place / "code/perry/worker/app.py").write_text("answer = 42\n")

    def start(self, *layers: str, kill_at: int = 0, new_for: float = 0) -> subprocess.Popen[str]:
        arguments = [str(kill_at), *layers[:2], str(new_for), *layers[2:]]
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(self.place), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fill(self, *layers: str, kill_at: int = 0, new_for: float = 0) -> int:
        """Fill, and tell how often files were touched; -9 where it was killed."""
        process = self.start(*layers, kill_at=kill_at, new_for=new_for)
        said, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode in ((0, -9) if kill_at else (0,)), errors
        return int(said) if process.returncode == 0 else process.returncode

    def layers(self) -> set[str]:
        return {it.name for it in (self.place / "volume/layers").glob("*")}

    def markers(self) -> set[str]:
        return {it.name for it in (self.place / "volume/complete").glob("*")}

    def key(self) -> str:
        return (self.place / "key/key").read_text()

    def is_whole(self, layer: str) -> bool:
        files = self.files(layer)
        if layer.startswith("runtime"):
            return files == {"busybox", "lib/loader", "lib/ld.so"}
        sources = {it for it in files if it.endswith(".py")}
        compiled = {it for it in files if it.endswith(".pyc")}
        return sources == {"perry/__init__.py", "perry/worker/app.py"} and len(compiled) == 2

    def files(self, layer: str) -> set[str]:
        root = self.place / "volume/layers" / layer
        return {str(it.relative_to(root)) for it in root.rglob("*") if not it.is_dir()}

    def states(self, layer: str) -> dict[str, tuple[int, int]]:
        root = self.place / "volume/layers" / layer
        return {
            str(it): (it.lstat().st_ino, it.lstat().st_mtime_ns) for it in [root, *root.rglob("*")]
        }


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path)


def assert_filled(volumes: Volumes, *layers: str) -> None:
    assert volumes.layers() == volumes.markers() == set(layers)
    assert all(volumes.is_whole(layer) for layer in layers)
    assert (volumes.place / "volume/busybox").read_text() == "busybox"
    assert len(bytes.fromhex(volumes.key())) == 32
    assert [it.name for it in (volumes.place / "key").iterdir()] == ["key"]
    assert (volumes.place / "key/key").stat().st_mode & 0o777 == 0o600


def test_empty_volumes_are_filled(volumes: Volumes) -> None:
    volumes.fill("runtime-1", "code-1")
    assert_filled(volumes, "runtime-1", "code-1")


def test_a_complete_layer_is_never_written_again(volumes: Volumes) -> None:
    volumes.fill("runtime-1", "code-1")
    before, key = volumes.states("runtime-1") | volumes.states("code-1"), volumes.key()
    (volumes.place / "code/perry/worker/app.py").write_text("answer = 43\n")
    volumes.fill("runtime-1", "code-1")
    assert volumes.states("runtime-1") | volumes.states("code-1") == before
    assert volumes.key() == key


def test_what_is_named_stays_and_what_is_not_goes(volumes: Volumes) -> None:
    volumes.fill("runtime-1", "code-1")
    volumes.fill("runtime-2", "code-2", "runtime-1", "code-1")
    assert_filled(volumes, "runtime-1", "code-1", "runtime-2", "code-2")
    kept = volumes.states("code-1")
    volumes.fill("runtime-2", "code-3", "code-1", "code-9")
    assert_filled(volumes, "runtime-2", "code-3", "code-1")
    assert volumes.states("code-1") == kept


def test_what_another_filler_completed_a_moment_ago_stays(volumes: Volumes) -> None:
    volumes.fill("runtime-1", "code-1")
    volumes.fill("runtime-1", "code-2", new_for=60)
    assert_filled(volumes, "runtime-1", "code-1", "code-2")
    volumes.fill("runtime-1", "code-3", "code-2")
    assert_filled(volumes, "runtime-1", "code-2", "code-3")


def test_a_filler_killed_anywhere_vouches_for_nothing_half_made_and_the_next_completes_it(
    tmp_path: Path,
) -> None:
    moments = Volumes(tmp_path / "whole").fill("runtime-1", "code-1")
    assert moments > 30
    killed = 0
    for moment in range(1, moments + 1):
        volumes = Volumes(tmp_path / str(moment))
        killed += volumes.fill("runtime-1", "code-1", kill_at=moment) == -9
        key = volumes.key() if (volumes.place / "key/key").exists() else None
        assert all(volumes.is_whole(layer) for layer in volumes.markers()), moment
        volumes.fill("runtime-1", "code-1")
        assert_filled(volumes, "runtime-1", "code-1")
        assert key in (None, volumes.key())
    assert killed == moments


def test_a_sweep_killed_anywhere_keeps_what_is_named(tmp_path: Path) -> None:
    def two_codes(place: Path) -> Volumes:
        volumes = Volumes(place)
        volumes.fill("runtime-1", "code-1")
        volumes.fill("runtime-1", "code-2", "code-1")
        return volumes

    moments = two_codes(tmp_path / "whole").fill("runtime-1", "code-2")
    assert moments > 15
    for moment in range(1, moments + 1, 2):
        volumes = two_codes(tmp_path / str(moment))
        assert volumes.fill("runtime-1", "code-2", kill_at=moment) == -9
        assert {"runtime-1", "code-2"} <= volumes.markers()
        assert all(volumes.is_whole(layer) for layer in volumes.markers())
        volumes.fill("runtime-1", "code-2")
        assert_filled(volumes, "runtime-1", "code-2")


def test_many_fillers_at_once_make_one_key_and_whole_layers(volumes: Volumes) -> None:
    codes = [f"code-{number}" for number in range(6)]
    running = [volumes.start("runtime-1", code, *codes) for code in codes]
    for filler in running:
        _, errors = filler.communicate(timeout=PATIENCE)
        assert filler.returncode == 0, errors
    assert_filled(volumes, "runtime-1", *codes)
