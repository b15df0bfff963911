"""Which directory a Gemini CLI project stands for.

Projects are named by a slug or by a hash of the directory, and what tells them apart stands beside
the sessions: in a file of the project, or in one list of all projects. This module must not know
the sessions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from perry.sessions.jsonl import fingerprint, unreadable
from perry.sessions.records import Undecodable, decode, text_or_none
from perry.sessions.source import Reading, Unit, shown

ROOT_FILE = ".project_root"
LIST_FILE = "projects.json"


class ProjectsReading(Reading, frozen=True, array_like=True, gc=False):
    """The directories that one file names, by project."""

    directories: dict[str, str] = msgspec.field(default_factory=dict)
    stamp: bytes = b""


class _List(msgspec.Struct):
    projects: dict[str, Any] = {}


def read_projects(unit: Unit, before: Reading | None) -> Reading | None:
    """Read a project's own file or the list of all; None where it is gone."""
    path = Path(unit)
    old = before if isinstance(before, ProjectsReading) else None
    try:
        stamp = fingerprint(path.stat())
        if old and old.stamp == stamp:
            return old
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return unreadable(unit, error.strerror or str(error), before)
    if path.name == ROOT_FILE:
        root = text_or_none(data.decode("utf-8", "replace").strip())
        return ProjectsReading(directories={path.parent.name: root} if root else {}, stamp=stamp)
    try:
        listed = decode(data, _List).projects
    except Undecodable:
        return ProjectsReading(skipped_lines=1, stamp=stamp)
    slugs = {slug: directory for directory, slug in listed.items() if isinstance(slug, str)}
    return ProjectsReading(directories=slugs, stamp=stamp)


class Projects:
    """Finds the directory of a project among all that are known."""

    def __init__(self, readings: Mapping[Unit, Reading], directories: Iterable[str]) -> None:
        self._named: dict[str, str] = {}
        own: dict[str, str] = {}
        for unit, reading in readings.items():
            if isinstance(reading, ProjectsReading):
                (own if unit.endswith(ROOT_FILE) else self._named).update(reading.directories)
        self._named.update(own)
        known = {*self._named.values(), *directories}
        self._hashed = {_hash(directory): directory for directory in known}

    def directory(self, project: str, digest: str | None, noted: str | None) -> str:
        """Tell the directory by the project's name, by its hash, or as the session noted it."""
        found = self._named.get(project) or self._hashed.get(project)
        return found or self._hashed.get(digest or "") or noted or ""


def project_of(unit: Path, tmp: Path) -> str:
    """Name the project in whose folder a file lies."""
    return shown(unit.relative_to(tmp).parts[0])


def _hash(directory: str) -> str:
    return hashlib.sha256(directory.encode("utf-8", "surrogatepass")).hexdigest()
