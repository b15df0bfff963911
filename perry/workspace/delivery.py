"""The bundle, brought into a container that doesn't mount it: an adopted one.

Copied from the bundle's keeper through the engine's archive API, as a stream, into a draft beside
the layers. The busybox that came along then moves each to its name and writes its marker last,
inside the container: so what is used was seen from there, nothing half-made ever is, and a complete
layer is never written again. It must not know workers.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

from perry.errors import EngineError, EngineFailure, WorkerCannotRun
from perry.workspace import archive, bundle
from perry.workspace.bundle import BUSYBOX, PROCESS_PREFIX, ROOT, Bundle
from perry.workspace.engine import NOT_FOUND, Engine
from perry.workspace.objects import Container, Execution

ABANDONED_AFTER = timedelta(minutes=10)
"""How old a draft must be before it counts as one that a killed perry left."""

_ANCESTORS: dict[str, tuple[str, ...]] = {
    ROOT: (),
    "/opt": ("perry",),
    "/": ("opt", "opt/perry"),
}
"""Where the bundle's place may be made, and what has to be made from there on."""

_LOOK = """
cd /opt/perry/complete 2>/dev/null && "$0" ls
"""
"""Names the complete layers."""

_INSTALL = """
set -eu
cd /opt/perry
draft=$1 patience=$2
shift 2
"$0" cp "$0" "$draft/busybox"
"$0" sync -f "$draft"
busybox=./$draft/busybox
for layer do
  if [ ! -e "complete/$layer" ]; then
    "$busybox" mv "layers/$layer" "$draft/former-$layer" 2>/dev/null || true
    # another perry may have been quicker in this moment, with the same
    "$busybox" mv -T "$draft/$layer" "layers/$layer" 2>/dev/null || [ -d "layers/$layer" ]
    : > "complete/$layer"
  fi
done
"$busybox" mv "$busybox" busybox
now=$(./busybox date +%s)
for left in draft-*; do
  age=$((now - $(./busybox stat -c %Y "$left")))
  if [ "$left" = "$draft" ] || [ $age -ge $patience ]; then ./busybox rm -rf "$left"; fi
done
./busybox ls complete
"""
"""Moves what was copied to its place, and names the complete layers."""

_SWEEP = """
cd /opt/perry || exit
patience=$1
shift
now=$("$0" date +%s)
for layer in $("$0" ls complete layers); do
  for wanted do
    if [ "$layer" = "$wanted" ]; then continue 2; fi
  done
  made=$("$0" stat -c %Y "complete/$layer" 2>/dev/null || echo 0)
  if [ $((now - made)) -lt $patience ]; then continue; fi
  if "$0" grep -qs "/opt/perry/layers/$layer" /proc/[0-9]*/cmdline; then continue; fi
  "$0" rm -f "complete/$layer"
  "$0" rm -rf "layers/$layer"
done
"""
"""Removes layers that are neither wanted, nor new, nor run by any process."""

_TAKE_AWAY = """
cd /opt/perry/complete 2>/dev/null || exit 0
cd ..
"$0" rm -rf complete layers draft-* busybox
cd /
rmdir /opt/perry 2>/dev/null
[ ! -e /opt/perry/layers ]
"""
"""Removes all that was copied, the busybox that runs this included."""

_NOTHING_THERE = (126, 127)
"""The engine's exit codes for a program that isn't there."""


def ensure_present(
    engine: Engine, container: Container, workspace: str, wanted: Bundle
) -> frozenset[str]:
    """Make sure that a running container has a bundle's layers, mounted or copied.

    Returns the names of the other layers that were copied into it. Raises WorkerCannotRun where
    nothing can be copied into it, or seen there.
    """
    if bundle.is_mounted(container):
        return frozenset()
    looked = _shell(engine, container, BUSYBOX, _LOOK)
    present = frozenset(looked.output.split()) if looked.exit_code == 0 else frozenset()
    missing = [layer for layer in wanted.layers if layer not in present]
    if missing:
        _check_cover(container, workspace)
        present |= _bring(engine, container, workspace, wanted, missing)
    return present - set(wanted.layers)


