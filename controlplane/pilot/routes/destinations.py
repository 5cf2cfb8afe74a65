"""Destinations become clusters, and what their DestinationRules say of requests becomes hash policies.

Source: Istio's reference, "Virtual Service", Destination; "Destination Rule", LoadBalancerSettings.ConsistentHashLB.
"""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_components_pb2 as components

from controlplane.pilot.names import outbound_cluster
from controlplane.pilot.scope import Rule, Scope
from controlplane.pilot.traffic_policy import policy_for


def destination_cluster(scope: Scope, destination: Any, namespace: str, port: int) -> str:
    """The cluster of a `Destination` in a resource of ``namespace``.

    Without a port in it, the service's only one is meant, else ``port``: the one that the request came for.
    """
    hostname = scope.resolve(destination.host, namespace)
    service = scope.service(hostname)
    if service is not None:
        hostname = service.hostname
    return outbound_cluster(destination_port(scope, destination, hostname, port), destination.subset or "", hostname)


def destination_port(scope: Scope, destination: Any, hostname: str, port: int) -> int:
    """The number of the port that a `Destination` means."""
    if destination.port is not None and destination.port.number:
        return int(destination.port.number)
    service = scope.service(hostname)
    return service.ports[0].number if service is not None and len(service.ports) == 1 else port


def destination_hash_policies(scope: Scope, destination: Any, namespace: str, port: int) -> list[Any]:
    """The `HashPolicy` messages for a `Destination`: empty if its load balancer does not hash."""
    hostname = scope.resolve(destination.host, namespace)
    rule = scope.destination_rule(hostname)
    if rule is None:
        return []
    return hash_policies(rule, destination.subset or "", destination_port(scope, destination, hostname, port))


def hash_policies(rule: Rule | None, subset: str, port: int) -> list[Any]:
    """What a DestinationRule says of how to hash requests for a port, the most specific first: subset, port, all."""
    balancer = policy_for(rule, subset, port).load_balancer
    consistent = None if balancer is None else balancer.consistent_hash
    if consistent is None:
        return []
    policy = components.RouteAction.HashPolicy()
    if consistent.http_header_name:
        policy.header.header_name = consistent.http_header_name
    elif consistent.http_cookie is not None:
        cookie = consistent.http_cookie
        policy.cookie.name = cookie.name
        policy.cookie.path = cookie.path or ""
        if cookie.ttl is not None:
            policy.cookie.ttl.FromNanoseconds(round(cookie.ttl * 1e9))
        for attribute in cookie.attributes:
            policy.cookie.attributes.add(name=attribute.name, value=attribute.value or "")
    elif consistent.http_query_parameter_name:
        policy.query_parameter.name = consistent.http_query_parameter_name
    elif consistent.use_source_ip:
        policy.connection_properties.source_ip = True
    else:
        return []
    return [policy]
