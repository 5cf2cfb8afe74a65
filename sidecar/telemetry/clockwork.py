"""What is looked at at intervals: histograms are latched, how late the event loop runs, whether the wall clock was set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from math import ceil, inf

from sidecar.core.timer_wheel import Timed
from sidecar.core.worker import Worker

from .groups.server import DispatcherStats
from .store import StatsStore

_LAG_INTERVAL = 0.02
_LEAST_SHARE = 0.2
"""Of a core. A process that got less in a time was paused: stopped, suspended with its machine, or without a processor."""


class Clockwork(Timed):
    """Measures the loop's lag fifty times a second, and latches histograms every ``flush_interval`` seconds, in slices.

    ``poll_delay_us`` is how late the loop comes to a timer that was due: the length of the slice that was in its way.
    ``loop_lag_ms`` is the longest such delay of this flush interval and the one before, in milliseconds, rounded up.

    For ``worst_lag`` and ``mean_lag``, by which load is shed, a delay counts as far as work can have made it: ``used``
    tells the seconds of the processor that the process has had (a thread beside it that holds the interpreter is work, too).
    """

    __slots__ = ("worker", "store", "stats", "flush_interval", "next_flush", "longest", "latching", "expected", "worst",
                 "total", "samples", "used", "used_before")  # fmt: skip

    def __init__(
        self,
        worker: Worker,
        store: StatsStore,
        stats: DispatcherStats,
        flush_interval: float,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self.due = inf
        self.used = used
        self.used_before = 0.0
        self.worker = worker
        self.store = store
        self.stats = stats
        self.flush_interval = flush_interval
        self.next_flush = 0.0
        self.longest = 0.0
        self.worst = self.total = 0.0
        self.samples = 0
        self.latching: Iterator[object] | None = None
        self.expected = 0.0

    def start(self) -> None:
        """Begin."""
        now = self.worker.clock()
        self.next_flush = now + self.flush_interval
        self._arm(now)

    def on_timer(self, now: float) -> None:
        self.worker.follow_wall_clock()
        resolution = self.worker.wheel.resolution
        late = max(0.0, now - self.expected - resolution)
        self.stats.poll_delay_us.record(int(late * 1e6))
        by_work = min(late, (self.used() - self.used_before) / _LEAST_SHARE)
        self.total += by_work
        self.samples += 1
        if by_work > self.worst:
            self.worst = by_work
        if late > self.longest:
            self.longest = late
            self.stats.loop_lag_ms = max(self.stats.loop_lag_ms, ceil(late * 1000))
        if now >= self.next_flush:
            self.next_flush = now + self.flush_interval
            self.stats.loop_lag_ms = ceil(self.longest * 1000)
            self.longest = 0.0
            if self.latching is None:
                self.latching = self.store.latch()
                self.worker.loop.call_soon(self._latch)
        self._arm(now)

    def worst_lag(self) -> float:
        """The longest delay by work, in seconds, since this was asked last."""
        worst, self.worst = self.worst, 0.0
        return worst

    def mean_lag(self) -> float:
        """The mean delay by work, in seconds, since this was asked last."""
        mean = self.total / self.samples if self.samples else 0.0
        self.total, self.samples = 0.0, 0
        return mean

    def _arm(self, now: float) -> None:
        self.expected = now + _LAG_INTERVAL
        self.used_before = self.used()
        self.worker.wheel.arm(self, self.expected)

    def _latch(self) -> None:
        assert self.latching is not None
        if next(self.latching, self) is self:
            self.latching = None
        else:
            self.worker.loop.call_soon(self._latch)

    def __repr__(self) -> str:
        return f"<Clockwork every {self.flush_interval} s>"
