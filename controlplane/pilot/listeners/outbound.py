"""Listeners of a sidecar for what its workload sends: those that Sidecar resources ask for, and with interception one for
each port or address behind `virtualOutbound`.

Names as in Istio: `ADDRESS_PORT`, `virtualOutbound`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from google.protobuf import wrappers_pb2

from controlplane.model.resource import ResourceKey
from controlplane.model.service import Port, PortProtocol, Service
from controlplane.pilot.forward_proxy import ALLOW_ANY, add_filter, looks_names_up
from controlplane.pilot.hosts import speaking_of
from controlplane.pilot.listeners.filters import connection_manager, http_filter, tcp_filter, use_rds
from controlplane.pilot.listeners.listener import (
    ANY_ADDRESS,
    LOOPBACK,
    OUTBOUND,
    UNIX,
    chain,
    generated,
    holder,
    keep_addresses,
    listener_name,
    new_listener,
    without_overlaps,
)
from controlplane.pilot.listeners.tcp import cidr, service_chains
from controlplane.pilot.memo import Same
from controlplane.pilot.names import BLACK_HOLE, PASSTHROUGH
from controlplane.pilot.routes.domains import service_addresses, service_blocks
from controlplane.pilot.routes.outbound import detected_services, http_ports, routes_name
from controlplane.pilot.routes.tunnels import CONNECT
from controlplane.pilot.routes.virtual_hosts import routable
from controlplane.pilot.scope import EgressListener, Generated, Scope
from controlplane.pilot.security.inbound_tls import PLAIN_HTTP


def sidecar_listeners(scope: Scope) -> Iterator[Generated]:
    """What all proxies of a scope listen on for their workloads. Of two on one address the first one is generated."""
    names: set[str] = set()
    taken: dict[tuple[str, int], str] = {}
    for egress in scope.egress:
        if egress.port is not None and bound(scope, egress):
            address, number = egress_address(scope, egress), egress.port.number
            if holder(taken, address, number) is not None:
                continue
            taken[address, number] = ""
        for made in _listeners(scope, egress):
            if made.resource.name not in names:
                names.add(made.resource.name)
                yield made
    if scope.proxy.intercepts:
        yield _virtual_outbound(scope)


def egress_address(scope: Scope, egress: EgressListener) -> str:
    """Where an egress listener with a port of its own listens: where it says; else on loopback, or if captured traffic
    comes to it, for any address.
    """
    return egress.bind or (LOOPBACK if bound(scope, egress) else ANY_ADDRESS)


def bound(scope: Scope, egress: EgressListener) -> bool:
    """Whether a listener is on its address, and not only behind `virtualOutbound`."""
    return not scope.proxy.intercepts or egress.capture_mode == "NONE" or egress.bind.startswith(UNIX)


def outbound_manager(
    scope: Scope,
    address: str,
    port: int,
    routes: str,
    *,
    protocol: PortProtocol = PortProtocol.HTTP,
    tunnels: bool = False,
) -> Any:
    """The network filter for requests that are routed by the route configuration of that name, with ``tunnels`` (of a forward
    proxy) CONNECT, too.
    """
    manager = connection_manager(scope, f"outbound_{listener_name(address, port)}", protocol=protocol)
    if tunnels:
        manager.upgrade_configs.add(upgrade_type=CONNECT)
    if (tunnels or not port) and looks_names_up(scope):  # all ports are reached through it
        add_filter(manager)
    return http_filter(use_rds(manager, routes))


def _listeners(scope: Scope, egress: EgressListener) -> Iterator[Generated]:
    if egress.port is not None:
        made = _explicit(scope, egress, egress.port)
        if made is not None:
            yield made
    elif scope.proxy.intercepts:
        yield from _captured(scope, egress)


def _explicit(scope: Scope, egress: EgressListener, port: Port) -> Generated | None:
    """The listener that an entry of a Sidecar's `egress` asks for; None if nothing can be sent through it."""
    address = egress_address(scope, egress)
    causes = [] if scope.sidecar is None else [scope.sidecar.key]
    chains: list[Any] = []
    if not port.protocol.is_http:
        for service in egress.services.values():
            served = (
                service.port(port.number) if port.number else (service.ports[0] if len(service.ports) == 1 else None)
            )
            if served is not None:
                as_said = Port(served.number, served.name, port.protocol)
                owners = speaking_of(scope, egress.virtual_services, service.hostname)
                chains += service_chains(scope, service, as_said, owners)
                causes += [owner.key for owner in owners]
        chains = without_overlaps(chains)  # the first service of its kind has the connections
    if routable(port.protocol):
        manager = outbound_manager(
            scope, address, port.number, routes_name(egress, port.number), protocol=port.protocol
        )
        if port.protocol is PortProtocol.AUTO and chains:
            chains.append(chain(manager, application_protocols=PLAIN_HTTP))
        else:
            chains = [chain(manager)]
    if not chains:
        return None
    listener = new_listener(
        address, port.number, _ordered(chains), OUTBOUND, mesh=scope.mesh, bind=bound(scope, egress)
    )
    return generated(scope, listener, causes)


