"""The composition root's part for load: monitors over what the stages know, actions over what they offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from sidecar.config.overload_manager import (
    ACCEPT_QUEUE_WAIT,
    CPU_UTILIZATION,
    DOWNSTREAM_CONNECTIONS,
    EVENT_LOOP_LAG,
    FIXED_HEAP,
    INJECTED_RESOURCE,
    OverloadAction,
    OverloadManager,
    ResourceMonitor,
    ScaledTimer,
)
from sidecar.core.overload import Act
from sidecar.core.process_memory import anonymous_memory, memory_limit
from sidecar.core.worker import Worker
from sidecar.http.connection_manager import ConnectionManager
from sidecar.listener.connection_limits import ConnectionLimit
from sidecar.listener.listener import Listener
from sidecar.overload import actions, manager, monitors
from sidecar.overload.defaults import default_overload_manager, most_connections
from sidecar.telemetry.clockwork import Clockwork
from sidecar.telemetry.groups import overload as groups
from sidecar.telemetry.store import StatsStore

if TYPE_CHECKING:
    from sidecar.http.shedding import Shedding, Shrinking

_RUSH = 0.3  # seconds for which a rush of connections is no overload
_LASTING = ("trim_accept_queue", "reduce_timeouts", "reset_high_memory_stream", "shrink_heap")


class Overload:
    """The overload manager of one worker, as the bootstrap has it, or with the defaults of Mizzen."""

    def __init__(
        self,
        config: OverloadManager | None,
        worker: Worker,
        store: StatsStore,
        listeners: Sequence[Listener],
        limit: ConnectionLimit,
        clockwork: Clockwork,
    ) -> None:
        self.worker = worker
        self.store = store
        self.listeners = obeying(listeners)
        self.draining: list[Listener] = []
        self.limit = limit
        self.clockwork = clockwork
        self.resets = store.shared(groups.StreamResetStats, "envoy.overload_actions.reset_high_memory_stream.")
        if config is None:
            config = default_overload_manager(memory_limit() // worker.workers, most_connections(), anonymous_memory())
            by_runtime = limit.maximum
        else:
            by_runtime = float("inf")  # what the overload manager says goes before the runtime's key
        self.queue_wait = monitors.QueueWait(worker.clock, clockwork.mean_lag, self._queued, self._taken)
        self.least_tracked = config.least_tracked
        self.timers = {timer.timer: timer for action in config.actions for timer in action.timers}
        self._shedding: list[Shedding] | None = None
        self.rejecting = actions.Rejecting(lambda: self.listeners)
        self.refusing = actions.Refusing(self.serving)
        self.looks = max(2, round(_RUSH / config.refresh_interval))
        watched = [self._watched(one, by_runtime) for one in config.resource_monitors]
        acting = [self._action(one) for one in config.actions] + [self._point(one) for one in config.loadshed_points]
        delay = store.add(groups.OverloadStats(), "overload.").refresh_interval_delay
        self.manager = manager.OverloadManager(worker, config.refresh_interval, watched, acting, delay)

    def watch(self, listeners: Sequence[Listener], draining: Sequence[Listener]) -> None:
        """These are the listeners now, and those whose last connections are served: what the load asks for holds for them."""
        self.listeners[:] = obeying(listeners)
        self.draining[:] = obeying(draining)
        if self._shedding is not None:
            known = {one.manager: one for one in self._shedding}
            self._shedding[:] = [known.get(one) or self._shed(one) for one in self._managers()]
        for action in self.manager.actions:
            if action.scale:
                action.act(action.scale)

    def _managers(self) -> Iterator[ConnectionManager]:
        return managers_of((*self.listeners, *self.draining))

    def serving(self) -> list[Shedding]:
        """What connection managers can do about load, made when it is first asked of them."""
        if self._shedding is None:
            self._shedding = list(map(self._shed, self._managers()))
        return self._shedding

    def _shed(self, manager: ConnectionManager) -> Shedding:
        from sidecar.http.shedding import Shedding, Timers  # most never need it

        timers = Timers(
            _shrinking(self.timers.get("HTTP_DOWNSTREAM_CONNECTION_IDLE")),
            _shrinking(self.timers.get("HTTP_DOWNSTREAM_STREAM_IDLE")),
            _shrinking(self.timers.get("HTTP_DOWNSTREAM_CONNECTION_MAX")),
        )
        return Shedding(manager, self.least_tracked, timers)

    def _watched(self, one: ResourceMonitor, by_runtime: float) -> manager.Watched:
        prefix = f"overload.{one.name}."
        if one.kind == DOWNSTREAM_CONNECTIONS:
            self.limit.maximum = min(one.most, by_runtime)
            proactive = self.store.add(groups.ProactiveMonitorStats(), prefix)
            return manager.Watched(
                one.name, monitors.Share(self._connections(proactive), self.limit.maximum), proactive
            )
        return manager.Watched(one.name, self._monitor(one), self.store.add(groups.ResourceMonitorStats(), prefix))

    def _connections(self, stats: groups.ProactiveMonitorStats) -> Callable[[], float]:
        def count() -> float:
            stats.failed_updates = sum(each.stats.downstream_global_cx_overflow for each in self.listeners)
            return self.limit.active

        return count

    def _monitor(self, one: ResourceMonitor) -> monitors.Monitor:
        if one.kind == FIXED_HEAP:
            return monitors.Share(anonymous_memory, one.most)
        if one.kind == INJECTED_RESOURCE:
            return monitors.InjectedResource(one.filename)
        if one.kind == EVENT_LOOP_LAG:
            return monitors.Steadily(monitors.Share(self.clockwork.worst_lag, one.most), 2)
        if one.kind == ACCEPT_QUEUE_WAIT:
            return monitors.Steadily(monitors.Share(self.queue_wait.seconds, one.most), self.looks)
        assert one.kind == CPU_UTILIZATION, one
        return monitors.CpuUtilization()

    def _queued(self) -> int:
        return sum(listener.queued() for listener in self.listeners)

    def _taken(self) -> int:
        return sum(listener.taken for listener in self.listeners)

    def _action(self, config: OverloadAction) -> manager.Action:
        prefix = f"overload.{config.name}."
        stats = self.store.add(groups.OverloadActionStats(), prefix)
        name = config.name.rpartition(".")[2]
        return manager.Action(config.name, config.triggers, self._act(name, prefix), stats, name in _LASTING)

    def _act(self, name: str, prefix: str) -> Act:
        def accepting() -> Sequence[Listener]:
            return self.listeners

        if name == "shrink_heap":
            shrunk = self.store.add(groups.ShrinkHeapStats(), prefix)

            def count() -> None:
                shrunk.shrink_count += 1

            return actions.shrink_heap(self.worker.clock, count)
        if name == "reset_high_memory_stream":

            def count_resets(number: int) -> None:
                self.resets.count += number

            return actions.reset_high_memory_stream(self.serving, count_resets)
        if name == "reject_incoming_connections":
            return self.rejecting.asked_by(None)
        if name == "stop_accepting_requests":
            return self.refusing.asked_by(None)
        if name == "trim_accept_queue":
            return actions.trim_accept_queue(accepting, lambda: self.queue_wait.rate, lambda: self.queue_wait.lag)
        if name == "stop_accepting_connections":
            return actions.stop_accepting_connections(accepting)
        make = {
            "disable_http_keepalive": actions.disable_http_keepalive,
            "reduce_timeouts": actions.reduce_timeouts,
            "stop_reading": actions.stop_reading,
        }
        return make[name](self.serving)

    def _point(self, config: OverloadAction) -> manager.Action:
        stats = self.store.add(groups.LoadShedPointStats(), f"overload.{config.name}.")

        def shed() -> None:
            stats.shed_load_count += 1

        turned_away = self.rejecting if config.name.endswith("tcp_listener_accept") else self.refusing
        return manager.Action(config.name, config.triggers, turned_away.asked_by(shed), stats)


def obeying(listeners: Sequence[Listener]) -> list[Listener]:
    """Those that the overload manager has a say in."""
    return [one for one in listeners if not one.config.bypass_overload_manager]


def managers_of(listeners: Sequence[Listener]) -> Iterator[ConnectionManager]:
    """The HTTP connection managers of listeners."""
    for listener in listeners:
        for chain in listener.chains:
            terminal: object = getattr(chain.terminal, "inner", chain.terminal)  # behind TLS
            if isinstance(terminal, ConnectionManager):
                yield terminal


def _shrinking(timer: ScaledTimer | None) -> Shrinking:
    from sidecar.http.shedding import UNCHANGED, Shrinking

    return UNCHANGED if timer is None else Shrinking(timer.min_timeout, timer.min_scale)
