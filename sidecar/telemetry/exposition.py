"""/stats/prometheus: the text format, written from the slots in chunks that each take well under a millisecond.

A hundred thousand series are ordinary (a thousand clusters); the server writes one chunk in a turn of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isnan
from typing import Any, NamedTuple

from .histogram import (
    QUANTILES,
    HistogramView,
    approximate_sum,
    below,
    count,
    quantiles,
)
from .naming import label_pairs
from .settings import Matches
from .stats import Kind, StatGroup
from .store import Metric, Source, StatsStore

CHUNK = 200
"""Lines, or groups looked at in vain, between two chunks."""

HISTOGRAM_PART = 10
"""Groups whose histograms are written in one go."""

SORTABLE = 5000
"""Metric names that are put in order; more than that are written in the order in which they came to be."""


def prometheus(
    store: StatsStore,
    *,
    used_only: bool = False,
    matches: Matches | None = None,
    text_readouts: bool = False,
    histogram_buckets: str = "cumulative",
) -> Iterator[bytes]:
    """All series as Envoy writes them, in chunks.

    `histogram_buckets` is `cumulative` (histograms) or `summary` (quantiles, sum and count of the last interval). Text
    readouts are gauges of value 0 with the text as a label, and are left out unless asked for.
    """
    lines: list[str] = []
    visited = 0
    wanted = _Wanted(used_only, matches, histogram_buckets == "summary", store.settings.buckets_for)
    for kind, type_name, write, step in _kinds(text_readouts, wanted.summary):
        metrics = list(store.metrics[kind].items())
        if len(metrics) <= SORTABLE:
            metrics.sort(key=_order)
        for name, metric in metrics:
            heading = f"# TYPE {name} {type_name}\n"
            for source in list(metric.sources):
                members = list(source.members)
                for start in range(0, len(members), step):
                    part = members[start : start + step]
                    written = write(name, source, part, wanted)
                    if written:
                        lines.append(heading)
                        heading = ""
                        lines += written
                    visited += max(len(part), len(written))
                    if visited >= CHUNK:
                        yield "".join(lines).encode()
                        lines.clear()
                        visited = 0
    if lines:
        yield "".join(lines).encode()


class _Wanted(NamedTuple):
    """What a scrape asked for."""

    used_only: bool
    matches: Matches | None
    summary: bool
    buckets_for: Callable[[str], Sequence[float]]

    def skips(self, name: str, used: bool) -> bool:
        return (self.used_only and not used) or (self.matches is not None and not self.matches(name))


Writer = Callable[[str, Source, list[StatGroup], _Wanted], list[str]]


def _kinds(text_readouts: bool, summary: bool) -> Iterator[tuple[Kind, str, Writer, int]]:
    """In Envoy's order: the kind, its Prometheus type, what writes it, and how many groups at a time."""
    yield Kind.COUNTER, "counter", _numbers, CHUNK
    yield Kind.GAUGE, "gauge", _numbers, CHUNK
    if text_readouts:
        yield Kind.TEXT_READOUT, "gauge", _readouts, CHUNK
    yield Kind.HISTOGRAM, "summary" if summary else "histogram", _histograms, HISTOGRAM_PART


def _order(entry: tuple[str, Metric]) -> str:
    return entry[1].order


def _numbers(name: str, source: Source, part: list[StatGroup], wanted: _Wanted) -> list[str]:
    get = source.get
    if source.derived is not None:
        lines = []
        for group in part:
            for sample in get(group):
                if wanted.skips(group.prefix + sample.leaf, sample.used):
                    continue
                labels = f"{{{label_pairs(sample.tags)}{group.labels.end}}} " if sample.tags else group.labels.whole
                lines.append(f"{name}{labels}{sample.value}\n")
        return lines
    if wanted.matches is not None:
        matches, leaf = wanted.matches, source.leaf
        part = [group for group in part if matches(group.prefix + leaf)]
    if wanted.used_only:
        part = [group for group in part if group.used(source.attribute)]
    return [f"{name}{group.labels.whole}{get(group)}\n" for group in part]


def _readouts(name: str, source: Source, part: list[StatGroup], wanted: _Wanted) -> list[str]:
    lines = []
    for group in part:
        value: str = source.get(group)
        if not wanted.skips(group.prefix + source.leaf, bool(value)):
            lines.append(f"{name}{{{group.labels.start}{label_pairs((('text_value', value),))}}} 0\n")
    return lines


def _views(source: Source, group: StatGroup) -> list[tuple[str, HistogramView]]:
    found: Any = source.get(group)
    if source.derived is None:
        return [(source.leaf, found.view())]
    return [(sample.leaf, sample.value) for sample in found]


def _histograms(name: str, source: Source, part: list[StatGroup], wanted: _Wanted) -> list[str]:
    lines: list[str] = []
    for group in part:
        for leaf, view in _views(source, group):
            full = group.prefix + leaf
            if wanted.skips(full, bool(view.cumulative)):
                continue
            start = group.labels.start
            shown = view.interval if wanted.summary else view.cumulative
            samples = count(shown)
            if wanted.summary:
                for quantile, value in zip(QUANTILES, quantiles(shown), strict=True):
                    lines.append(f'{name}{{{start}quantile="{quantile:g}"}} {number(value)}\n')
            else:
                bounds = wanted.buckets_for(full)
                head = f'{name}_bucket{{{start}le="'
                reached = below(shown, bounds) if samples else [0] * len(bounds)
                lines += [f'{head}{bound:.32g}"}} {n}\n' for bound, n in zip(bounds, reached, strict=True)]
                lines.append(f'{head}+Inf"}} {samples}\n')
            lines.append(f"{name}_sum{group.labels.whole}{number(approximate_sum(shown))}\n")
            lines.append(f"{name}_count{group.labels.whole}{samples}\n")
    return lines


def number(value: float) -> str:
    """A float with the 32 significant digits that Envoy prints."""
    return "nan" if isnan(value) else f"{value:.32g}"
