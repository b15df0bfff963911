"""What a person asks a workspace to be, in the shapes that the engine's API takes.

Also tells where an existing container differs from what is asked. It must not talk to the engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perry.errors import UsageError
from perry.sizes import size_of
from perry.workspace import address, bundle, clone, image, names
from perry.workspace.models import WorkspaceSpec

_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:]+\]|[0-9.]+):)?(?P<host>\d*):(?P<inside>\d+)(?P<protocol>/(?:tcp|udp))?"
)
_LAST_PORT = 65535
_LEAST_MEMORY = 6 * 1024**2


def check(spec: WorkspaceSpec) -> None:
    """Raise UsageError for whatever in a specification can't be, before anything is made.

    What is wrong is named as the command line spells it.
    """
    names.validate(spec.name)
    memory(spec.memory)
    nano_cpus(spec.cpus)
    mounts(spec.volumes)
    port_bindings(spec.publish)
    if spec.clone is not None:
        clone.directory_of(clone.validate(spec.clone))


def image_reference(spec: WorkspaceSpec) -> str:
    """Return the name of the image a workspace is to run."""
    return spec.image or image.workspace_reference()


def container_settings(spec: WorkspaceSpec, *, home: str) -> dict[str, Any]:
    """Return how a workspace's container is to be created, as the engine takes it.

    Without a command of its own it runs an idle program of the bundle in place of the image's
    entrypoint, since an image may have nothing to run. Raises UsageError.
    """
    home_mount = {"Type": "volume", "Source": names.home_volume(spec.name), "Target": home}
    all_mounts = [bundle.mount(), home_mount, *mounts(spec.volumes)]
    _check_targets(spec, all_mounts)
    bindings = port_bindings(spec.publish)
    if _may_publish(spec.network):
        bindings.setdefault(address.PORT, []).append(address.OWN_BINDING)
    host = {
        "mounts": all_mounts,
        "port_bindings": {port: [_pair(it) for it in to] for port, to in bindings.items()},
        "mem_limit": memory(spec.memory),
        "nano_cpus": nano_cpus(spec.cpus),
        "init": True,
        "restart_policy": {"Name": "unless-stopped"},
        "read_only": spec.read_only,
        "network_mode": spec.network,
    }
    settings: dict[str, Any] = {
        "image": image_reference(spec),
        "command": list(spec.command) or ["sleep", "infinity"],
        "environment": {"HOME": home, **spec.env},
        "labels": {names.LABEL: spec.name},
        "ports": [tuple(port.split("/")) for port in bindings],
        "host_config": {key: value for key, value in host.items() if value is not None},
    }
    if not _is_anothers(spec.network):
        settings["hostname"] = spec.name
    if not spec.command:
        settings["entrypoint"] = [bundle.BUSYBOX]
    return settings


def memory(text: str | None) -> int | None:
    """Return a size like `512m` or `4g` in bytes; UsageError for anything else."""
    if text is None:
        return None
    size = size_of(text)
    if size is None:
        raise UsageError(f"--memory {text} is no size", hint="Write it like 512m or 4g.")
    if size < _LEAST_MEMORY:
        raise UsageError(f"--memory {text} is too little", hint="Docker's least is 6m.")
    return size


def nano_cpus(cpus: float | None) -> int | None:
    """Return a number of processors in Docker's unit, a billionth; UsageError where it is none."""
    if cpus is None:
        return None
    if not 0 < cpus < 1_000_000:  # noqa: PLR2004 - keeps infinity and typing errors out
        raise UsageError(
            f"--cpus {cpus:g} is no number of processors", hint="Write it like 2 or 0.5."
        )
    return int(cpus * 1_000_000_000)


