"""Statistics as integers in slots: what the hot path increments, and how a group names what it holds.

A group is an object that its owner is handed when configuration is applied (`stats.downstream_rq_total += 1`). A group
class is written as annotations, one for each statistic, under Envoy's own leaf name:

    @stat_group
    class ListenerStats(StatGroup):
        downstream_cx_total: Counter
        downstream_cx_active: Gauge
        downstream_cx_length_ms: Histogram

`stat_group` gives the class `__slots__` and an initialiser for exactly those, so that a group of a hundred fields costs
a kilobyte and two microseconds. Names, tags and text are made at a scrape, never while counting.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, ClassVar, TypeVar, cast

from .histogram import Histogram
from .naming import Labels, Tag

Counter = Annotated[int, "counter"]
Gauge = Annotated[int, "gauge"]
TextReadout = Annotated[str, "text readout"]


class Kind(Enum):
    """What a statistic is; the value is Envoy's name for the `type` parameter of /stats."""

    TEXT_READOUT = "TextReadouts"
    COUNTER = "Counters"
    GAUGE = "Gauges"
    HISTOGRAM = "Histograms"


class CodeCounts(dict[int, int]):
    """Responses by status code: hot code says `codes[status] += 1`. An absent code reads as 0."""

    __slots__ = ()

    def __missing__(self, status: int) -> int:
        return 0


class NameCounts(dict[str, int]):
    """What was counted by names that nobody knows beforehand. An absent name reads as 0."""

    __slots__ = ()

    def __missing__(self, name: str) -> int:
        return 0


class CodeSources(list[CodeCounts]):
    """Counts that are kept elsewhere and add up here."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One value that a derived statistic expands to.

    `leaf` is the name below the group's prefix, `tags` are those that were taken out of the leaf. `written` says
    whether it was ever counted; a value other than 0 was.
    """

    leaf: str
    value: Any
    tags: tuple[Tag, ...] = ()
    written: bool = False

    @property
    def used(self) -> bool:
        """Whether `usedonly` shows it."""
        return self.written or bool(self.value)


@dataclass(frozen=True, slots=True)
class Derived:
    """Statistics that are computed at a scrape from what the hot path counted once.

    `leaf` is the tag-extracted leaf name that all samples share (`upstream_rq_xx`). `expand` takes the group and gives
    its samples; a histogram's value is a `HistogramView`.
    """

    leaf: str
    kind: Kind
    expand: Callable[[Any], Iterable[Sample]]


