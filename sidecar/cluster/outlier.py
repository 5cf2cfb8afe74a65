"""Outlier detection: hosts that fail several times in a row leave the balancing for a while.

Source: Envoy's documentation, "Outlier detection", and `envoy.config.cluster.v3.OutlierDetection`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import floor, inf
from random import Random
from typing import Protocol

from sidecar.cluster.host import FAILED_OUTLIER_CHECK, Host
from sidecar.core.timer_wheel import Timed, TimerWheel
from sidecar.core.upstream import OVERFLOW

_GATEWAY_ERROR = 503


class OutlierConfig(Protocol):
    """What the detector reads of `OutlierDetection`; times in seconds, the rest percent and counts."""

    @property
    def consecutive_5xx(self) -> int: ...
    @property
    def consecutive_gateway_failure(self) -> int: ...
    @property
    def consecutive_local_origin_failure(self) -> int: ...
    @property
    def split_external_local_origin_errors(self) -> bool: ...
    @property
    def enforcing_consecutive_5xx(self) -> int: ...
    @property
    def enforcing_consecutive_gateway_failure(self) -> int: ...
    @property
    def enforcing_consecutive_local_origin_failure(self) -> int: ...
    @property
    def interval(self) -> float: ...
    @property
    def base_ejection_time(self) -> float: ...
    @property
    def max_ejection_time(self) -> float: ...
    @property
    def max_ejection_time_jitter(self) -> float: ...
    @property
    def max_ejection_percent(self) -> int: ...
    @property
    def always_eject_one_host(self) -> bool: ...


class OutlierStats(Protocol):
    """Statistics below `cluster.<name>.outlier_detection.`, under Envoy's names."""

    ejections_active: int
    ejections_total: int
    ejections_overflow: int
    ejections_consecutive_5xx: int
    ejections_enforced_total: int
    ejections_detected_consecutive_5xx: int
    ejections_enforced_consecutive_5xx: int
    ejections_detected_consecutive_gateway_failure: int
    ejections_enforced_consecutive_gateway_failure: int
    ejections_detected_consecutive_local_origin_failure: int
    ejections_enforced_consecutive_local_origin_failure: int


