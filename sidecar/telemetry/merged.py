"""The statistics of several workers as those of one process.

A worker describes its groups (`snapshot`), with what is computed at a scrape computed; `Merged` adds the descriptions up in a
store like any other, which is then written as text, JSON or for Prometheus. It knows none of the groups' classes: workers may
be of another version of this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .histogram import Bins, HistogramView, merged
from .settings import StatsSettings
from .stats import Derived, Kind, Sample, StatGroup
from .store import StatsStore

_STEP = 100
"""Groups between two parts."""

_KINDS = {kind.value: kind for kind in Kind}
_SUMMED = ("_active", "_buffered", "_connections", "_allocated", "_size")
_OF_EACH = ("ejections_active", "lb_subsets_active", "total_listeners_active")


def sums(leaf: str) -> bool:
    """Whether a gauge of all workers is the sum of theirs; it is the largest of them otherwise."""
    return (leaf.endswith(_SUMMED) and leaf not in _OF_EACH) or leaf.startswith("remaining_") or leaf == "connections"


def snapshot(store: StatsStore) -> Iterator[dict[str, Any]]:
    """A store's groups with their values, in parts that JSON can carry; a class of groups is described when it first comes."""
    known: set[type[StatGroup]] = set()
    classes: dict[str, Any] = {}
    groups: list[Any] = []
    for index, group in enumerate(store):
        made = type(group)
        name = f"{made.__module__}.{made.__qualname__}"
        shown = list(made.shown())
        if made not in known:
            known.add(made)
            plain = [(kind.value, attribute, made.leaf(attribute)) for kind, attribute in shown]
            classes[name] = (plain, [(one.kind.value, one.leaf) for one in made.DERIVED])
        values = [_value(getattr(group, attribute)) for _, attribute in shown]
        used = [attribute for kind, attribute in shown if kind is not Kind.HISTOGRAM and group.used(attribute)]
        derived = [
            [(one.leaf, _value(one.value), one.tags, one.written) for one in each.expand(group)]
            for each in made.DERIVED
        ]
        groups.append((name, group.prefix, group.tags, group.extracted_prefix, values, used, derived))
        if index % _STEP == _STEP - 1:
            yield {"classes": classes, "groups": groups}
            classes, groups = {}, []
    yield {"classes": classes, "groups": groups}


def _value(value: Any) -> Any:
    if hasattr(value, "view"):
        value = value.view()
    return [value.interval, value.cumulative] if isinstance(value, HistogramView) else value


def _view(value: Any) -> HistogramView:
    interval, cumulative = ({int(low): samples for low, samples in bins.items()} for bins in value)
    return HistogramView(interval, cumulative)


class _Views:
    """A histogram that is made of several."""

    __slots__ = ("_view",)

    def __init__(self) -> None:
        self._view = HistogramView(Bins(), Bins())

    def add(self, view: HistogramView) -> None:
        mine = self._view
        self._view = HistogramView(merged((mine.interval, view.interval)), merged((mine.cumulative, view.cumulative)))

    def view(self) -> HistogramView:
        return self._view


class Merged:
    """Adds snapshots up: `add` each part of each worker's, then read `store`."""

    __slots__ = ("_classes", "_groups", "store")

    def __init__(self, settings: StatsSettings) -> None:
        self.store = StatsStore(settings)
        self._classes: dict[str, type[StatGroup]] = {}
        self._groups: dict[tuple[str, str], Any] = {}

    def add(self, part: dict[str, Any], prefix_part: str = "") -> None:
        """Take in one part, as JSON gives it back; only groups with `prefix_part` in their prefix."""
        for name, (plain, derived) in part["classes"].items():
            if name not in self._classes:
                self._classes[name] = _class_of(name, plain, derived)
        for name, prefix, tags, extracted, values, used, derived in part["groups"]:
            if prefix_part in prefix:
                self._add_group(name, prefix, [tuple(tag) for tag in tags], extracted, values, used, derived)

    def _add_group(
        self, name: str, prefix: str, tags: list[Any], extracted: str, values: list[Any], used: list[str], derived: Any
    ) -> None:
        group: Any = self._groups.get((name, prefix))
        if group is None:
            group = self._groups[name, prefix] = self.store.add(self._classes[name](), prefix, tuple(tags), extracted)
        group.were_used |= set(used)
        for (kind, attribute), value in zip(group.shown(), values, strict=True):
            before = getattr(group, attribute)
            if kind is Kind.HISTOGRAM:
                before.add(_view(value))
            else:
                setattr(group, attribute, _together(kind, group.leaf(attribute), before, value))
        for one, samples, into in zip(group.DERIVED, derived, group.expanded, strict=True):
            for leaf, value, sample_tags, written in samples:
                key = (leaf, tuple(tuple(tag) for tag in sample_tags))
                if one.kind is Kind.HISTOGRAM:
                    into.setdefault(key, (_Views(), False))[0].add(_view(value))
                else:
                    before, was = into.get(key, (0, False))
                    into[key] = (_together(one.kind, leaf, before, value), was or written)


def _together(kind: Kind, leaf: str, one: Any, other: Any) -> Any:
    if kind is Kind.TEXT_READOUT:
        return one or other
    if kind is Kind.COUNTER or sums(leaf):
        return one + other
    return max(one, other)


def _class_of(name: str, plain: list[Any], derived: list[Any]) -> type[StatGroup]:
    """A class of groups that looks, to what writes statistics, like the one that is described."""
    attributes: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    for kind, attribute, _ in plain:
        attributes[_KINDS[kind]].append(attribute)

    def __init__(self: Any) -> None:
        self.were_used = frozenset()
        self.expanded = [{} for _ in derived]
        for kind, names in attributes.items():
            for attribute in names:
                setattr(self, attribute, _Views() if kind is Kind.HISTOGRAM else "" if kind is Kind.TEXT_READOUT else 0)

    def expansion(index: int) -> Any:
        def expand(group: Any) -> Iterator[Sample]:
            for (leaf, tags), (value, written) in group.expanded[index].items():
                yield Sample(leaf, value.view() if isinstance(value, _Views) else value, tags, written)

        return expand

    slots = tuple(attribute for names in attributes.values() for attribute in names)
    body = {
        "__slots__": (*slots, "expanded"),
        "__init__": __init__,
        "TEXT_READOUTS": tuple(attributes[Kind.TEXT_READOUT]),
        "COUNTERS": tuple(attributes[Kind.COUNTER]),
        "GAUGES": tuple(attributes[Kind.GAUGE]),
        "HISTOGRAMS": tuple(attributes[Kind.HISTOGRAM]),
        "LEAVES": {attribute: leaf for _, attribute, leaf in plain if leaf != attribute},
        "DERIVED": tuple(Derived(leaf, _KINDS[kind], expansion(index)) for index, (kind, leaf) in enumerate(derived)),
    }
    return type(f"Merged {name}", (StatGroup,), body)
