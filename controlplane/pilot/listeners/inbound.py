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
from controlplane.pilot.security.filters import askers_of_requests, network_filters
from controlplane.pilot.security.inbound_tls import MESH_HTTP_ALPN, MESH_TCP_ALPN, WayIn, mutual_tls, ways_in
from controlplane.pilot.security.peer_authentication import Mode, PeerModes


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
        chains = _chains(workload, entrance)
        if chains:
            listener = new_listener(entrance.address, entrance.number, chains, INBOUND, mesh=workload.scope.mesh)
            _let_servers_speak(listener, workload, [entrance])
            yield generated(workload.scope, listener, (*entrance.causes, *_policies(workload)))


@dataclass(frozen=True, slots=True)
class Closed:
    """A port that nobody gets into, because its policy asks for an identity that the proxy does not have."""

    owner: str
    causes: tuple[ResourceKey, ...]

    def __str__(self) -> str:
        return (
            f"{self.owner} is closed: {self.causes[-1]} says STRICT, and this proxy has no identity by which mutual TLS could be"
            " spoken: start it with an agent (SDS_AGENT in its node's metadata), or let a policy say PERMISSIVE for it"
        )


def closed(workload: Workload) -> Sequence[Closed]:
    """Which ports of a proxy nobody gets into."""
    if workload.proxy.type is not ProxyType.SIDECAR:
        return ()
    keys = _peer_modes(workload).keys
    kept, _ = _assigned(workload)
    return [
        Closed(each.owner, keys)
        for each in kept
        if each.owner != _FORWARD_PROXY and each.tls is None and _taken(workload, each.number) is None
    ]


@dataclass(frozen=True, slots=True)
class NotSeen:
    """What policies say of requests, on ports where there are only connections, or may be."""

    what: str
    causes: tuple[ResourceKey, ...]

    def __str__(self) -> str:
        return f"{self.what}. If it is HTTP say so: appProtocol: http, or a port's name that begins with http"


def not_seen(workload: Workload) -> Sequence[NotSeen]:
    """Which policies on requests a proxy's ports do not keep as they are written, because it does not see requests there."""
    if workload.proxy.type is not ProxyType.SIDECAR or not any(workload.policies):
        return ()
    entrances = [each for each in _assigned(workload)[0] if each.owner != _FORWARD_PROXY and not each.protocol.is_http]
    unknown = [each.owner for each in entrances if each.protocol is PortProtocol.AUTO]
    passed = [each.owner for each in entrances if each.protocol is not PortProtocol.AUTO]
    found = []
    asked = tuple(policy.key for policy in askers_of_requests(workload.scope, workload.policies))
    if asked and unknown:
        found.append(NotSeen(f"{', '.join(unknown)}: connections that CUSTOM's rules may be for are denied", asked))
    if asked and passed:
        found.append(NotSeen(f"{', '.join(passed)}: a provider with HTTP is not asked about connections", asked))
    tokens = tuple(policy.key for policy in workload.policies.requests)
    told = [
        each.owner
        for each in entrances
        if each.protocol is PortProtocol.AUTO and _taken(workload, each.number) in (Mode.PERMISSIVE, Mode.STRICT)
    ]
    if tokens and told:
        what = "over mutual TLS tokens are looked at only where clients say that they send requests, as sidecars of this mesh do"
        found.append(NotSeen(f"{', '.join(told)}: {what}", tokens))
    return found


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
_SERVER_FIRST = 1_000_000_000  # nanoseconds


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


def _peer_modes(workload: Workload) -> PeerModes:
    return workload.scope.peers(workload.proxy.namespace).of(workload.proxy.labels)


def _taken(workload: Workload, number: int) -> Mode | None:
    """What is taken on a port: plain text where the proxy has no identity, unless the policy is STRICT, then nothing (None)."""
    mode = _peer_modes(workload).of_port(number)
    if workload.proxy.has_identity:
        return mode
    return None if mode is Mode.STRICT else Mode.DISABLE


def _policies(workload: Workload) -> tuple[ResourceKey, ...]:
    return *workload.policies.keys, *_peer_modes(workload).keys


def _chains(workload: Workload, entrance: Entrance, **match: Any) -> list[Any]:
    """Filter chains for one entrance: requests to its routes, connections to the application, or by what is found out."""
    number = entrance.number
    name = listener_name(ANY_ADDRESS, number)
    longest = _longest_connection(workload, number)
    made = []
    for way, socket in _ways(workload, entrance):
        if way.http:
            manager = connection_manager(
                workload.scope, f"inbound_{name}", inbound=True, protocol=entrance.protocol, policies=workload.policies
            )
            manager.route_config.CopyFrom(inbound_routes(number, entrance.hostname))
            if longest is not None:
                nanoseconds = round(longest.max_connection_duration * 1e9)
                manager.common_http_protocol_options.max_connection_duration.FromNanoseconds(nanoseconds)
            one = chain(http_filter(manager), name=name, **way.match, **match)
        else:
            one = chain(
                *network_filters(workload.scope, workload.policies, unknown=entrance.protocol is PortProtocol.AUTO),
                tcp_filter(workload.scope, [(inbound_cluster(number), 1)], settings=longest, inbound=True),
                name=f"{name}_tcp",
                **way.match,
                **match,
            )
        if socket is not None:
            one.transport_socket.CopyFrom(socket)
        made.append(one)
    return made


