"""Ratios, verdicts, and what the table shows of them."""

from __future__ import annotations

import pytest

from benchmarks.cells.scrape import loop_lag_ms, series
from benchmarks.profiles import busiest
from benchmarks.results import CPU, Better, Figure, Rounds, Row, Target, met, ratio_to
from benchmarks.table import as_json, as_text

GBIT = Figure("gbit_per_s", "Gbit/s", Better.HIGHER)
SPEED = Target("≥ 1.5 × Envoy", times_envoy=1.5)


def row(proxy: str, cpu_us: float, target: Target | None = None) -> Row:
    return Row("mesh-bare", proxy, CPU, {"cpu_us": cpu_us, "rate": 1e6 / cpu_us}, target)


@pytest.mark.parametrize(("ours", "verdict"), [(20.0, True), (26.6, True), (26.7, False), (60.0, False)])
def test_a_ratio_to_envoy_decides(ours: float, verdict: bool) -> None:
    assert met(row("ours", ours, SPEED), row("envoy", 40.0)) is verdict


@pytest.mark.parametrize(
    ("better", "value", "verdict"),
    [
        (Better.LOWER, 45.0, True),
        (Better.LOWER, 45.1, False),
        (Better.HIGHER, 44.9, False),
        (Better.HIGHER, 45.0, True),
    ],
)
def test_an_absolute_limit_decides_without_envoy(better: Better, value: float, verdict: bool) -> None:
    figure = Figure("x", "MB", better)
    assert met(Row("small", "ours", figure, {"x": value}, Target("45", limit=45.0)), None) is verdict


def test_undecided_without_envoy_or_without_a_figure() -> None:
    assert met(row("ours", 20.0, SPEED), None) is None
    assert met(Row("scrape", "ours", GBIT, {}, Target("5", limit=5.0)), None) is None
    assert met(row("ours", 20.0), row("envoy", 40.0)) is None


def test_ratio_is_above_one_when_better_either_way() -> None:
    assert ratio_to(row("envoy", 40.0), row("ours", 20.0)) == 2.0
    envoy, ours = (Row("tcp", name, GBIT, {"gbit_per_s": value}) for name, value in (("envoy", 18.0), ("ours", 9.0)))
    assert ratio_to(envoy, ours) == 0.5


def test_medians_of_rounds() -> None:
    rounds = Rounds()
    for cpu_us in (30.0, 20.0, 90.0):
        rounds.add(cpu_us=cpu_us, rate=1.0)
    assert rounds.medians() == {"cpu_us": 30.0, "rate": 1.0}
    assert rounds.column("cpu_us") == [30.0, 20.0, 90.0]


def test_text_has_ratio_target_and_verdict_on_the_line_of_the_proxy() -> None:
    rows = [
        row("ours", 26.0, SPEED),
        row("envoy", 40.0),
        Row("tcp", "envoy", GBIT, {"gbit_per_s": 18.04}, note="309 ms"),
    ]
    lines = as_text(rows).splitlines()
    assert lines[0].split()[:2] == ["cell", "proxy"]
    assert lines[2].split() == ["mesh-bare", "ours", "26.0", "38,462", "1.54", *SPEED.text.split(), "met"]
    assert lines[3].split() == ["mesh-bare", "envoy", "40.0", "25,000", "1.00"]
    assert lines[4] == ""
    assert lines[5].split() == ["tcp", "envoy", "18.0", "Gbit/s", "1.00"]
    assert lines[-1] == "tcp, envoy: 309 ms"


@pytest.mark.parametrize(
    ("rows", "ending"),
    [
        ([row("ours", 39.0, SPEED), row("envoy", 40.0)], "MISSED"),
        ([row("ours", 39.0, SPEED)], "not decided"),
        ([Row("scrape", "ours", GBIT, {}, Target("≤ 5 ms", limit=5.0))], "not available  ≤ 5 ms  not decided"),
    ],
)
def test_text_of_what_is_missed_or_missing(rows: list[Row], ending: str) -> None:
    line = " ".join(as_text(rows).splitlines()[2].split())
    assert line.endswith(" ".join(ending.split()))


def test_json_holds_every_figure_and_the_verdict() -> None:
    ours, envoy = as_json([row("ours", 20.0, SPEED), row("envoy", 40.0)])
    assert (ours["ratio_to_envoy"], ours["met"], ours["value"], ours["figures"]["rate"]) == (2.0, True, 20.0, 50_000.0)
    assert (envoy["target"], envoy["met"]) == (None, None)


def test_loop_lag_is_read_from_the_stats_page() -> None:
    assert loop_lag_ms("server.live: 1\nserver.loop_lag_ms: 0.4\nserver.loop_lag_max_ms: 3\n") == 3.0
    assert loop_lag_ms("server.live: 1\n") is None


def test_series_are_counted_without_comments() -> None:
    assert series(b'# TYPE a counter\na{x="1"} 2\na{x="2"} 3\n\n') == 2


def test_busiest_functions_of_collapsed_stacks() -> None:
    assert busiest("main;read;parse 30\nmain;write 10\nother;parse 60\n") == [("parse", 0.9), ("write", 0.1)]
