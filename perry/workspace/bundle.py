"""The bundle: what runs the worker in a container, whatever the container's image is.

Two layers, each named by its digest, in one volume per engine that every workspace which perry
makes mounts read-only at /opt/perry (`delivery.py` copies them into others): the runtime (a Python
with its own loader and C library, from the image that `image.py` builds) and the code (the part of
perry that runs in a container). A filler container puts them there (`fill.py`); once it has ended
well it is renamed and kept, never running again, as the engine's own word that these layers are
complete, and as the one door to the key.

It must not know workers, tokens or the manager.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import perry
from perry.errors import BuildError
from perry.workspace import archive, helper, image
from perry.workspace.engine import Engine
from perry.workspace.models import Step
from perry.workspace.objects import Container, Image, ListedContainer

LABEL = "perry.bundle"
"""Marks the bundle's volume and its fillers; its value is the bundle's digest there."""

KEY_LABEL = "perry.key"
"""Marks the volume that holds the engine's key."""

VOLUME = "perry-bundle"
KEY_VOLUME = "perry-key"
ROOT = "/opt/perry"
BUSYBOX = f"{ROOT}/busybox"
PROCESS_PREFIX = f"{ROOT}/layers/"
"""Where the command line of every worker that perry started begins."""

_CODE = ("__init__.py", "errors.py", "protocol.py", "sessions/*.py", "worker/*.py")
_BOOT = (
    "import sys; sys.path[:0] = sys.argv[1:3]; del sys.argv[1:3]; "
    "from perry.worker.__main__ import main; sys.exit(main(sys.argv[1:]))"
)
UNUSED_FOR = timedelta(minutes=10)
"""How old a bundle must be before it counts as one that nobody runs any more."""

_LAYER = re.compile(r"/opt/perry/layers/((?:runtime|code)-[0-9a-f]{12})")


@dataclass(frozen=True)
class Bundle:
    """One pair of layers by their names in the volume."""

    runtime: str
    code: str

    @property
    def layers(self) -> tuple[str, str]:
        """The names of both."""
        return self.runtime, self.code

    @property
    def digest(self) -> str:
        """What a worker of this bundle reports in its health."""
        return f"{self.runtime.removeprefix('runtime-')}-{self.code.removeprefix('code-')}"

    @property
    def keeper(self) -> str:
        """The name of the container whose presence says that both layers are complete."""
        return f"perry-bundle-{self.digest}"

    def argv(self, *arguments: str) -> list[str]:
        """Return the command line that runs the worker in a container which has the bundle."""
        runtime, code = f"{PROCESS_PREFIX}{self.runtime}", f"{PROCESS_PREFIX}{self.code}"
        loader = [f"{runtime}/lib/ld.so", "--library-path", f"{runtime}/lib"]
        python = [f"{runtime}/bin/python3", "-I", "-S", "-X", "utf8", "-c", _BOOT]
        return [*loader, *python, code, f"{runtime}/site", *arguments]


def mount() -> dict[str, Any]:
    """Return the bundle's mount as the engine's API takes it: read-only, and never pre-filled."""
    return {
        "Type": "volume",
        "Source": VOLUME,
        "Target": ROOT,
        "ReadOnly": True,
        "VolumeOptions": {"NoCopy": True},
    }


def is_mounted(container: Container) -> bool:
    """Tell whether a container mounts the engine's bundle where workers are started from."""
    return any(
        found.get("Name") == VOLUME and found.get("Destination") == ROOT
        for found in container.raw.get("Mounts") or ()
    )


def is_perrys_own(container: Container) -> bool:
    """Tell whether a container is one of those that perry makes for itself."""
    kept = f"perry-bundle-{container.labels.get(LABEL)}"
    return container.name in (kept, container.labels.get(helper.LABEL))


def ensure_bundle(engine: Engine) -> Generator[Step, None, Bundle]:
    """Make sure that the engine holds this perry's bundle, and return it.

    Builds the runtime image where it is missing. Raises BuildError.
    """
    runtime = yield from image.ensure_runtime(engine)
    bundle = _bundle_of(runtime)
    if not is_complete(engine, bundle):
        yield Step("bundle", "progress", "filling the engine's bundle volume")
        _fill(engine, bundle, runtime.id)
    return bundle


def find_bundle(engine: Engine) -> Bundle | None:
    """Return this perry's bundle, whether the engine holds it or not yet.

    None where its runtime image, of which it is made, is not there.
    """
    runtime = engine.get_image(image.runtime_reference())
    return None if runtime is None else _bundle_of(runtime)


def is_complete(engine: Engine, bundle: Bundle) -> bool:
    """Tell whether the engine holds both layers whole."""
    return engine.get_container(bundle.keeper) is not None


