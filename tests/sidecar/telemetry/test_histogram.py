"""Bins, quantiles and buckets of histograms; Envoy's own figures are compared in test_envoy_names."""

from __future__ import annotations

from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.telemetry.histogram import (
    DEFAULT_BUCKETS,
    Histogram,
    approximate_sum,
    below,
    bin_width,
    count,
    lower_bound,
    lower_edge,
    quantiles,
    view_of,
    within,
)
from sidecar.telemetry.listing import quantile_summary

VALUES = st.lists(st.integers(0, 10**12), min_size=1)


def recorded(*values: int) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@pytest.mark.parametrize(
    ("value", "lower"),
    [(0, 0), (7, 7), (99, 99), (100, 100), (109, 100), (999, 990), (1000, 1000), (1099, 1000), (123456789, 120000000)],
)
def test_a_value_falls_into_the_bin_of_its_two_leading_digits(value: int, lower: int) -> None:
    assert recorded(value).view().cumulative == {lower: 1}


@given(st.integers(0, 10**15))
def test_a_bin_holds_its_value_and_is_no_wider_than_a_tenth(value: int) -> None:
    lower = lower_bound(value)
    assert lower <= value <= lower + bin_width(lower) <= lower * 1.1 + 1e-9


@given(VALUES)
def test_quantiles_lie_in_the_bin_of_the_sample_at_that_rank(values: list[int]) -> None:
    bins = recorded(*values).view().cumulative
    ordered = sorted(values)
    smallest, middle, largest = quantiles(bins, (0.0, 0.5, 1.0))
    for got, sample in ((smallest, ordered[0]), (middle, ordered[(len(ordered) - 1) // 2]), (largest, ordered[-1])):
        lower = lower_bound(sample)
        assert lower_edge(lower) <= got <= (lower + bin_width(lower)) * (1 + 1e-12)


@given(VALUES)
def test_buckets_add_up(values: list[int]) -> None:
    bins = recorded(*values).view().cumulative
    cumulative = below(bins, DEFAULT_BUCKETS)
    assert cumulative == [sum(lower_edge(lower_bound(v)) <= bound for v in values) for bound in DEFAULT_BUCKETS]
    assert sum(within(bins, DEFAULT_BUCKETS)) == cumulative[-1]
    assert count(bins) == len(values)


@given(VALUES)
def test_the_sum_is_off_by_no_more_than_the_bins_are_wide(values: list[int]) -> None:
    got = approximate_sum(recorded(*values).view().cumulative)
    assert sum(map(lower_bound, values)) <= got * (1 + 1e-9) <= sum(values) * 1.11


def test_a_latch_ends_the_interval_and_keeps_all_samples() -> None:
    histogram = recorded(1, 250)
    assert histogram.view() == ({}, {1: 1, 250: 1})
    histogram.latch()
    histogram.record(5)
    assert histogram.view() == ({1: 1, 250: 1}, {1: 1, 250: 1, 5: 1})
    histogram.latch()
    assert histogram.view() == ({5: 1}, {1: 1, 250: 1, 5: 1})
    histogram.latch()
    assert histogram.view() == ({}, {1: 1, 250: 1, 5: 1})
    assert view_of([histogram, recorded(5)]) == ({}, {1: 1, 250: 1, 5: 2})


def test_the_summary_is_written_as_envoy_does() -> None:
    histogram = recorded(1, 1, 1, 2, 2, 2, 2, 10)
    histogram.latch()
    assert quantile_summary(histogram.view()).startswith("P0(1.025,1.025) P25(1.05,1.05) P50(2.02,2.02) P75(2.06,2.06)")
    histogram.latch()
    assert quantile_summary(histogram.view()).endswith("P99.5(nan,10.5) P99.9(nan,10.5) P100(nan,10.5)")


ENVOYS_BINS = {
    0: 2,
    1: 6,
    2: 12,
    3: 15,
    4: 1,
    5: 6,
    6: 5,
    7: 2,
    8: 10,
    9: 10,
    10: 2,
    11: 8,
    12: 3,
    30: 2,
    31: 1,
    32: 1,
    95: 1,
    96: 4,
    97: 9,
    98: 1,
    99: 2,
    100: 44,
    110: 13,
    330: 16,
    690: 12,
    700: 8,
    990: 17,
    1000: 29,
    1100: 7,
    1200: 5,
    1500: 20,
    2400: 8,
    2500: 20,
}
"""What Envoy 1.40 counted of 302 requests that a fault delayed by 0 to 2500 ms."""


def test_figures_are_those_that_envoy_gave_for_the_same_samples() -> None:
    bins = recorded(*(lower for lower, samples in ENVOYS_BINS.items() for _ in range(samples))).view().cumulative
    assert bins == ENVOYS_BINS
    assert quantiles(bins) == [
        0,
        11.555555555555555,
        112.85714285714288,
        1046.6666666666667,
        1585.7142857142858,
        2523.809523809524,
        2580.9523809523807,
        2590.4761904761904,
        2595.2380952380954,
        2595.2380952380954,
    ]
    assert below(bins, (10, 104, 1040, 5000)) == [71, 147, 242, 302]
    assert f"{approximate_sum(bins):.32g}" == "190808.00641026254743337631225586"


def test_without_samples_there_is_no_quantile() -> None:
    assert all(isnan(value) for value in quantiles({}))
