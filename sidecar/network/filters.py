"""The network filters in front of a terminal, made from their configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sidecar.config.network_ext_authz import NetworkExtAuthz
from sidecar.config.network_filters import ConnectionLimit as ConnectionLimitConfig
from sidecar.config.network_filters import LocalRateLimit as LocalRateLimitConfig
from sidecar.config.network_filters import NetworkFilter, NetworkRbac, SniCluster
from sidecar.config.network_rate_limit import NetworkRateLimit
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker
from sidecar.network.limits import ConnectionLimit, ConnectionLimitStats, LocalRateLimit, RateLimitStats, SharedBuckets

if TYPE_CHECKING:
    from sidecar.network.rbac import RbacShadowStats, RbacStats


@dataclass(frozen=True, slots=True)
class NetworkFilterStats:
    """Where to get what the filters count, by their `stat_prefix`; asked only for filters that there are.

    ``shared_buckets`` are those of rate limits with a `share_key`.
    """

    rbac: Callable[[str], RbacStats]
    rbac_shadow: Callable[[str, str], RbacShadowStats]
    local_ratelimit: Callable[[str], RateLimitStats]
    connection_limit: Callable[[str], ConnectionLimitStats]
    shared_buckets: SharedBuckets = field(default_factory=dict)


class ConnectionFilter(Protocol):
    """What the listener asks."""

    def on_new_connection(self, info: ConnectionInfo) -> float | None: ...

    def on_close(self, info: ConnectionInfo) -> None: ...


def build_network_filters(
    configs: Sequence[NetworkFilter],
    worker: Worker,
    stats: NetworkFilterStats,
    make_rate_limit: Callable[[NetworkRateLimit], ConnectionFilter] | None = None,
    make_ext_authz: Callable[[NetworkExtAuthz], ConnectionFilter] | None = None,
) -> tuple[ConnectionFilter, ...]:
    """The filters of a chain that decide on connections, in order. `sni_cluster` is none of them: see `by_sni`.

    ``make_rate_limit`` and ``make_ext_authz`` make those that ask a service.
    """
    built: list[ConnectionFilter] = []
    for config in configs:
        own = config.typed_config
        if isinstance(own, NetworkRbac):
            from sidecar.network.rbac import Rbac

            shadow_stats = stats.rbac_shadow(own.stat_prefix, own.shadow_rules_stat_prefix)
            built.append(Rbac(own, stats.rbac(own.stat_prefix), shadow_stats, worker))
        elif isinstance(own, LocalRateLimitConfig):
            built.append(LocalRateLimit(own, stats.local_ratelimit(own.stat_prefix), worker, stats.shared_buckets))
        elif isinstance(own, ConnectionLimitConfig):
            built.append(ConnectionLimit(own, stats.connection_limit(own.stat_prefix)))
        elif isinstance(own, NetworkRateLimit) and make_rate_limit is not None:
            built.append(make_rate_limit(own))
        elif isinstance(own, NetworkExtAuthz) and make_ext_authz is not None:
            built.append(make_ext_authz(own))
    return tuple(built)


def by_sni(configs: Sequence[NetworkFilter]) -> bool:
    """Whether the TLS server name is the cluster of the TCP proxy at the end of the chain (`sni_cluster`)."""
    return any(isinstance(config.typed_config, SniCluster) for config in configs)
