"""Statistics of the caches of names that dynamic forward proxies have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ..stats import Counter, Gauge, StatGroup, stat_group


@stat_group
class DnsCacheStats(StatGroup):
    """`dns_cache.<name>.`."""

    cache_load: Counter
    dns_address_filter_out: Counter
    dns_query_attempt: Counter
    dns_query_failure: Counter
    dns_query_success: Counter
    dns_query_timeout: Counter
    dns_rq_pending_overflow: Counter
    host_added: Counter
    host_address_changed: Counter
    host_overflow: Counter
    host_removed: Counter
    num_hosts: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"num_hosts": ("host_added",)}


@stat_group
class DnsCacheBreakerStats(StatGroup):
    """`dns_cache.<name>.circuit_breakers.`: how many more requests may wait for an answer, and whether none may."""

    rq_pending_open: Gauge
    rq_pending_remaining: Gauge

    USED_WITH: ClassVar[Mapping[str, tuple[str, ...]]] = {"rq_pending_remaining": ()}
