"""The network filters `local_ratelimit` and `connection_limit`: how many connections may come, and how many may be."""

from __future__ import annotations

from typing import Protocol

from sidecar.config.core_types import TokenBucket as TokenBucketConfig
from sidecar.config.network_filters import ConnectionLimit as ConnectionLimitConfig
from sidecar.config.network_filters import LocalRateLimit as LocalRateLimitConfig
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.token_bucket import TokenBucket, make_token_bucket
from sidecar.core.worker import Worker

SharedBuckets = dict[tuple[str, TokenBucketConfig], TokenBucket]
"""By `share_key` and configuration, as Envoy has them: other configurations have other buckets."""


class RateLimitStats(Protocol):
    """`local_rate_limit.<stat_prefix>.`"""

    rate_limited: int


class ConnectionLimitStats(Protocol):
    """`connection_limit.<stat_prefix>.`"""

    limited_connections: int
    active_connections: int


class LocalRateLimit:
    """Takes a token for each connection; one that finds none is closed."""

    __slots__ = ("_bucket", "_clock", "config", "stats")

    def __init__(
        self, config: LocalRateLimitConfig, stats: RateLimitStats, worker: Worker, shared: SharedBuckets
    ) -> None:
        self.config = config
        self.stats = stats
        self._clock = worker.clock
        bucket = make_token_bucket(config.token_bucket, worker.clock())
        if config.share_key:
            bucket = shared.setdefault((config.share_key, config.token_bucket), bucket)
        self._bucket = bucket

    def on_new_connection(self, info: ConnectionInfo) -> float | None:
        if not self.config.runtime_enabled or self._bucket.take(self._clock()):
            return None
        self.stats.rate_limited += 1
        return 0.0

    def on_close(self, info: ConnectionInfo) -> None:
        """Nothing is kept."""

    def __repr__(self) -> str:
        return f"<LocalRateLimit {self.config.stat_prefix} {self._bucket!r}>"


class ConnectionLimit:
    """Counts the connections of its filter chain. Those above the limit are closed after the delay, which costs an
    attacker time; they are not counted while they wait.
    """

    __slots__ = ("active", "config", "stats")

    def __init__(self, config: ConnectionLimitConfig, stats: ConnectionLimitStats) -> None:
        self.config = config
        self.stats = stats
        self.active = 0

    def on_new_connection(self, info: ConnectionInfo) -> float | None:
        config = self.config
        if config.runtime_enabled and self.active >= config.max_connections:
            self.stats.limited_connections += 1
            return config.delay
        self.active += 1
        self.stats.active_connections += 1
        return None

    def on_close(self, info: ConnectionInfo) -> None:
        self.active -= 1
        self.stats.active_connections -= 1

    def __repr__(self) -> str:
        return f"<ConnectionLimit {self.config.stat_prefix}: {self.active} of {self.config.max_connections}>"
