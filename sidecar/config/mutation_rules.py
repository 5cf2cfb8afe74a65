"""Which headers another may change: `config.common.mutation_rules.v3.HeaderMutationRules`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node
from sidecar.config.matcher import RegexMatcher, parse_regex


@dataclass(frozen=True, slots=True)
class MutationRules:
    """`disallow_expression` is asked first, then `allow_expression`; then `disallow_all`, `disallow_system` (pseudo-headers),
    `allow_envoy` (`x-envoy-*`) and `allow_all_routing` (host, `:authority`, `:scheme`, `:method`).

    A change that is not allowed is left out, or, with `disallow_is_error`, is an error.
    """

    allow_all_routing: bool = False
    allow_envoy: bool = False
    disallow_system: bool = False
    disallow_all: bool = False
    allow_expression: RegexMatcher | None = None
    disallow_expression: RegexMatcher | None = None
    disallow_is_error: bool = False


def parse_mutation_rules(node: Node) -> MutationRules:
    """`HeaderMutationRules`."""
    allow, disallow = node.child("allow_expression"), node.child("disallow_expression")
    return MutationRules(
        node.wrapped("allow_all_routing", False),
        node.wrapped("allow_envoy", False),
        node.wrapped("disallow_system", False),
        node.wrapped("disallow_all", False),
        None if allow is None else parse_regex(allow),
        None if disallow is None else parse_regex(disallow),
        node.wrapped("disallow_is_error", False),
    )
