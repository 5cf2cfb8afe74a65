"""Where requests go whose host is not in the mesh.

Names as in Istio: `allow_any`, `block_all`.
"""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_components_pb2 as components

from controlplane.pilot.names import PASSTHROUGH, PASSTHROUGH_BY_AUTHORITY, outbound_cluster
from controlplane.pilot.routes.outbound_hosts import HTTP_PORT
from controlplane.pilot.routes.tunnels import tunnel
from controlplane.pilot.routes.virtual_hosts import VirtualHost, virtual_host
from controlplane.pilot.scope import Scope

_BAD_GATEWAY = 502
# An address and a port: the original destination that a forward proxy's client means.
_ADDRESS_AND_PORT = r"(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:.]+\]):\d{1,5}"
_NO_SUCH_HOST = (
    "no service of the mesh has this name. A forward proxy passes on to addresses (IP:PORT) and to services: "
    "add a ServiceEntry for this host\n"
)


def unknown_host(scope: Scope, *, captured: bool) -> VirtualHost:
    """The virtual host for all hosts that no other one is for: on to where the request was sent, or nowhere (502), by the
    outbound policy.

    What was not ``captured`` was sent to the proxy itself: then only an authority that is an address says where to.
    """
    if scope.outbound_policy != "ALLOW_ANY":
        return scope.memo.get(("virtual host", "block_all"), _block_all)
    cluster = _egress_proxy(scope)
    if cluster == PASSTHROUGH and not captured:
        return scope.memo.get(("virtual host", "allow_any by authority"), _allow_addresses)
    return scope.memo.get(("virtual host", "allow_any", cluster), lambda: _allow_any(cluster))


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
    through = tunnel(components.Route.FromString(passing.SerializeToString()))
    refused = components.Route.FromString(answer.SerializeToString())
    refused.match.CopyFrom(components.RouteMatch())
    refused.match.connect_matcher.SetInParent()
    return virtual_host("allow_any", ["*"], [passing, through, refused, answer])


def _egress_proxy(scope: Scope) -> str:
    """The cluster for unknown hosts: a Sidecar may name a proxy of its own for them (`outboundTrafficPolicy.egressProxy`)."""
    policy = None if scope.sidecar is None else scope.sidecar.spec.outbound_traffic_policy
    destination = None if policy is None else policy.egress_proxy
    if destination is None or scope.sidecar is None:
        return PASSTHROUGH
    port = destination.port.number if destination.port is not None else HTTP_PORT
    hostname = scope.resolve(destination.host, scope.sidecar.namespace)
    return outbound_cluster(port, destination.subset or "", hostname)
