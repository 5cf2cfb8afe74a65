"""Who may do what, for requests: `extensions.filters.http.rbac.v3.RBAC`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node
from sidecar.config.rbac import Rbac, parse_rbac

TYPE = "envoy.extensions.filters.http.rbac.v3.RBAC"
TYPE_PER_ROUTE = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute"


@dataclass(frozen=True, slots=True)
class HttpRbac:
    """`rules` are enforced (None: everything may pass), `shadow_rules` only counted and logged.

    With `track_per_rule_stats` each policy has figures of its own.
    """

    rules: Rbac | None = None
    shadow_rules: Rbac | None = None
    rules_stat_prefix: str = ""
    shadow_rules_stat_prefix: str = ""
    track_per_rule_stats: bool = False


def parse_http_rbac(node: Node) -> HttpRbac:
    """`RBAC`, all but the generic matchers."""
    rules, shadow_rules = node.child("rules"), node.child("shadow_rules")
    return HttpRbac(
        None if rules is None else parse_rbac(rules),
        None if shadow_rules is None else parse_rbac(shadow_rules),
        node.get("rules_stat_prefix"),
        node.get("shadow_rules_stat_prefix"),
        node.get("track_per_rule_stats"),
    )


def parse_http_rbac_per_route(node: Node) -> HttpRbac:
    """`RBACPerRoute`: takes the place of the filter's own rules; an empty one switches them off."""
    rbac = node.child("rbac")
    return HttpRbac() if rbac is None else parse_http_rbac(rbac)
