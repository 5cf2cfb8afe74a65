"""Answers to health checks of this proxy: `extensions.filters.http.health_check.v3.HealthCheck`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.config.fields import Node
from sidecar.config.matcher import HeaderMatcher, parse_header_matchers

TYPE = "envoy.extensions.filters.http.health_check.v3.HealthCheck"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Requests whose headers match are health checks.

    With `pass_through_mode` the upstream answers them, and its answer serves for `cache_time` seconds more (None: is
    not kept). Without, the proxy answers itself: 200 if each cluster of `cluster_min_healthy_percentages` has at least
    so many percent of healthy hosts.
    """

    pass_through_mode: bool
    cache_time: float | None
    cluster_min_healthy_percentages: Mapping[str, float]
    headers: tuple[HeaderMatcher, ...]


def parse_health_check(node: Node) -> HealthCheck:
    """`HealthCheck`."""
    pass_through = node.wrapped("pass_through_mode", False)
    cache_time = node.duration("cache_time")
    if cache_time is not None and not pass_through:
        node.refuse("goes with pass_through_mode only", "cache_time", "remove it, or set pass_through_mode")
    percentages = node.map("cluster_min_healthy_percentages")
    for cluster in percentages:
        node.context.reference("cluster", cluster, node, "cluster_min_healthy_percentages", may_come_later=True)
    return HealthCheck(
        pass_through,
        cache_time or None,
        {cluster: percent.get("value") for cluster, percent in percentages.items()},
        parse_header_matchers(node.children("headers")),
    )
