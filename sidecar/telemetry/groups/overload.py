"""Statistics of the overload manager: what is watched, what is done about it, and which load was shed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..histogram import Histogram
from ..stats import Counter, Derived, Gauge, Kind, Sample, StatGroup, stat_group


@stat_group
class OverloadStats(StatGroup):
    """`overload.`; milliseconds between two refreshes."""

    refresh_interval_delay: Histogram


@stat_group
class ResourceMonitorStats(StatGroup):
    """`overload.<monitor>.`; the pressure in percent."""

    failed_updates: Counter
    skipped_updates: Counter
    pressure: Gauge


@stat_group
class ProactiveMonitorStats(StatGroup):
    """`overload.<monitor>.` of a monitor that is asked before something is taken, and so fails instead of being late."""

    failed_updates: Counter
    pressure: Gauge


def _active(group: Any) -> tuple[Sample, ...]:
    return (Sample("active", 1 if group.scale_percent >= 100 else 0, written=True),)


@stat_group
class OverloadActionStats(StatGroup):
    """`overload.<action>.`; the scale in percent."""

    scale_percent: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"scale_percent": ()}
    DERIVED: ClassVar[tuple[Derived, ...]] = (Derived("active", Kind.GAUGE, _active),)


@stat_group
class ShrinkHeapStats(StatGroup):
    """`overload.envoy.overload_actions.shrink_heap.`."""

    shrink_count: Counter


@stat_group
class LoadShedPointStats(StatGroup):
    """`overload.<point>.`; the scale in percent."""

    shed_load_count: Counter
    scale_percent: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"scale_percent": ()}


@stat_group
class StreamResetStats(StatGroup):
    """`envoy.overload_actions.reset_high_memory_stream.`."""

    count: Counter
