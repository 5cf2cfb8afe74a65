"""Route configurations of a sidecar for what its workload sends: one for each port, one for the forward proxy.

Names as in Istio: the port's number (`9080`), `http_proxy` for the forward proxy, `HOST:PORT` where a listener of its own
takes the traffic of a service whose protocol is found out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as components
from envoy.config.route.v3 import route_pb2

from controlplane.model.resource import Resource
from controlplane.model.service import Port, PortProtocol, Service
from controlplane.pilot.hosts import covers
from controlplane.pilot.names import PASSTHROUGH, outbound_cluster
from controlplane.pilot.routes.domains import domains, service_addresses, service_names
from controlplane.pilot.routes.virtual_hosts import (
    RuleView,
    VirtualHost,
    route_configuration,
    rules_virtual_host,
    service_virtual_host,
    virtual_host,
)
from controlplane.pilot.scope import EgressListener, Generated, Scope

FORWARD_PROXY = "http_proxy"  # Istio's name of the forward proxy's routes
_HTTP_PORT = 80  # what stands for no port in an authority


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
    hosts = [host for egress in scope.egress if egress.port is None for host in _virtual_hosts(scope, egress, None)]
    return route_configuration(scope, message, [*hosts, _unknown_by_authority(scope)])


def port_routes(scope: Scope, egress: EgressListener, port: int) -> Generated:
    """Routes of a listener on one port: the services that have this port, with and without it in the authority."""
    message = route_pb2.RouteConfiguration(name=str(port))
    message.validate_clusters.value = False
    return route_configuration(scope, message, [*_virtual_hosts(scope, egress, port), unknown(scope)])


def service_routes(scope: Scope, egress: EgressListener, service: Service, port: int) -> Generated:
    """Routes of a listener for one service's address: whatever the authority, it is this service."""
    message = route_pb2.RouteConfiguration(name=f"{service.hostname}:{port}")
    message.validate_clusters.value = False
    claims, _ = _claims(scope, egress, {service.hostname: service})
    made = service_virtual_host(scope, service, port, ["*"], _view(scope, claims, service.hostname, {}))
    return route_configuration(scope, message, [made])


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
    passing = _passing(PASSTHROUGH)
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
    port = destination.port.number if destination.port is not None else _HTTP_PORT
    hostname = scope.resolve(destination.host, scope.sidecar.namespace)
    return outbound_cluster(port, destination.subset or "", hostname)


def _virtual_hosts(scope: Scope, egress: EgressListener, port: int | None) -> Iterator[VirtualHost]:
    """Virtual hosts for requests that came for ``port``; None is the forward proxy, which takes all ports."""
    services = {
        hostname: service
        for hostname, service in egress.services.items()
        if any(routable(each.protocol) and port in (None, each.number) for each in service.ports)
    }
    claims, strangers = _claims(scope, egress, services)
    views: dict[Resource, RuleView] = {}
    for hostname, service in services.items():
        names = service_names(service, scope.proxy.namespace, scope.proxy.dns_domain) + service_addresses(service)
        view = _view(scope, claims, hostname, views)
        for each in service.ports:
            if routable(each.protocol) and port in (None, each.number):
                bare = port is not None or each.number == _HTTP_PORT
                yield service_virtual_host(scope, service, each.number, domains(names, each.number, bare=bare), view)
    asked = _HTTP_PORT if port is None else port
    for host, owner in strangers.items():
        view = views.get(owner) or RuleView(scope, owner)
        made = rules_virtual_host(scope, host, asked, domains([host], asked, bare=True), view)
        if made is not None:
            yield made


def routable(protocol: PortProtocol) -> bool:
    """Whether requests on a port of that protocol can be routed: those of AUTO can, if they turn out to be HTTP."""
    return protocol.is_http or protocol is PortProtocol.AUTO


def _view(
    scope: Scope, claims: Mapping[str, Resource], hostname: str, views: dict[Resource, RuleView]
) -> RuleView | None:
    owner = claims.get(hostname)
    if owner is None:
        return None
    if owner not in views:
        views[owner] = RuleView(scope, owner)
    return views[owner]


def _claims(
    scope: Scope, egress: EgressListener, services: Mapping[str, Service]
) -> tuple[dict[str, Resource], dict[str, Resource]]:
    """Which virtual service speaks for which service: the oldest that names it, else the one whose wildcard covers it most
    closely. And hosts of virtual services that are no services, with theirs.
    """
    claims: dict[str, Resource] = {}
    strangers: dict[str, Resource] = {}
    wildcards: list[tuple[str, Resource]] = []
    for owner in egress.virtual_services:
        if not owner.spec.http:
            continue
        for host in owner.spec.hosts:
            full = scope.resolve(host, owner.namespace)
            if full in services:
                claims.setdefault(full, owner)
            elif full.startswith("*"):
                wildcards.append((full, owner))
            else:
                strangers.setdefault(full, owner)
    wildcards.sort(key=lambda found: -len(found[0]))  # stable: of two that are equal the older one stays first
    for wildcard, owner in wildcards:
        covered = _covered(wildcard, services)
        for hostname in covered:
            claims.setdefault(hostname, owner)
        if not covered:
            strangers.setdefault(wildcard, owner)
    return claims, strangers


def _covered(wildcard: str, services: Iterable[str]) -> list[str]:
    return [hostname for hostname in services if covers(wildcard, hostname)]
