"""The checks of one host: when they happen, and what their outcomes make of the host's health.

Source: Envoy's "Health checking" and `core.v3.HealthCheck`: thresholds, the first check, degraded hosts.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from sidecar.cluster.health_checks.results import (
    CHANGE_PENDING,
    CHANGED,
    NETWORK,
    NETWORK_TIMEOUT,
    PASSIVE,
    UNCHANGED,
    Probe,
)
from sidecar.cluster.host import (
    ACTIVE_HC_TIMEOUT,
    DEGRADED_ACTIVE_HC,
    EXCLUDED_VIA_IMMEDIATE_HC_FAIL,
    FAILED_ACTIVE_HC,
    PENDING_ACTIVE_HC,
    Host,
)
from sidecar.core.timer_wheel import Timed

if TYPE_CHECKING:
    from sidecar.cluster.health_checks.checker import HealthChecker


class HealthCheckSession(Timed):
    """One host and its probe. The timer is for the next check, or, while one is under way, for its end.

    ``first`` is true until the host has had its first outcome, which counts without any threshold.
    """

    __slots__ = ("_checker", "_checking", "_failures", "_probe", "_successes", "first", "host")

    def __init__(self, checker: HealthChecker, host: Host) -> None:
        self.due = inf
        self.host = host
        self.first = True
        self._checker = checker
        self._checking = False
        self._successes = 0
        self._failures = 0
        self._probe: Probe | None = None
        checker.stats.healthy += not host.flags & FAILED_ACTIVE_HC

    def start(self, delay: float) -> None:
        """Check for the first time in ``delay`` seconds."""
        self._probe = self._checker.make_probe(self)
        self._arm(delay)

    def close(self) -> None:
        """Check no more."""
        checker, host = self._checker, self.host
        checker.wheel.cancel(self)
        checker.stats.healthy -= not host.flags & FAILED_ACTIVE_HC
        checker.stats.degraded -= bool(host.flags & DEGRADED_ACTIVE_HC)
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.close()

    def on_timer(self, now: float) -> None:
        probe = self._probe
        if probe is None:
            return
        if self._checking:
            probe.timed_out()
            self.failed(NETWORK_TIMEOUT)
        else:
            self._checking = True
            self._arm(self._checker.config.timeout)
            self._checker.stats.attempt += 1
            probe.start()

    def succeeded(self, degraded: bool = False) -> None:
        """The host answered as it should; ``degraded``: it says that others should be preferred."""
        checker, host = self._checker, self.host
        self._failures = 0
        change = UNCHANGED
        if host.flags & FAILED_ACTIVE_HC:
            self._successes += 1
            if self.first or self._successes == checker.config.healthy_threshold:
                host.set_flag(ACTIVE_HC_TIMEOUT | EXCLUDED_VIA_IMMEDIATE_HC_FAIL | FAILED_ACTIVE_HC, False)
                checker.stats.healthy += 1
                change = CHANGED
                checker.log.add_healthy(host, self.first)
            else:
                change = CHANGE_PENDING
        if change != CHANGED and checker.config.always_log_success:
            checker.log.success(host)
        change = self._no_longer_pending(change)
        if degraded != bool(host.flags & DEGRADED_ACTIVE_HC):
            host.set_flag(DEGRADED_ACTIVE_HC, degraded)
            checker.stats.degraded += 1 if degraded else -1
            checker.log.degraded(host, degraded)
            if change == UNCHANGED:
                change = CHANGED
        checker.stats.success += 1
        self._over(change, True)

    def failed(self, reason: str, retriable: bool = False, status: int = 0, exclude: bool = False) -> None:
        """The check failed; what for, `results` tells. ``exclude``: the host asks to be left out of all counts."""
        self._over(self._unhealthy(reason, retriable, status, exclude), False)

    def fail_now(self) -> None:
        """A response to somebody else's request asks to take the host for failed: at once, and until checks succeed."""
        if self._probe is not None:
            self._tell(self._unhealthy(PASSIVE, False, 0, True), False)

    def _unhealthy(self, reason: str, retriable: bool, status: int, exclude: bool) -> int:
        checker, host = self._checker, self.host
        self._successes = 0
        if exclude:
            host.set_flag(EXCLUDED_VIA_IMMEDIATE_HC_FAIL, True)
        change = UNCHANGED
        of_network = reason in (NETWORK, NETWORK_TIMEOUT)
        if not host.flags & FAILED_ACTIVE_HC:
            gradual = of_network or retriable
            self._failures += gradual
            if not gradual or self._failures == checker.config.unhealthy_threshold:
                host.set_flag(FAILED_ACTIVE_HC, True)
                checker.stats.healthy -= 1
                change = CHANGED
                checker.log.eject_unhealthy(host, reason, status)
            else:
                change = CHANGE_PENDING
        if reason == NETWORK_TIMEOUT and host.flags & FAILED_ACTIVE_HC:
            host.set_flag(ACTIVE_HC_TIMEOUT, True)
        change = self._no_longer_pending(change)
        if self.first or checker.config.always_log_failures:
            checker.log.failure(host, reason, self.first, status)
        checker.stats.failure += 1
        if of_network:
            checker.stats.network_failure += 1
        elif reason == PASSIVE:
            checker.stats.passive_failure += 1
        return change

    def _no_longer_pending(self, change: int) -> int:
        """A host that waited for its first check has had it: that changes which hosts count."""
        if not self.host.flags & PENDING_ACTIVE_HC:
            return change
        self.host.set_flag(PENDING_ACTIVE_HC, False)
        return CHANGED

    def _over(self, change: int, healthy: bool) -> None:
        """A check is over: when is the next?"""
        self._checking = False
        self._tell(change, healthy)
        if self._probe is not None:
            self._arm(self._checker.interval(healthy, change))

    def _tell(self, change: int, healthy: bool) -> None:
        first, self.first = self.first, False
        self._checker.checked(self, change, healthy, first)

    def _arm(self, delay: float) -> None:
        wheel = self._checker.wheel
        wheel.arm(self, wheel.clock() + delay)

    def __repr__(self) -> str:
        return f"<HealthCheckSession {self.host!r}{', checking' if self._checking else ''}>"