def mounts(volumes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return `SRC:DST[:ro]` as the engine's mounts: a path binds, a name is a volume's.

    A relative path or one with ~ is this host's, as the shell would have it.
    """
    return [_mount(text) for text in volumes]


def port_bindings(publish: tuple[str, ...]) -> dict[str, list[dict[str, str]]]:
    """Return `[IP:]HOST:CONTAINER[/udp]` as the engine's port bindings."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in publish:
        match = _PORT.fullmatch(text)
        ports = [int(match[part] or 0) for part in ("host", "inside")] if match else []
        if match is None or max(ports) > _LAST_PORT or ports[1] == 0:
            raise UsageError(
                f"--publish {text} is not HOST:CONTAINER",
                hint="Write it like 8080:80, or :80 for any free port of the host.",
            )
        inside = f"{ports[1]}{match['protocol'] or '/tcp'}"
        binding = {"HostIp": (match["ip"] or "").strip("[]"), "HostPort": match["host"]}
        bindings.setdefault(inside, []).append(binding)
    return bindings


def differences(
    spec: WorkspaceSpec, container: Mapping[str, Any], *, same_image: bool
) -> list[str]:
    """Name the options that an existing container contradicts, as the command line calls them.

    Only what was asked for counts. Values of variables are not repeated: they may be secrets.
    """
    config, host = container["Config"], container["HostConfig"]
    found = [] if same_image else [f"--image {spec.image} (it runs {config['Image']})"]
    variables = dict(item.partition("=")[::2] for item in config.get("Env") or ())
    found += [f"--env {name}" for name, value in spec.env.items() if variables.get(name) != value]
    present = {_mount_key(mount) for mount in host.get("Mounts") or ()}
    asked_mounts = zip(spec.volumes, mounts(spec.volumes), strict=True)
    found += [
        f"--volume {text}" for text, mount in asked_mounts if _mount_key(mount) not in present
    ]
    bound = host.get("PortBindings") or {}
    for text in spec.publish:
        ((inside, (binding,)),) = port_bindings((text,)).items()
        if binding not in (bound.get(inside) or ()):
            found.append(f"--publish {text}")
    size, processors = memory(spec.memory), nano_cpus(spec.cpus)
    if size is not None and size != host.get("Memory"):
        found.append(f"--memory {spec.memory}")
    if processors is not None and processors != host.get("NanoCpus"):
        found.append(f"--cpus {spec.cpus:g}")
    if spec.command and list(spec.command) != config.get("Cmd"):
        found.append(f"--command '{' '.join(spec.command)}'")
    if spec.network is not None and spec.network != host.get("NetworkMode"):
        found.append(f"--network {spec.network}")
    if spec.read_only and not host.get("ReadonlyRootfs"):
        found.append("--read-only")
    return found


def _may_publish(network: str | None) -> bool:
    """Tell whether the engine takes ports: not where there is none to publish from."""
    return network not in ("none", "host") and not _is_anothers(network)


def _is_anothers(network: str | None) -> bool:
    """Tell whether a container is to be in another one's network, and so to have its name too."""
    return network is not None and network.startswith("container:")


def _check_targets(spec: WorkspaceSpec, all_mounts: list[dict[str, Any]]) -> None:
    targets = [mount["Target"] for mount in all_mounts]
    for text, mount in zip(spec.volumes, mounts(spec.volumes), strict=True):
        if targets.count(mount["Target"]) > 1:
            raise UsageError(
                f"--volume {text} mounts at {mount['Target']}, where something is mounted already",
                hint=f"The workspace's own are {targets[0]} and its home, {targets[1]}.",
            )


def _pair(binding: Mapping[str, str]) -> tuple[str, str]:
    return binding["HostIp"], binding["HostPort"]


def _mount(text: str) -> dict[str, Any]:
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not (source and target.startswith("/") and mode in ("", "ro", "rw")):
        raise UsageError(
            f"--volume {text} is not SRC:DST[:ro]",
            hint="Write it like ./code:/code or name:/data:ro; DST is a whole path.",
        )
    is_path = source.startswith(("/", ".", "~"))
    return {
        "Type": "bind" if is_path else "volume",
        "Source": str(Path(source).expanduser().resolve()) if is_path else source,
        "Target": target.rstrip("/") or "/",
        "ReadOnly": mode == "ro",
    }


def _mount_key(mount: Mapping[str, Any]) -> tuple[object, ...]:
    parts = ("Type", "Source", "Target")
    return (*(mount.get(part) for part in parts), bool(mount.get("ReadOnly")))
