"""How late the event loop is, and what of it counts as load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from sidecar.core.worker import Worker
from sidecar.telemetry.clockwork import Clockwork
from sidecar.telemetry.groups.server import DispatcherStats
from sidecar.telemetry.store import StatsStore


class Loop:
    """A worker whose clock and processor time a test moves."""

    def __init__(self) -> None:
        self.now, self.used = 1000.0, 0.0
        self.loop = asyncio.new_event_loop()
        self.worker = Worker(self.loop, lambda: self.now)
        self.stats = DispatcherStats()
        self.clockwork = Clockwork(self.worker, StatsStore(), self.stats, 5.0, lambda: self.used)
        self.clockwork.start()

    def turn(self, seconds: float, used: float) -> None:
        """One turn that takes so long, and so much of the processor."""
        self.now += seconds
        self.used += used
        self.worker.wheel.advance()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.worker.wheel.close()
    made.loop.close()


@pytest.mark.parametrize(
    ("seconds", "used", "least", "most"),
    [
        (0.02, 0.02, 0.0, 0.01),  # on time
        (0.52, 0.52, 0.49, 0.5),  # all of it was work
        (0.52, 0.13, 0.49, 0.5),  # on a quarter of a core too
        (1.52, 0.01, 0.04, 0.06),  # stopped: what little it did may have made it late by that much
        (30.0, 0.0, 0.0, 0.0),  # the machine was suspended
    ],
)
def test_a_delay_counts_as_load_as_far_as_work_can_have_made_it(
    loop: Loop, seconds: float, used: float, least: float, most: float
) -> None:
    loop.turn(seconds, used)
    assert least <= loop.clockwork.mean_lag() <= most
    assert least <= loop.clockwork.worst_lag() <= most
    assert loop.clockwork.worst_lag() == loop.clockwork.mean_lag() == 0.0
    assert abs(loop.stats.loop_lag_ms - max(0.0, seconds - 0.025) * 1000) <= 6  # whatever it was, it is told


def test_work_before_a_delay_is_not_counted_again(loop: Loop) -> None:
    loop.turn(0.52, 0.5)
    assert loop.clockwork.worst_lag() > 0.4
    loop.turn(0.52, 0.0)
    assert loop.clockwork.worst_lag() == 0.0
