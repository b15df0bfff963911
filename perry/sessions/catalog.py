"""The sessions of one coding agent as they are shown: each under an id of its own.

Takes in what changed and touches nothing else, however many sessions there are. The same id can
stand in two places (a copied project folder, two halves of one subagent), and which of them keeps
it is settled here. This module must not know how sessions are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perry.sessions.source import Entry, Reading, Unit, distinct

Shown = dict[str, Entry]
Claims = tuple[Entry, ...]


class Catalog:
    """Every session of one coding agent; one thread at a time may change it.

    `readings` has what each unit held, `entries` the sessions by the ids that they are shown under;
    `root` is where the file system lies in which the sessions were written.
    """

    def __init__(self, root: str = "") -> None:
        self._root = root
        self.readings: dict[Unit, Reading] = {}
        self.entries: Shown = {}
        self._of_unit: dict[Unit, Claims] = {}
        self._claims: dict[str, Claims] = {}

    def is_settled(self, unit: Unit) -> bool:
        """Tell whether the sessions of a unit are in the catalog."""
        return unit in self._of_unit

    def put(self, resolved: Mapping[Unit, Sequence[Entry]]) -> tuple[Shown, Shown]:
        """Take in all sessions of some units; gives those that changed, before and after."""
        touched: dict[str, Claims] = {}
        for unit, entries in resolved.items():
            for entry in self._of_unit.pop(unit, ()):
                self._give_up(entry, touched)
            for entry in entries:
                self._claim(entry, touched)
            if unit in self.readings:
                self._of_unit[unit] = tuple(entries)
        before: Shown = {}
        after: Shown = {}
        for identifier, claims in touched.items():
            self._show(claims, before)
            self._show(self._claims.get(identifier, ()), after)
        for identifier in before.keys() & after.keys():
            if before[identifier] == after[identifier]:
                del before[identifier], after[identifier]
        for identifier in before.keys() - after.keys():
            del self.entries[identifier]
        self.entries.update(after)
        return before, after

    def _claim(self, entry: Entry, touched: dict[str, Claims]) -> None:
        """Note that an entry wants its id; `touched` keeps who wanted it before."""
        identifier = entry.session.id
        claims = self._claims.get(identifier, ())
        touched.setdefault(identifier, claims)
        self._claims[identifier] = (*claims, entry)

    def _give_up(self, entry: Entry, touched: dict[str, Claims]) -> None:
        """Note that an entry no longer wants its id."""
        identifier = entry.session.id
        claims = self._claims.pop(identifier)
        touched.setdefault(identifier, claims)
        others = tuple(e for e in claims if e is not entry)
        if others:
            self._claims[identifier] = others

    def _show(self, claims: Claims, shown: Shown) -> None:
        if len(claims) == 1:
            shown[claims[0].session.id] = claims[0]
        elif claims:
            shown.update((entry.session.id, entry) for entry in distinct(claims, self._root))
