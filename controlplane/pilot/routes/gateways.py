"""Route configurations of a gateway: the virtual services that are bound to its servers, merged by host.

Names as in Istio: `http.8080` by the port that is listened on, and `https.443.PORTNAME.GATEWAY.NAMESPACE` by the Gateway's own
for each server with TLS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as components

from controlplane.model.resource import Resource
from controlplane.pilot.gateway_servers import GatewayServer, servers_by_address
from controlplane.pilot.routes.matching import matches_everything
from controlplane.pilot.routes.virtual_hosts import (
    RuleView,
    VirtualHost,
    new_route_configuration,
    route_configuration,
    virtual_host,
)
from controlplane.pilot.scope import Generated, Scope


def gateway_route_configurations(scope: Scope) -> Iterator[Generated]:
    """All that the listeners of a gateway may subscribe to."""
    for servers in servers_by_address(scope).values():
        by_name: dict[str, list[GatewayServer]] = {}
        for server in servers:
            if server.is_http:
                by_name.setdefault(server.route_name, []).append(server)
        for name, sharing in by_name.items():
            message = new_route_configuration(name, ignore_port_in_host_matching=True)
            yield route_configuration(scope, message, _virtual_hosts(scope, sharing, sharing[0].port))


def _virtual_hosts(scope: Scope, servers: Sequence[GatewayServer], port: int) -> list[VirtualHost]:
    speaking: dict[str, dict[tuple[Resource, str], None]] = {}  # by host: virtual services, through which gateway
    redirecting: set[str] = set()
    for server in servers:
        for owner in scope.virtual_services(server.gateway_name):
            if not owner.spec.http:
                continue
            for host in owner.spec.hosts:
                for served in server.served(owner, scope.resolve(host, owner.namespace)):
                    speaking.setdefault(served, {})[owner, server.gateway_name] = None
                    if _redirects(server):
                        redirecting.add(served)
        if _redirects(server):
            for _, host in server.hosts:
                speaking.setdefault(host, {})
                redirecting.add(host)
    made = [_virtual_host(scope, host, port, list(owners), host in redirecting) for host, owners in speaking.items()]
    return made or [scope.memo.get(("virtual host", "blackhole", port), lambda: _nothing(port))]


def _virtual_host(
    scope: Scope, host: str, port: int, owners: Sequence[tuple[Resource, str]], redirects: bool
) -> VirtualHost:
    views: dict[Resource, RuleView] = {}
    for owner, _ in owners:
        if owner not in views:
            views[owner] = RuleView(scope, owner, frozenset(gateway for other, gateway in owners if other is owner))

    def make() -> VirtualHost:
        routes = [route for view in views.values() for route in view.routes(port)]
        causes = tuple(cause for view in views.values() for cause in view.causes)
        require_tls = components.VirtualHost.ALL if redirects else components.VirtualHost.NONE
        return virtual_host(f"{host}:{port}", [host], _merged(routes), causes, require_tls)

    key = ("gateway's virtual host", host, port, redirects, tuple(view.key(port) for view in views.values()))
    return scope.memo.get(key, make)


def _merged(routes: Sequence[Any]) -> list[Any]:
    """Routes of several virtual services: those that every request meets go last, so that they hide nobody's."""
    everything = [route for route in routes if matches_everything(route.match)]
    return [route for route in routes if not matches_everything(route.match)] + everything[:1]


def _redirects(server: GatewayServer) -> bool:
    return server.spec.tls is not None and bool(server.spec.tls.https_redirect)


def _nothing(port: int) -> VirtualHost:
    """What a port without virtual services serves: 404, whatever is asked for."""
    return virtual_host(f"blackhole:{port}", ["*"], [])
