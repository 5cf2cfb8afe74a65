"""The store: every group that is alive, for scrapes, resets and the interval's latch.

It keeps the groups in two orders, both held up to date by `add` and `remove` so that no scrape has to sort them: by
prefix for the listings, and by metric name for Prometheus, where all series of a metric stand together.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from .naming import Labels, Tag, metric_name
from .settings import StatsSettings
from .stats import Derived, Kind, StatGroup
from .tags import Naming

G = TypeVar("G", bound=StatGroup)

_PREFIX: Callable[[StatGroup], str] = attrgetter("prefix")


Members = dict[StatGroup, None]
"""The groups of one class that share a tag-extracted prefix, in the order in which they came."""


class Source(NamedTuple):
    """Where a metric's series come from: one statistic of the groups in `members`.

    A plain statistic has `get` and its `attribute`; a derived one has `derived`. `leaf` is tag-extracted.
    """

    members: Members
    attribute: str
    leaf: str
    get: Callable[[Any], Any]
    derived: Derived | None


class Metric(NamedTuple):
    """A Prometheus metric: all its sources, and the tag-extracted name of the first, by which Envoy orders them."""

    order: str
    sources: list[Source]


class StatsStore:
    """Groups of statistics, by prefix and by metric.

    A group is found by identity of its owner's request for it: owners that share a name share the group (two listeners
    whose connection managers have one `stat_prefix`, or a cluster that replaces one of the same name), as in Envoy.
    `metrics` has, for each kind, the sources of every Prometheus metric by its name.
    """

    __slots__ = ("_by_key", "_families", "_groups", "_recorded", "metrics", "settings")

    def __init__(self, settings: StatsSettings | None = None) -> None:
        self.settings = settings or StatsSettings()
        self.metrics: dict[Kind, dict[str, Metric]] = {kind: {} for kind in Kind}
        self._families: dict[tuple[type[StatGroup], str], Members] = {}
        self._groups: list[StatGroup] = []
        self._by_key: dict[tuple[type[StatGroup], str], StatGroup] = {}
        self._recorded: list[StatGroup] | None = None

    def __repr__(self) -> str:
        return f"<StatsStore of {len(self._groups)} groups>"

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[StatGroup]:
        """All groups, ascending by prefix, as they are now; safe against changes while it runs."""
        return iter(self._groups.copy())

    def add(self, group: G, prefix: str = "", tags: tuple[Tag, ...] = (), tag_extracted_prefix: str | None = None) -> G:
        """Take in `group` under `prefix` (`cluster.backend.`).

        `tags` are what the prefix carries besides its words, in the order in which Envoy prints them, and
        `tag_extracted_prefix` (`cluster.`) is the prefix without them; by default the prefix as it stands. Raises
        ValueError when a group of the same class is already there: use `shared` where owners may coincide.
        """
        key = (type(group), prefix)
        if key in self._by_key:
            raise ValueError(f"two groups of statistics {type(group).__name__} at {prefix!r}")
        naming = self.settings.tagged(Naming(prefix, tags, tag_extracted_prefix))
        extracted = naming.tag_extracted_prefix
        group.prefix = prefix
        group.tags = naming.tags
        group.extracted_prefix = prefix if extracted is None else extracted
        group.labels = Labels((*self.settings.fixed_tags, *naming.tags))
        group.references = 1
        self._by_key[key] = group
        entry: StatGroup = group
        insort(self._groups, entry, key=_PREFIX)
        self._family(type(group), group.extracted_prefix)[group] = None
        if self._recorded is not None:
            self._recorded.append(group)
        return group

    def _family(self, made: type[StatGroup], extracted_prefix: str) -> Members:
        members = self._families.get((made, extracted_prefix))
        if members is None:
            members = self._families[made, extracted_prefix] = {}
            for kind, leaf, source in _sources(made, members):
                name = extracted_prefix + leaf
                self.metrics[kind].setdefault(metric_name(name), Metric(name, [])).sources.append(source)
        return members

    def shared(
        self,
        make: type[G],
        prefix: str = "",
        tags: tuple[Tag, ...] = (),
        tag_extracted_prefix: str | None = None,
    ) -> G:
        """The group of class `make` at `prefix`, made when it is not there; each call is undone by one `remove`."""
        found = self._by_key.get((make, prefix))
        if found is not None:
            assert isinstance(found, make)
            found.references += 1
            if self._recorded is not None:
                self._recorded.append(found)
            return found
        return self.add(make(), prefix, tags, tag_extracted_prefix)

    def remove(self, group: StatGroup) -> None:
        """Give up one owner's hold on `group`; with the last it leaves the store. Raises KeyError if not in it."""
        key = (type(group), group.prefix)
        if self._by_key.get(key) is not group:
            raise KeyError(f"{group!r} is not in the store")
        group.references -= 1
        if not group.references:
            self._leave(group)

    @contextmanager
    def recording(self) -> Iterator[list[StatGroup]]:
        """Note which groups are asked for within the block, for whoever is to ``release`` them together."""
        recorded: list[StatGroup] = []
        before, self._recorded = self._recorded, recorded
        try:
            yield recorded
        finally:
            self._recorded = before

    def release(self, groups: Iterable[StatGroup]) -> None:
        """``remove`` each of those that are still there."""
        for group in groups:
            if self._by_key.get((type(group), group.prefix)) is group:
                self.remove(group)

    def discard(self, make: type[StatGroup], prefix: str) -> None:
        """Let the group of class ``make`` at ``prefix`` leave the store, if it is there, however many hold on to it: what they
        count from now on, nobody sees.
        """
        group = self._by_key.get((make, prefix))
        if group is not None:
            self._leave(group)

    def _leave(self, group: StatGroup) -> None:
        del self._by_key[type(group), group.prefix]
        index = bisect_left(self._groups, group.prefix, key=_PREFIX)
        while self._groups[index] is not group:
            index += 1
        del self._groups[index]
        self._leave_family(type(group), group.extracted_prefix, group)

    def _leave_family(self, made: type[StatGroup], extracted_prefix: str, group: StatGroup) -> None:
        members = self._families[made, extracted_prefix]
        del members[group]
        if members:
            return
        del self._families[made, extracted_prefix]
        for kind, leaf, _ in _sources(made, members):
            name = metric_name(extracted_prefix + leaf)
            sources = self.metrics[kind][name].sources
            sources[:] = [source for source in sources if source.members is not members]
            if not sources:
                del self.metrics[kind][name]

    def reset_counters(self) -> None:
        """Set all counters to 0 (`/reset_counters`)."""
        for group in self._groups:
            group.reset_counters()

    def latch(self, step: int = 200) -> Iterator[None]:
        """End the histograms' interval (Envoy: every `stats_flush_interval`, 5 s); yields after `step` groups each."""
        for index, group in enumerate(self):
            for attribute in group.HISTOGRAMS:
                getattr(group, attribute).latch()
            if index % step == step - 1:
                yield


def _sources(made: type[StatGroup], members: Members) -> Iterator[tuple[Kind, str, Source]]:
    """The kind, the tag-extracted leaf and the source of everything that a class of groups shows."""
    for kind, attribute in made.shown():
        leaf = made.leaf(attribute)
        yield kind, leaf, Source(members, attribute, leaf, attrgetter(attribute), None)
    for derived in made.DERIVED:
        yield derived.kind, derived.leaf, Source(members, "", derived.leaf, derived.expand, derived)
