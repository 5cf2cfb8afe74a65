"""/stats/prometheus: the text format, written from the slots in chunks that each take well under a millisecond.

A hundred thousand series are ordinary (a thousand clusters); the server writes one chunk in a turn of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isnan
from typing import Any

from .histogram import (
    DEFAULT_BUCKETS,
    QUANTILES,
    HistogramView,
    approximate_sum,
    below,
    count,
    quantiles,
)
from .naming import label_pairs
from .stats import Kind, StatGroup
from .store import Source, StatsStore

Matches = Callable[[str], bool]
"""Whether a statistic's full name (`cluster.backend.upstream_rq_total`) is wanted."""

BucketsFor = Callable[[str], Sequence[float]]
"""Upper bounds of the buckets of the histogram with a full name (`stats_config.histogram_bucket_settings`)."""

CHUNK = 200
"""Lines, or groups looked at in vain, between two chunks."""

HISTOGRAM_PART = 10
"""Groups whose histograms are written in one go."""

SORTABLE = 5000
"""Metric names that are put in order; more than that are written in the order in which they came to be."""


def default_buckets(name: str) -> Sequence[float]:
    """Envoy's default buckets, for every histogram."""
    return DEFAULT_BUCKETS


def prometheus(
    store: StatsStore,
    *,
    used_only: bool = False,
    matches: Matches | None = None,
    text_readouts: bool = False,
    histogram_buckets: str = "cumulative",
    buckets_for: BucketsFor = default_buckets,
) -> Iterator[bytes]:
    """All series as Envoy writes them, in chunks.

    `histogram_buckets` is `cumulative` (histograms) or `summary` (quantiles of the last interval). Text readouts are
    gauges of value 0 with the text as a label, and are left out unless asked for.
    """
    lines: list[str] = []
    visited = 0
    summary = histogram_buckets == "summary"
    kinds = [(Kind.TEXT_READOUT, "gauge")] if text_readouts else []
    kinds += [(Kind.COUNTER, "counter"), (Kind.GAUGE, "gauge")]
    kinds.append((Kind.HISTOGRAM, "summary" if summary else "histogram"))
    for kind, type_name in kinds:
        table = store.metrics[kind]
        step = HISTOGRAM_PART if kind is Kind.HISTOGRAM else CHUNK
        for name in sorted(table) if len(table) <= SORTABLE else list(table):
            heading = f"# TYPE {name} {type_name}\n"
            for source in table[name]:
                members = list(source.members)
                for start in range(0, len(members), step):
                    part = members[start : start + step]
                    if kind is Kind.HISTOGRAM:
                        written = _histograms(name, source, part, used_only, matches, summary, buckets_for)
                    elif kind is Kind.TEXT_READOUT:
                        written = _readouts(name, source, part, used_only, matches)
                    else:
                        written = _numbers(name, source, part, used_only, matches)
                    if written:
                        lines.append(heading)
                        heading = ""
                        lines += written
                    visited += max(len(part), len(written))
                    if visited >= CHUNK:
                        if lines:
                            yield "".join(lines).encode()
                            lines.clear()
                        else:
                            yield b""
                        visited = 0
    if lines:
        yield "".join(lines).encode()


def _numbers(name: str, source: Source, part: list[StatGroup], used_only: bool, matches: Matches | None) -> list[str]:
    get = source.get
    if source.derived is not None:
        lines = []
        for group in part:
            for sample in get(group):
                if (used_only and not sample.value) or (matches and not matches(group.prefix + sample.leaf)):
                    continue
                labels = f"{{{label_pairs(sample.tags)}{group.labels.end}}} " if sample.tags else group.labels.whole
                lines.append(f"{name}{labels}{sample.value}\n")
        return lines
    if matches is not None:
        leaf = source.leaf
        part = [group for group in part if matches(group.prefix + leaf)]
    if used_only:
        part = [group for group in part if get(group)]
    return [f"{name}{group.labels.whole}{get(group)}\n" for group in part]


def _readouts(name: str, source: Source, part: list[StatGroup], used_only: bool, matches: Matches | None) -> list[str]:
    lines = []
    for group in part:
        text: str = source.get(group)
        if (used_only and not text) or (matches and not matches(group.prefix + source.leaf)):
            continue
        lines.append(f"{name}{{{group.labels.start}{label_pairs((('text_value', text),))}}} 0\n")
    return lines


def _views(source: Source, group: StatGroup) -> list[tuple[str, HistogramView]]:
    found: Any = source.get(group)
    if source.derived is None:
        return [(source.leaf, found.view())]
    return [(sample.leaf, sample.value) for sample in found]


def _histograms(
    name: str,
    source: Source,
    part: list[StatGroup],
    used_only: bool,
    matches: Matches | None,
    summary: bool,
    buckets_for: BucketsFor,
) -> list[str]:
    lines: list[str] = []
    for group in part:
        for leaf, view in _views(source, group):
            full = group.prefix + leaf
            if (used_only and not view.cumulative) or (matches and not matches(full)):
                continue
            samples = count(view.cumulative)
            start = group.labels.start
            if summary:
                for quantile, value in zip(QUANTILES, quantiles(view.interval), strict=True):
                    lines.append(f'{name}{{{start}quantile="{quantile:g}"}} {number(value)}\n')
            else:
                bounds = buckets_for(full)
                head = f'{name}_bucket{{{start}le="'
                reached = below(view.cumulative, bounds) if samples else [0] * len(bounds)
                lines += [f'{head}{bound:.32g}"}} {n}\n' for bound, n in zip(bounds, reached, strict=True)]
                lines.append(f'{head}+Inf"}} {samples}\n')
            lines.append(f"{name}_sum{group.labels.whole}{number(approximate_sum(view.cumulative))}\n")
            lines.append(f"{name}_count{group.labels.whole}{samples}\n")
    return lines


def number(value: float) -> str:
    """A float with the 32 significant digits that Envoy prints."""
    return "nan" if isnan(value) else f"{value:.32g}"
