"""From a cluster's load balancing configuration to its balancer."""

from __future__ import annotations

from random import Random

from sidecar.cluster.context import ClusterStats
from sidecar.cluster.load_balancers.bounded_load import BoundedLoad
from sidecar.cluster.load_balancers.flat import FlatPolicy, LeastRequest, RandomHost, RoundRobin
from sidecar.cluster.load_balancers.hashing import HashBalancer, HashPolicy
from sidecar.cluster.load_balancers.layered import Balancer, CommonOptions, LayeredBalancer
from sidecar.cluster.load_balancers.maglev import Maglev
from sidecar.cluster.load_balancers.ring_hash import RingHash
from sidecar.cluster.load_balancers.subset import SubsetBalancer
from sidecar.config.cluster import Cluster as ClusterConfig
from sidecar.config.load_balancing import LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig


def balancer_of(config: ClusterConfig, stats: ClusterStats, random: Random) -> Balancer:
    """The balancer for everything but CLUSTER_PROVIDED."""
    common = config.common_lb_config
    options = CommonOptions(
        random,
        stats,
        common.healthy_panic_threshold,
        common.fail_traffic_on_panic,
        common.locality_weighted_lb_config,
    )
    hashing = _hash_policy(config)
    balancer: Balancer
    if hashing is None:
        balancer = LayeredBalancer(_flat_policy(config, random), options)
    else:
        if common.hash_balance_factor:
            hashing = BoundedLoad(hashing, common.hash_balance_factor)
        balancer = HashBalancer(hashing, options)
    if config.lb_subset_config is None:
        return balancer
    return SubsetBalancer(config.lb_subset_config, balancer, options)


def _flat_policy(config: ClusterConfig, random: Random) -> FlatPolicy:
    own = config.lb_config
    if isinstance(own, LeastRequestLbConfig):
        return LeastRequest(random, own.choice_count, own.active_request_bias)
    return RandomHost(random) if config.lb_policy == "RANDOM" else RoundRobin(random)


def _hash_policy(config: ClusterConfig) -> HashPolicy | None:
    own, by_hostname = config.lb_config, config.common_lb_config.use_hostname_for_hashing
    if isinstance(own, RingHashLbConfig):
        return RingHash(own.minimum_ring_size, own.maximum_ring_size, own.hash_function, by_hostname)
    return Maglev(own.table_size, by_hostname) if isinstance(own, MaglevLbConfig) else None
