"""`perry archive`: what was kept of sessions, how much it is, and how it is bounded.

The archive is opened here whether an agent daemon runs or not; where there is none, none is made,
but for `off`, which has to hold from the start. What an archive is, and what is taken in, is known
elsewhere.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perry import sizes
from perry.cli import render
from perry.cli.connection import open_archive
from perry.cli.options import Json, examples
from perry.cli.text import DAY, ago, counted, one_line
from perry.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from perry.archive.archive import Archive
    from perry.archive.models import Statistics
    from perry.config import ArchiveConfig

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="What was kept of sessions: how much it is, its bounds, on and off.",
)

FOR_EVER = 2**62

NONE_YET = "there is no archive yet; perry agent serve makes it, and fills it"


@app.command(epilog=examples("perry archive status", "perry archive status --json"))
def status(json: Json = False) -> None:
    """Show how much the archive has, and its bounds."""
    from perry.archive.archive import archive_path  # noqa: PLC0415  # loads a database
    from perry.config import load  # noqa: PLC0415  # loads a library

    path, settings = archive_path(), load().archive
    with open_archive() as archive:
        found = None if archive is None else archive.statistics()
    aside = set_aside(path)
    if json:
        render.as_json(view(path, found, settings, aside))
        return
    render.line(one_line(str(path)))
    for name, fact in facts(found, settings, aside, time.time()).items():
        render.line(f"{name:<10} {fact}")
    if found is None:
        render.line(NONE_YET)


def view(
    path: Path, found: Statistics | None, settings: ArchiveConfig, aside: list[str]
) -> dict[str, Any]:
    """Give the status as JSON: sizes in bytes, moments in ms since the epoch."""
    return {
        "path": str(path),
        "exists": found is not None,
        "isOff": found is not None and found.is_off,
        "size": found.size if found else 0,
        "sessions": found.sessions if found else 0,
        "messages": found.messages if found else 0,
        "deleted": found.deleted if found else 0,
        "oldest": found.oldest if found else None,
        "keepDays": settings.keep_days,
        "largest": settings.largest,
        "redact": settings.redact,
        "setAside": aside,
    }


def facts(
    found: Statistics | None, settings: ArchiveConfig, aside: list[str], now: float
) -> dict[str, str]:
    """Say what there is, one fact for each name; `now` is in seconds."""
    told = {}
    if found is not None:
        told["size"] = sizes.told(found.size)
        told["sessions"] = f"{found.sessions:,}, {counted(found.messages, 'message')}"
        if found.deleted:
            told["deleted"] = f"{found.deleted:,} more, which perry session restore brings back"
        if found.oldest is not None:
            told["oldest"] = ago(found.oldest, now)
        told["takes in"] = "nothing: it is off" if found.is_off else "what the agent daemon sees"
    told["bounds"] = bounds(settings)
    if settings.redact:
        told["redacts"] = "keys, tokens and the like, on their way in"
    if aside:
        told["set aside"] = f"{one_line(', '.join(aside))}: damaged, and beside the archive"
    return told


def bounds(settings: ArchiveConfig) -> str:
    """Say what bounds are configured."""
    parts = []
    if settings.keep_days is not None:
        parts.append(counted(settings.keep_days, "day"))
    if settings.largest is not None:
        parts.append(sizes.told(settings.largest))
    return " and ".join(parts) or "none: everything is kept for good"


@app.command(
    epilog=examples(
        "perry archive prune --days 90",
        "perry archive prune --largest 2g --yes",
        "perry archive prune               by the bounds in config.toml",
    )
)
def prune(
    days: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Keep the last N days alone; 0 keeps nothing."),
    ] = None,
    largest: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Keep the newest sessions that fit, such as 512m or 2g."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Prune without asking.")] = False,
) -> None:
    """Remove the oldest sessions from the archive for good.

    Those beyond the bounds that are given, or else configured. Sessions stay where they are in
    workspaces, but are not taken in again.
    """
    from perry.config import load  # noqa: PLC0415  # loads a library

    settings = load().archive
    size = None if largest is None else _size(largest)
    if days is None and size is None:
        days, size = settings.keep_days, settings.largest
    if days is None and size is None:
        raise UsageError(
            "No bounds are given, and none are configured.",
            hint="perry archive prune --days 90, or keep_days in [archive] of config.toml.",
        )
    with open_archive() as archive:
        if archive is None:
            render.line(NONE_YET)
        else:
            _prune(archive, _before(days), size, yes=yes)


def _before(days: int | None) -> int | None:
    """Tell the moment (ms since the epoch) before which nothing is kept."""
    if days == 0:
        return FOR_EVER  # a coding agent's clock may be ahead of ours
    return None if days is None else int((time.time() - days * DAY) * 1000)


def _prune(archive: Archive, oldest: int | None, largest: int | None, *, yes: bool) -> None:
    before = archive.statistics()
    doomed = _doomed(archive, oldest, largest, before)
    if doomed:
        render.confirm(f"Remove from the archive, for good, {doomed}", yes=yes)
    removed = archive.prune(oldest=oldest, largest=largest)
    if not removed:
        render.line("nothing is beyond the bounds")
        return
    after = archive.statistics()
    freed = sizes.told(max(0, before.size - after.size))
    left = f"{counted(after.sessions, 'session')}, {sizes.told(after.size)}, are left"
    render.line(f"removed {counted(removed, 'session')}, {freed}; {left}")


def _doomed(archive: Archive, oldest: int | None, largest: int | None, now: Statistics) -> str:
    """Say what pruning would take, as far as that is known before; nothing where it takes none."""
    parts = []
    if oldest is not None:
        kept = [*archive.sessions(), *archive.sessions(deleted=True)]
        old = sum(one.session.last_activity < oldest for one in kept)
        if old:
            parts.append(counted(old, "session"))
    if largest is not None and now.size > largest:
        parts.append(
            f"the oldest sessions until it takes {sizes.told(largest)}"
            f" (it takes {sizes.told(now.size)})"
        )
    return ", and ".join(parts)


def _size(text: str) -> int:
    size = sizes.size_of(text)
    if size is None:
        raise UsageError(f"--largest {text} is no size", hint="Write it like 512m or 2g.")
    return size


@app.command(epilog=examples("perry archive off"))
def off() -> None:
    """Take in nothing from now on; what is kept stays, and is found.

    That holds from the start where there is no archive yet.
    """
    from perry.archive.archive import Archive, archive_path  # noqa: PLC0415  # loads a database

    with contextlib.closing(Archive(archive_path())) as archive:
        archive.turn(on=False)
        kept = archive.statistics()
    render.line("the archive is off: nothing is taken in any more")
    if kept.sessions or kept.deleted:
        render.line(
            f"  {counted(kept.sessions + kept.deleted, 'session')} stay in it:"
            " perry archive prune --days 0 removes them for good"
        )


@app.command(epilog=examples("perry archive on"))
def on() -> None:
    """Take in again what the agent daemon sees."""
    with open_archive() as archive:
        if archive is None:
            render.line(NONE_YET)
            return
        archive.turn(on=True)
    render.line("the archive is on: what the agent daemon sees is taken in")


@app.command(epilog=examples("perry archive path", 'sqlite3 "$(perry archive path)" .schema'))
def path() -> None:
    """Print where the archive is, or would be."""
    from perry.archive.archive import archive_path  # noqa: PLC0415  # as above

    render.line(str(archive_path()))


def set_aside(path: Path) -> list[str]:
    """Name the broken files that lie beside the archive, the newest last."""
    found = path.parent.glob(f"{path.name}.broken-*")
    return sorted(one.name for one in found if one.name.rpartition("-")[2].isdigit())
