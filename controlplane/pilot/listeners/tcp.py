"""Filter chains for connections that are not opened: TCP and TLS routes of virtual services, and services without any.

Source: Istio's reference, "Virtual Service", TCPRoute, TLSRoute, L4MatchAttributes, TLSMatchAttributes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from envoy.config.core.v3 import address_pb2

from controlplane.model.resource import Resource
from controlplane.model.service import Port, Service
from controlplane.pilot.listeners.filters import tcp_filter
from controlplane.pilot.listeners.listener import chain, without_overlaps
from controlplane.pilot.names import outbound_cluster
from controlplane.pilot.routes.destinations import destination_cluster, destination_port
from controlplane.pilot.routes.matching import MESH, proxy_meets
from controlplane.pilot.scope import Rule, Scope
from controlplane.pilot.traffic_policy import policy_for

_EVERYTHING = (None,)


def service_chains(
    scope: Scope, service: Service, port: Port, owners: Sequence[Resource], *, by_name: bool = True
) -> list[Any]:
    """Filter chains for connections to a service's port.

    ``owners`` are the virtual services that speak of it, in order of precedence. What no route of theirs is for goes
    to the service: where TLS is spoken and ``by_name`` says so, if it asks for its name. A listener on the service's own
    address has no need of that.
    """
    made = routed_chains(scope, owners, port.number, tls=port.protocol.is_tls)
    if any(not each.HasField("filter_chain_match") for each in made):
        return made  # all connections are routed
    cluster = outbound_cluster(port.number, "", service.hostname)
    rule = scope.destination_rule(service.hostname)
    filter_ = tcp_filter(scope, [(cluster, 1)], settings=connection_settings(rule, "", port.number))
    if not (port.protocol.is_tls and by_name):
        return [*made, chain(filter_)]
    if any(service.hostname in each.filter_chain_match.server_names for each in made):
        return made
    return [*made, chain(filter_, server_names=[service.hostname])]


def routed_chains(
    scope: Scope, owners: Sequence[Resource], port: int, *, tls: bool, gateways: Collection[str] = (MESH,)
) -> list[Any]:
    """Filter chains of the TLS routes (where ``tls``) and TCP routes of virtual services, without overlaps."""
    made: list[Any] = []
    for owner in owners:
        for match, route in _routes(owner, tls):
            if match is None or proxy_meets(scope, owner, match, port, gateways):
                made.append(chain(_filter(scope, owner, route, port), **_match(match)))
    return without_overlaps(made)


def connection_settings(rule: Rule | None, subset: str, port: int) -> Any:
    """Istio's TCPSettings of a DestinationRule for a port of a service or subset; None without any."""
    pool = policy_for(rule, subset, port).connection_pool
    return None if pool is None else pool.tcp


def cidr(block: str) -> Any:
    """A `CidrRange`; an address alone is a range of one."""
    network = ipaddress.ip_network(block, strict=False)
    made = address_pb2.CidrRange(address_prefix=str(network.network_address))
    made.prefix_len.value = network.prefixlen
    return made


def _routes(owner: Resource, tls: bool) -> Iterator[tuple[Any, Any]]:
    if tls:
        for route in owner.spec.tls:
            for match in route.match:
                yield match, route
    for route in owner.spec.tcp:
        for match in route.match or _EVERYTHING:
            yield match, route


def _match(match: Any) -> dict[str, Any]:
    if match is None:
        return {}
    made: dict[str, Any] = {}
    if names := getattr(match, "sni_hosts", ()):  # L4MatchAttributes has none
        if "*" in names:
            made["transport_protocol"] = "tls"
        else:
            made["server_names"] = list(names)
    if match.destination_subnets:
        made["prefix_ranges"] = [cidr(block) for block in match.destination_subnets]
    if source := getattr(match, "source_subnet", None):
        made["source_prefix_ranges"] = [cidr(source)]
    return made


def _filter(scope: Scope, owner: Resource, route: Any, port: int) -> Any:
    clusters = [
        (
            destination_cluster(scope, each.destination, owner.namespace, port),
            each.weight or (1 if len(route.route) == 1 else 0),
        )
        for each in route.route
    ]
    first = route.route[0].destination
    hostname = scope.resolve(first.host, owner.namespace)
    rule = scope.destination_rule(hostname)
    stat_prefix = clusters[0][0] if len(clusters) == 1 else owner.name
    settings = connection_settings(rule, first.subset or "", destination_port(scope, first, hostname, port))
    return tcp_filter(scope, clusters, stat_prefix, settings)
