"""What a rule of a virtual service does with its requests becomes Envoy's route action: forward, redirect or answer.

Source: Istio's reference, "Virtual Service", HTTPRoute, HTTPRouteDestination, HTTPRewrite, HTTPRedirect,
HTTPDirectResponse, HTTPMirrorPolicy.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as components
from envoy.type.matcher.v3 import regex_pb2
from envoy.type.v3 import percent_pb2

from controlplane.pilot.routes.destinations import destination_cluster, destination_hash_policies, destination_port
from controlplane.pilot.routes.filter_config import apply_offer, fraction
from controlplane.pilot.routes.header_operations import apply_headers, authority
from controlplane.pilot.routes.retries import retry_policy
from controlplane.pilot.scope import Scope

_REDIRECT_CODES = {
    301: components.RedirectAction.MOVED_PERMANENTLY,
    302: components.RedirectAction.FOUND,
    303: components.RedirectAction.SEE_OTHER,
    307: components.RedirectAction.TEMPORARY_REDIRECT,
    308: components.RedirectAction.PERMANENT_REDIRECT,
}
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PREFIX = "%PREFIX()%"


def plain_action(cluster: str, scope: Scope, hashed: Sequence[Any] = ()) -> Any:
    """The action of a route that no virtual service speaks of: no timeout, the mesh's retries."""
    action = components.RouteAction(cluster=cluster)
    set_timeout(action, None)
    retries = retry_policy(None, scope.mesh.default_http_retry_policy, hashed=bool(hashed))
    if retries is not None:
        action.retry_policy.CopyFrom(retries)
    action.hash_policy.extend(hashed)
    return action


def set_timeout(action: Any, seconds: float | None) -> None:
    """A request's timeout; None and 0 are none.

    Deadlines of gRPC requests are for their clients and servers to keep. Envoy's field for them is deprecated, and complained
    of in its log for every route.
    """
    action.timeout.FromNanoseconds(round((seconds or 0.0) * 1e9))


def apply_redirect(redirect: Any, route: Any, port: int) -> None:
    """Make ``route`` answer with `HTTPRedirect`. ``port`` is the one that the request came for."""
    made = route.redirect
    made.host_redirect = redirect.authority or ""
    if redirect.uri:
        if redirect.uri.startswith(_PREFIX):
            made.prefix_rewrite = redirect.uri.removeprefix(_PREFIX)
        else:
            made.path_redirect = redirect.uri
    if redirect.scheme:
        made.scheme_redirect = redirect.scheme
    if redirect.port:
        made.port_redirect = redirect.port
    elif redirect.derive_port == "FROM_REQUEST_PORT":
        made.port_redirect = port
    elif redirect.derive_port == "FROM_PROTOCOL_DEFAULT" and redirect.scheme in _DEFAULT_PORTS:
        made.port_redirect = _DEFAULT_PORTS[redirect.scheme]
    made.response_code = _REDIRECT_CODES[redirect.redirect_code or 301]


def apply_direct_response(response: Any, route: Any) -> None:
    """Make ``route`` answer with `HTTPDirectResponse`."""
    route.direct_response.status = response.status
    if response.body is None:
        return
    if response.body.string is not None:
        route.direct_response.body.inline_string = response.body.string
    elif response.body.bytes is not None:
        route.direct_response.body.inline_bytes = base64.b64decode(response.body.bytes)


def apply_forwarding(rule: Any, route: Any, scope: Scope, namespace: str, port: int) -> None:
    """Make ``route`` forward as the `HTTPRoute` says, to one destination or to several by weight."""
    action = route.route
    destinations = [each for each in rule.route if len(rule.route) == 1 or (each.weight or 0) > 0]
    hashed = [
        policy
        for each in destinations
        for policy in destination_hash_policies(scope, each.destination, namespace, port)
    ]
    action.hash_policy.extend(hashed)
    set_timeout(action, rule.timeout)
    retries = retry_policy(rule.retries, scope.mesh.default_http_retry_policy, hashed=bool(hashed))
    if retries is not None:
        action.retry_policy.CopyFrom(retries)
    _rewrite(rule, action)
    _mirror(rule, action, scope, namespace, port)
    if host := authority(rule.headers):
        action.host_rewrite_literal = host
    if len(destinations) == 1:
        (one,) = destinations
        action.cluster = destination_cluster(scope, one.destination, namespace, port)
        _offer(scope, one.destination, namespace, port, route)
        apply_headers(one.headers, route)
        if host := authority(one.headers):
            action.host_rewrite_literal = host
        return
    for each in destinations:
        cluster = action.weighted_clusters.clusters.add(
            name=destination_cluster(scope, each.destination, namespace, port)
        )
        cluster.weight.value = each.weight
        _offer(scope, each.destination, namespace, port, cluster)
        apply_headers(each.headers, cluster)
        if host := authority(each.headers):
            cluster.host_rewrite_literal = host


def _offer(scope: Scope, destination: Any, namespace: str, port: int, route: Any) -> None:
    hostname = scope.resolve(destination.host, namespace)
    number = destination_port(scope, destination, hostname, port)
    apply_offer(scope, scope.service(hostname), number, destination.subset or "", route)


def _rewrite(rule: Any, action: Any) -> None:
    rewrite = rule.rewrite
    if rewrite is None:
        return
    if rewrite.uri_regex_rewrite is not None:
        action.regex_rewrite.pattern.CopyFrom(regex_pb2.RegexMatcher(regex=rewrite.uri_regex_rewrite.match))
        action.regex_rewrite.substitution = rewrite.uri_regex_rewrite.rewrite
    elif rewrite.uri:
        action.prefix_rewrite = rewrite.uri
    if rewrite.authority:
        action.host_rewrite_literal = rewrite.authority


def _mirror(rule: Any, action: Any, scope: Scope, namespace: str, port: int) -> None:
    mirrors = [(each.destination, each.percentage) for each in rule.mirrors]
    if rule.mirror is not None:
        old = rule.mirror_percent
        mirrors.append((rule.mirror, rule.mirror_percentage if old is None else percent_pb2.Percent(value=old)))
    for destination, percentage in mirrors:
        share = fraction(percentage)
        if share.numerator == 0:
            continue
        action.request_mirror_policies.add(
            cluster=destination_cluster(scope, destination, namespace, port),
            runtime_fraction=base_pb2.RuntimeFractionalPercent(default_value=share),
        ).trace_sampled.value = False
