"""The health check filter: answers health checks of this proxy, or lets the upstream answer and remembers.

Source: Envoy's ``extensions.filters.http.health_check.v3.HealthCheck`` and "Health checking" (HTTP health checking
filter).
"""

from __future__ import annotations

from typing import Protocol

from sidecar.config.filters.health_check import HealthCheck
from sidecar.core import response_flags as flag
from sidecar.core.http_filter import FilterStream
from sidecar.core.matching import compile_headers
from sidecar.filters.context import FilterContext, NamedFilter


class HealthCheckStats(Protocol):
    """What the filter counts, of the health checks that it answers itself."""

    cached_response: int
    degraded: int
    failed: int
    failed_cluster_empty: int
    failed_cluster_not_found: int
    failed_cluster_unhealthy: int
    ok: int
    request_total: int


class HealthCheckFilter(NamedFilter):
    """All modes: answering, passing through, and passing through with a cache."""

    __slots__ = ("_cached", "_config", "_context", "_matches", "_node_cluster", "_start", "stats")

    def __init__(self, name: str, config: HealthCheck, context: FilterContext) -> None:
        NamedFilter.__init__(self, name)
        self.stats: HealthCheckStats = context.stats("health_check")
        self._config = config
        self._context = context
        self._matches = compile_headers(config.headers)
        self._node_cluster = context.node_cluster.encode()
        self._start = context.worker.clock()
        self._cached: tuple[int, int, bool] | None = None  # the period it belongs to, the status, degraded

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Answer a health check that is not for the upstream."""
        if self._matches is not None and not self._matches(stream.request):
            return None
        stream.data[self] = True
        if self._context.health_check_failed():
            return self._answer(stream, 503, "health_check_failed")
        cached = self._cached
        if cached is not None and cached[0] == self._period(stream.now):
            self.stats.cached_response += 1
            return self._answer(stream, cached[1], "health_check_cached", cached[2])
        if self._config.pass_through_mode:
            return None
        details = self._judge_clusters()
        return self._answer(stream, 503 if details.startswith("health_check_failed") else 200, details)

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Mark the response to a health check, and every response of a proxy that is to be taken for failed."""
        response = stream.response
        if response is None:
            return None
        if stream.data.get(self):
            if self._config.cache_time is not None:
                degraded = b"x-envoy-degraded" in response.index
                self._cached = (self._period(stream.now), response.status, degraded)
            response.set(b"x-envoy-upstream-healthchecked-cluster", self._node_cluster)
        if self._context.health_check_failed():
            response.set(b"x-envoy-immediate-health-check-fail", b"true")
        return None

    def _period(self, now: float) -> int:
        """Envoy forgets the cached answer each ``cache_time``, whenever it came."""
        return int((now - self._start) / (self._config.cache_time or 1.0))

    def _judge_clusters(self) -> str:
        """What the clusters' health makes of this proxy's, as response code details."""
        details = "health_check_ok"
        for name, percentage in self._config.cluster_min_healthy_percentages.items():
            details = "health_check_ok_cluster_healthy"
            health = self._context.cluster_health(name)
            if health is None:
                self.stats.failed_cluster_not_found += 1
                return "health_check_failed_no_cluster_found"
            healthy, total = health
            minimum = int(percentage)
            if total == 0 and minimum > 0:
                self.stats.failed_cluster_empty += 1
                return "health_check_failed_cluster_empty"
            if 100 * healthy < total * minimum:
                self.stats.failed_cluster_unhealthy += 1
                return "health_check_failed_cluster_unhealthy"
        return details

    def _answer(self, stream: FilterStream, status: int, details: str, degraded: bool = False) -> bool:
        stats = self.stats
        stats.request_total += 1
        if degraded:
            stats.degraded += 1
        healthy = 200 <= status < 300
        if healthy:
            stats.ok += 1
        else:
            stats.failed += 1
        return stream.reply(
            status,
            details=details,
            flags=0 if healthy else flag.FAILED_LOCAL_HEALTH_CHECK,
            headers=[(b"x-envoy-degraded", b"")] if degraded else (),
        )
