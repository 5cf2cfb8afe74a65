"""Connections through the forward proxy: CONNECT to a service's name and port, whatever is spoken on it.

Programs ask their HTTP proxy for it where they speak TLS themselves, or no HTTP at all. TCP routes of virtual services hold;
TLS routes do not, because the proxy does not see which name TLS asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as components

from controlplane.model.resource import Resource
from controlplane.model.service import Service
from controlplane.pilot.names import outbound_cluster
from controlplane.pilot.routes.destinations import destination_cluster
from controlplane.pilot.routes.matching import MESH, proxy_meets
from controlplane.pilot.scope import Scope

CONNECT = "CONNECT"
_EVERYTHING = (None,)


def tunnel(route: Any) -> Any:
    """Make a route to clusters one for CONNECT: what comes through the tunnel goes on as plain TCP."""
    headers = list(route.match.headers)
    route.match.CopyFrom(components.RouteMatch(headers=headers))
    route.match.connect_matcher.SetInParent()
    route.route.upgrade_configs.add(upgrade_type=CONNECT).connect_config.SetInParent()
    route.route.timeout.FromNanoseconds(0)
    return route


def tunnel_route(scope: Scope, service: Service, port: int, owners: Sequence[Resource]) -> Any:
    """The route for CONNECT to a service's port. ``owners`` are the virtual services with TCP routes that speak of it."""
    route = components.Route(name="default")
    found = _tcp_route(scope, owners, port)
    if found is None:
        route.route.cluster = outbound_cluster(port, "", service.hostname)
        return tunnel(route)
    owner, rule = found
    clusters = [
        (destination_cluster(scope, each.destination, owner.namespace, port), each.weight or 0) for each in rule.route
    ]
    if len(clusters) == 1:
        route.route.cluster = clusters[0][0]
        return tunnel(route)
    for name, weight in clusters:
        if weight:
            route.route.weighted_clusters.clusters.add(name=name).weight.value = weight
    return tunnel(route)


def _tcp_route(scope: Scope, owners: Sequence[Resource], port: int) -> tuple[Resource, Any] | None:
    for owner in owners:
        for rule in owner.spec.tcp:
            for match in rule.match or _EVERYTHING:
                if match is None or (_by_port_alone(match) and proxy_meets(scope, owner, match, port, (MESH,))):
                    return owner, rule
    return None


def _by_port_alone(match: Any) -> bool:
    """Addresses are nothing that a tunnel is asked for by."""
    return not match.destination_subnets and not match.source_subnet
