"""Active health checks of a cluster: a session for each host, the time between checks, and who hears of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Protocol

from sidecar.cluster.health_checks.results import CHANGE_PENDING, CHANGED, Outcome, Probe
from sidecar.cluster.health_checks.session import HealthCheckSession
from sidecar.cluster.host import FAILED_ACTIVE_HC, PENDING_ACTIVE_HC, Host
from sidecar.core.timer_wheel import Callback, TimerWheel

_AT_ONCE = 20
"""First checks that begin at one turn of the wheel, so that a cluster of thousands of hosts does not hold the loop."""

OnChecked = Callable[[Host, bool, bool], None]
"""Called after each check with the host, whether its health has changed by it, and whether it succeeded."""


class HealthCheckConfig(Protocol):
    """What the state machine reads of `HealthCheck`; times in seconds."""

    @property
    def timeout(self) -> float: ...
    @property
    def interval(self) -> float: ...
    @property
    def unhealthy_threshold(self) -> int: ...
    @property
    def healthy_threshold(self) -> int: ...
    @property
    def initial_jitter(self) -> float: ...
    @property
    def interval_jitter(self) -> float: ...
    @property
    def interval_jitter_percent(self) -> int: ...
    @property
    def no_traffic_interval(self) -> float: ...
    @property
    def no_traffic_healthy_interval(self) -> float: ...
    @property
    def unhealthy_interval(self) -> float: ...
    @property
    def unhealthy_edge_interval(self) -> float: ...
    @property
    def healthy_edge_interval(self) -> float: ...
    @property
    def min_interval(self) -> float: ...
    @property
    def max_interval(self) -> float: ...
    @property
    def always_log_failures(self) -> bool: ...
    @property
    def always_log_success(self) -> bool: ...


class HealthCheckStats(Protocol):
    """Statistics below `cluster.<name>.health_check.`, under Envoy's names."""

    attempt: int
    failure: int
    network_failure: int
    passive_failure: int
    success: int
    verify_cluster: int
    degraded: int
    healthy: int


class EventLog(Protocol):
    """Where changes of health are written down."""

    def add_healthy(self, host: Host, first_check: bool) -> None: ...

    def eject_unhealthy(self, host: Host, reason: str, status: int) -> None: ...

    def failure(self, host: Host, reason: str, first_check: bool, status: int) -> None: ...

    def success(self, host: Host) -> None: ...

    def degraded(self, host: Host, degraded: bool) -> None:
        """The host says that it is degraded, or no longer is."""
        ...


class HealthChecker:
    """``make_probe`` makes what asks a host, by whatever protocol; ``has_traffic`` is whether the cluster has ever had a
    connection. ``changed`` is called when the health of hosts has changed: once for all that change at a turn of the wheel.

    With ``exclude_new`` hosts are `PENDING_ACTIVE_HC` until they were checked, and left out of all counts.
    ``presume_healthy`` is for LOGICAL_DNS, whose host Envoy takes for healthy until a check has failed.
    """

    __slots__ = ("_changed", "_exclude_new", "_has_traffic", "_presume_healthy", "_random", "_refresh",
                 "_sessions", "_started", "_unchecked", "_when_checked", "config", "log", "make_probe", "on_checked",
                 "stats", "wheel")  # fmt: skip

    def __init__(
        self,
        config: HealthCheckConfig,
        stats: HealthCheckStats,
        log: EventLog,
        make_probe: Callable[[Outcome], Probe],
        has_traffic: Callable[[], bool],
        changed: Callable[[], None],
        wheel: TimerWheel,
        random: Random,
        exclude_new: bool = False,
        presume_healthy: bool = False,
    ) -> None:
        self.config = config
        self.stats = stats
        self.log = log
        self.make_probe = make_probe
        self.wheel = wheel
        self.on_checked: tuple[OnChecked, ...] = ()
        self._has_traffic = has_traffic
        self._changed = changed
        self._random = random
        self._exclude_new = exclude_new
        self._presume_healthy = presume_healthy
        self._sessions: dict[Host, HealthCheckSession] = {}
        self._unchecked: set[Host] = set()
        self._when_checked: Callable[[], None] | None = None
        self._refresh: Callback | None = None
        self._started = False

    def admit(self, hosts: Iterable[Host]) -> None:
        """Hosts that come are unhealthy until a check says otherwise, unless they are presumed to be healthy."""
        for host in hosts:
            if host.is_checked and not self._presume_healthy:
                host.set_flag(FAILED_ACTIVE_HC, True)
                if self._exclude_new:
                    host.set_flag(PENDING_ACTIVE_HC, True)

    def watch(self, hosts: Iterable[Host]) -> None:
        """Check these hosts from now on, or from ``start`` on."""
        new = [HealthCheckSession(self, host) for host in hosts if host.is_checked]
        for session in new:
            self._sessions[session.host] = session
            self._unchecked.add(session.host)
        if self._started:
            self._begin(new)

    def start(self) -> None:
        """Begin with the checks."""
        if not self._started:
            self._started = True
            self._begin(list(self._sessions.values()))

    def forget(self, host: Host) -> None:
        """The host has left."""
        session = self._sessions.pop(host, None)
        if session is not None:
            session.close()
            self._have_checked(host)

    def close(self) -> None:
        """Check nobody any more."""
        self._when_checked = None
        for host in list(self._sessions):
            self.forget(host)
        if self._refresh is not None:
            self.wheel.cancel(self._refresh)

    def when_checked(self, callback: Callable[[], None]) -> None:
        """Call back once every host that is here has been checked once, whatever came of it; now, if they have."""
        if self._unchecked:
            self._when_checked = callback
        else:
            callback()

    def fail_now(self, host: Host) -> None:
        """A response of the host asks to take it for failed."""
        session = self._sessions.get(host)
        if session is not None:
            session.fail_now()

    def interval(self, healthy: bool, change: int) -> float:
        """The time to the next check, after one that ended so."""
        config = self.config
        pending = change == CHANGE_PENDING
        if not self._has_traffic():
            quiet = healthy and not pending
            return self._jittered(config.no_traffic_healthy_interval if quiet else config.no_traffic_interval)
        if healthy:
            return self._jittered(config.healthy_edge_interval if pending else config.interval)
        return self._jittered(config.unhealthy_edge_interval if pending else config.unhealthy_interval)

    def checked(self, session: HealthCheckSession, change: int, healthy: bool, first: bool) -> None:
        """A session reports what came of a check."""
        host = session.host
        changed = change == CHANGED
        if changed and self._refresh is None:
            self._refresh = self.wheel.call_in(0.0, self._refresh_now)
        for callback in self.on_checked:
            callback(host, changed, healthy)
        if first:
            self._have_checked(host)

    def _begin(self, sessions: list[HealthCheckSession]) -> None:
        for at, session in enumerate(sessions):
            session.start(self._random.random() * self.config.initial_jitter + at // _AT_ONCE * self.wheel.resolution)

    def _jittered(self, base: float) -> float:
        config, random = self.config, self._random.random
        base += random() * base * config.interval_jitter_percent / 100 + random() * config.interval_jitter
        return max(min(base, config.max_interval), config.min_interval)

    def _have_checked(self, host: Host) -> None:
        self._unchecked.discard(host)
        callback = self._when_checked
        if callback is not None and not self._unchecked:
            self._when_checked = None
            callback()

    def _refresh_now(self) -> None:
        self._refresh = None
        self._changed()

    def __repr__(self) -> str:
        return f"<HealthChecker {self.stats.healthy} of {len(self._sessions)} healthy>"
