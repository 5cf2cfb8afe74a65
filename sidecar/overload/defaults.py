"""What holds where the bootstrap has no overload manager: on, with limits that ordinary load does not come near."""

from __future__ import annotations

import resource

from sidecar.config.overload_manager import (
    ACCEPT_QUEUE,
    ACCEPT_QUEUE_WAIT,
    CONNECTIONS_MONITOR,
    DOWNSTREAM_CONNECTIONS,
    EVENT_LOOP_LAG,
    FIXED_HEAP,
    LOOP_LAG,
    OverloadAction,
    OverloadManager,
    ResourceMonitor,
    ScaledTimer,
    Trigger,
)

_HEAP = "envoy.resource_monitors.fixed_heap"
_INTERVAL = 0.1
_LONGEST_LAG = 0.4
_LONGEST_WAIT = 0.8
_MEMORY_SHARE = 0.8
_LEAST_ROOM = 64 << 20
_OTHER_DESCRIPTORS = 64


def most_connections(descriptors: int | None = None) -> int:
    """How many downstream connections the limit on open files leaves room for, with a quarter of it for all else.

    Most connections are idle at any time, and share those to the hosts; where a burst takes all descriptors nevertheless,
    accepting pauses.
    """
    if descriptors is None:
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        return (1 << 32) - 1
    return max(16, descriptors - max(_OTHER_DESCRIPTORS, descriptors // 4))


def default_overload_manager(memory: int, connections: int, used: int = 0) -> OverloadManager:
    """For a process that may use ``memory`` bytes, and have so many downstream connections.

    ``used`` is what it has taken before the first of them. Where hardly more is allowed, it gets room for its work all the
    same: to refuse everything from the beginning helps nobody.

    First it takes nothing new, which costs nothing; then it ends what is idle; then it turns requests away; in the end it
    breaks off what holds the most.
    """
    return OverloadManager(
        (
            ResourceMonitor(LOOP_LAG, EVENT_LOOP_LAG, _LONGEST_LAG),
            ResourceMonitor(ACCEPT_QUEUE, ACCEPT_QUEUE_WAIT, _LONGEST_WAIT),
            ResourceMonitor(_HEAP, FIXED_HEAP, max(memory * _MEMORY_SHARE, used + _LEAST_ROOM)),
            ResourceMonitor(CONNECTIONS_MONITOR, DOWNSTREAM_CONNECTIONS, connections),
        ),
        (
            _action("mizzen.overload_actions.trim_accept_queue", (ACCEPT_QUEUE, 0.5, 0.5)),
            _action("envoy.overload_actions.stop_accepting_connections", (LOOP_LAG, 0.4, 0.4), (_HEAP, 0.9, 0.9)),
            _action("mizzen.overload_actions.stop_reading", (LOOP_LAG, 0.7, 0.7), (_HEAP, 0.92, 0.92)),
            _action("envoy.overload_actions.shrink_heap", (_HEAP, 0.9, 0.9)),
            OverloadAction(
                "envoy.overload_actions.reduce_timeouts",
                (Trigger(_HEAP, 0.85, 0.95), Trigger(CONNECTIONS_MONITOR, 0.8, 0.95)),
                (ScaledTimer("HTTP_DOWNSTREAM_CONNECTION_IDLE", 2.0),),
            ),
            _action("envoy.overload_actions.disable_http_keepalive", (_HEAP, 0.95, 0.95), (LOOP_LAG, 0.7, 1.0)),
            _action("envoy.overload_actions.stop_accepting_requests", (_HEAP, 0.97, 0.97), (LOOP_LAG, 0.9, 1.0)),
            _action("envoy.overload_actions.reset_high_memory_stream", (_HEAP, 0.97, 1.0)),
        ),
        refresh_interval=_INTERVAL,
    )


def _action(name: str, *triggers: tuple[str, float, float]) -> OverloadAction:
    return OverloadAction(name, tuple(Trigger(*trigger) for trigger in triggers))
