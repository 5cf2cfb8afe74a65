"""From a cluster's load balancing configuration to its balancer. What few clusters use is imported where it is made."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from sidecar.cluster.context import ClusterStats
from sidecar.cluster.load_balancers.flat import FlatPolicy, LeastRequest, RandomHost, RoundRobin
from sidecar.cluster.load_balancers.layered import Balancer, CommonOptions, LayeredBalancer
from sidecar.cluster.load_balancers.refining import accepts_statuses
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.lb_policies import (
    ClientSideWeightedRoundRobin,
    LeastRequestLbConfig,
    MaglevLbConfig,
    RingHashLbConfig,
    RoundRobinLbConfig,
)

if TYPE_CHECKING:
    from sidecar.cluster.load_balancers.hashing import HashPolicy
    from sidecar.cluster.load_balancers.zone_aware import LocalCluster


def balancer_of(
    config: ClusterConfig,
    stats: ClusterStats,
    random: Random,
    clock: Callable[[], float],
    local: LocalCluster | None = None,
) -> Balancer:
    """The balancer for everything but CLUSTER_PROVIDED. `clock` gives seconds; `local` is the proxy's own cluster."""
    common = config.common_lb_config
    hashing = _hash_policy(config)
    zone_aware = None
    if local is not None and hashing is None:
        from sidecar.cluster.load_balancers.zone_aware import ZoneAware  # only for those who use it

        zone_aware = ZoneAware(
            common.zone_aware, local, stats, random, common.healthy_panic_threshold, common.fail_traffic_on_panic
        )
    options = CommonOptions(
        random,
        stats,
        common.healthy_panic_threshold,
        common.fail_traffic_on_panic,
        common.locality_weighted_lb_config,
        accepts_statuses(common.override_host_status),
        zone_aware,
    )
    balancer: Balancer
    if hashing is None:
        balancer = LayeredBalancer(_flat_policy(config, random, clock), options)
    else:
        from sidecar.cluster.load_balancers.hashing import HashBalancer

        if common.hash_balance_factor:
            from sidecar.cluster.load_balancers.bounded_load import BoundedLoad

            hashing = BoundedLoad(hashing, common.hash_balance_factor)
        balancer = HashBalancer(hashing, options)
    if config.lb_subset_config is None:
        return balancer
    from sidecar.cluster.load_balancers.subset import SubsetBalancer

    return SubsetBalancer(config.lb_subset_config, balancer, options)


def _flat_policy(config: ClusterConfig, random: Random, clock: Callable[[], float]) -> FlatPolicy:
    own = config.lb_config
    slow_start = None
    if isinstance(own, RoundRobinLbConfig | LeastRequestLbConfig | ClientSideWeightedRoundRobin):
        if own.slow_start is not None:
            from sidecar.cluster.load_balancers.slow_start import SlowStart  # only for those who use it

            slow_start = SlowStart(own.slow_start, clock)
    if isinstance(own, LeastRequestLbConfig):
        scan = own.selection_method == "FULL_SCAN"
        return LeastRequest(random, own.choice_count, own.active_request_bias, scan, slow_start)
    return RandomHost(random) if config.lb_policy == "RANDOM" else RoundRobin(random, slow_start)


def _hash_policy(config: ClusterConfig) -> HashPolicy | None:
    own, by_hostname = config.lb_config, config.common_lb_config.use_hostname_for_hashing
    if isinstance(own, RingHashLbConfig):
        from sidecar.cluster.load_balancers.ring_hash import RingHash

        return RingHash(own.minimum_ring_size, own.maximum_ring_size, own.hash_function, by_hostname)
    if isinstance(own, MaglevLbConfig):
        from sidecar.cluster.load_balancers.maglev import Maglev

        return Maglev(own.table_size, by_hostname)
    return None