def prune(engine: Engine, bundle: Bundle) -> None:
    """Remove the layers of other bundles that no worker runs any more.

    What was filled a moment ago may be about to run. Keepers go first, so that another perry sees
    that layers are missing before they are.
    """
    helper.remove_abandoned(engine)
    others = [
        keeper
        for keeper in list_keepers(engine)
        if keeper.name != bundle.keeper and helper.age(keeper) > UNUSED_FOR
    ]
    unused = unused_of(engine, others)
    for keeper in unused:
        helper.remove(engine, keeper)
    current = engine.get_container(bundle.keeper)
    if unused and current is not None:
        _fill(engine, bundle, current.image_id)


def unused_of(engine: Engine, keepers: Iterable[ListedContainer]) -> list[ListedContainer]:
    """Return the keepers whose layers no process of a container that mounts them comes from.

    A look at a container's processes takes the engine a while, so it ends with the last doubt.
    """
    unused, running = list(keepers), set[str]()
    for container in engine.list_users(VOLUME) if unused else ():
        if container.has_processes:
            for command in engine.list_processes(container.id):
                running.update(_LAYER.findall(command))
            unused = [keeper for keeper in unused if not set(_layers_of(keeper)) <= running]
            if not unused:
                break
    return unused


@cache
def code_files() -> dict[str, bytes]:
    """Return the code layer: path from the layer's root to content."""
    package = Path(perry.__file__).parent
    paths = sorted(path for pattern in _CODE for path in package.glob(pattern))
    return {f"perry/{path.relative_to(package)}": path.read_bytes() for path in paths}


@cache
def code_digest() -> str:
    """Return the first 12 hex digits of the SHA-256 of the code layer's paths and contents."""
    return hashlib.sha256(archive.pack(code_files())).hexdigest()[:12]


def keeper_for_key(engine: Engine, bundle: Bundle) -> Container:
    """Return the container through which the engine's key can be read."""
    keeper = engine.get_container(bundle.keeper)
    if keeper is None:
        raise BuildError(
            "The bundle was removed from the engine while perry used it",
            hint="Run the command again.",
        )
    return keeper


def list_keepers(engine: Engine) -> list[ListedContainer]:
    """List the containers that say that a bundle's layers are complete, any version's."""
    found = engine.list_containers(LABEL)
    return [container for container in found if container.name.startswith("perry-bundle-")]


def _bundle_of(runtime: Image) -> Bundle:
    return Bundle(f"runtime-{runtime.id.removeprefix('sha256:')[:12]}", f"code-{code_digest()}")


def _layers_of(keeper: ListedContainer) -> tuple[str, str]:
    runtime, code = keeper.labels[LABEL].split("-", 1)
    return f"runtime-{runtime}", f"code-{code}"


def _fill(engine: Engine, bundle: Bundle, runtime_image: str) -> None:
    """Run a filler to its end; what it filled counts only once it has its keeper's name.

    It keeps the layers that any keeper vouches for, and sweeps away all others.
    """
    helper.remove_abandoned(engine)
    engine.create_volume(VOLUME, {LABEL: ""})
    engine.create_volume(KEY_VOLUME, {KEY_LABEL: ""})
    kept = {layer for keeper in list_keepers(engine) for layer in _layers_of(keeper)}
    name = helper.new_name("fill")
    try:
        filler = _create_filler(engine, name, bundle, runtime_image, kept)
        engine.write_archive(filler, "/", _filler_files())
        _run_filler(engine, filler)
        is_keeper = engine.rename_container(filler, bundle.keeper)
    except BaseException:
        engine.remove_container(name)  # by name: an interrupt may come before its id does
        raise
    if not is_keeper:
        engine.remove_container(filler)


def _run_filler(engine: Engine, filler: str) -> None:
    engine.start_container(filler)
    if engine.wait_container(filler) == 0:
        return
    log = b"".join(engine.read_logs(filler, follow=False, tail=5)).decode(errors="replace")
    raise BuildError(
        f"The bundle could not be put on the engine: {log.strip() or 'no output'}",
        hint="Check the engine's free disk space (docker system df) and run it again.",
    )


def _create_filler(
    engine: Engine, name: str, bundle: Bundle, runtime_image: str, keep: Iterable[str]
) -> str:
    loader = ["/runtime/lib/ld.so", "--library-path", "/runtime/lib"]
    python = [*loader, "/runtime/bin/python3", "-I", "-S", "/fill.py"]
    new_for = str(UNUSED_FOR.total_seconds())
    volumes = {VOLUME: ROOT, KEY_VOLUME: "/key"}
    mounts = [
        {"Type": "volume", "Source": source, "Target": target} for source, target in volumes.items()
    ]
    return engine.create_container(
        name,
        runtime_image,
        command=[*python, bundle.runtime, bundle.code, new_for, *sorted(keep)],
        labels={LABEL: bundle.digest, **helper.labels(name)},
        host_config={"mounts": mounts, "network_mode": "none"},
    )


def _filler_files() -> bytes:
    fill = Path(__file__).with_name("fill.py").read_bytes()
    code = {f"code/{path}": content for path, content in code_files().items()}
    return archive.pack({"fill.py": fill, **code})
