"""Redirects that are followed here and not by the client: `route.v3.InternalRedirectPolicy`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sidecar.config.fields import Node
from sidecar.config.matcher import header_names

_PREDICATES = "envoy.extensions.internal_redirect."
_ALLOW_LISTED_ROUTES = _PREDICATES + "allow_listed_routes.v3.AllowListedRoutesConfig"
_PREVIOUS_ROUTES = _PREDICATES + "previous_routes.v3.PreviousRoutesConfig"
_SAFE_CROSS_SCHEME = _PREDICATES + "safe_cross_scheme.v3.SafeCrossSchemeConfig"
_CODES = frozenset((301, 302, 303, 307, 308))


@dataclass(frozen=True, slots=True)
class AllowListedRoutes:
    """Follow only to routes of these names."""

    allowed_route_names: frozenset[str]


@dataclass(frozen=True, slots=True)
class PreviousRoutes:
    """Follow to no route that this route has sent the request to already."""


@dataclass(frozen=True, slots=True)
class SafeCrossScheme:
    """Follow from plain HTTP to no target with TLS."""


RedirectPredicate: TypeAlias = AllowListedRoutes | PreviousRoutes | SafeCrossScheme


@dataclass(frozen=True, slots=True)
class InternalRedirectPolicy:
    """Follow responses with one of `redirect_response_codes`, at most `max_internal_redirects` times for a request, where
    all predicates agree. `response_headers_to_copy` go from the response to the new request, or leave it.
    """

    max_internal_redirects: int = 1
    redirect_response_codes: frozenset[int] = frozenset((302,))
    predicates: tuple[RedirectPredicate, ...] = ()
    allow_cross_scheme_redirect: bool = False
    response_headers_to_copy: tuple[bytes, ...] = ()


def parse_internal_redirect_policy(node: Node) -> InternalRedirectPolicy:
    """`route.v3.InternalRedirectPolicy`. Codes that are no redirects count for nothing, as in Envoy, and are warned of."""
    given = node.get("redirect_response_codes")
    for code in sorted(set(given) - _CODES):
        node.context.warn(node.path_of("redirect_response_codes"), f"{code} is no redirect and counts for nothing")
    copied = header_names(node.get("response_headers_to_copy"))
    for name in copied:
        if name.startswith(b":") or name == b"host":
            node.refuse(f"{name.decode()} is a pseudo-header or host", "response_headers_to_copy", "take it out")
    predicates = map(_parse_predicate, node.children("predicates"))
    return InternalRedirectPolicy(
        node.wrapped("max_internal_redirects", 1),
        _CODES.intersection(given) if given else frozenset((302,)),
        tuple(predicate for predicate in predicates if predicate is not None),
        node.get("allow_cross_scheme_redirect"),
        copied,
    )


def _parse_predicate(node: Node) -> RedirectPredicate | None:
    extension = node.extension(known=(_ALLOW_LISTED_ROUTES, _PREVIOUS_ROUTES, _SAFE_CROSS_SCHEME))
    if extension is None:
        return None
    match extension.type_name:
        case name if name == _ALLOW_LISTED_ROUTES:
            return AllowListedRoutes(frozenset(extension.get("allowed_route_names")))
        case name if name == _SAFE_CROSS_SCHEME:
            return SafeCrossScheme()
    return PreviousRoutes()
