"""Conditions on responses that are put together of others: `envoy.config.common.matcher.v3.MatchPredicate`."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.config.fields import Node
from sidecar.config.matcher import HeaderMatcher, parse_header_matchers

_OF_SEVERAL = {"or_match": "or", "and_match": "and"}


@dataclass(frozen=True, slots=True)
class MatchPredicate:
    """`kind` is `or`, `and` or `not` (of `rules`), `any`, or `headers` (all of the `headers` of a response match)."""

    kind: str
    rules: tuple[MatchPredicate, ...] = ()
    headers: tuple[HeaderMatcher, ...] = ()


def parse_match_predicate(node: Node) -> MatchPredicate:
    """`MatchPredicate` for what is known of a response with its head: rules about anything else are refused."""
    rule = node.which("rule")
    if rule in _OF_SEVERAL:
        several = node.child(rule)
        rules = () if several is None else tuple(map(parse_match_predicate, several.children("rules")))
        return MatchPredicate(_OF_SEVERAL[rule], rules)
    if rule == "not_match":
        inverted = node.child("not_match")
        return MatchPredicate("not", () if inverted is None else (parse_match_predicate(inverted),))
    headers = node.child("http_response_headers_match") if rule == "http_response_headers_match" else None
    if headers is not None:
        return MatchPredicate("headers", headers=parse_header_matchers(headers.children("headers")))
    if node.has("any_match"):
        node.get("any_match")
    return MatchPredicate("any")
