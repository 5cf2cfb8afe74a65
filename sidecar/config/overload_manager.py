"""What is watched so that the process does not drown, and what is done about it: `envoy.config.overload.v3.OverloadManager`.

These are the types; `overload_parsing.py` makes them of a configuration, and is loaded when there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS_MONITOR = "envoy.resource_monitors.global_downstream_max_connections"
LOOP_LAG = "mizzen.resource_monitors.event_loop_lag"
ACCEPT_QUEUE = "mizzen.resource_monitors.accept_queue"

FIXED_HEAP = "fixed_heap"
DOWNSTREAM_CONNECTIONS = "downstream_connections"
CPU_UTILIZATION = "cpu_utilization"
INJECTED_RESOURCE = "injected_resource"
EVENT_LOOP_LAG = "event_loop_lag"
ACCEPT_QUEUE_WAIT = "accept_queue"


@dataclass(frozen=True, slots=True)
class ResourceMonitor:
    """One thing that is watched, by the `name` that triggers have for it.

    `kind` is one of the constants above, and `most` what counts as all of it: bytes of resident memory (`max_heap_size_bytes`),
    connections (`max_active_downstream_connections`), seconds by which timers are late or connections wait (`max_lag`,
    `max_wait`). An injected resource is a number from 0 to 1 in the file `filename`.
    """

    name: str
    kind: str
    most: float = 1.0
    filename: str = ""


@dataclass(frozen=True, slots=True)
class Trigger:
    """Pressures from 0 to 1 of the monitor `name`: from `scaling` on something is done, from `saturation` on all of it.

    The two are equal where there is nothing between nothing and all.
    """

    name: str
    scaling: float
    saturation: float


@dataclass(frozen=True, slots=True)
class ScaledTimer:
    """The least that a timeout shrinks to: `min_timeout` seconds, or `min_scale` (0 to 1) of what is configured."""

    timer: str
    min_timeout: float | None
    min_scale: float = 0.0


@dataclass(frozen=True, slots=True)
class OverloadAction:
    """What is done, and when. `timers` is for `reduce_timeouts` alone."""

    name: str
    triggers: tuple[Trigger, ...]
    timers: tuple[ScaledTimer, ...] = ()


@dataclass(frozen=True, slots=True)
class OverloadManager:
    """All of it. `refresh_interval` is in seconds; streams that hold fewer than `least_tracked` bytes are not reset.

    `loadshed_points` are actions, too: each has its own name and its triggers.
    """

    resource_monitors: tuple[ResourceMonitor, ...]
    actions: tuple[OverloadAction, ...] = ()
    loadshed_points: tuple[OverloadAction, ...] = ()
    refresh_interval: float = 1.0
    least_tracked: int = 1 << 20
