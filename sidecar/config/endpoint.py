"""The endpoints of a cluster: `envoy.config.endpoint.v3.ClusterLoadAssignment`."""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING

from sidecar.config.address import NO_ADDRESS, Address, parse_address
from sidecar.config.core_types import (
    NO_LOCALITY,
    Locality,
    Metadata,
    parse_locality,
    parse_metadata,
    seconds,
)
from sidecar.config.fields import Node

if TYPE_CHECKING:
    from sidecar.config.health_check import EndpointHealthCheck

_WEIGHTS_LIMIT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class LbEndpoint:
    """One endpoint. `address` holds a name where a DNS cluster is to resolve it; `hostname` is empty if not set.

    `health_status` is UNKNOWN, HEALTHY, UNHEALTHY, DRAINING, TIMEOUT or DEGRADED, as the configuration says it.
    """

    address: Address
    hostname: str = ""
    health_status: str = "UNKNOWN"
    metadata: Metadata = field(default_factory=dict)
    load_balancing_weight: int = 1
    health_check_config: EndpointHealthCheck | None = None


@dataclass(frozen=True, slots=True)
class LocalityLbEndpoints:
    """The endpoints of one locality at one priority (0 is the first choice). Weight 0 gets no traffic by locality."""

    lb_endpoints: tuple[LbEndpoint, ...]
    locality: Locality = NO_LOCALITY
    load_balancing_weight: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """How the assignment is used. `overprovisioning_factor` is in percent. `weighted_priority_health`: a priority is as
    well as the weights of its healthy endpoints say, not their number. `endpoint_stale_after` is the time after which, in
    seconds, the endpoints of an assignment that came by EDS leave if no other one comes, 0 for never.
    """

    overprovisioning_factor: int = 140
    weighted_priority_health: bool = False
    endpoint_stale_after: float = 0.0


@dataclass(frozen=True, slots=True)
class ClusterLoadAssignment:
    """All endpoints of a cluster."""

    cluster_name: str
    endpoints: tuple[LocalityLbEndpoints, ...] = ()
    policy: Policy = Policy()


_DEFAULT_POLICY = Policy()
_NO_ENDPOINT = LbEndpoint(NO_ADDRESS)


def parse_load_assignment(node: Node) -> ClusterLoadAssignment:
    """`ClusterLoadAssignment`."""
    policy = node.child("policy")
    used = _DEFAULT_POLICY if policy is None else _parse_policy(policy)
    endpoints = tuple(map(_parse_locality_lb_endpoints, node.children("endpoints")))
    weights: dict[int, int] = {}
    for group in endpoints:
        weights[group.priority] = weights.get(group.priority, 0) + group.load_balancing_weight
    if any(weight > _WEIGHTS_LIMIT for weight in weights.values()):
        node.refuse(
            f"the weights of the localities of one priority add up to more than {_WEIGHTS_LIMIT}",
            "endpoints",
            "make them smaller",
        )
    return ClusterLoadAssignment(intern(node.get("cluster_name")), endpoints, used)


def _parse_policy(node: Node) -> Policy:
    policy = Policy(
        node.wrapped("overprovisioning_factor", 140),
        node.get("weighted_priority_health"),
        seconds(node, "endpoint_stale_after", 0.0),
    )
    return _DEFAULT_POLICY if policy == _DEFAULT_POLICY else policy


def _parse_locality_lb_endpoints(node: Node) -> LocalityLbEndpoints:
    endpoints = tuple(map(_parse_lb_endpoint, node.children("lb_endpoints")))
    if sum(endpoint.load_balancing_weight for endpoint in endpoints) > _WEIGHTS_LIMIT:
        node.refuse(
            f"the weights of the endpoints add up to more than {_WEIGHTS_LIMIT}", "lb_endpoints", "make them smaller"
        )
    return LocalityLbEndpoints(
        endpoints,
        parse_locality(node.child("locality")),
        node.wrapped("load_balancing_weight", 0),
        node.get("priority"),
    )


def _parse_lb_endpoint(node: Node) -> LbEndpoint:
    endpoint = node.child("endpoint")
    address = None if endpoint is None else endpoint.child("address")
    if endpoint is None or address is None:
        node.refuse("has no address", do="give the endpoint an address")
        return _NO_ENDPOINT
    return LbEndpoint(
        parse_address(address),
        endpoint.get("hostname"),
        node.enum("health_status"),
        parse_metadata(node.child("metadata")),
        node.wrapped("load_balancing_weight", 1),
        _parse_health_check(endpoint),
    )


def _parse_health_check(endpoint: Node) -> EndpointHealthCheck | None:
    config = endpoint.child("health_check_config")
    if config is None:
        return None
    from sidecar.config.health_check import parse_endpoint_health_check  # only for those who use it

    return parse_endpoint_health_check(config)
