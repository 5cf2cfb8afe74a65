"""How a cluster picks endpoints and when it puts one aside: load balancers, warm-up, outlier detection.

Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/#LoadBalancerSettings
"""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2

from controlplane.model.mesh_config import MeshConfig
from controlplane.pilot.traffic_policy import Policy

Cluster = cluster_pb2.Cluster

DEFAULT_RING_SIZE = 1024


def set_duration(field: Any, seconds: float) -> None:
    """Put seconds into a Duration."""
    field.SetInParent()
    field.FromNanoseconds(round(seconds * 1e9))


def apply_balancer(cluster: Any, policy: Policy, mesh: MeshConfig) -> None:
    """Sets the load-balancing policy. Without one it is LEAST_REQUEST, as in Istio."""
    settings = policy.load_balancer
    # Never send to endpoints that are known to be down because others are down, too: Istio's default of minHealthPercent.
    cluster.common_lb_config.healthy_panic_threshold.value = 0
    if locality_settings(policy, mesh) is not None:
        cluster.common_lb_config.locality_weighted_lb_config.SetInParent()
    if settings is None:
        cluster.lb_policy = Cluster.LEAST_REQUEST
        return
    if settings.consistent_hash is not None:
        _consistent_hash(cluster, settings.consistent_hash)
        return
    simple = str(settings.simple or "UNSPECIFIED")
    if simple == "RANDOM":
        cluster.lb_policy = Cluster.RANDOM
    elif simple == "ROUND_ROBIN":
        cluster.lb_policy = Cluster.ROUND_ROBIN
        _warm_up(settings, cluster.round_robin_lb_config)
    else:
        cluster.lb_policy = Cluster.LEAST_REQUEST
        _warm_up(settings, cluster.least_request_lb_config)


def _consistent_hash(cluster: Any, settings: Any) -> None:
    if settings.maglev is not None:
        cluster.lb_policy = Cluster.MAGLEV
        if settings.maglev.table_size:
            cluster.maglev_lb_config.table_size.value = settings.maglev.table_size
        return
    cluster.lb_policy = Cluster.RING_HASH
    size = settings.ring_hash.minimum_ring_size if settings.ring_hash is not None else settings.minimum_ring_size
    cluster.ring_hash_lb_config.minimum_ring_size.value = size or DEFAULT_RING_SIZE


def _warm_up(settings: Any, config: Any) -> None:
    if settings.warmup is not None:
        slow_start = config.slow_start_config
        set_duration(slow_start.slow_start_window, settings.warmup.duration)
        if settings.warmup.aggression is not None:
            slow_start.aggression.default_value = settings.warmup.aggression
            slow_start.aggression.runtime_key = "istio.slow_start.aggression"
        if settings.warmup.minimum_percent is not None:
            slow_start.min_weight_percent.value = settings.warmup.minimum_percent
    elif settings.warmup_duration_secs is not None:
        set_duration(config.slow_start_config.slow_start_window, settings.warmup_duration_secs)


def locality_settings(policy: Policy, mesh: MeshConfig) -> Any:
    """Istio's LocalityLoadBalancerSetting that holds: the rule's, else the mesh's; None if it is switched off."""
    settings = policy.load_balancer.locality_lb_setting if policy.load_balancer is not None else None
    if settings is None:
        settings = mesh.locality_lb_setting
    return None if settings.enabled is False else settings


def apply_outlier_detection(cluster: Any, settings: Any) -> None:
    """Sets when an endpoint is ejected. Consecutive errors alone count, as in Istio: success rates are not compared."""
    if settings is None:
        return
    out = cluster.outlier_detection
    out.enforcing_success_rate.value = 0
    out.enforcing_failure_percentage.value = 0
    errors = settings.consecutive_5xx_errors
    if errors is not None:
        out.consecutive_5xx.value = errors or 5
        out.enforcing_consecutive_5xx.value = 100 if errors else 0
    gateway = settings.consecutive_gateway_errors
    if gateway is None and settings.consecutive_errors:
        gateway = settings.consecutive_errors
    if gateway is not None:
        out.consecutive_gateway_failure.value = gateway or 5
        out.enforcing_consecutive_gateway_failure.value = 100 if gateway else 0
    if settings.interval is not None:
        set_duration(out.interval, settings.interval)
    if settings.base_ejection_time is not None:
        set_duration(out.base_ejection_time, settings.base_ejection_time)
    if settings.max_ejection_percent:
        out.max_ejection_percent.value = settings.max_ejection_percent
    if settings.split_external_local_origin_errors:
        out.split_external_local_origin_errors = True
        local = settings.consecutive_local_origin_failures
        if local is not None:
            out.consecutive_local_origin_failure.value = local or 5
            out.enforcing_consecutive_local_origin_failure.value = 100 if local else 0
    if settings.min_health_percent is not None:
        cluster.common_lb_config.healthy_panic_threshold.value = settings.min_health_percent
