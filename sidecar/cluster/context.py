"""What a load balancer looks at in the request (or TCP session) that it picks a host for, and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sidecar.cluster.host import Host
from sidecar.core.head import RequestHead
from sidecar.core.override_host import OverrideHost
from sidecar.core.stream_info import ConnectionInfo

SubsetKey = tuple[tuple[str, str], ...]
"""Metadata to match, sorted by key, each value in the canonical form of `core.matching.canonical`."""


class Tried(Protocol):
    """Hosts to avoid: a tuple of hosts, or anything else that is falsy when empty and answers `host in tried`."""

    def __contains__(self, host: object, /) -> bool: ...


class LoadBalancerContext(Protocol):
    """The stream as `Cluster.pick` sees it. On the plain path only `tried` and `override_host` are read.

    `hash_key` is the 64-bit hash of the route's hash policy, None without one. `subset` is what the route (and dynamic
    metadata) says to match, None if nothing. `tried` and `host_selection_retry_max_attempts` are the retry policy's
    host predicate; the latter is read only if `tried` is not empty. `override_host` goes before all of them.
    `connection` and `request` are read by ORIGINAL_DST clusters.
    """

    @property
    def hash_key(self) -> int | None: ...
    @property
    def subset(self) -> SubsetKey | None: ...
    @property
    def tried(self) -> Tried: ...
    @property
    def host_selection_retry_max_attempts(self) -> int: ...
    @property
    def override_host(self) -> OverrideHost | None: ...
    @property
    def connection(self) -> ConnectionInfo: ...
    @property
    def request(self) -> RequestHead | None: ...


Pick = Callable[[LoadBalancerContext], Host | None]
"""Picks the host for a request; None when there is none (`no healthy upstream`)."""

Choose = Callable[[], Host | None]
"""Picks the next host of a flat set, whoever asks."""


class ClusterStats(Protocol):
    """The statistics that this stage counts, under Envoy's leaf names below `cluster.<name>.`"""

    bind_errors: int
    membership_change: int
    membership_healthy: int
    membership_degraded: int
    membership_excluded: int
    membership_total: int
    transport_socket_total_match_count: int
    max_host_weight: int
    maglev_max_entries_per_host: int
    maglev_min_entries_per_host: int
    ring_hash_max_hashes_per_host: int
    ring_hash_min_hashes_per_host: int
    ring_hash_size: int
    lb_healthy_panic: int
    lb_local_cluster_not_ok: int
    lb_recalculate_zone_structures: int
    lb_zone_cluster_too_small: int
    lb_zone_no_capacity_left: int
    lb_zone_routing_all_directly: int
    lb_zone_routing_cross_zone: int
    lb_zone_routing_sampled: int
    lb_subsets_active: int
    lb_subsets_created: int
    lb_subsets_removed: int
    lb_subsets_single_host_per_subset_duplicate: int
    lb_subsets_selected: int
    lb_subsets_fallback: int
    lb_subsets_fallback_panic: int
    original_dst_host_invalid: int
    update_attempt: int
    update_success: int
    update_failure: int
    update_empty: int
    update_no_rebuild: int
    assignment_stale: int
    assignment_timeout_received: int
    warming_state: int
