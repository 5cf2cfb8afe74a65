"""From a configuration to an overload manager: `envoy.config.overload.v3.OverloadManager`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sidecar.config.core_types import seconds
from sidecar.config.extensions import TYPED_STRUCTS, type_name_of
from sidecar.config.fields import Node
from sidecar.config.overload_manager import (
    ACCEPT_QUEUE,
    ACCEPT_QUEUE_WAIT,
    CONNECTIONS_MONITOR,
    CPU_UTILIZATION,
    DOWNSTREAM_CONNECTIONS,
    EVENT_LOOP_LAG,
    FIXED_HEAP,
    INJECTED_RESOURCE,
    LOOP_LAG,
    OverloadAction,
    OverloadManager,
    ResourceMonitor,
    ScaledTimer,
    Trigger,
)

_TRIM = "mizzen.overload_actions.trim_accept_queue"
_ACTIONS = (
    "envoy.overload_actions.stop_accepting_requests",
    "envoy.overload_actions.disable_http_keepalive",
    "envoy.overload_actions.stop_accepting_connections",
    "envoy.overload_actions.reject_incoming_connections",
    "envoy.overload_actions.shrink_heap",
    "envoy.overload_actions.reduce_timeouts",
    "envoy.overload_actions.reset_high_memory_stream",
    "mizzen.overload_actions.stop_reading",
    _TRIM,
)
_POINTS = (
    "envoy.load_shed_points.tcp_listener_accept",
    "envoy.load_shed_points.http_connection_manager_decode_headers",
)
_TIMERS = ("HTTP_DOWNSTREAM_CONNECTION_IDLE", "HTTP_DOWNSTREAM_STREAM_IDLE", "HTTP_DOWNSTREAM_CONNECTION_MAX")

_REDUCE_TIMEOUTS = "envoy.overload_actions.reduce_timeouts"
_RESET_STREAMS = "envoy.overload_actions.reset_high_memory_stream"
_MONITOR = "envoy.extensions.resource_monitors."
_LONGEST = 60.0


def parse_overload_manager(node: Node) -> OverloadManager:
    """`OverloadManager`. What is wrong is recorded in the node's context."""
    monitors = tuple(_parse_monitors(node.children("resource_monitors")))
    names = {monitor.name for monitor in monitors}
    actions = _parse_actions(node.children("actions"), names, "action", _ACTIONS)
    points = _parse_actions(node.children("loadshed_points"), names, "load shed point", _POINTS)
    if any(action.name == _TRIM for action in actions) and all(one.kind != ACCEPT_QUEUE_WAIT for one in monitors):
        node.refuse(f"the action {_TRIM} needs the monitor {ACCEPT_QUEUE}", "resource_monitors", "add it")
    buffers = node.child("buffer_factory_config")
    power = 20
    if buffers is not None:
        power = buffers.get("minimum_account_to_track_power_of_two") or power
    elif any(action.name == _RESET_STREAMS for action in actions):
        node.refuse(
            f"the action {_RESET_STREAMS} needs it, to know how large a stream must be to be looked at",
            "buffer_factory_config",
            "set minimum_account_to_track_power_of_two in it, for example to 20",
        )
    return OverloadManager(monitors, actions, points, seconds(node, "refresh_interval", 1.0) or 1.0, 1 << power)


def _parse_monitors(nodes: Iterable[Node]) -> Iterable[ResourceMonitor]:
    names: set[str] = set()
    for node in nodes:
        name = node.get("name")
        if name in names:
            node.refuse(f"another resource monitor is called {name!r} too", "name", "give each its own name")
        names.add(name)
        extension = node.extension(known=_parsers, structs=True)
        if extension is None:
            continue
        parse = _parse_own if extension.type_name in TYPED_STRUCTS else _parsers[extension.type_name]
        monitor = parse(name, extension)
        if monitor is None:
            continue
        if monitor.kind == DOWNSTREAM_CONNECTIONS and name != CONNECTIONS_MONITOR:
            node.refuse(
                f"the monitor of connections has one name, and not {name!r}", "name", f"call it {CONNECTIONS_MONITOR}"
            )
        yield monitor


def _parse_fixed_heap(name: str, node: Node) -> ResourceMonitor:
    most = node.get("max_heap_size_bytes")
    if not most:
        node.refuse("must be greater than 0", "max_heap_size_bytes", "set it to the memory that the process may use")
    return ResourceMonitor(name, FIXED_HEAP, most)


def _parse_connections(name: str, node: Node) -> ResourceMonitor:
    return ResourceMonitor(name, DOWNSTREAM_CONNECTIONS, node.get("max_active_downstream_connections"))


