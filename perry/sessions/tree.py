"""Walks through the directories in which coding agents leave their files.

Directories vanish while they are looked through, can't be opened, or are links that lead in
circles; every reader wants the same answers to that. This module must not know any format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from perry.sessions.source import shown


def placed(home: Path, configured: str) -> Path:
    """Find the directory that a setting names: from the root, from `~`, or from the home."""
    if configured == "~" or configured.startswith("~/"):
        return home / configured[2:]
    return home / configured


def files_below(directory: Path, depth: int, unreadable: dict[str, str]) -> Iterator[Path]:
    """Find the files in a directory and up to `depth` levels further down.

    Links to files count, links to directories are followed in the directory itself only.
    Directories that can't be looked into are added to `unreadable`, each with the reason.
    """
    yield from _files(directory, depth, unreadable, follow=True)


def directories_in(directory: Path, unreadable: dict[str, str]) -> list[Path]:
    """List the directories in a directory, and links to directories."""
    children = _children(directory, unreadable)
    return [directory / child.name for child in children if is_directory(child, follow=True)]


def _files(
    directory: Path, depth: int, unreadable: dict[str, str], *, follow: bool
) -> Iterator[Path]:
    for child in _children(directory, unreadable):
        path = directory / child.name
        if not is_directory(child, follow=follow):
            yield path
        elif depth > 0:
            yield from _files(path, depth - 1, unreadable, follow=False)


def _children(directory: Path, unreadable: dict[str, str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as listing:
            return sorted(listing, key=lambda child: child.name)
    except (FileNotFoundError, NotADirectoryError):
        return []  # nothing was written yet, or it went while we looked
    except OSError as error:
        unreadable[shown(directory)] = error.strerror or str(error)
        return []


def is_directory(child: os.DirEntry[str], *, follow: bool) -> bool:
    """Tell whether a listed child is a directory, or where `follow` says so a link to one."""
    try:
        return child.is_dir() if follow else child.is_dir(follow_symlinks=False)
    except OSError:
        return False  # it goes as a file, and reading it will say what is wrong
