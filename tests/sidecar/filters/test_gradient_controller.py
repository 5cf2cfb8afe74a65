"""The gradient controller under a clock that the test turns: what it measures, and how the limit moves."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.filters.adaptive_concurrency import GradientControllerConfig
from sidecar.filters.gradient_controller import GradientController, Latencies
from sidecar.telemetry.groups.http_filters import AdaptiveConcurrencyStats
from tests.sidecar.filters.streams import FixedRandom


class Load:
    """Requests that take as long as they are told to."""

    def __init__(self, **config: Any) -> None:
        self.now = 1000.0
        self.stats = AdaptiveConcurrencyStats()
        given = {"concurrency_update_interval": 0.1, "min_rtt_interval": 60.0, "min_rtt_request_count": 10, **config}
        self.controller = GradientController(GradientControllerConfig(**given), self.stats, FixedRandom(0.0), self.now)

    def requests(self, count: int, latency: float) -> None:
        """One after the other."""
        for _ in range(count):
            started = self.now
            assert self.controller.admit(started)
            self.now += latency
            self.controller.record(started, self.now)

    def window(self, latency: float, count: int = 5) -> int:
        """So many requests at once, and then the end of the window; the limit that follows."""
        started = self.now
        admitted = sum(self.controller.admit(started) for _ in range(count))
        for _ in range(admitted):
            self.controller.record(started, started + latency)
        self.now += 0.1
        if self.controller.admit(self.now):
            self.controller.cancel()
        return self.controller.limit


def test_min_rtt_is_measured_first_with_few_requests_at_a_time() -> None:
    load = Load(min_concurrency=2)
    assert (load.stats.min_rtt_calculation_active, load.stats.concurrency_limit) == (1, 2)
    assert [load.controller.admit(load.now) for _ in range(4)] == [True, True, False, False]
    assert load.stats.rq_blocked == 2
    load.controller.cancel()
    load.controller.cancel()
    load.requests(9, 0.004)
    assert load.stats.min_rtt_calculation_active == 1
    load.requests(1, 0.004)
    assert (load.stats.min_rtt_calculation_active, load.stats.min_rtt_msecs) == (0, 4)
    assert load.controller.limit == 2


def test_the_limit_grows_while_requests_are_quick_and_shrinks_when_they_are_slow() -> None:
    load = Load(max_concurrency_limit=100)
    load.requests(10, 0.01)
    limits = [load.window(0.01, count=5) for _ in range(6)]
    assert limits == sorted(limits) and limits[0] > 3
    assert load.stats.gradient == 1250
    assert limits[0] == 5  # 3 x 1.25, and the root of that
    grown = limits[-1]
    load.window(0.05)
    assert load.stats.gradient == 500
    assert load.controller.limit == int(grown / 2 + (grown / 2) ** 0.5) < grown
    assert load.stats.sample_rtt_msecs == 49


@pytest.mark.parametrize(("latency", "gradient"), [(0.001, 2000), (0.0125, 1000), (0.09, 500)])
def test_a_gradient_is_from_a_half_to_two(latency: float, gradient: int) -> None:
    load = Load(fixed_min_rtt=0.01)
    load.window(latency)
    assert load.stats.gradient == pytest.approx(gradient, rel=0.02)


def test_the_limit_stays_between_its_bounds() -> None:
    load = Load(fixed_min_rtt=0.01, min_concurrency=4, max_concurrency_limit=9)
    assert [load.window(0.001) for _ in range(3)] == [9, 9, 9]
    assert [load.window(1.0) for _ in range(4)][-1] == 4


def test_a_window_without_requests_changes_nothing() -> None:
    load = Load(fixed_min_rtt=0.01)
    before = load.window(0.001)
    load.now += 5.0
    assert load.controller.admit(load.now)
    assert load.controller.limit == before


def test_min_rtt_is_measured_again_after_its_interval() -> None:
    load = Load()
    load.requests(10, 0.01)
    grown = [load.window(0.01) for _ in range(5)][-1]
    slow = load.now
    assert load.controller.admit(slow)
    load.now += 60.0
    assert load.controller.admit(load.now)
    assert (load.stats.min_rtt_calculation_active, load.controller.limit) == (1, 3)
    load.controller.cancel()
    load.controller.record(slow, load.now)  # it began before the measurement, and is left out of it
    load.requests(10, 0.02)
    assert (load.stats.min_rtt_calculation_active, load.stats.min_rtt_msecs) == (0, 19)
    assert load.controller.limit == grown


def test_jitter_puts_the_measurement_off() -> None:
    load = Load(min_rtt_jitter=0.5)
    load.controller._random = FixedRandom(0.5)
    load.requests(10, 0.01)
    load.now += 70.0
    load.controller.admit(load.now)
    assert load.stats.min_rtt_calculation_active == 0
    load.now += 6.0
    load.controller.admit(load.now)
    assert load.stats.min_rtt_calculation_active == 1


def test_min_rtt_is_measured_again_when_the_limit_stays_at_its_least() -> None:
    load = Load()
    load.requests(10, 0.001)
    active = []
    for _ in range(8):
        load.window(0.05)
        active.append(load.stats.min_rtt_calculation_active)
    assert active.index(1) == 4
    assert active[4:] == [1] * 4
    fixed = Load(fixed_min_rtt=0.001)
    for _ in range(20):
        fixed.window(0.05)
    assert fixed.stats.min_rtt_calculation_active == 0


def test_latencies_by_share() -> None:
    latencies = Latencies()
    for latency in range(1, 101):
        latencies.add(latency)
    assert latencies.take(0.9) == 90
    for latency in (1_000_000, 10, 20):
        latencies.add(latency)
    assert latencies.take(0.5) == 20
    latencies.add(1_000_000)
    assert latencies.take(1.0) == pytest.approx(1_000_000, rel=0.016)
    latencies.add(0)
    assert latencies.take(0.5) == 1
    assert latencies.total == 0