class StatGroup:
    """Base of all groups. Subclasses are decorated with `stat_group`.

    `LEAVES` maps an attribute to the leaf name where that is no identifier; what is in `HIDDEN` is shown only through
    `DERIVED`. `prefix` ends with a dot or is empty; `extracted_prefix` is it without the parts that became `tags`;
    `labels` is their text. `StatsStore.add` sets these.

    `INITIAL` has the values that do not begin at 0.

    Envoy's `usedonly` shows what was ever written, though it be 0 again. `USED_WITH` says so of a gauge without a mark
    for each: it was written if one of the counters that it names was; with none, it is written at the start. Counters
    that a reset has set to 0 are in `were_used`, by attribute.
    """

    __slots__ = ("extracted_prefix", "labels", "prefix", "references", "tags", "were_used")

    COUNTERS: ClassVar[tuple[str, ...]] = ()
    GAUGES: ClassVar[tuple[str, ...]] = ()
    TEXT_READOUTS: ClassVar[tuple[str, ...]] = ()
    HISTOGRAMS: ClassVar[tuple[str, ...]] = ()
    CODES: ClassVar[tuple[str, ...]] = ()
    CODE_SOURCES: ClassVar[tuple[str, ...]] = ()
    LEAVES: ClassVar[Mapping[str, str]] = {}
    HIDDEN: ClassVar[frozenset[str]] = frozenset()
    DERIVED: ClassVar[tuple[Derived, ...]] = ()
    INITIAL: ClassVar[Mapping[str, int]] = {}
    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    prefix: str
    extracted_prefix: str
    tags: tuple[Tag, ...]
    labels: Labels
    references: int
    were_used: frozenset[str]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {getattr(self, 'prefix', 'not in a store')!r}>"

    @classmethod
    def leaf(cls, attribute: str) -> str:
        """Envoy's leaf name of the statistic in `attribute`."""
        return cls.LEAVES.get(attribute, attribute)

    @classmethod
    def shown(cls) -> Iterator[tuple[Kind, str]]:
        """Kind and attribute of each plain statistic that is shown under its own name."""
        for kind, attributes in (
            (Kind.TEXT_READOUT, cls.TEXT_READOUTS),
            (Kind.COUNTER, cls.COUNTERS),
            (Kind.GAUGE, cls.GAUGES),
            (Kind.HISTOGRAM, cls.HISTOGRAMS),
        ):
            for attribute in attributes:
                if attribute not in cls.HIDDEN:
                    yield kind, attribute

    def used(self, attribute: str) -> bool:
        """Whether the statistic in `attribute` was ever written; not for histograms, whose views tell."""
        if getattr(self, attribute) or attribute in self.were_used:
            return True
        beside = self.USED_WITH.get(attribute)
        return beside is not None and (not beside or any(self.used(counter) for counter in beside))

    def samples(self, *kinds: Kind, used_only: bool = False) -> Iterator[tuple[str, Any]]:
        """Full name and value of everything of `kinds` that the group shows now; a histogram's value is its view.

        With `used_only`, what was never written is left out.
        """
        prefix = self.prefix
        leaves = self.LEAVES
        for kind, attribute in self.shown():
            if kind not in kinds:
                continue
            value = getattr(self, attribute)
            if kind is Kind.HISTOGRAM:
                value = value.view()
                if used_only and not value.cumulative:
                    continue
            elif used_only and not self.used(attribute):
                continue
            yield prefix + leaves.get(attribute, attribute), value
        for derived in self.DERIVED:
            if derived.kind in kinds:
                for sample in derived.expand(self):
                    if not used_only or sample.used:
                        yield prefix + sample.leaf, sample.value

    def reset_counters(self) -> None:
        """Set every counter, response codes included, to 0; gauges and histograms stay, as in Envoy."""
        self.were_used |= {attribute for attribute in self.COUNTERS if getattr(self, attribute)}
        for attribute in self.COUNTERS:
            setattr(self, attribute, 0)
        for attribute in self.CODES:
            codes = getattr(self, attribute)
            codes.update(dict.fromkeys(codes, 0))


_NOTHING: frozenset[str] = frozenset()

G = TypeVar("G", bound=StatGroup)

_KINDS: dict[Any, tuple[str, str]] = {
    Counter: ("COUNTERS", "0"),
    Gauge: ("GAUGES", "0"),
    TextReadout: ("TEXT_READOUTS", "''"),
    Histogram: ("HISTOGRAMS", "Histogram()"),
    CodeCounts: ("CODES", "CodeCounts()"),
    NameCounts: ("CODES", "NameCounts()"),
    CodeSources: ("CODE_SOURCES", "CodeSources()"),
}


def stat_group(cls: type[G]) -> type[G]:
    """Class decorator: slots, initialiser and name tuples from the annotations of `cls`.

    Raises TypeError for an annotation that is no statistic, and for one that `LEAVES`, `HIDDEN`, `INITIAL` or `USED_WITH`
    name and that is not there.
    """
    names: dict[str, list[str]] = {names: [] for names, _ in _KINDS.values()}
    lines = ["def __init__(self):", " self.were_used = NOTHING"]
    for attribute, annotation in inspect.get_annotations(cls, eval_str=True).items():
        if str(annotation).startswith("typing.ClassVar"):
            continue
        if annotation not in _KINDS:
            raise TypeError(f"{cls.__name__}.{attribute} is no statistic")
        kind, initial = _KINDS[annotation]
        names[kind].append(attribute)
        lines.append(f" self.{attribute} = {cls.INITIAL.get(attribute, initial)}")
    made: dict[str, Any] = {
        "Histogram": Histogram,
        "CodeCounts": CodeCounts,
        "NameCounts": NameCounts,
        "CodeSources": CodeSources,
        "NOTHING": _NOTHING,
    }
    exec("\n".join(lines), made)
    slots = tuple(attribute for attributes in names.values() for attribute in attributes)
    named = {*cls.LEAVES, *cls.HIDDEN, *cls.INITIAL, *cls.USED_WITH}.union(*cls.USED_WITH.values())
    if unknown := named - {*slots}:
        raise TypeError(f"{cls.__name__} has no statistic {', '.join(sorted(unknown))}")
    body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    body.update({kind: tuple(attributes) for kind, attributes in names.items()})
    body.update(__slots__=slots, __init__=made["__init__"])
    return cast("type[G]", type(cls.__name__, cls.__bases__, body))
