"""Pressures become scales, and actions hear of them, with a clock and monitors handed in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.config.overload_manager import Trigger
from sidecar.core.worker import Worker
from sidecar.overload.manager import Action, OverloadManager, Watched
from sidecar.overload.triggers import highest_scale, scale_of
from sidecar.telemetry.groups.overload import OverloadActionStats, OverloadStats, ResourceMonitorStats

THRESHOLD = Trigger("a", 0.9, 0.9)
SCALED = Trigger("b", 0.5, 0.75)


@pytest.mark.parametrize(
    ("trigger", "pressure", "scale"),
    [
        (THRESHOLD, 0.89, 0.0),
        (THRESHOLD, 0.9, 1.0),
        (Trigger("a", 0.0, 0.0), 0.0, 1.0),
        (SCALED, 0.5, 0.0),
        (SCALED, 0.625, 0.5),
        (SCALED, 0.75, 1.0),
        (SCALED, 7.0, 1.0),
    ],
)
def test_a_trigger_has_its_scale(trigger: Trigger, pressure: float, scale: float) -> None:
    assert scale_of(trigger, pressure) == scale


def test_the_trigger_counts_that_asks_for_most() -> None:
    assert highest_scale((THRESHOLD, SCALED), {"a": 0.1, "b": 0.625}) == 0.5
    assert highest_scale((THRESHOLD, SCALED), {"a": 0.95, "b": 0.625}) == 1.0
    assert highest_scale((THRESHOLD, SCALED), {}) == 0.0


class Told:
    """A monitor that says what it is told, or raises it."""

    def __init__(self, *says: float | Exception) -> None:
        self.says = list(says)

    def pressure(self) -> float:
        said = self.says.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def managed(
    watched: dict[str, Told], acts: dict[str, tuple[Trigger, Callable[[float], None], bool]], clock: Clock
) -> OverloadManager:
    worker = Worker(asyncio.get_running_loop(), clock)
    return OverloadManager(
        worker,
        0.5,
        [Watched(name, monitor, ResourceMonitorStats()) for name, monitor in watched.items()],
        [
            Action(name, (trigger,), act, OverloadActionStats(), lasting)
            for name, (trigger, act, lasting) in acts.items()
        ],
        OverloadStats().refresh_interval_delay,
    )


def running(test: Callable[[], None]) -> None:
    async def main() -> None:
        test()

    asyncio.run(main())


def test_actions_hear_of_changes_and_those_that_last_of_every_refresh(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    changes: list[float] = []
    lasting: list[float] = []

    def test() -> None:
        manager = managed(
            {"b": Told(0.1, 0.625, 0.625, 0.8, 0.2, 0.1)},
            {"once": (SCALED, changes.append, False), "always": (SCALED, lasting.append, True)},
            Clock(),
        )
        percents = []
        for _ in range(6):
            manager.refresh()
            percents.append(manager.actions[0].stats.scale_percent)
        assert percents == [0, 50, 50, 100, 0, 0]
        assert manager.watched[0].stats.pressure == 10

    running(test)
    assert changes == [0.5, 1.0, 0.0]
    assert lasting == [0.5, 0.5, 1.0, 0.0]
    messages = [record.getMessage() for record in caplog.records if record.getMessage().startswith("once")]
    assert messages == ["once is active: b at 62%", "once is no longer active: b at 20%"]


def test_a_monitor_that_fails_keeps_its_pressure_and_is_counted() -> None:
    scales: list[float] = []

    def test() -> None:
        told = Told(OSError("gone"), 0.95, ValueError("what?"), 0.1)
        manager = managed({"a": told}, {"act": (THRESHOLD, scales.append, False)}, Clock())
        for _ in range(4):
            manager.refresh()
        assert manager.watched[0].stats.failed_updates == 2

    running(test)
    assert scales == [1.0, 0.0]


def test_it_looks_at_intervals_until_it_is_stopped() -> None:
    def test() -> None:
        clock = Clock()
        monitor = Told(0.1, 0.2, 0.3)
        manager = managed({"a": monitor}, {}, clock)
        wheel = manager.worker.wheel
        manager.start()
        assert len(monitor.says) == 3
        for passed, left in ((0.3, 3), (0.3, 2), (0.7, 1)):
            clock.now += passed
            wheel.advance()
            assert len(monitor.says) == left
        manager.stop()
        clock.now += 2
        wheel.advance()
        assert len(monitor.says) == 1
        delays: Any = manager.delay
        assert sum(delays.view().cumulative.values()) == 2
        wheel.close()

    running(test)