def _captured(scope: Scope, egress: EgressListener) -> Iterator[Generated]:
    """Behind `virtualOutbound`: a listener for each port of HTTP, and for each address of services of other protocols.

    Blocks of addresses are told apart by the filter chains of a port's listener.
    """
    egress = replace(
        egress, virtual_services=[owner for owner in egress.virtual_services if owner.spec.tcp or owner.spec.tls]
    )
    taken = {each.port.number for each in scope.egress if each.port is not None}
    wildcard: dict[int, list[tuple[Service, Port]]] = {}
    for service in egress.services.values():
        addresses = service_addresses(service)
        for port in service.ports:
            if port.number in taken or port.protocol.is_http or port.protocol is PortProtocol.UDP:
                continue
            if not addresses or service_blocks(service):
                wildcard.setdefault(port.number, []).append((service, port))
            if port.protocol is not PortProtocol.AUTO:
                for address in addresses:
                    yield _of_service(scope, egress, service, port, address)
    for service, port in detected_services(egress):
        if port.number not in taken:
            for address in service_addresses(service):
                yield _of_service(scope, egress, service, port, address)
    requests = set(http_ports(egress))
    for number in sorted((requests | wildcard.keys()) - taken):
        yield _of_port(scope, egress, number, wildcard.get(number, []), http=number in requests)


def _of_service(scope: Scope, egress: EgressListener, service: Service, port: Port, address: str) -> Generated:
    owners = speaking_of(scope, egress.virtual_services, service.hostname)
    rule = scope.destination_rule(service.hostname)
    surroundings = (scope.steady, scope.rules) if owners else Same(scope.mesh)  # routes lead to other services
    proxy = scope.proxy.has_identity
    key = ("listener of", service, port, address, tuple(owners), rule, tuple(scope.telemetries), surroundings, proxy)

    def make() -> Generated:
        chains = service_chains(scope, service, port, owners, by_name=False)
        host = address.strip("[]")
        if port.protocol is PortProtocol.AUTO:
            manager = outbound_manager(scope, host, port.number, f"{service.hostname}:{port.number}")
            chains.append(chain(manager, application_protocols=PLAIN_HTTP))
        listener = new_listener(host, port.number, _ordered(chains), OUTBOUND, mesh=scope.mesh, bind=False)
        return generated(scope, listener, (*(owner.key for owner in owners), *service.origins))

    return scope.memo.get(key, make)


def _of_port(
    scope: Scope, egress: EgressListener, number: int, others: list[tuple[Service, Port]], *, http: bool
) -> Generated:
    chains: list[Any] = []
    causes: list[ResourceKey] = []
    manager = outbound_manager(scope, ANY_ADDRESS, number, str(number)) if http else None
    for service, port in others:
        owners = speaking_of(scope, egress.virtual_services, service.hostname)
        more = service_chains(scope, service, port, owners)
        blocks = service_blocks(service)
        if blocks and port.protocol is PortProtocol.AUTO and manager is not None:
            more.append(chain(manager, application_protocols=PLAIN_HTTP))
        for each in more if blocks else ():
            if not each.filter_chain_match.prefix_ranges:
                each.filter_chain_match.prefix_ranges.extend(cidr(block) for block in blocks)
        chains += more
        causes += [*(owner.key for owner in owners), *service.origins]
    chains = without_overlaps(chains)  # the first service of its kind has the connections
    if manager is not None:
        if chains:
            chains.append(chain(manager, application_protocols=PLAIN_HTTP))
        else:
            chains = [chain(manager)]
    listener = new_listener(ANY_ADDRESS, number, _ordered(chains), OUTBOUND, mesh=scope.mesh, bind=False)
    if all(each.HasField("filter_chain_match") for each in chains):
        # Not one chain more: that would not be asked about connections to a block of addresses with another name.
        listener.default_filter_chain.CopyFrom(chain(_elsewhere(scope)))
    return generated(scope, listener, causes)


def _virtual_outbound(scope: Scope) -> Generated:
    arrival = scope.mesh.proxy_listen_port
    # What was sent to this port itself would come here again and again.
    black_hole = chain(
        tcp_filter(scope, [(BLACK_HOLE, 1)]),
        name="virtualOutbound-blackhole",
        destination_port=wrappers_pb2.UInt32Value(value=arrival),
    )
    listener = new_listener(ANY_ADDRESS, arrival, [black_hole], OUTBOUND, name="virtualOutbound", mesh=scope.mesh)
    listener.default_filter_chain.CopyFrom(chain(_elsewhere(scope), name="virtualOutbound-catchall-tcp"))
    listener.use_original_dst.value = True
    keep_addresses(listener, scope.proxy)
    return generated(scope, listener)


def _elsewhere(scope: Scope) -> Any:
    """Connections to where no service is: on to there, or nowhere."""
    return tcp_filter(scope, [(PASSTHROUGH if scope.outbound_policy == ALLOW_ANY else BLACK_HOLE, 1)])


def _ordered(chains: list[Any]) -> list[Any]:
    """Those with conditions first: Envoy does not ask for it, people who read them do."""
    return sorted(chains, key=lambda each: not each.HasField("filter_chain_match"))
