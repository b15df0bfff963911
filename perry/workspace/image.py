"""The two images that workspaces need: the default workspace's, and the bundle's runtime.

Both come from `container/Dockerfile`, which ships inside the package, and are tagged with a digest
of what they are built from, so that another version of perry never takes one for its own. It must
not know workspaces.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Generator
from functools import cache
from pathlib import Path

import perry
from perry.errors import BuildError, EngineFailure, ImageUnusable
from perry.workspace.engine import CONFLICT, Engine
from perry.workspace.models import Step, StepName
from perry.workspace.objects import Image
from perry.workspace.wheels import resolve_wheels

LABEL = "perry.image"
"""Marks the images perry built; its value is `workspace`, `runtime`, `agent`, or `build` for the
stage that makes the runtime."""

WORKSPACE_REPOSITORY = "perry-workspace"
RUNTIME_REPOSITORY = "perry-runtime"
AGENT_REPOSITORY = "perry-agent"

BASE = "debian:trixie-slim"
FALLBACK_REPOSITORY, FALLBACK_TAG = "perry-base", "trixie"

_OURS = re.compile(
    rf"(?:{WORKSPACE_REPOSITORY}|{RUNTIME_REPOSITORY}|{AGENT_REPOSITORY}):(?:latest|[0-9a-f]{{12}})"
)
_LOCK = "worker-requirements.txt"
_RECIPE = ("Dockerfile", "make-runtime", "base.sh", _LOCK)


def ensure_image(
    engine: Engine, reference: str | None, workspace: str
) -> Generator[Step, None, Image]:
    """Return the image a workspace is to run, pulled or built where the engine lacks it.

    Without a reference it is perry's own. Raises ImageUnusable and BuildError.
    """
    if reference is None:
        return (yield from ensure_workspace_image(engine))
    found = engine.get_image(reference)
    if found is None:
        yield Step("image", "note", f"{reference} is not on this engine: pulling it")
        try:
            for line in engine.pull_image(reference):
                yield Step("image", "progress", line)
        except EngineFailure as failure:
            raise ImageUnusable(
                f"The image '{reference}' is not on this engine and can't be pulled: "
                f"{failure.message.removeprefix('Docker: ')}",
                hint="Check its name, or docker login where it is private.",
                workspace=workspace,
            ) from failure
        found = engine.get_image(reference)
    if found is None:
        raise ImageUnusable(
            f"The image '{reference}' is not there right after it was pulled",
            hint="Run the command again.",
            workspace=workspace,
        )
    architecture = engine.architecture
    if found.os != "linux" or found.architecture != architecture:
        raise ImageUnusable(
            f"The image '{reference}' is for {found.os}/{found.architecture}, "
            f"the engine runs linux/{architecture}",
            hint="Pull or build it for the engine's architecture (docker pull --platform).",
            workspace=workspace,
        )
    return found


def ensure_workspace_image(engine: Engine) -> Generator[Step, None, Image]:
    """Return perry's workspace image, built where the engine lacks it. Raises BuildError."""
    return (yield from _ensure(engine, "image", WORKSPACE_REPOSITORY, None))


def ensure_runtime(engine: Engine) -> Generator[Step, None, Image]:
    """Return the image of the bundle's runtime, built where the engine lacks it.

    Raises BuildError.
    """
    return (yield from _ensure(engine, "bundle", RUNTIME_REPOSITORY, "runtime"))


def workspace_reference() -> str:
    """Return the name of this perry's workspace image."""
    return f"{WORKSPACE_REPOSITORY}:{recipe_digest()}"


def runtime_reference() -> str:
    """Return the name of the image that holds this perry's runtime layer."""
    return f"{RUNTIME_REPOSITORY}:{recipe_digest()}"


def list_built(engine: Engine) -> list[str]:
    """List the names of the images that perry put on an engine, any version of it.

    The label alone doesn't tell: what is built or committed from perry's images inherits it.
    """
    built = [name for name in engine.list_images(LABEL) if _OURS.fullmatch(name)]
    base = f"{FALLBACK_REPOSITORY}:{FALLBACK_TAG}"
    return [*built, base] if engine.get_image(base) is not None else built


