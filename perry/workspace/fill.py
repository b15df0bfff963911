"""Fill the engine's volumes: the program that a filler container runs.

It runs on the bundle's own Python inside a container of the runtime image, with the bundle's volume
at /opt/perry and the key's at /key, so that a layer never travels through the host. It must not
import anything of perry. Arguments: the runtime layer's name, the code layer's name, the seconds
for which a layer counts as new, and the names of all layers to keep besides.

A layer appears under its name by a rename, and counts as complete once its marker is there, which
is written last. A complete layer is never written again. A lock in the volume keeps two fillers
apart; what a killed one left is swept away by the next.
"""

from __future__ import annotations

import compileall
import fcntl
import os
import secrets
import shutil
import sys
import time
from pathlib import Path
from py_compile import PycInvalidationMode

VOLUME = Path("/opt/perry")
LAYERS = VOLUME / "layers"
MARKERS = VOLUME / "complete"
KEY = Path("/key/key")
RUNTIME = Path("/runtime")
CODE = Path("/code")


def main(runtime: str, code: str, new_for: str, *keep: str) -> None:
    """Bring the volume to hold these layers and no others, and the key volume its key."""
    LAYERS.mkdir(exist_ok=True)
    MARKERS.mkdir(exist_ok=True)
    with (VOLUME / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ensure_key()
        sweep({runtime, code, *keep}, float(new_for))
        ensure_busybox()
        ensure_layer(runtime, RUNTIME)
        ensure_layer(code, CODE)


def ensure_key() -> None:
    """Make the engine's key once; whoever comes second keeps the first one's."""
    if KEY.exists():
        return
    draft = KEY.with_name(f"draft-{secrets.token_hex(8)}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(32))
    try:
        os.link(draft, KEY)
    except FileExistsError:
        pass  # another filler made it first
    finally:
        draft.unlink()


def sweep(keep: set[str], new_for: float) -> None:
    """Remove the layers that nobody runs, and drafts that a killed filler left.

    A layer that another filler completed since `keep` was listed isn't in it, and is about to be
    run: what is younger than `new_for` seconds stays.
    """
    for marker in MARKERS.iterdir():
        is_new = marker.stat().st_mtime > time.time() - new_for
        if marker.name not in keep and not is_new:
            marker.unlink()
    for layer in LAYERS.iterdir():
        if not (MARKERS / layer.name).exists():
            shutil.rmtree(layer)
    for draft in KEY.parent.glob("draft-*"):
        draft.unlink()


def ensure_busybox() -> None:
    """Put the idle program at its fixed place: containers are created with its path for good."""
    draft = VOLUME / ".busybox"
    shutil.copy2(RUNTIME / "busybox", draft)
    draft.replace(VOLUME / "busybox")


def ensure_layer(name: str, source: Path) -> None:
    """Copy a layer into the volume, unless it is complete already."""
    if (MARKERS / name).exists():
        return
    draft = LAYERS / f".{name}"
    shutil.copytree(source, draft, symlinks=True)
    compileall.compile_dir(
        draft, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH, force=False
    )
    draft.rename(LAYERS / name)
    os.sync()
    (MARKERS / name).touch()


if __name__ == "__main__":
    main(*sys.argv[1:])
