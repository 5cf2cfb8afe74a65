"""/stats as text and as JSON, in Envoy's forms and order, in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any

from .histogram import (
    QUANTILES,
    HistogramView,
    below,
    bin_width,
    lower_edge,
    quantiles,
    within,
)
from .settings import Matches, StatsSettings
from .stats import Kind, StatGroup
from .store import StatsStore

CHUNK = 200
"""Statistics in one chunk."""

GROUP_WEIGHT = 10
"""How many plain statistics it takes the time of to go through a group that shows none."""

HISTOGRAM_WEIGHT = 25
"""How many plain statistics one histogram takes the time of."""

Rows = list[tuple[str, Any]]


def rows(store: StatsStore, kinds: Sequence[Kind], used_only: bool, matches: Matches | None) -> Iterator[Rows]:
    """Names and values of `kinds`, in the order of the names, some at a time; an empty list when nothing was found.

    Groups whose prefixes lie inside one another are put in order together; groups without a prefix come first.
    """
    bundle: Rows = []
    weight = 0
    inside = ""
    for group in store:
        if not inside or not group.prefix.startswith(inside):
            inside = group.prefix
            if weight >= CHUNK:
                bundle.sort(key=_name)
                yield bundle
                bundle, weight = [], 0
        weight += _collect(group, kinds, used_only, matches, bundle)
    bundle.sort(key=_name)
    yield bundle


def _name(row: tuple[str, Any]) -> str:
    return row[0]


def _collect(group: StatGroup, kinds: Sequence[Kind], used_only: bool, matches: Matches | None, into: Rows) -> int:
    weight = GROUP_WEIGHT
    for name, value in group.samples(*kinds, used_only=used_only):
        weight += HISTOGRAM_WEIGHT if isinstance(value, HistogramView) else 1
        if matches is None or matches(name):
            into.append((name, value))
    return weight


def text(
    store: StatsStore,
    *,
    kinds: Sequence[Kind] = tuple(Kind),
    used_only: bool = False,
    matches: Matches | None = None,
    histogram_buckets: str = "summary",
) -> Iterator[bytes]:
    """`name: value` lines: text readouts, then counters and gauges, then histograms.

    `histogram_buckets` is `summary` (quantiles, of the last interval and of all), `cumulative`, `disjoint` or
    `detailed` (every bin).
    """
    if Kind.TEXT_READOUT in kinds:
        for found in rows(store, (Kind.TEXT_READOUT,), used_only, matches):
            yield "".join([f'{name}: "{value}"\n' for name, value in found]).encode()
    numbers = [kind for kind in (Kind.COUNTER, Kind.GAUGE) if kind in kinds]
    if numbers:
        for found in rows(store, numbers, used_only, matches):
            yield "".join([f"{name}: {value}\n" for name, value in found]).encode()
    if Kind.HISTOGRAM in kinds:
        for found in rows(store, (Kind.HISTOGRAM,), used_only, matches):
            lines = [name + _histogram_text(name, view, histogram_buckets, store.settings) for name, view in found]
            yield "".join(lines).encode()


def _histogram_text(name: str, view: HistogramView, mode: str, settings: StatsSettings) -> str:
    if not view.cumulative:
        return ": No recorded values\n"
    if mode == "summary":
        return f": {quantile_summary(view)}\n"
    if mode == "detailed":
        return (
            f":\n  totals={_bins(view.cumulative)}\n  intervals={_bins(view.interval)}\n"
            f"  summary={quantile_summary(view)}\n"
        )
    bounds = settings.buckets_for(name)
    counts = below if mode == "cumulative" else within
    pairs = zip(bounds, counts(view.interval, bounds), counts(view.cumulative, bounds), strict=True)
    return f": {' '.join([f'B{bound:g}({interval},{total})' for bound, interval, total in pairs])}\n"


def _bins(bins: Mapping[int, int]) -> str:
    return ", ".join([f"{lower},{bin_width(lower):g}:{samples}" for lower, samples in sorted(bins.items())])


def quantile_summary(view: HistogramView) -> str:
    """`P0(nan,1) P25(nan,1.025) ...`: each quantile of the last interval and of all samples."""
    pairs = zip(QUANTILES, quantiles(view.interval), quantiles(view.cumulative), strict=True)
    return " ".join([f"P{100 * q:g}({_shortest(interval)},{_shortest(total)})" for q, interval, total in pairs])


def _shortest(value: float) -> str:
    if isnan(value):
        return "nan"
    return str(int(value)) if value.is_integer() else repr(value)


def json(
    store: StatsStore,
    *,
    kinds: Sequence[Kind] = tuple(Kind),
    used_only: bool = False,
    matches: Matches | None = None,
    histogram_buckets: str = "summary",
) -> Iterator[bytes]:
    """`{"stats": [{"name", "value"}, ..., {"histograms": ...}]}`; the histograms' form follows `histogram_buckets`."""
    yield b'{"stats":['
    numbers = tuple(kind for kind in (Kind.COUNTER, Kind.GAUGE) if kind in kinds)
    comma = b""
    for wanted in ((Kind.TEXT_READOUT,) if Kind.TEXT_READOUT in kinds else (), numbers):
        if wanted:
            for found in rows(store, wanted, used_only, matches):
                yield _objects(comma, [{"name": name, "value": value} for name, value in found])
                comma = b"," if found else comma
    if Kind.HISTOGRAM in kinds:
        opening, closing = _JSON_FRAMES[histogram_buckets]
        before = comma + opening
        for found in rows(store, (Kind.HISTOGRAM,), used_only, matches):
            yield _objects(before, [_histogram_json(n, view, histogram_buckets, store.settings) for n, view in found])
            before = b"," if found else before
        if before == b",":
            yield closing
    yield b"]}"


_PERCENTILES = b"[0,25,50,75,90,95,99,99.5,99.9,100]"
_JSON_FRAMES = {
    "summary": (b'{"histograms":{"supported_quantiles":' + _PERCENTILES + b',"computed_quantiles":[', b"]}}"),
    "detailed": (b'{"histograms":{"supported_percentiles":' + _PERCENTILES + b',"details":[', b"]}}"),
    "cumulative": (b'{"histograms":[', b"]}"),
    "disjoint": (b'{"histograms":[', b"]}"),
}


def _objects(before: bytes, objects: list[dict[str, Any]]) -> bytes:
    """The objects of a JSON list without its brackets, with `before` in front of them; nothing for none."""
    import orjson  # only pages of statistics as JSON need it

    return before + orjson.dumps(objects)[1:-1] if objects else b""


def _histogram_json(name: str, view: HistogramView, mode: str, settings: StatsSettings) -> dict[str, Any]:
    if mode in ("cumulative", "disjoint"):
        bounds = settings.buckets_for(name)
        counts = below if mode == "cumulative" else within
        pairs = zip(bounds, counts(view.interval, bounds), counts(view.cumulative, bounds), strict=True)
        return {
            "name": name,
            "buckets": [{"upper_bound": b, "interval": interval, "cumulative": n} for b, interval, n in pairs],
        }
    values = [
        {"cumulative": total, "interval": interval}
        for total, interval in zip(quantiles(view.cumulative), quantiles(view.interval), strict=True)
    ]
    if mode == "summary":
        return {"name": name, "values": values}
    return {
        "name": name,
        "totals": _bins_json(view.cumulative),
        "intervals": _bins_json(view.interval),
        "percentiles": values,
    }


def _bins_json(bins: Mapping[int, int]) -> list[dict[str, float]]:
    return [
        {"lower_bound": lower_edge(low), "width": bin_width(low), "count": samples}
        for low, samples in sorted(bins.items())
    ]