def _parse_cpu(name: str, node: Node) -> ResourceMonitor:
    if node.enum("mode") != "HOST":
        node.refuse("is not implemented by Mizzen", "mode", "leave it at HOST")
    return ResourceMonitor(name, CPU_UTILIZATION)


def _parse_injected(name: str, node: Node) -> ResourceMonitor:
    return ResourceMonitor(name, INJECTED_RESOURCE, filename=node.get("filename"))


def _parse_own(name: str, node: Node) -> ResourceMonitor | None:
    """Our own monitors have no message, and come as a TypedStruct."""
    type_url = node.get("type_url")
    kind = {LOOP_LAG: EVENT_LOOP_LAG, ACCEPT_QUEUE: ACCEPT_QUEUE_WAIT}.get(type_name_of(type_url))
    if kind is None:
        known = ", ".join(f"type.googleapis.com/{name}" for name in (LOOP_LAG, ACCEPT_QUEUE))
        node.refuse(f"the type {type_url!r} is not known", "type_url", f"known here: {known}")
        return None
    field = "max_lag" if kind == EVENT_LOOP_LAG else "max_wait"
    given = node.struct("value") or {}
    for key in given.keys() - {field}:
        node.refuse(f"{type_name_of(type_url)} has no {key!r}", "value", f"it has {field}, in seconds")
    value = given.get(field, 0.5)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _LONGEST:
        node.refuse(f"{field} must be a number of seconds above 0, at most {_LONGEST:g}, and is {value!r}", "value")
        return None
    return ResourceMonitor(name, kind, float(value))


_parsers: dict[str, Callable[[str, Node], ResourceMonitor | None]] = {
    f"{_MONITOR}fixed_heap.v3.FixedHeapConfig": _parse_fixed_heap,
    f"{_MONITOR}downstream_connections.v3.DownstreamConnectionsConfig": _parse_connections,
    f"{_MONITOR}cpu_utilization.v3.CpuUtilizationConfig": _parse_cpu,
    f"{_MONITOR}injected_resource.v3.InjectedResourceConfig": _parse_injected,
}


def _parse_actions(
    nodes: Iterable[Node], monitors: set[str], what: str, known: tuple[str, ...]
) -> tuple[OverloadAction, ...]:
    actions: dict[str, OverloadAction] = {}
    for node in nodes:
        name = node.get("name")
        if name not in known:
            node.refuse(f"{name!r} is no {what} of Mizzen", "name", f"known are {', '.join(known)}")
        elif name in actions:
            node.refuse(f"another {what} is called {name!r} too", "name", "put the triggers of both into one")
        timers: tuple[ScaledTimer, ...] = ()
        if name == _REDUCE_TIMEOUTS:
            timers = _parse_timers(node)
        actions[name] = OverloadAction(name, _parse_triggers(node, monitors), timers)
    return tuple(actions.values())


def _parse_triggers(node: Node, monitors: set[str]) -> tuple[Trigger, ...]:
    triggers: dict[str, Trigger] = {}
    for each in node.children("triggers"):
        name = each.get("name")
        if name not in monitors:
            each.refuse(f"there is no resource monitor called {name!r}", "name", "add one to resource_monitors")
        elif name in triggers:
            each.refuse(f"another trigger here is of {name!r} too", "name", "keep one of them")
        threshold, scaled = each.child("threshold"), each.child("scaled")
        if threshold is not None:
            low = high = threshold.get("value")
        elif scaled is not None:
            low, high = scaled.get("scaling_threshold"), scaled.get("saturation_threshold")
            if low >= high:
                scaled.refuse("must be less than saturation_threshold", "scaling_threshold")
        else:
            continue
        triggers[name] = Trigger(name, low, high)
    return tuple(triggers.values())


def _parse_timers(node: Node) -> tuple[ScaledTimer, ...]:
    if not node.has("typed_config"):
        node.refuse(
            "is required by this action", "typed_config", "say with a ScaleTimersOverloadActionConfig which timers"
        )
        return ()
    config = node.any("typed_config", ("envoy.config.overload.v3.ScaleTimersOverloadActionConfig",))
    timers: dict[str, ScaledTimer] = {}
    for each in () if config is None else config.children("timer_scale_factors"):
        timer = each.enum("timer")
        if timer in timers:
            each.refuse(f"{timer} is here twice", "timer", "keep one of them")
        elif timer not in _TIMERS:
            each.refuse(f"{timer} is not implemented by Mizzen", "timer", f"known are {', '.join(_TIMERS)}")
        timers[timer] = ScaledTimer(timer, each.duration("min_timeout"), each.percent("min_scale", 0.0) / 100)
    return tuple(timers.values())
