"""Listeners of a gateway: one for each address of its servers.

Source: Istio's reference, "Gateway"; TLS modes SIMPLE, MUTUAL, PASSTHROUGH, AUTO_PASSTHROUGH.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from controlplane.model.resource import Resource, ResourceKey
from controlplane.model.service import PortProtocol
from controlplane.pilot.gateway_servers import GatewayServer, servers_by_address
from controlplane.pilot.hosts import covers
from controlplane.pilot.listeners.filters import connection_manager, http_filter, tcp_filter, use_rds
from controlplane.pilot.listeners.listener import (
    OUTBOUND,
    chain,
    generated,
    listener_name,
    new_listener,
    without_overlaps,
)
from controlplane.pilot.listeners.tcp import routed_chains
from controlplane.pilot.listeners.tls import HTTP_ALPN, server_transport_socket
from controlplane.pilot.names import sni_cluster
from controlplane.pilot.scope import Generated, Scope
from controlplane.pilot.security.filters import network_filters

_log = logging.getLogger(__name__)


def gateway_listeners(scope: Scope) -> Iterator[Generated]:
    """What the proxies of a gateway listen on. A port whose servers have nothing to hand on to is not listened on."""
    for (address, port), servers in servers_by_address(scope).items():
        chains: list[Any] = []
        causes: list[ResourceKey] = []
        for server in servers:
            causes.append(server.gateway.key)
            chains += _chains(scope, server, address, causes)
        # Plain servers of a port share one; a name that several servers open TLS for is the oldest one's.
        chains = without_overlaps(chains)
        if chains:
            listener = new_listener(address, port, chains, OUTBOUND, mesh=scope.mesh)
            yield generated(scope, listener, (*causes, *scope.policies.keys))


def _chains(scope: Scope, server: GatewayServer, address: str, causes: list[ResourceKey]) -> list[Any]:
    if server.terminates_tls and server.spec.tls.mode == "ISTIO_MUTUAL" and not scope.proxy.has_identity:
        _log.warning(
            "%s has a server of ISTIO_MUTUAL at port %d, for a proxy without an identity",
            server.gateway.key,
            server.port,
        )
        return []  # nobody is let in who was to be asked for a certificate
    if server.is_http:
        name = listener_name(address, server.listens_on)
        manager = connection_manager(scope, f"outbound_{name}", edge=True, policies=scope.policies)
        use_rds(manager, server.route_name)
        if not server.terminates_tls:
            return [chain(http_filter(manager))]
        return [_with_tls(chain(http_filter(manager), **_server_names(server)), server, HTTP_ALPN)]
    if server.spec.tls is not None and server.spec.tls.mode == "AUTO_PASSTHROUGH":
        return _automatic(scope, server)
    owners = [owner for owner in scope.virtual_services(server.gateway_name) if _bound(scope, server, owner)]
    causes += [owner.key for owner in owners]
    unopened = server.protocol.is_tls and not server.terminates_tls
    routed = routed_chains(scope, owners, server.port, tls=server.protocol.is_tls, gateways=(server.gateway_name,))
    made = []
    for one in routed:
        if unopened:
            names = _narrowed(server, list(one.filter_chain_match.server_names))
            if names is None:
                continue
            del one.filter_chain_match.server_names[:]
            one.filter_chain_match.server_names.extend(names)
        elif server.terminates_tls:
            if not one.filter_chain_match.server_names:
                one.filter_chain_match.server_names.extend(_server_names(server).get("server_names", []))
            one = _with_tls(one, server, ())
        made.append(_guarded(scope, one))
    return made


def _guarded(scope: Scope, one: Any) -> Any:
    """A filter chain for connections, with the filters of policies before its own."""
    filters = [*network_filters(scope, scope.policies), *one.filters]
    del one.filters[:]
    one.filters.extend(filters)
    return one


def _automatic(scope: Scope, server: GatewayServer) -> list[Any]:
    """AUTO_PASSTHROUGH: the server name says the cluster, of the services that the server's hosts admit."""
    made = []
    for service in scope.services.values():
        if not any(space in ("*", service.namespace) and covers(own, service.hostname) for space, own in server.hosts):
            continue
        rule = scope.destination_rule(service.hostname)
        for port in service.ports:
            if port.protocol is PortProtocol.UDP:
                continue
            for subset in ("", *(rule.subsets if rule is not None else ())):
                cluster = sni_cluster(port.number, subset, service.hostname)
                filters = (*network_filters(scope, scope.policies), tcp_filter(scope, [(cluster, 1)]))
                made.append(chain(*filters, server_names=[cluster]))
    return made


def _bound(scope: Scope, server: GatewayServer, owner: Resource) -> bool:
    return any(server.served(owner, scope.resolve(host, owner.namespace)) for host in owner.spec.hosts)


def _server_names(server: GatewayServer) -> dict[str, Any]:
    """The filter chain match of a server with TLS: its hosts, or any."""
    names = [host for _, host in server.hosts]
    return {"transport_protocol": "tls"} if "*" in names else {"server_names": list(dict.fromkeys(names))}


def _narrowed(server: GatewayServer, names: Sequence[str]) -> list[str] | None:
    """Server names of a route as far as a server serves them; empty for all, None if it serves none of them."""
    own = [host for _, host in server.hosts]
    if not names:
        return [] if "*" in own else own
    met = [name if covers(host, name) else host for name in names for host in own if _meet(host, name)]
    return list(dict.fromkeys(met)) or None


def _meet(one: str, other: str) -> bool:
    return covers(one, other) or covers(other, one)


def _with_tls(one: Any, server: GatewayServer, alpn: Sequence[str]) -> Any:
    one.transport_socket.CopyFrom(server_transport_socket(server.spec.tls, alpn))
    return one