def _longest_connection(workload: Workload, number: int) -> Any:
    """TCPSettings that say how long a connection that comes in may live, None if a Sidecar does not say it. Beyond Istio, where
    that bounds the connections to the application alone: so that a peer that was revoked does not stay for ever.
    """
    sidecar = workload.scope.sidecar
    if sidecar is None:
        return None
    own = [one.connection_pool for one in sidecar.spec.ingress if one.port.number == number]
    pool = next(filter(None, own), sidecar.spec.inbound_connection_pool)
    if pool is None or pool.tcp is None or pool.tcp.max_connection_duration is None:
        return None
    return pool.tcp.model_copy(update={"idle_timeout": None})


def _ways(workload: Workload, entrance: Entrance) -> Iterator[tuple[WayIn, Any]]:
    """The ways into an entrance, each with its TLS. What a Sidecar's `ingress` says of TLS holds over PeerAuthentication, and
    the mesh's own may come with mutual TLS all the same.
    """
    mode = _taken(workload, entrance.number)
    mesh = workload.scope.mesh
    if entrance.tls is None:
        for way in ways_in(entrance.protocol, mode) if mode is not None else ():
            yield way, mutual_tls(mesh, http=way.http) if way.mutual else None
        return
    http = entrance.protocol.is_http or entrance.protocol is PortProtocol.HTTPS
    own = server_transport_socket(entrance.tls, HTTP_ALPN if http else ())
    if mode in (None, Mode.DISABLE):
        yield WayIn(http, False, {}), own
        return
    protocols = {"application_protocols": (*MESH_TCP_ALPN, *MESH_HTTP_ALPN)}
    yield WayIn(http, True, {"transport_protocol": "tls", **protocols}), mutual_tls(mesh, http=http)
    yield WayIn(http, False, {"transport_protocol": "tls"}), own


def _let_servers_speak(listener: Any, workload: Workload, entrances: Sequence[Entrance]) -> None:
    """Where plain text is told from mutual TLS, a client that waits for the server's first word must not wait for ever: after
    a second it is taken for one that speaks plain text. Where there is mutual TLS alone, who does not begin with it is gone
    after Envoy's own 15 seconds. The mesh's `protocolDetectionTimeout` says another time.
    """
    if workload.scope.mesh.protocol_detection_timeout or not listener.listener_filters:
        return
    modes = {_taken(workload, each.number) for each in entrances}
    if any(
        not each.protocol.is_http
        and each.protocol is not PortProtocol.AUTO
        and each.tls is None
        and _taken(workload, each.number) is Mode.PERMISSIVE
        for each in entrances
    ):
        listener.listener_filters_timeout.FromNanoseconds(_SERVER_FIRST)
    elif modes == {Mode.STRICT} and (not workload.proxy.intercepts or _peer_modes(workload).mode is Mode.STRICT):
        listener.ClearField("listener_filters_timeout")


def _passed_on(workload: Workload, number: int, **match: Any) -> list[Any]:
    """Filter chains for captured connections to ports that no service has; ``number`` 0 stands for all of them."""
    mode = _taken(workload, number)
    if mode is None:
        return [_nowhere(workload, **match)]
    made = []
    for way in ways_in(PortProtocol.TCP, mode):
        one = chain(
            *network_filters(workload.scope, workload.policies, unknown=True),
            tcp_filter(workload.scope, [(INBOUND_PASSTHROUGH, 1)], inbound=True),
            name="virtualInbound",
            **way.match,
            **match,
        )
        if way.mutual:
            one.transport_socket.CopyFrom(mutual_tls(workload.scope.mesh, http=False))
        made.append(one)
    return made


def _nowhere(workload: Workload, **match: Any) -> Any:
    return chain(tcp_filter(workload.scope, [(BLACK_HOLE, 1)], inbound=True), name="virtualInbound-blackhole", **match)


def _virtual_inbound(workload: Workload, entrances: Sequence[Entrance]) -> Generated:
    mesh = workload.scope.mesh
    arrival = mesh.proxy_inbound_listen_port
    chains: list[Any] = [_nowhere(workload, destination_port=_port(arrival))]
    causes: list[ResourceKey] = []
    for entrance in entrances:
        port = {"destination_port": _port(entrance.number)}
        chains += _chains(workload, entrance, **port) or [_nowhere(workload, **port)]
        causes += entrance.causes
    for number in sorted(_peer_modes(workload).ports.keys() - {arrival, *(each.number for each in entrances)}):
        chains += _passed_on(workload, number, destination_port=_port(number))
    # No default filter chain: what no chain of its own port takes would get into that.
    chains += _passed_on(workload, 0)
    listener = new_listener(ANY_ADDRESS, arrival, chains, INBOUND, name="virtualInbound", mesh=mesh)
    _let_servers_speak(listener, workload, entrances)
    keep_addresses(listener, workload.proxy)
    # Before the inspectors: it is the original port that says what is expected.
    inspectors = list(listener.listener_filters)
    del listener.listener_filters[:]
    add_listener_filter(listener, "envoy.filters.listener.original_dst")
    listener.listener_filters.extend(inspectors)
    return generated(workload.scope, listener, (*causes, *_policies(workload)))


def _port(number: int) -> Any:
    return wrappers_pb2.UInt32Value(value=number)