def remove_leftovers(engine: Engine) -> None:
    """Remove what is left of the runtime's build stage: it has no name, and nothing was made of it.

    One that somebody's container uses stays.
    """
    for leftover in engine.list_leftovers(f"{LABEL}=build"):
        try:
            engine.remove_image(leftover)
        except EngineFailure as failure:
            if failure.status != CONFLICT:  # then a container was made of it
                raise


@cache
def recipe() -> Path:
    """Return the folder with the images' recipe: inside the package, or beside it in a checkout."""
    package = Path(perry.__file__).parent
    shipped = package / "container"
    return shipped if shipped.is_dir() else package.parent / "container"


@cache
def recipe_digest() -> str:
    """Return the first 12 hex digits of the SHA-256 of all that the images are built from."""
    digest = hashlib.sha256()
    for name in _RECIPE:
        content = (recipe() / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]


def _ensure(
    engine: Engine, step: StepName, repository: str, target: str | None
) -> Generator[Step, None, Image]:
    reference = f"{repository}:{recipe_digest()}"
    found = engine.get_image(reference)
    if found is not None:
        return found
    yield Step(step, "note", f"{reference} is not on this engine yet: building it, up to a minute")
    base = yield from _ensure_base(engine, step)
    try:
        yield from _build(engine, step, reference, target, base)
    except EngineFailure as failure:
        # Another perry that built the same may have removed the leftovers from under this build.
        if engine.get_image(reference) is None:
            raise BuildError(
                f"The image {reference} could not be built: {failure.message}",
                hint="Check that the engine can reach Debian's packages and has disk space.",
            ) from failure
    built = engine.get_image(reference)
    if built is None:
        raise BuildError(
            f"The image {reference} is gone right after its build", hint="Run the command again."
        )
    engine.tag_image(reference, repository=repository, tag="latest")
    if all(map(engine.get_image, (workspace_reference(), runtime_reference()))):
        remove_leftovers(engine)  # until then the other build goes on from them
    return built


def _build(
    engine: Engine, step: StepName, reference: str, target: str | None, base: str
) -> Generator[Step, None, None]:
    with tempfile.TemporaryDirectory(prefix="perry-build-") as directory:
        yield Step(step, "progress", "resolving the worker's dependencies")
        site = Path(directory, "site")
        resolve_wheels(recipe() / _LOCK, site, engine.architecture)
        lines = engine.build_image(
            _context(site), tag=reference, target=target, arguments={"BASE": base}
        )
        for line in lines:
            yield Step(step, "progress", line)


def _ensure_base(engine: Engine, step: StepName) -> Generator[Step, None, str]:
    """Return the name of the base image: pulled, or made of Debian's packages on this host."""
    fallback = f"{FALLBACK_REPOSITORY}:{FALLBACK_TAG}"
    for present in (BASE, fallback):
        if engine.get_image(present) is not None:
            return present
    try:
        for line in engine.pull_image(BASE):
            yield Step(step, "progress", line)
    except EngineFailure as failure:
        yield Step(
            step,
            "note",
            f"{BASE} can't be pulled: making the base from Debian's packages, about 20 s",
        )
        _bootstrap(engine, failure)
        return fallback
    return BASE


def _bootstrap(engine: Engine, pull_failure: EngineFailure) -> None:
    if shutil.which("mmdebstrap") is None:
        raise BuildError(
            f"{BASE} can't be pulled ({pull_failure.message}), and mmdebstrap, which could make "
            "the base from Debian's packages, is not installed",
            hint="Give the engine a way to a registry, or: sudo apt-get install mmdebstrap",
        ) from pull_failure
    with tempfile.TemporaryDirectory(prefix="perry-base-") as directory:
        tar = Path(directory, "base.tar")
        made = subprocess.run(
            ["sh", str(recipe() / "base.sh"), str(tar)],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise BuildError(
                f"mmdebstrap could not make the base image: {made.stderr.strip()[-500:]}",
                hint="Check that this machine reaches Debian's packages.",
            ) from pull_failure
        engine.import_image(str(tar), repository=FALLBACK_REPOSITORY, tag=FALLBACK_TAG)


def _context(site: Path) -> io.BytesIO:
    """Make the build context: the recipe and the resolved wheels; the same input, the same tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in _RECIPE:
            tar.add(recipe() / name, arcname=name, filter=_anonymous)
        tar.add(site, arcname="site", filter=_anonymous)
    buffer.seek(0)
    return buffer


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry
