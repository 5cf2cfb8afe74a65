"""Statistics of a drain, and of several workers."""

from __future__ import annotations

from ..stats import Gauge, StatGroup, stat_group


@stat_group
class DrainStats(StatGroup):
    """`server.drain.`, from the beginning of a drain: the number of the phase (docs/lifecycle.md), and how many downstream
    connections are left.
    """

    connections: Gauge
    phase: Gauge


@stat_group
class WorkerPresence(StatGroup):
    """`server.worker_N.`, of one of several workers: 1 when it did not answer, and its numbers are in none of these."""

    missing: Gauge
