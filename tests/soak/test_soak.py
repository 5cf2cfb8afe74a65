"""The soak, short: nothing leaks under mixed traffic, and a drain under load loses no request."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from tests.soak.traffic import Soak, no_more

MOST_GROWTH = 24 << 20


def soaked(seconds: float, seed: int) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(Soak(seed).run(seconds))
    assert no_more(report["left"], report["at_rest"])
    assert report["growth"] < MOST_GROWTH
    assert report["outcomes"]["answered"] > 50 * seconds


def test_a_short_soak() -> None:
    soaked(5.0, seed=1)


@pytest.mark.soak
def test_a_minute() -> None:
    soaked(60.0, seed=2)


def test_a_drain_under_load_loses_nothing() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(Soak(3).drain_under_load(1.0)) > 100
