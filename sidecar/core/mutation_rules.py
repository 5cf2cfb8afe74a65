"""Which changes of request headers another may make, compiled. Source: Envoy's ``HeaderMutationRules``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sidecar.config.mutation_rules import MutationRules
from sidecar.core.matching import compile_regex

ALLOWED: Final = 0
LEFT_OUT: Final = 1
FORBIDDEN: Final = 2
"""What becomes of a change: it is made, or not, or it is an error."""

CheckChange = Callable[[bytes, bool], int]
"""``check(name, removes)`` for a header's name in lower case."""

_ROUTING: Final = frozenset((b"host", b":authority", b":scheme", b":method"))


def compile_mutation_rules(rules: MutationRules) -> CheckChange:
    """The rules as one function. What a request cannot do without is never removed."""
    no = FORBIDDEN if rules.disallow_is_error else LEFT_OUT
    allow = None if rules.allow_expression is None else compile_regex(rules.allow_expression.regex)
    disallow = None if rules.disallow_expression is None else compile_regex(rules.disallow_expression.regex)

    def check(name: bytes, removes: bool) -> int:
        if removes and (name.startswith(b":") or name == b"host"):
            return no
        if disallow is not None and disallow(name):
            return no
        if allow is not None and allow(name):
            return ALLOWED
        if (
            rules.disallow_all
            or (rules.disallow_system and name.startswith(b":"))
            or (not rules.allow_envoy and name.startswith(b"x-envoy-"))
            or (not rules.allow_all_routing and name in _ROUTING)
        ):
            return no
        return ALLOWED

    return check
