"""Listeners of one proxy alone: for what comes in to its workload, and its forward-proxy port.

Without interception each port of the workload has a listener on the workload's advertised address; with it
`virtualInbound` has a filter chain for each. Source: Istio's reference, "Sidecar", IstioIngressListener.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import wrappers_pb2

from controlplane.model.proxy import ProxyType
from controlplane.model.resource import ResourceKey
from controlplane.model.service import PortProtocol, parse_protocol
from controlplane.pilot.listeners.filters import connection_manager, http_filter, tcp_filter
from controlplane.pilot.listeners.listener import (
    ANY_ADDRESS,
    INBOUND,
    LOOPBACK,
    OUTBOUND,
    PLAIN_HTTP,
    add_listener_filter,
    chain,
    generated,
    holder,
    keep_addresses,
    listener_name,
    new_listener,
)
from controlplane.pilot.listeners.outbound import bound, egress_address, outbound_manager
from controlplane.pilot.listeners.tls import HTTP_ALPN, server_transport_socket
from controlplane.pilot.names import BLACK_HOLE, INBOUND_PASSTHROUGH, inbound_cluster
from controlplane.pilot.routes.inbound import inbound_routes
from controlplane.pilot.routes.outbound import FORWARD_PROXY
from controlplane.pilot.scope import Generated, Workload


@dataclass(frozen=True, slots=True)
class Entrance:
    """A port on which the workload is reached; ``owner`` says who asked for it."""

    address: str
    number: int
    protocol: PortProtocol
    hostname: str
    owner: str
    causes: tuple[ResourceKey, ...]
    tls: Any = None  # Istio's ServerTLSSettings, where it opens connections itself


@dataclass(frozen=True, slots=True)
class Clash:
    """Two listeners of one proxy would have one address: ``first`` is generated, ``second`` is not."""

    address: str
    first: str
    second: str
    causes: tuple[ResourceKey, ...] = ()

    def __str__(self) -> str:
        return f"{self.second} wants {self.address}, which {self.first} has already: give one of them another port or address"


def inbound_listeners(workload: Workload) -> Iterator[Generated]:
    """What one proxy listens on beside its scope's listeners. What clashes is left out, see `clashes`."""
    if workload.proxy.type is not ProxyType.SIDECAR:
        return
    proxy = forward_proxy_port(workload)
    kept, _ = _assigned(workload)
    if proxy and any(each.owner == _FORWARD_PROXY for each in kept):
        yield _forward_proxy(workload, proxy)
    entrances = [each for each in kept if each.owner != _FORWARD_PROXY]
    if workload.proxy.intercepts:
        yield _virtual_inbound(workload, entrances)
        return
    for entrance in entrances:
        listener = new_listener(
            entrance.address, entrance.number, _chains(workload, entrance), INBOUND, mesh=workload.scope.mesh
        )
        yield generated(workload.scope, listener, entrance.causes)


def clashes(workload: Workload) -> Sequence[Clash]:
    """Which listeners of a proxy are not generated, because their address is another's."""
    return _assigned(workload)[1]


def forward_proxy_port(workload: Workload) -> int:
    """The forward-proxy port on loopback: what the node says (`HTTP_PROXY_PORT`), else the mesh (`proxyHttpPort`); 0: none."""
    told = str(workload.proxy.metadata.get("HTTP_PROXY_PORT", "")).strip()
    if told.isdecimal():
        return int(told)
    return int(workload.scope.mesh.proxy_http_port or 0)


_FORWARD_PROXY = "the forward proxy"


def _assigned(workload: Workload) -> tuple[list[Entrance], list[Clash]]:
    """Listeners that are generated, the forward proxy's first, and clashes. Listeners of the scope have precedence."""
    scope = workload.scope
    taken: dict[tuple[str, int], str] = {}
    found: list[Clash] = []
    for egress in scope.egress:
        if egress.port is not None and bound(scope, egress):
            owner = f"egress listener {egress.port.number} of {scope.sidecar.key if scope.sidecar else 'the Sidecar'}"
            address, number = egress_address(scope, egress), egress.port.number
            first = holder(taken, address, number)
            if first is None:
                taken[address, number] = owner
            else:
                found.append(Clash(f"{address}:{number}", first, owner, (scope.sidecar.key,) if scope.sidecar else ()))
    wanted = []
    if port := forward_proxy_port(workload):
        wanted.append(Entrance(LOOPBACK, port, PortProtocol.HTTP, "", _FORWARD_PROXY, ()))
    wanted += _entrances(workload)
    kept = []
    for entrance in wanted:
        captured = workload.proxy.intercepts and entrance.owner != _FORWARD_PROXY
        clash = None if captured else holder(taken, entrance.address, entrance.number)
        if clash is not None:
            place = f"{entrance.address}:{entrance.number}"
            found.append(Clash(place, clash, entrance.owner, entrance.causes))
            continue
        if not captured:
            taken[entrance.address, entrance.number] = entrance.owner
        kept.append(entrance)
    return kept, found


