"""The soak, short: nothing leaks under mixed traffic, and a drain under load loses no request."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop

from tests.soak.traffic import Soak

MOST_GROWTH = 24 << 20


def soaked(seconds: float, seed: int, directory: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(Soak(seed).run(seconds, directory))
    assert report["in_flight"] == {}
    assert report["sockets"] <= report["at_rest"]
    assert report["growth"] < MOST_GROWTH
    assert report["outcomes"]["answered"] > 50 * seconds


def test_a_short_soak(tmp_path: Path) -> None:
    soaked(5.0, 1, tmp_path)


@pytest.mark.soak
def test_a_minute(tmp_path: Path) -> None:
    soaked(60.0, 2, tmp_path)


def test_a_drain_under_load_loses_nothing(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(Soak(3).drain_under_load(1.0, tmp_path)) > 100