class OutlierDetector(Timed):
    """Counts failures in the hosts' own slots and ejects. The hot path calls `on_status` only where it can matter.

    `changed` is called when hosts were ejected or came back. The sweep runs only while a host is ejected or remembered
    for an earlier ejection, on the ticks on which it would run if it ran always.
    """

    __slots__ = ("config", "stats", "_hosts", "_changed", "_wheel", "_random", "_started", "_marked", "_active")

    def __init__(
        self,
        config: OutlierConfig,
        stats: OutlierStats,
        hosts: Callable[[], int],
        changed: Callable[[], None],
        wheel: TimerWheel,
        random: Random,
    ) -> None:
        self.due = inf
        self.config = config
        self.stats = stats
        self._hosts = hosts
        self._changed = changed
        self._wheel = wheel
        self._random = random
        self._started = wheel.clock()
        self._marked: dict[Host, None] = {}
        self._active = 0

    def on_status(self, host: Host, status: int) -> None:
        """The host answered. Call it for every status of 500 or more, and for others while
        `host.consecutive_5xx or host.consecutive_gateway`.
        """
        if status < 500:
            host.consecutive_5xx = host.consecutive_gateway = 0
            return
        config, stats = self.config, self.stats
        if 502 <= status <= 504:
            host.consecutive_gateway += 1
            if host.consecutive_gateway == config.consecutive_gateway_failure and self._may_detect(host):
                stats.ejections_detected_consecutive_gateway_failure += 1
                if self._eject(host, config.enforcing_consecutive_gateway_failure):
                    stats.ejections_enforced_consecutive_gateway_failure += 1
                host.consecutive_gateway = 0
        else:
            host.consecutive_gateway = 0
        host.consecutive_5xx += 1
        if host.consecutive_5xx == config.consecutive_5xx and self._may_detect(host):
            stats.ejections_detected_consecutive_5xx += 1
            if self._eject(host, config.enforcing_consecutive_5xx, counts_in_total=True):
                stats.ejections_enforced_consecutive_5xx += 1
            stats.ejections_consecutive_5xx += 1
            host.consecutive_5xx = 0

    def on_local_origin_failure(self, host: Host, reason: str) -> None:
        """The host could not be reached, reset the stream, or did not answer in time; `reason` as in `core.upstream`.

        Unless local-origin errors are split off, that counts as a gateway error. An overflow is no fault of the host's.
        """
        if reason == OVERFLOW:
            return
        if not self.config.split_external_local_origin_errors:
            self.on_status(host, _GATEWAY_ERROR)
            return
        host.consecutive_local_origin += 1
        if host.consecutive_local_origin == self.config.consecutive_local_origin_failure and self._may_detect(host):
            self.stats.ejections_detected_consecutive_local_origin_failure += 1
            if self._eject(host, self.config.enforcing_consecutive_local_origin_failure):
                self.stats.ejections_enforced_consecutive_local_origin_failure += 1
            host.consecutive_local_origin = 0

    def on_success(self, host: Host, final: bool = False) -> None:
        """A connection was made. `final`: nothing above it will report (a TCP session), so that it counts as a 200 too.

        Needed only while `host.consecutive_local_origin`, or for `final`, a consecutive counter is not 0.
        """
        if self.config.split_external_local_origin_errors:
            host.consecutive_local_origin = 0
        elif final:
            host.consecutive_5xx = host.consecutive_gateway = 0

    def forget(self, host: Host) -> None:
        """The host has left the cluster."""
        self._marked.pop(host, None)
        if host.flags & FAILED_OUTLIER_CHECK:
            self._count(-1)

    def close(self) -> None:
        """Stop sweeping."""
        self._wheel.cancel(self)

    def on_timer(self, now: float) -> None:
        """The sweep: bring back hosts whose time is over, and forgive the others one ejection."""
        came_back = False
        for host in list(self._marked):
            if not host.flags & FAILED_OUTLIER_CHECK:
                host.ejections -= 1
                if host.ejections <= 0:
                    del self._marked[host]
            elif now >= host.ejected_until:
                self._uneject(host, now)
                came_back = True
        if self._marked:
            self._arm(now)
        if came_back:
            self._changed()

    def _may_detect(self, host: Host) -> bool:
        return not host.removed and not host.flags & FAILED_OUTLIER_CHECK

    def _eject(self, host: Host, enforcing: int, counts_in_total: bool = False) -> bool:
        """Eject if the limit and the dice (percent) allow it."""
        config, stats = self.config, self.stats
        percent = 100.0 * (self._active + 1) / max(1, self._hosts())
        allowed = percent <= min(100, config.max_ejection_percent)
        if not allowed and not (config.always_eject_one_host and not self._active):
            stats.ejections_overflow += 1
            return False
        if counts_in_total:
            stats.ejections_total += 1
        if self._random.random() * 100 >= enforcing:
            return False
        now = self._wheel.clock()
        base, longest = config.base_ejection_time, config.max_ejection_time
        if host.ejections * base < longest + base:
            host.ejections += 1
        jitter = self._random.random() * config.max_ejection_time_jitter
        host.ejection_time = now
        host.ejected_until = now + min(host.ejections * base, longest) + jitter
        host.set_flag(FAILED_OUTLIER_CHECK, True)
        self._count(1)
        stats.ejections_enforced_total += 1
        self._marked[host] = None
        if self.due == inf:
            self._arm(now)
        if host.pool is not None:
            host.pool.drain_connections()
        self._changed()
        return True

    def _uneject(self, host: Host, now: float) -> None:
        self._count(-1)
        host.ejected_until = 0.0
        host.unejected_at = now
        host.consecutive_5xx = host.consecutive_gateway = host.consecutive_local_origin = 0
        host.set_flag(FAILED_OUTLIER_CHECK, False)

    def _count(self, change: int) -> None:
        self._active += change
        self.stats.ejections_active += change

    def _arm(self, now: float) -> None:
        interval = self.config.interval
        ticks = floor((now - self._started) / interval) + 1
        self._wheel.arm(self, self._started + ticks * interval)

    def __repr__(self) -> str:
        return f"<OutlierDetector {self._active} of {self._hosts()} ejected>"
