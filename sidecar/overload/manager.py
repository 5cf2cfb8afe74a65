"""The overload manager: at intervals it asks the monitors, and tells the actions what their triggers make of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from sidecar.config.overload_manager import Trigger
from sidecar.core.overload import Act
from sidecar.core.timer_wheel import Timed
from sidecar.core.worker import Worker
from sidecar.overload.monitors import Monitor
from sidecar.overload.triggers import highest_scale

log = logging.getLogger("sidecar.overload")


class Recorder(Protocol):
    """A histogram."""

    def record(self, value: int) -> None: ...


class MonitorStats(Protocol):
    """Statistics of a monitor; the pressure in percent."""

    pressure: int
    failed_updates: int


class ActionStats(Protocol):
    """Statistics of an action; its scale in percent."""

    scale_percent: int


@dataclass(slots=True)
class Watched:
    """A monitor at work."""

    name: str
    monitor: Monitor
    stats: MonitorStats


@dataclass(slots=True)
class Action:
    """An action at work. One that is ``lasting`` is told at every refresh while its scale is above 0, others of changes."""

    name: str
    triggers: Sequence[Trigger]
    act: Act
    stats: ActionStats
    lasting: bool = False
    scale: float = 0.0

    def update(self, pressures: Mapping[str, float]) -> None:
        """Do what the pressures ask for."""
        scale = highest_scale(self.triggers, pressures)
        changed = scale != self.scale
        if changed:
            if not self.scale or not scale:
                words = ", ".join(
                    f"{each.name} at {pressures[each.name]:.0%}" for each in self.triggers if each.name in pressures
                )
                log.warning("%s is %s: %s", self.name, "active" if scale else "no longer active", words)
            self.scale = scale
            self.stats.scale_percent = int(round(scale, 6) * 100)
        if changed or (scale and self.lasting):
            self.act(scale)


class OverloadManager(Timed):
    """``interval`` is in seconds; ``delay`` records in milliseconds how long it is between refreshes."""

    __slots__ = ("actions", "delay", "interval", "last", "pressures", "watched", "worker")

    def __init__(
        self, worker: Worker, interval: float, watched: Sequence[Watched], actions: Sequence[Action], delay: Recorder
    ) -> None:
        self.due = inf
        self.worker = worker
        self.interval = interval
        self.watched = watched
        self.actions = actions
        self.delay = delay
        self.pressures: dict[str, float] = {}
        self.last = 0.0

    def start(self) -> None:
        """Begin."""
        self.last = self.worker.clock()
        self.worker.wheel.arm(self, self.last + self.interval)

    def stop(self) -> None:
        """End; what the actions do now stays done."""
        self.worker.wheel.cancel(self)

    def on_timer(self, now: float) -> None:
        self.delay.record(int((now - self.last) * 1000))
        self.last = now
        self.worker.wheel.arm(self, now + self.interval)
        self.refresh()

    def refresh(self) -> None:
        """Ask all monitors, and tell all actions. A monitor that fails keeps the pressure that it had."""
        for watched in self.watched:
            try:
                pressure = watched.monitor.pressure()
            except (OSError, ValueError):
                watched.stats.failed_updates += 1
                continue
            self.pressures[watched.name] = pressure
            watched.stats.pressure = int(pressure * 100)
        for action in self.actions:
            action.update(self.pressures)

    def __repr__(self) -> str:
        active = ", ".join(f"{action.name} {action.scale:.0%}" for action in self.actions if action.scale)
        return f"<OverloadManager {active or 'at rest'}>"
