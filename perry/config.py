"""What a user has set for good: `config.toml`, in tables of plain keys.

The file is optional, and so is every key. What it says has to make sense: a key that nobody knows
or a value of another kind is told of, with the file, the key and what may be there, since a slip
that passes in silence is a setting that doesn't hold. A new setting is a field here, with its
`description`. This module must not know what settings do.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
import platformdirs
from msgspec import Meta

from perry.errors import UsageError
from perry.sizes import size_of


class Size(int):
    """Bytes, written as `512m` or `2g`."""

    LEAST = 1024**2


class ArchiveConfig(msgspec.Struct, frozen=True):
    """How much the archive keeps, and what of it; None is no bound."""

    keep_days: (
        Annotated[
            int,
            Meta(ge=1, le=100_000, description="a number of days, 1 or more; without it: forever"),
        ]
        | None
    ) = None
    largest: (
        Annotated[
            Size,
            Meta(description='a size such as "512m" or "2g", 1m or more; without it: no bound'),
        ]
        | None
    ) = None
    redact: Annotated[bool, Meta(description="true or false")] = False


class Config(msgspec.Struct, frozen=True):
    """The tables of the file, each a Struct that has a default."""

    archive: ArchiveConfig = ArchiveConfig()


def config_path() -> Path:
    """Name the file, whether it is there or not."""
    return Path(platformdirs.user_config_dir("perry"), "config.toml")


def load(path: Path | None = None) -> Config:
    """Read what is set, in the user's own file unless another is named.

    Raises UsageError where it can't be read, or says what can't be.
    """
    path = config_path() if path is None else path
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}", hint="Make it readable, or move it away."
        ) from error
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise UsageError(f"{path} is no TOML: {error}", hint="Mend it, or move it away.") from error
    return _decoded(path, document)


def _decoded(path: Path, document: dict[str, Any]) -> Config:
    tables = _fields(Config)
    found = {}
    for name, table in document.items():
        if name not in tables:
            raise _refusal(path, f"there is no table [{name}]", tables, "tables")
        if not isinstance(table, dict):
            raise _refusal(path, f"{name} has to be a table", (f"[{name}]",), "tables")
        found[name] = _table(path, name, table, tables[name])
    return Config(**found)


def _table(path: Path, name: str, table: dict[str, Any], struct: Any) -> Any:  # noqa: ANN401  # whichever it is
    kinds = _fields(struct)
    values = {}
    for key, value in table.items():
        if key not in kinds:
            raise _refusal(path, f"[{name}] has no key {key}", kinds, "keys")
        try:
            values[key] = msgspec.convert(value, kinds[key], dec_hook=_own)
        except (msgspec.ValidationError, ValueError) as error:
            raise UsageError(
                f"{path}: {key} in [{name}] can't be {value!r}",
                hint=f"It has to be {_description(kinds[key])}.",
            ) from error
    return struct(**values)


def _own(kind: type, value: Any) -> Any:  # noqa: ANN401  # as TOML has it
    """Read what TOML has no type for. Raises ValueError."""
    size = size_of(value) if kind is Size and isinstance(value, str) else None
    if size is None or size < Size.LEAST:
        raise ValueError(value)
    return Size(size)


def _fields(struct: Any) -> dict[str, Any]:  # noqa: ANN401  # a type
    return {field.encode_name: field.type for field in msgspec.structs.fields(struct)}


def _description(kind: Any) -> str:  # noqa: ANN401  # as written above
    for part in (kind, *getattr(kind, "__args__", ())):
        for meta in getattr(part, "__metadata__", ()):
            if meta.description:
                return str(meta.description)
    raise TypeError(f"{kind} has no description")


def _refusal(path: Path, what: str, known: Any, kind: str) -> UsageError:  # noqa: ANN401  # names
    return UsageError(f"{path}: {what}", hint=f"The {kind} there may be: {', '.join(known)}.")
