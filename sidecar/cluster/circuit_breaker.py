"""Circuit breakers: how much of each resource a cluster may hold at one routing priority, and how much it holds."""

from __future__ import annotations

from typing import Any, Protocol

from sidecar.config.circuit_breakers import UNLIMITED

_ALWAYS_REPEATED = 16


class RetryBudget(Protocol):
    """`budget_percent` of the active requests may be retries, but `min_retry_concurrency` always may."""

    @property
    def budget_percent(self) -> float: ...
    @property
    def min_retry_concurrency(self) -> int: ...


class CircuitBreaker:
    """Limits and live counts. Pools and the router do it in place: `breaker.rq_active >= breaker.max_requests`.

    A breaker is open while a count has reached its limit; nothing is stored for that, the gauges derive it. `counters`
    are the cluster's statistics, once there was use of the priority: they tell whether a limit was ever approached.
    `rq_active` has those that wait for a connection too. Connections are counted at the priority of the request that they
    were made for, and serve both. `max_connections_per_host` is a limit of each host (`per_host_thresholds`).
    Source: `envoy.config.cluster.v3.CircuitBreakers.Thresholds`, whose defaults these are.
    """

    __slots__ = (
        "max_connections",
        "max_pending_requests",
        "max_requests",
        "max_retries",
        "max_connection_pools",
        "max_connections_per_host",
        "limits_retries",
        "retry_budget",
        "track_remaining",
        "cx_active",
        "cx_pools",
        "rq_pending",
        "rq_active",
        "retries_active",
        "counters",
    )

    def __init__(
        self,
        max_connections: int = 1024,
        max_pending_requests: int = 1024,
        max_requests: int = 1024,
        max_retries: int = 3,
        retry_budget: RetryBudget | None = None,
        track_remaining: bool = False,
        max_connection_pools: int = UNLIMITED,
        max_connections_per_host: int = UNLIMITED,
        limits_retries: bool = False,
    ) -> None:
        self.max_connections = max_connections
        self.max_pending_requests = max_pending_requests
        self.max_requests = max_requests
        self.max_retries = max_retries
        self.max_connection_pools = max_connection_pools
        self.max_connections_per_host = max_connections_per_host
        self.limits_retries = limits_retries
        self.retry_budget = retry_budget
        self.track_remaining = track_remaining
        self.cx_active = 0
        self.cx_pools = 0
        self.rq_pending = 0
        self.rq_active = 0
        self.retries_active = 0
        self.counters: Any = None

    @property
    def retries_limit(self) -> int:
        """How many retries may be under way now: `max_retries`, or what the retry budget allows at this load."""
        budget = self.retry_budget
        if budget is None:
            return self.max_retries
        share = int(budget.budget_percent / 100.0 * self.rq_active)
        return max(share, budget.min_retry_concurrency)

    def may_retry(self) -> bool:
        """Whether one more retry may start; the caller then counts it in `retries_active`."""
        return self.retries_active < self.retries_limit

    def may_repeat(self) -> bool:
        """Whether one more request may be repeated that no host has processed, and that nobody said anything about.

        Where the configuration limits retries, that is said for these, too. Else there may be as many as other requests are under
        way, and always a few: whoever has no host left does not make more of them than that.
        """
        if self.limits_retries:
            return self.may_retry()
        return self.retries_active < max(_ALWAYS_REPEATED, self.rq_active)

    @property
    def cx_open(self) -> bool:
        """No further connection may be made."""
        return self.cx_active >= self.max_connections

    @property
    def cx_pool_open(self) -> bool:
        """No further connection pool may be made."""
        return self.cx_pools >= self.max_connection_pools

    @property
    def rq_pending_open(self) -> bool:
        """No further request may wait for a connection."""
        return self.rq_pending >= self.max_pending_requests

    @property
    def rq_open(self) -> bool:
        """No further request may start."""
        return self.rq_active >= self.max_requests

    @property
    def rq_retry_open(self) -> bool:
        """No further retry may start."""
        return not self.may_retry()

    @property
    def remaining_cx(self) -> int:
        """Connections that may still be made, 0 unless `track_remaining`."""
        return max(0, self.max_connections - self.cx_active) if self.track_remaining else 0

    @property
    def remaining_cx_pools(self) -> int:
        """Connection pools that may still be made, 0 unless `track_remaining`."""
        return max(0, self.max_connection_pools - self.cx_pools) if self.track_remaining else 0

    @property
    def remaining_pending(self) -> int:
        """Requests that may still wait, 0 unless `track_remaining`."""
        return max(0, self.max_pending_requests - self.rq_pending) if self.track_remaining else 0

    @property
    def remaining_rq(self) -> int:
        """Requests that may still start, 0 unless `track_remaining`."""
        return max(0, self.max_requests - max(0, self.rq_active - self.rq_pending)) if self.track_remaining else 0

    @property
    def remaining_retries(self) -> int:
        """Retries that may still start, 0 unless `track_remaining`, and with a retry budget, as in Envoy."""
        if not self.track_remaining or self.retry_budget is not None:
            return 0
        return max(0, self.max_retries - self.retries_active)

    def __repr__(self) -> str:
        return (
            f"<CircuitBreaker connections {self.cx_active}/{self.max_connections}"
            f" pending {self.rq_pending}/{self.max_pending_requests} requests {self.rq_active}/{self.max_requests}"
            f" retries {self.retries_active}/{self.retries_limit}>"
        )
