"""The network filters in front of a terminal, made from their configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.config.network_filters import ConnectionLimit as ConnectionLimitConfig
from sidecar.config.network_filters import LocalRateLimit as LocalRateLimitConfig
from sidecar.config.network_filters import NetworkFilter, NetworkRbac, SniCluster
from sidecar.core.worker import Worker
from sidecar.network.limits import ConnectionLimit, ConnectionLimitStats, LocalRateLimit, RateLimitStats
from sidecar.network.rbac import Rbac, RbacStats


@dataclass(frozen=True, slots=True)
class NetworkFilterStats:
    """Where to get what the filters count, by their `stat_prefix`; asked only for filters that there are."""

    rbac: Callable[[str], RbacStats]
    local_ratelimit: Callable[[str], RateLimitStats]
    connection_limit: Callable[[str], ConnectionLimitStats]


def build_network_filters(
    configs: Sequence[NetworkFilter], worker: Worker, stats: NetworkFilterStats
) -> tuple[Rbac | LocalRateLimit | ConnectionLimit, ...]:
    """The filters of a chain that decide on connections, in order. `sni_cluster` is none of them: see `by_sni`."""
    built: list[Rbac | LocalRateLimit | ConnectionLimit] = []
    for config in configs:
        own = config.typed_config
        if isinstance(own, NetworkRbac):
            built.append(Rbac(own, stats.rbac(own.stat_prefix)))
        elif isinstance(own, LocalRateLimitConfig):
            built.append(LocalRateLimit(own, stats.local_ratelimit(own.stat_prefix), worker))
        elif isinstance(own, ConnectionLimitConfig):
            built.append(ConnectionLimit(own, stats.connection_limit(own.stat_prefix)))
    return tuple(built)


def by_sni(configs: Sequence[NetworkFilter]) -> bool:
    """Whether the TLS server name is the cluster of the TCP proxy at the end of the chain (`sni_cluster`)."""
    return any(isinstance(config.typed_config, SniCluster) for config in configs)
