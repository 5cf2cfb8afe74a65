"""What is common to the policies that choose an endpoint: `Cluster.CommonLbConfig` and what extensions have of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from sidecar.config.fields import Node
from sidecar.config.runtime import Runtime


@dataclass(frozen=True, slots=True)
class ZoneAwareLbConfig:
    """Which requests stay in the proxy's own zone.

    `routing_enabled` is a whole percentage of them; below `min_cluster_size` healthy endpoints none does.
    `force_local_zone`: from so many healthy endpoints in the zone all do, None for never. `locality_basis` is what the
    shares of zones are counted in: HEALTHY_HOSTS_NUM or HEALTHY_HOSTS_WEIGHT.
    """

    routing_enabled: int = 100
    min_cluster_size: int = 6
    force_local_zone: int | None = None
    locality_basis: str = "HEALTHY_HOSTS_NUM"


DEFAULT_ZONE_AWARE = ZoneAwareLbConfig()


@dataclass(frozen=True, slots=True)
class CommonLbConfig:
    """What is common to the policies.

    Below `healthy_panic_threshold` percent of healthy endpoints all of them are used. `locality_weighted_lb_config`
    says whether localities are chosen by their weights. `hash_balance_factor` (percent of the mean load) bounds the
    load of an endpoint when hashing; 0 does not. `fail_traffic_on_panic`: in panic no endpoint is used.
    `close_connections_on_host_set_change`: when endpoints come or go, all connections drain. `override_host_status`
    are the health statuses in which an endpoint may be asked for by its address, None for those that serve.
    `ignore_new_hosts_until_first_hc`: an endpoint that DNS has found does not count before its first health check.
    """

    healthy_panic_threshold: float = 50.0
    locality_weighted_lb_config: bool = False
    use_hostname_for_hashing: bool = False
    hash_balance_factor: int = 0
    fail_traffic_on_panic: bool = False
    zone_aware: ZoneAwareLbConfig = DEFAULT_ZONE_AWARE
    close_connections_on_host_set_change: bool = False
    override_host_status: frozenset[str] | None = None
    ignore_new_hosts_until_first_hc: bool = False


DEFAULT_COMMON_LB_CONFIG = CommonLbConfig()


@lru_cache(maxsize=64)
def shared(common: CommonLbConfig) -> CommonLbConfig:
    """The one object for all that are equal to it."""
    return common


def parse_common_lb_config(node: Node | None, runtime: Runtime) -> CommonLbConfig:
    """`Cluster.CommonLbConfig`, or what holds without one."""
    threshold = runtime.integer("upstream.healthy_panic_threshold")
    configured = 50.0 if node is None else node.percent("healthy_panic_threshold", 50.0)
    panic = float(int(configured + 0.5)) if threshold is None else float(min(threshold, 100))  # whole, as in Envoy
    common = CommonLbConfig(panic)
    if node is not None:
        hashing, status = node.child("consistent_hashing_lb_config"), node.child("override_host_status")
        common = CommonLbConfig(
            panic,
            use_hostname_for_hashing=False if hashing is None else hashing.get("use_hostname_for_hashing"),
            hash_balance_factor=0 if hashing is None else hashing.wrapped("hash_balance_factor", 0),
            close_connections_on_host_set_change=node.get("close_connections_on_host_set_change"),
            override_host_status=None if status is None else frozenset(status.enums("statuses")),
            ignore_new_hosts_until_first_hc=node.get("ignore_new_hosts_until_first_hc"),
        )
    return shared(by_locality(common, node, runtime))


def by_locality(common: CommonLbConfig, node: Node | None, runtime: Runtime) -> CommonLbConfig:
    """`common` with the `locality_weighted_lb_config` or `zone_aware_lb_config` of a message that has both."""
    zones = None if node is None else node.child("zone_aware_lb_config")
    return replace(
        common,
        locality_weighted_lb_config=node is not None and node.child("locality_weighted_lb_config") is not None,
        fail_traffic_on_panic=False if zones is None else zones.get("fail_traffic_on_panic"),
        zone_aware=_parse_zone_aware(zones, runtime),
    )


def _parse_zone_aware(zones: Node | None, runtime: Runtime) -> ZoneAwareLbConfig:
    enabled, smallest, basis = 100, 6, "HEALTHY_HOSTS_NUM"
    force: int | None = None
    if zones is not None:
        enabled = int(zones.percent("routing_enabled", 100.0) + 0.5)
        smallest = zones.wrapped("min_cluster_size", 6)
        if zones.knows("force_local_zone"):
            local = zones.child("force_local_zone")
            force = None if local is None else local.wrapped("min_size", 1)
            basis = zones.enum("locality_basis")
    return ZoneAwareLbConfig(
        _or(runtime.integer("upstream.zone_routing.enabled"), enabled),
        _or(runtime.integer("upstream.zone_routing.min_cluster_size"), smallest),
        force,
        basis,
    )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
