"""Statistics of a drain."""

from __future__ import annotations

from ..stats import Gauge, StatGroup, stat_group


@stat_group
class DrainStats(StatGroup):
    """`server.drain.`, from the beginning of a drain: the number of the phase (docs/lifecycle.md), and how many downstream
    connections are left.
    """

    connections: Gauge
    phase: Gauge
