"""What is wanted of a container's files: what the readers read, and nothing else.

The readers are made for a copy of the container's file system that lies somewhere on the host, so
a path in the container is a path there with the copy's root before it. The container's environment
moves their directories, and is as little to be trusted as its files: a reader that it would lead
out of the copy is left out. It must not know how files are copied.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from perry.sessions.index import SOURCES
from perry.sessions.source import Files, Source


def readers(
    root: Path, home: str, environment: Mapping[str, str]
) -> tuple[list[Source], dict[str, str]]:
    """Make the readers of a copy, and tell what the environment names outside of it.

    `home` is a path in the container, and `environment` is the container's own.
    """
    moved = {key: _moved(root, value) for key, value in environment.items()}
    moved["HOME"] = home  # as the coding agents knew it: readers are told where it lies
    inside = Path(f"{root}{os.path.normpath(f'/{home}')}")
    kept: list[Source] = []
    problems: dict[str, str] = {}
    for source in (make(inside, moved) for make in SOURCES):
        outside = [path for path in _places(source) if not _is_inside(root, path)]
        if outside:
            place = str(outside[0]).removeprefix(str(root))
            problems[place] = "a directory of sessions can't lie there"
        else:
            kept.append(source)
    return kept, problems


def _moved(root: Path, value: str) -> str:
    return f"{root}{value}" if value.startswith("/") else value


def _places(source: Source) -> list[Path]:
    return [*source.roots, *(files.directory for files in source.files)]


def _is_inside(root: Path, path: Path) -> bool:
    return Path(os.path.normpath(path)).is_relative_to(root)


class Wanted:
    """The files that readers of a copy read, by their paths in the container.

    `trees` are the directories to look through, none within another; `lone` are files that can be
    asked for by name, and `databases` those of them that are databases.
    """

    def __init__(self, root: Path, sources: Iterable[Source]) -> None:
        declared = [files for source in sources for files in source.files]
        self._rules = [(_inside(root, files.directory), files) for files in declared]
        self._names = {names: _matcher(names) for names in {it.names for it in declared}}
        named = {id(files) for files in declared if _is_named(files)}
        looked_through = {place for place, files in self._rules if id(files) not in named}
        self.trees = _outermost(looked_through)
        alone = [
            (_joined(place, files.names[0]), files)
            for place, files in self._rules
            if id(files) in named and not any(_is_below(place, tree) for tree in self.trees)
        ]
        self.lone = frozenset(path for path, files in alone if not files.databases)
        self.databases = frozenset(path for path, files in alone if files.databases)
        self.fingerprint = repr(sorted((place, repr(files)) for place, files in self._rules))

    def is_file(self, path: str) -> bool:
        """Tell whether a file is wanted; a database isn't, as it can't be copied alone."""
        return any(not files.databases for files in self._fitting(path))

    def is_database(self, path: str) -> bool:
        """Tell whether a file is a database that is wanted."""
        return any(files.databases for files in self._fitting(path))

    def may_hold(self, path: str) -> bool:
        """Tell whether something wanted could lie at a path or below it."""
        within = (_is_below(path, place) for place, files in self._rules if files.below)
        return any(within) or bool(self._fitting(path))

    def _fitting(self, path: str) -> list[Files]:
        directory, _, name = path.rpartition("/")
        directory = directory or "/"
        return [
            files
            for place, files in self._rules
            if (directory == place or (files.below and _is_below(directory, place)))
            and self._names[files.names].match(name)
        ]


def _inside(root: Path, path: Path) -> str:
    relative = os.path.relpath(os.path.normpath(path), root)
    return os.path.normpath(f"/{relative}")


def _matcher(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, names)))


def _is_named(files: Files) -> bool:
    (first, *others) = files.names
    return not (files.below or others) and glob.escape(first) == first


def _joined(place: str, name: str) -> str:
    return f"/{name}" if place == "/" else f"{place}/{name}"


def _is_below(path: str, place: str) -> bool:
    return place in ("/", path) or path.startswith(f"{place}/")


def _outermost(places: Iterable[str]) -> tuple[str, ...]:
    found: list[str] = []
    for place in sorted(places):
        if not any(_is_below(place, other) for other in found):
            found.append(place)
    return tuple(found)
