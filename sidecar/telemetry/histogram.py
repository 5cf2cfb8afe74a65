"""Histograms with Envoy's bins: log-linear, two significant decimal digits.

Envoy records into circllhist, whose bins for a whole number are `[d.d x 10^e, d.d x 10^e + 10^(e-1))`. A bin is named
here by its lower bound, which for whole numbers is itself a whole number, so that recording is one dictionary update.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate
from math import ceil, nan
from typing import NamedTuple

QUANTILES: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0)
"""The quantiles that Envoy summarises."""

DEFAULT_BUCKETS: tuple[float, ...] = (
    0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000,
)  # fmt: skip
"""Upper bounds of Envoy's default Prometheus buckets (`Envoy::Stats::HistogramSettingsImpl`)."""


class Bins(dict[int, int]):
    """Samples by bin: lower bound of the bin to number of samples. An absent bin reads as 0."""

    __slots__ = ()

    def __missing__(self, lower: int) -> int:
        return 0


class HistogramView(NamedTuple):
    """What a scrape sees of a histogram."""

    interval: Mapping[int, int]
    cumulative: Mapping[int, int]


class Histogram:
    """One histogram. `record` is for the hot path; everything else runs at a scrape or at the interval's latch.

    Values are whole numbers, 0 or above, in whatever unit the histogram's name says (milliseconds, bytes, a count).
    `recent` are the samples since the last latch; of a value known to be below 100, `recent[value] += 1` does what
    `record` does.
    """

    __slots__ = ("_earlier", "_interval", "recent")

    def __init__(self) -> None:
        self.recent = Bins()
        self._interval: Bins | None = None
        self._earlier: Bins | None = None

    def __repr__(self) -> str:
        return f"<Histogram {count(self.view().cumulative)} samples>"

    def record(self, value: int) -> None:
        """Count one sample."""
        if value > 99:
            value = value - value % 10 if value < 1000 else lower_bound(value)
        self.recent[value] += 1

    def latch(self) -> None:
        """End the interval: what was recorded since the last latch becomes the interval's summary."""
        recent = self.recent
        if recent:
            self._earlier = merged((self._earlier or Bins(), recent))
            self._interval = recent
            self.recent = Bins()
        else:
            self._interval = None

    def view(self) -> HistogramView:
        """The samples of the last whole interval, and all, those after the last latch included."""
        cumulative = self._earlier or self.recent
        if self._earlier and self.recent:
            cumulative = merged((self._earlier, self.recent))
        return HistogramView(self._interval or Bins(), cumulative)


def lower_bound(value: int) -> int:
    """Lower bound of the bin that `value` (0 or above) falls into: its two leading decimal digits."""
    if value < 100:
        return value
    if value < 1000:
        return value - value % 10
    if value < 10000:
        return value - value % 100
    if value < 100000:
        return value - value % 1000
    if value < 1000000:
        return value - value % 10000
    width: int = 10 ** (len(str(value)) - 2)
    return value - value % width


@cache
def lower_edge(lower: int) -> float:
    """The lower bound as circllhist computes it, rounding included: 110 is `1.1 * 100`, which is a little more."""
    exponent = len(str(lower)) - 1
    scale: int = 10**exponent
    return lower * 10 // scale / 10.0 * scale


@cache
def bin_width(lower: int) -> float:
    """Width of the bin whose lower bound is `lower`."""
    if lower == 0:
        return 0.0
    if lower < 10:
        return 0.1
    return float(10 ** (len(str(lower)) - 2))


def merged(parts: Iterable[Mapping[int, int]]) -> Bins:
    """The sum of several histograms' bins."""
    total = Bins()
    for part in parts:
        for lower, samples in part.items():
            total[lower] += samples
    return total


def view_of(histograms: Iterable[Histogram]) -> HistogramView:
    """The view of several histograms as one."""
    views = [histogram.view() for histogram in histograms]
    return HistogramView(merged(view.interval for view in views), merged(view.cumulative for view in views))


def count(bins: Mapping[int, int]) -> int:
    """Number of samples."""
    return sum(bins.values())


def approximate_sum(bins: Mapping[int, int]) -> float:
    """Sum of the samples as Envoy gives it: each counts as the harmonic middle of its bin."""
    total = 0.0
    for lower, samples in sorted(bins.items()):
        if lower:
            edge, width = lower_edge(lower), bin_width(lower)
            total += (edge + width * (edge / (edge + (edge + width)))) * samples
    return total


def quantiles(bins: Mapping[int, int], wanted: Sequence[float] = QUANTILES) -> list[float]:
    """Values at the quantiles `wanted` (ascending, 0 to 1), `nan` each when there are no samples.

    Within a bin the k-th of n samples is taken to stand at k / (n + 1) of its width, which is what circllhist does.
    """
    if not bins:
        return [nan] * len(wanted)
    ordered = sorted(bins.items())
    ranks = list(accumulate(samples for _, samples in ordered))
    values = []
    for quantile in wanted:
        rank = max(1, ceil(quantile * ranks[-1]))
        index = bisect_right(ranks, rank - 1)
        lower, samples = ordered[index]
        within = rank - (ranks[index] - samples)
        values.append(lower_edge(lower) + bin_width(lower) * within / (samples + 1))
    return values


def below(bins: Mapping[int, int], bounds: Sequence[float]) -> list[int]:
    """Cumulative counts: for each upper bound (ascending) the samples whose bin begins at or below it."""
    ordered = sorted(bins.items())
    ranks = [0, *accumulate(samples for _, samples in ordered)]
    edges = [lower_edge(lower) for lower, _ in ordered]
    return [ranks[bisect_right(edges, bound)] for bound in bounds]


def within(bins: Mapping[int, int], bounds: Sequence[float]) -> Iterator[int]:
    """Disjoint counts: for each upper bound the samples above the bound before it."""
    before = 0
    for reached in below(bins, bounds):
        yield reached - before
        before = reached
