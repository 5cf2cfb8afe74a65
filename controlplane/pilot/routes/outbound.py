"""Route configurations of a sidecar for what its workload sends: one for each port, one for the forward proxy.

Names as in Istio: the port's number (`9080`), `http_proxy` for the forward proxy, `HOST:PORT` where a listener of its own
takes the traffic of a service whose protocol is found out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as components
from envoy.config.route.v3 import route_pb2

from controlplane.model.service import Port, PortProtocol, Service
from controlplane.pilot.names import PASSTHROUGH, PASSTHROUGH_BY_AUTHORITY, outbound_cluster
from controlplane.pilot.routes.domains import service_addresses
from controlplane.pilot.routes.outbound_hosts import HTTP_PORT, claims, outbound_hosts, routable
from controlplane.pilot.routes.virtual_hosts import (
    RuleView,
    VirtualHost,
    route_configuration,
    service_virtual_host,
    virtual_host,
)
from controlplane.pilot.scope import EgressListener, Generated, Scope

FORWARD_PROXY = "http_proxy"  # Istio's name of the forward proxy's routes


def sidecar_route_configurations(scope: Scope) -> Iterator[Generated]:
    """All that the listeners of a sidecar may subscribe to."""
    yield forward_proxy_routes(scope)
    for egress in scope.egress:
        if egress.port is not None:
            if routable(egress.port.protocol):
                yield port_routes(scope, egress, egress.port.number)
        elif scope.proxy.intercepts:
            taken = {each.port.number for each in scope.egress if each.port is not None}
            for number in http_ports(egress):
                if number not in taken:
                    yield port_routes(scope, egress, number)
            for service, port in detected_services(egress):
                yield service_routes(scope, egress, service, port.number)


def http_ports(egress: EgressListener) -> list[int]:
    """The port numbers on which some service of an egress listener takes requests."""
    return sorted(
        {
            port.number
            for service in egress.services.values()
            for port in service.ports
            if port.protocol.is_http or (port.protocol is PortProtocol.AUTO and not service_addresses(service))
        }
    )


def detected_services(egress: EgressListener) -> Iterator[tuple[Service, Port]]:
    """Services with addresses of their own, and ports of theirs whose protocol is found out: they have own listeners."""
    for service in egress.services.values():
        if service_addresses(service):
            for port in service.ports:
                if port.protocol is PortProtocol.AUTO:
                    yield service, port


def forward_proxy_routes(scope: Scope) -> Generated:
    """Routes of the forward-proxy port: all services by `NAME:PORT`, and those on port 80 by `NAME`."""
    message = route_pb2.RouteConfiguration(name=FORWARD_PROXY)
    message.validate_clusters.value = False
    found = [outbound_hosts(scope, egress, None) for egress in scope.egress if egress.port is None]
    hosts = [host for each in found for host in each.hosts]  # there is one egress listener without a port, or none
    distinct = all(each.distinct for each in found)
    return route_configuration(scope, message, [*hosts, _unknown_by_authority(scope)], distinct=distinct)


def port_routes(scope: Scope, egress: EgressListener, port: int) -> Generated:
    """Routes of a listener on one port: the services that have this port, with and without it in the authority."""
    message = route_pb2.RouteConfiguration(name=str(port))
    message.validate_clusters.value = False
    hosts, distinct = outbound_hosts(scope, egress, port)
    return route_configuration(scope, message, [*hosts, unknown(scope)], distinct=distinct)


def service_routes(scope: Scope, egress: EgressListener, service: Service, port: int) -> Generated:
    """Routes of a listener for one service's address: whatever the authority, it is this service."""
    message = route_pb2.RouteConfiguration(name=f"{service.hostname}:{port}")
    message.validate_clusters.value = False
    owner = claims(scope, egress, {service.hostname: service}).by_service.get(service.hostname)
    rules = None if owner is None else RuleView(scope, owner)
    return route_configuration(scope, message, [service_virtual_host(scope, service, port, ["*"], rules)])


def unknown(scope: Scope) -> VirtualHost:
    """Where requests go whose host is not in the mesh: on to where they were sent, or nowhere (502), by the policy."""
    if scope.outbound_policy != "ALLOW_ANY":
        return scope.memo.get(("virtual host", "block_all"), _block_all)
    egress_proxy = _egress_proxy(scope)
    return scope.memo.get(("virtual host", "allow_any", egress_proxy), lambda: _allow_any(egress_proxy))


def _unknown_by_authority(scope: Scope) -> VirtualHost:
    """The same for a forward proxy, which has no other address of the target than the authority: so it must be one."""
    if scope.outbound_policy != "ALLOW_ANY" or _egress_proxy(scope) != PASSTHROUGH:
        return unknown(scope)
    return scope.memo.get(("virtual host", "allow_any by authority"), _allow_addresses)


_BAD_GATEWAY = 502
# An address and a port: the original destination that a forward proxy's client means.
_ADDRESS_AND_PORT = r"(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:.]+\]):\d{1,5}"
_NO_SUCH_HOST = (
    "no service of the mesh has this name. A forward proxy passes on to addresses (IP:PORT) and to services: "
    "add a ServiceEntry for this host\n"
)


def _block_all() -> VirtualHost:
    answer = components.Route(
        name="block_all",
        match=components.RouteMatch(prefix="/"),
        direct_response=components.DirectResponseAction(status=_BAD_GATEWAY),
    )
    return virtual_host("block_all", ["*"], [answer])


def _allow_any(cluster: str) -> VirtualHost:
    return virtual_host("allow_any", ["*"], [_passing(cluster)])


def _passing(cluster: str) -> Any:
    route = components.Route(name="allow_any", match=components.RouteMatch(prefix="/"))
    route.route.cluster = cluster
    route.route.timeout.FromNanoseconds(0)
    route.route.max_grpc_timeout.FromNanoseconds(0)
    return route


def _allow_addresses() -> VirtualHost:
    passing = _passing(PASSTHROUGH_BY_AUTHORITY)
    passing.match.headers.add(name=":authority").string_match.safe_regex.regex = _ADDRESS_AND_PORT
    answer = components.Route(
        name="unknown_host",
        match=components.RouteMatch(prefix="/"),
        direct_response=components.DirectResponseAction(status=_BAD_GATEWAY),
    )
    answer.direct_response.body.inline_string = _NO_SUCH_HOST
    return virtual_host("allow_any", ["*"], [passing, answer])


def _egress_proxy(scope: Scope) -> str:
    """The cluster for unknown hosts: a Sidecar may name a proxy of its own for them (`outboundTrafficPolicy.egressProxy`)."""
    policy = None if scope.sidecar is None else scope.sidecar.spec.outbound_traffic_policy
    destination = None if policy is None else policy.egress_proxy
    if destination is None or scope.sidecar is None:
        return PASSTHROUGH
    port = destination.port.number if destination.port is not None else HTTP_PORT
    hostname = scope.resolve(destination.host, scope.sidecar.namespace)
    return outbound_cluster(port, destination.subset or "", hostname)
