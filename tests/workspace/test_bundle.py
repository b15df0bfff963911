"""The bundle's layers: what is in them, what they are named by, and who still needs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import perry
from perry.workspace import bundle
from perry.workspace.objects import ListedContainer
from tests.workspace.engine_answers import Table, engine_of, listed

PACKAGE = Path(perry.__file__).parent


def test_the_code_layer_is_what_the_worker_needs_and_nothing_of_the_hosts_side() -> None:
    expected = {"perry/__init__.py", "perry/errors.py", "perry/protocol.py"} | {
        f"perry/{path.relative_to(PACKAGE)}"
        for part in ("sessions", "worker")
        for path in (PACKAGE / part).rglob("*.py")
    }
    assert set(bundle.code_files()) == expected
    for path, content in bundle.code_files().items():
        assert content == (PACKAGE.parent / path).read_bytes()


def test_the_code_layer_runs_alone(tmp_path: Path) -> None:
    """What isn't in it can't be imported: nothing else of perry is there."""
    for path, content in bundle.code_files().items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    site = Path(perry.__file__).parent  # only to be sure that the layer's own perry is the one
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import perry.worker.__main__;"
        "print({module.__file__ for name, module in sys.modules.items()"
        " if name.split('.')[0] == 'perry'})"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert str(site) not in done.stdout
    assert str(tmp_path) in done.stdout


def test_the_digest_depends_on_paths_and_contents_and_not_on_the_place(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "perry")
    program = """
from pathlib import Path
from perry.workspace import bundle
def show():
    bundle.code_files.cache_clear()
    bundle.code_digest.cache_clear()
    print(bundle.code_digest())
show()
Path("perry/cli/new.py").write_text("x")
Path("perry/worker/__pycache__").mkdir(exist_ok=True)
Path("perry/worker/__pycache__/x.pyc").write_text("x")
Path("perry/protocol.py").touch()
show()
new = Path("perry/sessions/new.py")
new.write_text("x")
show()
new.write_text("y")
show()
new.rename("perry/worker/new.py")
show()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    first, unrelated, *changed = done.stdout.split()
    assert first == unrelated == bundle.code_digest()
    assert len({first, *changed}) == 4


def test_a_bundles_names_tell_its_layers() -> None:
    made = bundle.Bundle("runtime-0123456789ab", "code-ba9876543210")
    assert made.digest == "0123456789ab-ba9876543210"
    assert made.keeper == "perry-bundle-0123456789ab-ba9876543210"
    argv = made.argv("--check")
    assert argv[0] == "/opt/perry/layers/runtime-0123456789ab/lib/ld.so"
    assert argv[0].startswith(bundle.PROCESS_PREFIX)
    assert argv[-3:] == [
        "/opt/perry/layers/code-ba9876543210",
        "/opt/perry/layers/runtime-0123456789ab/site",
        "--check",
    ]
    assert bundle._LAYER.findall(" ".join(argv))[:1] == ["runtime-0123456789ab"]
    assert set(bundle._LAYER.findall(" ".join(argv))) == {made.runtime, made.code}


def test_the_bundle_is_mounted_read_only_and_never_filled_from_an_image() -> None:
    mount = bundle.mount()
    assert mount["ReadOnly"] is True
    assert mount["VolumeOptions"] == {"NoCopy": True}


def worker_of(runtime: str, code: str) -> dict[str, Any]:
    """The processes of a workspace whose worker runs these layers, as the engine tells them."""
    layers = "/opt/perry/layers"
    command = f"{layers}/runtime-{runtime}/bin/python3 -c … {layers}/code-{code} {layers}/site"
    return {"Processes": [["1", "sleep infinity"], ["7", command]]}


def keeper_of(runtime: str, code: str) -> ListedContainer:
    labels = {bundle.LABEL: f"{runtime}-{code}"}
    return ListedContainer.from_listing(listed(f"{runtime}-{code}", Labels=labels))


def test_layers_that_a_running_or_paused_workspace_came_from_are_in_use() -> None:
    """The worker of a paused one goes on from them when somebody lets it."""
    a, b, c = "a" * 12, "b" * 12, "c" * 12
    states = {"c1": "paused", "c2": "exited", "c3": "running"}
    table: Table = {
        "/containers/json": lambda: (200, [listed(it, State=states[it]) for it in states]),
        "/containers/c1/top": lambda: (200, worker_of(a, b)),
        "/containers/c3/top": lambda: (200, worker_of(a, a)),
    }
    with engine_of(table) as engine:
        keepers = [keeper_of(a, b), keeper_of(a, a), keeper_of(a, c), keeper_of(c, b)]
        assert bundle.unused_of(engine, keepers) == keepers[2:]


def test_nobody_is_asked_when_no_layer_is_in_doubt() -> None:
    a, b = "a" * 12, "b" * 12
    with engine_of({}) as engine:
        assert bundle.unused_of(engine, []) == []
    table: Table = {
        "/containers/json": lambda: (200, [listed("c1"), listed("c2")]),
        "/containers/c1/top": lambda: (200, worker_of(a, b)),
        "/containers/c2/top": lambda: (500, {"message": "asked in vain"}),
    }
    with engine_of(table) as engine:
        assert bundle.unused_of(engine, [keeper_of(a, b)]) == []