def sweep(engine: Engine, container: Container, wanted: Bundle) -> None:
    """Remove the copied layers of other bundles that no process in the container runs."""
    seconds = str(int(bundle.UNUSED_FOR.total_seconds()))
    _shell(engine, container, BUSYBOX, _SWEEP, seconds, *wanted.layers)


def take_away(engine: Engine, container: Container) -> bool:
    """Remove what was copied into a container; False where something of it stays."""
    if bundle.is_mounted(container):
        return True
    if not container.is_running:
        return engine.read_owner(container.id, f"{ROOT}/complete") is None
    taken = _shell(engine, container, BUSYBOX, _TAKE_AWAY)
    return taken.exit_code == 0 or taken.exit_code in _NOTHING_THERE


def _bring(
    engine: Engine, container: Container, workspace: str, wanted: Bundle, layers: Sequence[str]
) -> frozenset[str]:
    """Copy layers into a container, and return the names of all that are complete in it then."""
    draft = f"draft-{secrets.token_hex(6)}"
    in_draft = f"{ROOT}/{draft}"
    busybox = f"{in_draft}/{wanted.runtime}/busybox" if wanted.runtime in layers else BUSYBOX
    patience = str(int(ABANDONED_AFTER.total_seconds()))
    try:
        with _undone(engine, container, busybox, in_draft):
            _make_room(engine, container, draft)
            for layer in layers:
                engine.copy(wanted.keeper, f"{PROCESS_PREFIX}{layer}", container.id, in_draft)
            installed = _shell(engine, container, busybox, _INSTALL, draft, patience, *layers)
            if installed.exit_code != 0:
                raise _refused(workspace, installed.output.strip())
    except EngineFailure as failure:
        raise _refused(workspace, failure.message) from failure
    return frozenset(installed.output.split())


@contextmanager
def _undone(engine: Engine, container: Container, busybox: str, in_draft: str) -> Iterator[None]:
    """Take away a draft that comes to nothing; by the container's own rm where busybox isn't whole.

    Where neither runs, it is swept away with the next draft.
    """
    try:
        yield
    except BaseException:
        with suppress(EngineError):  # what went wrong is told already
            for remover in ([busybox, "rm"], ["rm"]):
                if engine.run(container.id, [*remover, "-rf", in_draft], user="0:0").exit_code == 0:
                    break
        raise


def _make_room(engine: Engine, container: Container, draft: str) -> None:
    """Make the directories below the last one that is there, which may be reached by a link."""
    for parent, leading in _ANCESTORS.items():
        below = f"{leading[-1]}/" if leading else ""
        inside = [f"{below}{name}" for name in ("layers", "complete", draft)]
        try:
            engine.write_archive(container.id, parent, archive.directories([*leading, *inside]))
        except EngineFailure as failure:
            if failure.status != NOT_FOUND or parent == "/":
                raise
        else:
            return


def _check_cover(container: Container, workspace: str) -> None:
    """Refuse a container whose bundle would lie below a tmpfs.

    The archive API writes to what the tmpfs hides, and reports success.
    """
    temporary = dict.fromkeys(container.raw["HostConfig"].get("Tmpfs") or (), "tmpfs")
    others = {it["Destination"]: it["Type"] for it in container.raw.get("Mounts") or ()}
    kinds = {**others, **temporary}
    covering = [it for it in kinds if f"{ROOT}/".startswith(f"{it.rstrip('/')}/")]
    nearest = max(covering, key=len, default="")
    if kinds.get(nearest) == "tmpfs":
        raise _refused(workspace, f"its {nearest} is a tmpfs, which Docker can't copy into")


def _refused(workspace: str, why: str) -> WorkerCannotRun:
    return WorkerCannotRun(
        f"No worker can run in '{workspace}', as it can't be brought into its container: {why}",
        hint="Have the container mount it, when you make it anew: docker run --mount "
        f"type=volume,src={bundle.VOLUME},dst={ROOT},readonly,volume-nocopy …",
        workspace=workspace,
    )


def _shell(
    engine: Engine, container: Container, busybox: str, script: str, *arguments: str
) -> Execution:
    """Run a script in a container, as root, in the shell of a busybox that is there."""
    argv = [busybox, "sh", "-c", script, busybox, *arguments]
    return engine.run(container.id, argv, user="0:0")