def _entrances(workload: Workload) -> list[Entrance]:
    """The ports of the Sidecar's `ingress` if it has some, else those of the services that the workload is behind."""
    sidecar = workload.scope.sidecar
    made: dict[int, Entrance] = {}
    if sidecar is not None and sidecar.spec.ingress:
        for ingress in sidecar.spec.ingress:
            number = ingress.port.number
            made.setdefault(
                number,
                Entrance(
                    ingress.bind or workload.address,
                    number,
                    parse_protocol(ingress.port.protocol or ""),
                    f"{workload.proxy.name}.{workload.proxy.namespace}",
                    f"ingress listener {number} of {sidecar.key}",
                    (sidecar.key,),
                    ingress.tls,
                ),
            )
        return list(made.values())
    for target in workload.targets:
        service = target.service
        made.setdefault(
            target.number,
            Entrance(
                workload.address,
                target.number,
                target.port.protocol,
                service.hostname,
                f"port {target.number} of {service.origins[0]}",
                service.origins,
            ),
        )
    return [each for each in made.values() if each.protocol is not PortProtocol.UDP]


def _forward_proxy(workload: Workload, port: int) -> Generated:
    manager = outbound_manager(workload.scope, LOOPBACK, port, FORWARD_PROXY, tunnels=True)
    return generated(workload.scope, new_listener(LOOPBACK, port, [chain(manager)], OUTBOUND, mesh=workload.scope.mesh))


def _chains(workload: Workload, entrance: Entrance, **match: Any) -> list[Any]:
    """Filter chains for one entrance: requests to its routes, connections to the application, or by what is found out."""
    number = entrance.number
    name = listener_name(ANY_ADDRESS, number)
    manager = connection_manager(workload.scope, f"inbound_{name}", inbound=True, protocol=entrance.protocol)
    manager.route_config.CopyFrom(inbound_routes(number, entrance.hostname))
    requests = http_filter(manager)
    opened = entrance.tls is not None and entrance.protocol is PortProtocol.HTTPS
    if entrance.protocol.is_http or opened:
        return [_secured(chain(requests, name=name, **match), entrance, HTTP_ALPN)]
    connections = chain(
        tcp_filter(workload.scope, [(inbound_cluster(number), 1)], inbound=True), name=f"{name}_tcp", **match
    )
    if entrance.protocol is not PortProtocol.AUTO or entrance.tls is not None:
        return [_secured(connections, entrance, ())]
    return [chain(requests, name=name, application_protocols=PLAIN_HTTP, **match), connections]


def _secured(one: Any, entrance: Entrance, alpn: Sequence[str]) -> Any:
    if entrance.tls is not None:
        one.transport_socket.CopyFrom(server_transport_socket(entrance.tls, alpn))
    return one


def _virtual_inbound(workload: Workload, entrances: Sequence[Entrance]) -> Generated:
    chains: list[Any] = []
    causes: list[ResourceKey] = []
    for entrance in entrances:
        port = wrappers_pb2.UInt32Value(value=entrance.number)
        chains += _chains(workload, entrance, destination_port=port)
        causes += entrance.causes
    mesh = workload.scope.mesh
    arrival = mesh.proxy_inbound_listen_port
    black_hole = chain(
        tcp_filter(workload.scope, [(BLACK_HOLE, 1)], inbound=True),
        name="virtualInbound-blackhole",
        destination_port=wrappers_pb2.UInt32Value(value=arrival),
    )
    listener = new_listener(ANY_ADDRESS, arrival, [black_hole, *chains], INBOUND, name="virtualInbound", mesh=mesh)
    listener.default_filter_chain.CopyFrom(
        chain(tcp_filter(workload.scope, [(INBOUND_PASSTHROUGH, 1)], inbound=True), name="virtualInbound")
    )
    keep_addresses(listener, workload.proxy)
    # Before the inspectors: it is the original port that says what is expected.
    inspectors = list(listener.listener_filters)
    del listener.listener_filters[:]
    add_listener_filter(listener, "envoy.filters.listener.original_dst")
    listener.listener_filters.extend(inspectors)
    return generated(workload.scope, listener, causes)
