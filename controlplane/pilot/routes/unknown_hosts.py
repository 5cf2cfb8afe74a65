"""Where requests go whose host is not in the mesh.

Names as in Istio: `allow_any`, `block_all`.
"""

from __future__ import annotations

import re
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as components

from controlplane.pilot.forward_proxy import ALLOW_ANY, switch_on
from controlplane.pilot.names import PASSTHROUGH, PASSTHROUGH_BY_AUTHORITY, PASSTHROUGH_BY_NAME, outbound_cluster
from controlplane.pilot.routes.domains import cluster_domain
from controlplane.pilot.routes.outbound_hosts import HTTP_PORT
from controlplane.pilot.routes.tunnels import tunnel
from controlplane.pilot.routes.virtual_hosts import VirtualHost, virtual_host
from controlplane.pilot.scope import Scope

_BAD_GATEWAY = 502
# An address and a port: the original destination that a forward proxy's client means.
_ADDRESS_AND_PORT = r"(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F:.]+\]):\d{1,5}"
_NO_SUCH_HOST = (
    "no service of the mesh has this name. A listener with a port passes on to addresses (IP:PORT) and to services: "
    "add a ServiceEntry for this host, or send the request to the forward proxy\n"
)
_NO_SUCH_SERVICE = "no service of the mesh that this proxy may reach has this name and port\n"


def unknown_host(scope: Scope, *, captured: bool, by_name: bool = False) -> VirtualHost:
    """The virtual host for all hosts that no other one is for: on to where the request was sent, or nowhere (502), by the
    outbound policy.

    What was not ``captured`` was sent to the proxy itself: then only the authority says where to, if it is an address or,
    ``by_name``, any host that can be looked up. A name of the mesh's own is not: nothing but the mesh knows it.
    """
    if scope.outbound_policy != ALLOW_ANY:
        return scope.memo.get(("virtual host", "block_all"), _block_all)
    cluster = _egress_proxy(scope)
    if cluster != PASSTHROUGH or captured:
        return scope.memo.get(("virtual host", "allow_any", cluster), lambda: _allow_any(cluster))
    if not by_name:
        return scope.memo.get(("virtual host", "allow_any by address"), _allow_addresses)
    domain = cluster_domain(scope.proxy.dns_domain)
    return scope.memo.get(("virtual host", "allow_any by name", domain), lambda: _allow_names(domain))


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
    routes = [*_passing_to_addresses(), *_for_any_method(_refusing("unknown_host", _NO_SUCH_HOST))]
    return virtual_host("allow_any", ["*"], routes)


def _allow_names(domain: str) -> VirtualHost:
    routes = list(_passing_to_addresses())
    if domain:
        refusing = _refusing("unknown_service", _NO_SUCH_SERVICE)
        short, _, rest = domain.partition(".")
        said = rf"(?i).*\.{short}(\.{re.escape(rest)})?\.*(:\d*)?"
        refusing.match.headers.add(name=":authority").string_match.safe_regex.regex = said
        routes += _for_any_method(refusing)
    passing = _passing(PASSTHROUGH_BY_NAME)
    switch_on(passing)
    routes += [passing, tunnel(_copy(passing))]
    return virtual_host("allow_any", ["*"], routes)


def _passing_to_addresses() -> tuple[Any, Any]:
    """Routes for requests to an address and port, and for tunnels to one."""
    passing = _passing(PASSTHROUGH_BY_AUTHORITY)
    passing.match.headers.add(name=":authority").string_match.safe_regex.regex = _ADDRESS_AND_PORT
    return passing, tunnel(_copy(passing))


def _refusing(name: str, said: str) -> Any:
    answer = components.Route(
        name=name,
        match=components.RouteMatch(prefix="/"),
        direct_response=components.DirectResponseAction(status=_BAD_GATEWAY),
    )
    answer.direct_response.body.inline_string = said
    return answer


def _for_any_method(answer: Any) -> tuple[Any, Any]:
    """An answer, and the same for those who ask for a tunnel."""
    refused = _copy(answer)
    refused.match.ClearField("prefix")
    refused.match.connect_matcher.SetInParent()
    return answer, refused


def _copy(route: Any) -> Any:
    return components.Route.FromString(route.SerializeToString())


def _egress_proxy(scope: Scope) -> str:
    """The cluster for unknown hosts: a Sidecar may name a proxy of its own for them (`outboundTrafficPolicy.egressProxy`)."""
    policy = None if scope.sidecar is None else scope.sidecar.spec.outbound_traffic_policy
    destination = None if policy is None else policy.egress_proxy
    if destination is None or scope.sidecar is None:
        return PASSTHROUGH
    port = destination.port.number if destination.port is not None else HTTP_PORT
    hostname = scope.resolve(destination.host, scope.sidecar.namespace)
    return outbound_cluster(port, destination.subset or "", hostname)
