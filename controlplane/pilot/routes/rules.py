"""The rules of one virtual service become routes, in their order.

Source: Istio's reference, "Virtual Service".
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from envoy.config.route.v3 import route_components_pb2 as components

from controlplane.model.resource import Resource
from controlplane.model.service import Service
from controlplane.pilot.names import outbound_cluster
from controlplane.pilot.routes.actions import (
    apply_direct_response,
    apply_forwarding,
    apply_redirect,
    plain_action,
)
from controlplane.pilot.routes.delegates import Rules
from controlplane.pilot.routes.destinations import hash_policies
from controlplane.pilot.routes.filter_config import apply_cors, apply_fault, apply_offer
from controlplane.pilot.routes.header_operations import apply_headers
from controlplane.pilot.routes.matching import MESH, matches_everything, proxy_meets, route_match
from controlplane.pilot.scope import Rule, Scope

_EVERYTHING = (None,)  # what a rule without conditions matches


def rule_routes(
    scope: Scope, owner: Resource, rules: Rules, port: int, gateways: Collection[str] = (MESH,)
) -> list[Any]:
    """`Route` messages of a virtual service's rules (`effective_rules`), for requests to ``port``.

    A rule becomes one route for each of its conditions that can hold at this proxy. What follows a route that no request
    fails is left out.
    """
    routes: list[Any] = []
    for namespace, rule in rules.rules:
        for match in rule.match or _EVERYTHING:
            if match is not None and not proxy_meets(scope, owner, match, port, gateways):
                continue
            route = _route(scope, owner, namespace, rule, match, port)
            routes.append(route)
            if matches_everything(route.match):
                return routes
    return routes


def default_route(scope: Scope, service: Service, port: int, rule: Rule | None) -> Any:
    """The one route of a service that no virtual service speaks of."""
    cluster = outbound_cluster(port, "", service.hostname)
    route = components.Route(
        name="default",
        match=components.RouteMatch(prefix="/"),
        route=plain_action(cluster, scope, hash_policies(rule, "", port)),
        decorator=components.Decorator(operation=f"{service.hostname}:{port}/*"),
    )
    apply_offer(scope, service, port, "", route)
    return route


def selected_conditions(
    scope: Scope, owner: Resource, rules: Rules, port: int, gateways: Collection[str] = (MESH,)
) -> tuple[bool, ...]:
    """Which conditions can hold here: what the routes of a virtual service have from the proxy that they are for."""
    return tuple(
        match is None or proxy_meets(scope, owner, match, port, gateways)
        for _, rule in rules.rules
        for match in rule.match or _EVERYTHING
    )


def config_metadata(owner: Resource) -> dict[str, Any]:
    """`filter_metadata` that says which resource something was made from, in Istio's form."""
    kind = "".join(f"-{c.lower()}" if c.isupper() else c for c in owner.key.kind).lstrip("-")
    version = owner.document.get("apiVersion", "networking.istio.io/v1")
    return {"istio": {"config": f"/apis/{version}/namespaces/{owner.namespace}/{kind}/{owner.name}"}}


def _route(scope: Scope, owner: Resource, namespace: str, rule: Any, match: Any, port: int) -> Any:
    name = rule.name or ""
    if match is not None and match.name:
        name = f"{name}.{match.name}"
    route = components.Route(name=name, match=route_match(match))
    for key, value in config_metadata(owner).items():
        route.metadata.filter_metadata[key].update(value)
    apply_headers(rule.headers, route)
    apply_fault(rule.fault, route)
    apply_cors(rule.cors_policy, route)
    if rule.redirect is not None:
        apply_redirect(rule.redirect, route, port)
    elif rule.direct_response is not None:
        apply_direct_response(rule.direct_response, route)
    else:
        apply_forwarding(rule, route, scope, namespace, port)
    route.decorator.operation = _operation(route, owner.name, port)
    return route


def _operation(route: Any, name: str, port: int) -> str:
    """What spans are called: where the request goes, and the path that its route is for."""
    match = route.match
    match match.WhichOneof("path_specifier"):
        case "path":
            path = match.path
        case "safe_regex":
            path = match.safe_regex.regex
        case _:
            path = f"{match.prefix}*"
    if route.HasField("route") and route.route.cluster:
        _, number, _, hostname = route.route.cluster.split("|", 3)
        return f"{hostname}:{number}{path}"
    return f"{name}:{port}{path}"
