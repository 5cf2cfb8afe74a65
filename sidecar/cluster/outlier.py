"""Outlier detection: hosts that fail several times in a row, or more than others, leave the balancing for a while.

Source: Envoy's documentation, "Outlier detection", and `envoy.config.cluster.v3.OutlierDetection`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import floor, inf
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.cluster.host import FAILED_ACTIVE_HC, FAILED_OUTLIER_CHECK, Host
from sidecar.cluster.outlier_rates import UNKNOWN, ClusterRates, HostMonitor
from sidecar.config.outlier_detection import OutlierDetection
from sidecar.core.timer_wheel import Timed, TimerWheel
from sidecar.core.upstream import OVERFLOW

if TYPE_CHECKING:
    from sidecar.cluster.outlier_events import OutlierEventLog

_GATEWAY_ERROR = 503


class Criterion(NamedTuple):
    """By what a host is judged: the event's type, the words in statistics, and how many in a hundred are ejected.

    `in_total` criteria count in the deprecated `ejections_total`, too.
    """

    type: str
    words: str
    enforcing: Callable[[OutlierDetection], int]
    in_total: bool = False


_5XX = Criterion("CONSECUTIVE_5XX", "consecutive_5xx", lambda config: config.enforcing_consecutive_5xx, True)
_GATEWAY = Criterion(
    "CONSECUTIVE_GATEWAY_FAILURE",
    "consecutive_gateway_failure",
    lambda config: config.enforcing_consecutive_gateway_failure,
)
_LOCAL_ORIGIN = Criterion(
    "CONSECUTIVE_LOCAL_ORIGIN_FAILURE",
    "consecutive_local_origin_failure",
    lambda config: config.enforcing_consecutive_local_origin_failure,
)
_SUCCESS_RATE = (
    Criterion("SUCCESS_RATE", "success_rate", lambda config: config.enforcing_success_rate, True),
    Criterion(
        "SUCCESS_RATE_LOCAL_ORIGIN",
        "local_origin_success_rate",
        lambda config: config.enforcing_local_origin_success_rate,
    ),
)
_FAILURE_PERCENTAGE = (
    Criterion("FAILURE_PERCENTAGE", "failure_percentage", lambda config: config.enforcing_failure_percentage),
    Criterion(
        "FAILURE_PERCENTAGE_LOCAL_ORIGIN",
        "local_origin_failure_percentage",
        lambda config: config.enforcing_failure_percentage_local_origin,
    ),
)
"""Of what hosts answer, and of what happens on the way to them."""


class OutlierDetector(Timed):
    """Counts failures and ejects. The hot path calls `on_status` only where it can matter.

    `stats` are those below `cluster.<name>.outlier_detection.`, `hosts` gives the cluster's hosts, and `changed` is called
    when hosts were ejected or came back; `on_ejected` hears of each that is ejected. `rates` and `local_origin_rates` are
    those of the last interval. The sweep runs
    only while a host is ejected or remembered for an earlier ejection, or where there are hosts enough to compare them; it
    runs on the ticks on which it would run if it ran always.
    """

    __slots__ = (
        "config", "local_origin_rates", "on_ejected", "rates", "stats",
        "_active", "_changed", "_cluster", "_events", "_hosts", "_marked", "_random", "_started", "_wheel",
    )  # fmt: skip

    def __init__(
        self,
        config: OutlierDetection,
        stats: Any,
        hosts: Callable[[], Sequence[Host]],
        changed: Callable[[], None],
        wheel: TimerWheel,
        random: Random,
        cluster: str = "",
        events: OutlierEventLog | None = None,
    ) -> None:
        self.due = inf
        self.config = config
        self.stats = stats
        self.on_ejected: Callable[[Host], None] | None = None
        self.rates = ClusterRates()
        self.local_origin_rates = ClusterRates()
        self._hosts = hosts
        self._changed = changed
        self._wheel = wheel
        self._random = random
        self._cluster = cluster
        self._events = events
        self._started = wheel.clock()
        self._marked: dict[Host, None] = {}
        self._active = 0

    # what is reported

    def on_status(self, host: Host, status: int, counted: bool = True) -> None:
        """The host answered. Call it for every status of 500 or more, and for others while
        `host.consecutive_5xx or host.consecutive_gateway`, or if they are not `counted` in `host.rq_success`.
        """
        self._take(host, status, counted)

    def _take(self, host: Host, status: int, counted: bool) -> None:
        monitor = host.monitor
        if status < 500:
            host.consecutive_5xx = host.consecutive_gateway = 0
            if not counted and monitor is not None:
                monitor.uncounted += 1
            return
        if monitor is not None:
            monitor.failures += 1
        if 502 <= status <= 504:
            host.consecutive_gateway += 1
            if host.consecutive_gateway == self.config.consecutive_gateway_failure and self._may_detect(host):
                self._detected(host, _GATEWAY)
                host.consecutive_gateway = 0
        else:
            host.consecutive_gateway = 0
        host.consecutive_5xx += 1
        if host.consecutive_5xx == self.config.consecutive_5xx and self._may_detect(host):
            self._detected(host, _5XX)
            self.stats.ejections_consecutive_5xx += 1
            host.consecutive_5xx = 0

    def on_local_origin_failure(self, host: Host, reason: str, status: int = _GATEWAY_ERROR) -> None:
        """The host could not be reached, reset the stream, or did not answer in time; `reason` as in `core.upstream`.

        Unless local-origin errors are split off, that counts as the `status`. An overflow is no fault of the host's.
        """
        if reason == OVERFLOW:
            return
        if not self.config.split_external_local_origin_errors:
            self._take(host, status, False)
            return
        monitor = host.monitor
        if monitor is not None:
            monitor.local_origin_failures += 1
            if monitor.requests_at_failure != host.rq_total:  # since the last failure it could be reached
                monitor.requests_at_failure = host.rq_total
                host.consecutive_local_origin = 0
        host.consecutive_local_origin += 1
        if host.consecutive_local_origin == self.config.consecutive_local_origin_failure and self._may_detect(host):
            self._detected(host, _LOCAL_ORIGIN)
            host.consecutive_local_origin = 0

    def on_success(self, host: Host, final: bool = False) -> None:
        """A connection was made. `final`: nothing above it will report (a TCP session), so that it counts as a 200 too.

        Needed only while `host.consecutive_local_origin`, or for `final`.
        """
        if self.config.split_external_local_origin_errors:
            host.consecutive_local_origin = 0
        elif final:
            self._take(host, 200, False)

    def kept_success(self, host: Host) -> None:
        """What was a success when its head came has left `host.rq_success`; here it stays one."""
        if host.monitor is not None:
            host.monitor.uncounted += 1

    def host_became_healthy(self, host: Host) -> None:
        """An active check of the host has succeeded: it comes back if it is ejected, unless that is switched off.

        To be called after each good check, once the host's flags are those that follow from it.
        """
        if not self.config.successful_active_health_check_uneject_host or host.flags & FAILED_ACTIVE_HC:
            return
        if host.flags & FAILED_OUTLIER_CHECK:
            self._uneject(host, self._wheel.clock())
            self._changed()

    # membership and time

    def watch(self, hosts: Iterable[Host]) -> None:
        """Hosts have joined the cluster."""
        for host in hosts:
            host.monitor = HostMonitor(host)
        if self.due == inf and self._comparable(len(self._hosts())):
            for host in self._hosts():
                if host.monitor is not None:
                    host.monitor.begin(host)
            self._arm(self._wheel.clock())

    def forget(self, host: Host) -> None:
        """The host has left the cluster."""
        self._marked.pop(host, None)
        if host.flags & FAILED_OUTLIER_CHECK:
            self._count_active(-1)

    def close(self) -> None:
        """Stop sweeping."""
        self._wheel.cancel(self)

    def on_timer(self, now: float) -> None:
        """The sweep: bring back hosts whose time is over, forgive the others one ejection, and compare success rates."""
        came_back = False
        for host in list(self._marked):
            if not host.flags & FAILED_OUTLIER_CHECK:
                host.ejections -= 1
                if host.ejections <= 0:
                    del self._marked[host]
            elif now >= host.ejected_until:
                self._uneject(host, now)
                came_back = True
        hosts = self._hosts()
        comparable = self._comparable(len(hosts))
        if comparable:
            self._compare(hosts)
        elif self.rates.average != UNKNOWN or self.local_origin_rates.average != UNKNOWN:
            self._forget_rates(hosts)
        if self.due == inf and (self._marked or comparable):
            self._arm(now)
        if came_back:
            self._changed()

    def _arm(self, now: float) -> None:
        interval = self.config.interval
        ticks = floor((now - self._started) / interval) + 1
        self._wheel.arm(self, self._started + ticks * interval)

    # success rates

    def _comparable(self, hosts: int) -> bool:
        config = self.config
        return hosts > 0 and hosts >= min(config.success_rate_minimum_hosts, config.failure_percentage_minimum_hosts)

    def _forget_rates(self, hosts: Sequence[Host]) -> None:
        self.rates.forget()
        self.local_origin_rates.forget()
        for host in hosts:
            if host.monitor is not None:
                host.monitor.success_rate = host.monitor.local_origin_success_rate = UNKNOWN

    def _compare(self, hosts: Sequence[Host]) -> None:
        self._forget_rates(hosts)
        monitored = [(host, host.monitor) for host in hosts if host.monitor is not None]
        counts = [(host, monitor.counted(host, False)) for host, monitor in monitored]
        local_counts = [(host, monitor.counted(host, True)) for host, monitor in monitored]
        for host, monitor in monitored:
            monitor.begin(host)
        self._judge(counts, False)
        if self.config.split_external_local_origin_errors:
            self._judge(local_counts, True)

    def _judge(self, counts: list[tuple[Host, tuple[int, int]]], local_origin: bool) -> None:
        """Eject by what was counted in the interval: (successes, all) of each host."""
        config = self.config
        volume, failure_volume = config.success_rate_request_volume, config.failure_percentage_request_volume
        compared: list[tuple[Host, float]] = []
        measured: list[tuple[Host, float]] = []
        for host, (successes, total) in counts:
            if not total or host.flags & FAILED_OUTLIER_CHECK:
                continue
            rate = 100.0 * successes / total
            if total >= min(volume, failure_volume):
                assert host.monitor is not None
                if local_origin:
                    host.monitor.local_origin_success_rate = rate
                else:
                    host.monitor.success_rate = rate
            if total >= volume:
                compared.append((host, rate))
            if total >= failure_volume:
                measured.append((host, rate))
        if compared and len(compared) >= config.success_rate_minimum_hosts:
            rates = self.local_origin_rates if local_origin else self.rates
            rates.measure([rate for _, rate in compared], config.success_rate_stdev_factor)
            for host, rate in compared:
                if rate < rates.ejection_threshold:
                    self.stats.ejections_success_rate += 1
                    self._detected(host, _SUCCESS_RATE[local_origin])
        if measured and len(measured) >= config.failure_percentage_minimum_hosts:
            for host, rate in measured:
                if 100.0 - rate >= config.failure_percentage_threshold:
                    self._detected(host, _FAILURE_PERCENTAGE[local_origin])

    # ejection

    def _may_detect(self, host: Host) -> bool:
        return not host.removed and not host.flags & FAILED_OUTLIER_CHECK

    def _detected(self, host: Host, criterion: Criterion) -> None:
        """Eject if the limit and the dice (percent) allow it, and a host that the sweep has ejected is not ejected again."""
        config, stats = self.config, self.stats
        self._count(f"ejections_detected_{criterion.words}")
        if host.flags & FAILED_OUTLIER_CHECK:
            return
        percent = 100.0 * (self._active + 1) / max(1, len(self._hosts()))
        allowed = percent <= min(100, config.max_ejection_percent)
        if not allowed and not (config.always_eject_one_host and not self._active):
            stats.ejections_overflow += 1
            return
        if criterion.in_total:
            stats.ejections_total += 1
        enforced = self._random.random() * 100 < criterion.enforcing(config)
        if enforced:
            self._eject(host)
            stats.ejections_enforced_total += 1
            self._count(f"ejections_enforced_{criterion.words}")
        if self._events is not None and host.monitor is not None:
            rates = self.local_origin_rates if criterion.type.endswith("LOCAL_ORIGIN") else self.rates
            self._events.ejected(self._cluster, host, host.monitor, criterion.type, enforced, rates)

    def _eject(self, host: Host) -> None:
        config = self.config
        now = self._wheel.clock()
        base, longest = config.base_ejection_time, config.max_ejection_time
        if host.ejections * base < longest + base:
            host.ejections += 1
        jitter = self._random.random() * config.max_ejection_time_jitter
        host.ejection_time = now
        host.ejected_until = now + min(host.ejections * base, longest) + jitter
        host.set_flag(FAILED_OUTLIER_CHECK, True)
        if host.monitor is not None:
            host.monitor.ejections += 1
        self._count_active(1)
        self._marked[host] = None
        if self.due == inf:
            self._arm(now)
        if host.pool is not None:
            host.pool.drain_connections()
        if self.on_ejected is not None:
            self.on_ejected(host)
        self._changed()

    def _uneject(self, host: Host, now: float) -> None:
        self._count_active(-1)
        host.ejected_until = 0.0
        host.unejected_at = now
        host.consecutive_5xx = host.consecutive_gateway = host.consecutive_local_origin = 0
        host.set_flag(FAILED_OUTLIER_CHECK, False)
        if self._events is not None and host.monitor is not None:
            self._events.unejected(self._cluster, host, host.monitor)

    def _count_active(self, change: int) -> None:
        self._active += change
        self.stats.ejections_active += change

    def _count(self, statistic: str) -> None:
        setattr(self.stats, statistic, getattr(self.stats, statistic) + 1)

    def __repr__(self) -> str:
        return f"<OutlierDetector {self._active} of {len(self._hosts())} ejected>"
