"""The image of the agent daemon, for who runs it in a container as `compose.yaml` does.

It is the bundle's runtime with this perry, its recipes and its dependencies in it, and is tagged
with a digest of all that, so a changed perry gets another image. What is the same as in the
runtime's image lies on the engine once. It must not know workspaces, nor what the daemon does.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Generator
from pathlib import Path

import perry
from perry.errors import BuildError, EngineFailure
from perry.workspace import archive, image
from perry.workspace.engine import Engine
from perry.workspace.models import Step
from perry.workspace.objects import Image
from perry.workspace.wheels import resolve_wheels

_DOCKERFILE = "Dockerfile.agent"
_COMMAND = "agent-perry"
_LOCK = "agent-requirements.txt"


def ensure_agent_image(engine: Engine) -> Generator[Step, None, Image]:
    """Return the image of this perry's agent daemon, built where the engine lacks it.

    It is `perry-agent:latest` then, whatever that was before. Raises BuildError.
    """
    yield from image.ensure_runtime(engine)
    files = _files()
    digest = hashlib.sha256(archive.pack(files)).hexdigest()[:12]
    reference = f"{image.AGENT_REPOSITORY}:{digest}"
    if engine.get_image(reference) is None:
        yield Step("image", "note", f"{reference} is not on this engine yet: building it")
        try:
            yield from _build(engine, reference, files)
        except EngineFailure as failure:
            raise BuildError(
                f"The image {reference} could not be built: {failure.message}",
                hint="Check the engine's free disk space (docker system df) and run it again.",
            ) from failure
    engine.tag_image(reference, repository=image.AGENT_REPOSITORY, tag="latest")
    built = engine.get_image(reference)
    if built is None:
        raise BuildError(
            f"The image {reference} is gone right after its build", hint="Run the command again."
        )
    return built


def _build(engine: Engine, reference: str, files: dict[str, bytes]) -> Generator[Step, None, None]:
    with tempfile.TemporaryDirectory(prefix="perry-build-") as directory:
        yield Step("image", "progress", "resolving the agent daemon's dependencies")
        site = Path(directory, "site")
        resolve_wheels(image.recipe() / _LOCK, site, engine.architecture)
        context = io.BytesIO(archive.pack({**files, **_under(site, "site")}))
    arguments = {"RUNTIME": image.runtime_reference()}
    for line in engine.build_image(context, tag=reference, target=None, arguments=arguments):
        yield Step("image", "progress", line)


def _files() -> dict[str, bytes]:
    """Return all that decides what is in the image: path in the build context to content."""
    recipe, package = image.recipe(), Path(perry.__file__).parent
    return {
        "Dockerfile": (recipe / _DOCKERFILE).read_bytes(),
        _COMMAND: (recipe / _COMMAND).read_bytes(),
        **_under(package, "perry"),
        **_under(recipe, "perry/container"),
    }


def _under(directory: Path, name: str) -> dict[str, bytes]:
    """Read the files below a directory, but for what Python compiled of them."""
    return {
        f"{name}/{path.relative_to(directory)}": path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
