"""Counters that one process hands on to the next, and gauges of what is under way in the old one while it drains.

As in Envoy, the new process goes on counting where the old one was, and what is active in either counts until it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .stats import CodeCounts, StatGroup
from .store import StatsStore

_STEP = 200
"""Groups between two parts."""

_OF_ONE_PROCESS = ("ejections_", "lb_subsets_", "total_listeners_", "admin_overrides_")
"""Gauges that are true of a process alone, though they end in `_active`."""

Change = tuple[str, str, dict[str, int], dict[str, dict[str, int]]]
"""A group's class, its prefix, how much was added to each counter and gauge, and to counts by code or name."""


class Ledger:
    """What of a store's counters the other side knows already."""

    __slots__ = ("_known", "_store")

    def __init__(self, store: StatsStore) -> None:
        self._store = store
        self._known: dict[StatGroup, tuple[dict[str, int], dict[str, dict[Any, int]]]] = {}

    def changes(self, *, ending: bool = False) -> Iterator[list[Change]]:
        """What has changed since the last call, in parts of a few milliseconds at most; with ``ending``, gauges are taken
        back: nothing is under way any more.
        """
        part: list[Change] = []
        for index, group in enumerate(self._store):
            change = self._change(group, ending)
            if change is not None:
                part.append(change)
            if index % _STEP == _STEP - 1:
                yield part
                part = []
        yield part

    def _change(self, group: StatGroup, ending: bool) -> Change | None:
        numbers, codes = self._known.setdefault(group, ({}, {}))
        added: dict[str, int] = {}
        for attribute in (*group.COUNTERS, *_passing(group)):
            value = 0 if ending and attribute not in group.COUNTERS else getattr(group, attribute)
            if change := value - numbers.get(attribute, 0):
                added[attribute] = change
                numbers[attribute] = value
        counted: dict[str, dict[str, int]] = {}
        for attribute in group.CODES:
            before = codes.setdefault(attribute, {})
            for code, value in list(getattr(group, attribute).items()):
                if change := value - before.get(code, 0):
                    counted.setdefault(attribute, {})[str(code)] = change
                    before[code] = value
        return (_name(group), group.prefix, added, counted) if added or counted else None


class Receiver:
    """Adds another process's changes to a store's groups; those of groups that are not there yet wait for them."""

    __slots__ = ("_groups", "_store", "_waiting")

    def __init__(self, store: StatsStore) -> None:
        self._store = store
        self._groups: dict[tuple[str, str], StatGroup] = {}
        self._waiting: list[Any] = []

    def add(self, changes: list[Any]) -> None:
        """Take in one part: a list of ``Change``, as JSON gives it back."""
        if len(self._groups) != len(self._store):
            self._groups = {(_name(group), group.prefix): group for group in self._store}
        pending, self._waiting = [*self._waiting, *changes], []
        for change in pending:
            group = self._groups.get((change[0], change[1]))
            if group is None:
                self._waiting.append(change)
            else:
                _apply(group, change[2], change[3])


def _apply(group: StatGroup, added: dict[str, int], counted: dict[str, dict[str, int]]) -> None:
    known = {*group.COUNTERS, *_passing(group)}
    for attribute, change in added.items():
        if attribute in known:
            setattr(group, attribute, getattr(group, attribute) + change)
    for attribute, codes in counted.items():
        if attribute in group.CODES:
            counts = getattr(group, attribute)
            for code, change in codes.items():
                counts[int(code) if isinstance(counts, CodeCounts) else code] += change


def _name(group: StatGroup) -> str:
    made = type(group)
    return f"{made.__module__}.{made.__qualname__}"


def _passing(group: StatGroup) -> list[str]:
    """The gauges of what is under way, which come to 0 when the process ends."""
    return [each for each in group.GAUGES if each.endswith("_active") and not each.startswith(_OF_ONE_PROCESS)]
