"""Cross-origin resource sharing: `extensions.filters.http.cors.v3` and the deprecated `route.v3.CorsPolicy`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.core_types import Fraction
from sidecar.config.fields import Node
from sidecar.config.matcher import StringMatcher, parse_string_matcher

TYPE = "envoy.extensions.filters.http.cors.v3.Cors"
TYPE_PER_ROUTE = "envoy.extensions.filters.http.cors.v3.CorsPolicy"


@dataclass(frozen=True, slots=True)
class Cors:
    """The filter in the chain: it does nothing without a CorsPolicy on the route or virtual host."""


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """The allowed origins and what to tell them; header values that are empty are not sent, None says nothing.

    `filter_enabled` is the share of requests for which it is enforced, `shadow_enabled` for which it is only evaluated
    and counted (looked at when it is not enforced).
    """

    allow_origin_string_match: tuple[StringMatcher, ...] = ()
    allow_methods: bytes = b""
    allow_headers: bytes = b""
    expose_headers: bytes = b""
    max_age: bytes = b""
    allow_credentials: bool | None = None
    filter_enabled: Fraction = (100, 100)
    shadow_enabled: Fraction = (0, 100)
    allow_private_network_access: bool | None = None
    forward_not_matching_preflights: bool | None = None


def parse_cors(node: Node) -> Cors:
    """`Cors`."""
    return Cors()


def parse_cors_policy(node: Node) -> CorsPolicy:
    """`CorsPolicy`, of the filter's own package or of `route.v3`: they have the same fields."""
    return CorsPolicy(
        allow_origin_string_match=tuple(map(parse_string_matcher, node.children("allow_origin_string_match"))),
        allow_methods=node.get("allow_methods").encode(),
        allow_headers=node.get("allow_headers").encode(),
        expose_headers=node.get("expose_headers").encode(),
        max_age=node.get("max_age").encode(),
        allow_credentials=node.wrapped("allow_credentials", None),
        filter_enabled=node.runtime_fraction("filter_enabled") or (100, 100),
        shadow_enabled=node.runtime_fraction("shadow_enabled") or (0, 100),
        allow_private_network_access=node.wrapped("allow_private_network_access", None),
        forward_not_matching_preflights=node.wrapped("forward_not_matching_preflights", None),
    )
