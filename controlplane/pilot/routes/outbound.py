"""Route configurations of a sidecar for what its workload sends: one for each port, one for the forward proxy.

Names as in Istio: the port's number (`9080`), `http_proxy` for the forward proxy, `HOST:PORT` where a listener of its own
takes the traffic of a service whose protocol is found out.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.model.service import Port, PortProtocol, Service
from controlplane.pilot.routes.domains import service_addresses
from controlplane.pilot.routes.outbound_hosts import claims, outbound_hosts
from controlplane.pilot.routes.unknown_hosts import unknown_host
from controlplane.pilot.routes.virtual_hosts import (
    RuleView,
    new_route_configuration,
    routable,
    route_configuration,
    service_virtual_host,
)
from controlplane.pilot.scope import EgressListener, Generated, Scope

FORWARD_PROXY = "http_proxy"  # Istio's name of the forward proxy's routes


def sidecar_route_configurations(scope: Scope) -> Iterator[Generated]:
    """All that the listeners of a sidecar may subscribe to."""
    yield forward_proxy_routes(scope)
    for egress in scope.egress:
        if egress.port is not None:
            if routable(egress.port.protocol):
                yield port_routes(scope, egress, egress.port.number or None)
        elif scope.proxy.intercepts:
            taken = {each.port.number for each in scope.egress if each.port is not None}
            for number in http_ports(egress):
                if number not in taken:
                    yield port_routes(scope, egress, number)
            for service, port in detected_services(egress):
                yield service_routes(scope, egress, service, port)


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


def routes_name(egress: EgressListener, port: int | None) -> str:
    """What the routes of an egress listener are called: its port, or the socket that it is on."""
    return str(port) if port else egress.bind


def forward_proxy_routes(scope: Scope) -> Generated:
    """Routes of the forward-proxy port: all services by `NAME:PORT`, and those on port 80 by `NAME`."""
    message = new_route_configuration(FORWARD_PROXY)
    found = [outbound_hosts(scope, egress, None) for egress in scope.egress if egress.port is None]
    hosts = [host for each in found for host in each.hosts]  # there is one egress listener without a port, or none
    distinct = all(each.distinct for each in found)
    return route_configuration(
        scope, message, [*hosts, unknown_host(scope, captured=False, by_name=True)], distinct=distinct
    )


def port_routes(scope: Scope, egress: EgressListener, port: int | None) -> Generated:
    """Routes of a listener on one port: the services that have this port, whether or not the authority has it. A listener
    on a Unix socket has no port (None), and is called after the socket: through it all ports are reached, as through the
    forward proxy.
    """
    message = new_route_configuration(routes_name(egress, port), ignore_port_in_host_matching=port is not None)
    hosts, distinct = outbound_hosts(scope, egress, port)
    captured = scope.proxy.intercepts and egress.capture_mode != "NONE" and port is not None
    unknown = unknown_host(scope, captured=captured, by_name=port is None)
    return route_configuration(scope, message, [*hosts, unknown], distinct=distinct)


def service_routes(scope: Scope, egress: EgressListener, service: Service, port: Port) -> Generated:
    """Routes of a listener for one service's address: whatever the authority, it is this service."""
    message = new_route_configuration(f"{service.hostname}:{port.number}")
    owner = claims(scope, egress, {service.hostname: service}).by_service.get(service.hostname)
    rules = None if owner is None else RuleView(scope, owner)
    return route_configuration(scope, message, [service_virtual_host(scope, service, port, ["*"], rules)])
