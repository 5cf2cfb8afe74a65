"""The part of the composition root for dynamic forward proxies: caches of names, which filters and clusters share."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.dns import DnsResolver
from sidecar.cluster.dns_cache import DnsCache
from sidecar.cluster.dynamic_forward_proxy import DynamicForwardProxy
from sidecar.config.dns import DnsSettings
from sidecar.config.dns_cache import DnsCacheConfig
from sidecar.core.worker import Worker
from sidecar.telemetry.groups.dns_cache import DnsCacheBreakerStats, DnsCacheStats
from sidecar.telemetry.store import StatsStore
from sidecar.telemetry.tags import sanitized


class DnsCaches:
    """The caches of a worker, by their names."""

    def __init__(
        self,
        worker: Worker,
        store: StatsStore,
        resolver: Callable[[DnsSettings], DnsResolver],
        cluster_of: Callable[[str], Cluster | None],
    ) -> None:
        self._worker = worker
        self._store = store
        self._resolver = resolver
        self._cluster_of = cluster_of
        self._caches: dict[str, DnsCache] = {}

    def open(self, config: DnsCacheConfig) -> DnsCache:
        """The cache of this name, for one more. Raises ValueError if it has other settings."""
        found = self._caches.get(config.name)
        if found is None:
            prefix = f"dns_cache.{sanitized(config.name)}."
            found = self._caches[config.name] = DnsCache(
                config,
                self._store.shared(DnsCacheStats, prefix),
                self._store.shared(DnsCacheBreakerStats, f"{prefix}circuit_breakers."),
                self._resolver(config.dns),
                self._worker.wheel,
                self._worker.random_for(f"dns cache {config.name}"),
                self._closed,
            )
        elif found.config != config:
            raise ValueError(
                f"the DNS cache {config.name!r} is used with other settings: give it the same everywhere, or another name"
            )
        return found.open()

    def default_port(self, cluster: str) -> int | None:
        """443 where the cluster speaks TLS, else 80; None for clusters that do not find their hosts by requests."""
        found = self._cluster_of(cluster)
        discovery = None if found is None else found.discovery
        return discovery.default_port if isinstance(discovery, DynamicForwardProxy) else None

    def _closed(self, cache: DnsCache) -> None:
        self._caches.pop(cache.config.name, None)
        prefix = f"dns_cache.{sanitized(cache.config.name)}."
        self._store.discard(DnsCacheStats, prefix)
        self._store.discard(DnsCacheBreakerStats, f"{prefix}circuit_breakers.")

    def __repr__(self) -> str:
        return f"<DnsCaches {', '.join(self._caches)}>"
