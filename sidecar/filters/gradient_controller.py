"""How many requests may be under way at once, learnt from how long they take: Envoy's gradient controller.

Now and then few requests at a time are let through, to measure how long one takes when nobody waits (minRTT). From then
on the limit grows while requests take about as long as that, and shrinks when they take longer. Source: "Adaptive
Concurrency" in Envoy's documentation.
"""

from __future__ import annotations

from math import ceil, inf, sqrt
from random import Random
from typing import Protocol

from sidecar.config.filters.adaptive_concurrency import GradientControllerConfig

_AT_MINIMUM = 5
"""After so many calculations in a row that ended at the least limit, what it is compared with is measured again."""

_DIGITS = 7
"""Binary digits that are kept of a latency: 1.6 % at worst."""


class GradientStats(Protocol):
    """Statistics below `adaptive_concurrency.gradient_controller.`, under Envoy's names."""

    rq_blocked: int
    burst_queue_size: int
    concurrency_limit: int
    gradient: int
    min_rtt_calculation_active: int
    min_rtt_msecs: int
    sample_rtt_msecs: int


class Latencies:
    """Latencies in microseconds, counted in buckets."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = 0

    def add(self, latency: int) -> None:
        """Count one."""
        extra = latency.bit_length() - _DIGITS
        if extra > 0:
            latency = latency >> extra << extra
        self.counts[latency] = self.counts.get(latency, 0) + 1
        self.total += 1

    def take(self, share: float) -> int:
        """The latency that this share of them does not exceed; and forget all. There must be some."""
        wanted, found = max(1, ceil(share * self.total)), 0
        for found in sorted(self.counts):
            wanted -= self.counts[found]
            if wanted <= 0:
                break
        self.clear()
        return max(1, found)

    def clear(self) -> None:
        """Forget all."""
        self.counts.clear()
        self.total = 0

    def __repr__(self) -> str:
        return f"<Latencies {self.total}>"


class GradientController:
    """Ask `admit` for each request; for one that it lets through call `record` when it is answered, else `cancel`.

    Times are in seconds of the worker's clock. What is due at some time is done when the next request comes or ends:
    without requests nothing changes, so no timer is needed.
    """

    __slots__ = (
        "limit",
        "outstanding",
        "stats",
        "_at_minimum",
        "_config",
        "_deferred_limit",
        "_latencies",
        "_min_rtt",
        "_min_rtt_due",
        "_min_rtt_epoch",
        "_next",
        "_random",
        "_sample_due",
    )

    def __init__(self, config: GradientControllerConfig, stats: GradientStats, random: Random, now: float) -> None:
        self._config = config
        self.stats = stats
        self._random = random
        self.outstanding = 0
        self.limit = config.min_concurrency
        self._latencies = Latencies()
        self._at_minimum = 0
        self._deferred_limit = 0  # what to return to after the measurement of minRTT; 0 while there is none
        self._min_rtt = 0
        self._min_rtt_epoch = now
        self._min_rtt_due = inf
        self._sample_due = now + config.concurrency_update_interval
        stats.concurrency_limit = self.limit
        if config.fixed_min_rtt is None:
            self._measure_min_rtt(now)
        else:
            self._min_rtt = int(config.fixed_min_rtt * 1e6)
            stats.min_rtt_msecs = self._min_rtt // 1000
            self._set_limit(config.min_concurrency)
        self._set_next()

    def admit(self, now: float) -> bool:
        """Whether a request may go on; it is then under way."""
        if now >= self._next:
            self._advance(now)
        if self.outstanding < self.limit:
            self.outstanding += 1
            return True
        self.stats.rq_blocked += 1
        return False

    def record(self, started: float, now: float) -> None:
        """A request that was admitted at `started` has got its whole response."""
        if now >= self._next:
            self._advance(now)
        self.outstanding -= 1
        if started < self._min_rtt_epoch:
            return  # it may have waited behind others that were there before the measurement began
        self._latencies.add(int((now - started) * 1e6 + 0.5))
        if self._deferred_limit and self._latencies.total >= self._config.min_rtt_request_count:
            self._min_rtt_measured(now)

    def cancel(self) -> None:
        """A request that was admitted has ended without a whole response: what it took says nothing."""
        self.outstanding -= 1

    def _advance(self, now: float) -> None:
        if not self._deferred_limit and now >= self._sample_due:
            due = self._sample_due
            if self._latencies.total:
                self._calculate_limit(due)
            interval = self._config.concurrency_update_interval
            self._sample_due = due + interval * (int((now - due) / interval) + 1)
        if not self._deferred_limit and now >= self._min_rtt_due:
            self._measure_min_rtt(self._min_rtt_due)
        self._set_next()

    def _set_next(self) -> None:
        self._next = inf if self._deferred_limit else min(self._sample_due, self._min_rtt_due)

    def _measure_min_rtt(self, now: float) -> None:
        self.stats.min_rtt_calculation_active = 1
        self._deferred_limit = self.limit
        self._min_rtt_due = inf
        self._set_limit(self._config.min_concurrency)
        self._latencies.clear()
        self._min_rtt_epoch = now

    def _min_rtt_measured(self, now: float) -> None:
        config, stats = self._config, self.stats
        self._min_rtt = self._latencies.take(config.sample_aggregate_percentile)
        stats.min_rtt_msecs = self._min_rtt // 1000
        self._set_limit(self._deferred_limit)
        self._deferred_limit = 0
        stats.min_rtt_calculation_active = 0
        later = self._random.random() * config.min_rtt_jitter
        self._min_rtt_due = now + config.min_rtt_interval * (1 + later)
        self._sample_due = now + config.concurrency_update_interval
        self._set_next()

    def _calculate_limit(self, now: float) -> None:
        config, stats = self._config, self.stats
        sample = self._latencies.take(config.sample_aggregate_percentile)
        stats.sample_rtt_msecs = sample // 1000
        gradient = max(0.5, min(2.0, self._min_rtt * (1 + config.min_rtt_buffer) / sample))
        stats.gradient = int(gradient * 1000)
        limit = self.limit * gradient
        headroom = sqrt(limit)
        stats.burst_queue_size = int(headroom)
        self._set_limit(max(config.min_concurrency, min(config.max_concurrency_limit, int(limit + headroom))))
        if config.fixed_min_rtt is None and self._at_minimum >= _AT_MINIMUM:
            self._min_rtt_due = now

    def _set_limit(self, limit: int) -> None:
        least = self._config.min_concurrency
        if not self._deferred_limit and self.limit == least and limit == least:
            self._at_minimum += 1
        else:
            self._at_minimum = 0
        self.limit = self.stats.concurrency_limit = limit

    def __repr__(self) -> str:
        return f"<GradientController {self.outstanding} of {self.limit} under way, minRTT {self._min_rtt} us>"
