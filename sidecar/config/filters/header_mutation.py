"""Changing headers in the filter chain: `extensions.filters.http.header_mutation.v3.HeaderMutation`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from sidecar.config.core_types import HeaderValueOption, parse_header_value_option
from sidecar.config.fields import Node
from sidecar.config.matcher import StringMatcher, header_name, parse_string_matcher

TYPE = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
TYPE_PER_ROUTE = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute"


@dataclass(frozen=True, slots=True)
class RemoveHeader:
    """Remove the header of this name."""

    name: bytes


@dataclass(frozen=True, slots=True)
class RemoveOnMatch:
    """Remove every header whose name (lower case) matches."""

    key_matcher: StringMatcher


HeaderChange: TypeAlias = HeaderValueOption | RemoveHeader | RemoveOnMatch


@dataclass(frozen=True, slots=True)
class QueryParameterMutation:
    """Remove the query parameter `key` if `value` is None, else add `value` (a format string) as `action` says.

    `action` is the name of Envoy's enum value, as in HeaderValueOption.
    """

    key: str
    value: str | None
    action: str


@dataclass(frozen=True, slots=True)
class HeaderMutation:
    """The changes, in order. `most_specific_header_mutations_wins`: routes have the last word, not this filter."""

    request_mutations: tuple[HeaderChange, ...] = ()
    response_mutations: tuple[HeaderChange, ...] = ()
    query_parameter_mutations: tuple[QueryParameterMutation, ...] = ()
    most_specific_header_mutations_wins: bool = False


def parse_header_mutation(node: Node) -> HeaderMutation:
    """`HeaderMutation`."""
    return _parse_mutations(node, node.get("most_specific_header_mutations_wins"))


def parse_header_mutation_per_route(node: Node) -> HeaderMutation:
    """`HeaderMutationPerRoute`."""
    return _parse_mutations(node, False)


def _parse_mutations(node: Node, most_specific_wins: bool) -> HeaderMutation:
    mutations = node.child("mutations")
    if mutations is None:
        return HeaderMutation(most_specific_header_mutations_wins=most_specific_wins)
    return HeaderMutation(
        parse_header_changes(mutations.children("request_mutations")),
        parse_header_changes(mutations.children("response_mutations")),
        tuple(map(_parse_query_parameter, mutations.children("query_parameter_mutations"))),
        most_specific_wins,
    )


def parse_header_changes(nodes: Iterable[Node]) -> tuple[HeaderChange, ...]:
    """Messages of ``config.common.mutation_rules.v3.HeaderMutation``."""
    changes = map(_parse_header_change, nodes)
    return tuple(change for change in changes if change is not None)


def _parse_header_change(node: Node) -> HeaderChange | None:
    match node.which("action"):
        case "append":
            option = node.child("append")
            return None if option is None else parse_header_value_option(option)
        case "remove":
            name = header_name(node.get("remove"))
            if name.startswith(b":") or name == b"host":
                node.refuse("names a pseudo-header or host, without which nothing can be sent", "remove", "take it out")
            return RemoveHeader(name)
        case "remove_on_match":
            matcher = node.child("remove_on_match")
            return None if matcher is None else RemoveOnMatch(parse_string_matcher(matcher.child("key_matcher")))
        case _:
            return None


def _parse_query_parameter(node: Node) -> QueryParameterMutation:
    removed, append = node.get("remove"), node.child("append")
    if bool(removed) == (append is not None):
        node.refuse("needs append or remove, and not both", do="set one of them")
    if append is None:
        return QueryParameterMutation(removed, None, "")
    key, value = _parse_record(append)
    return QueryParameterMutation(key, value, append.enum("action"))


def _parse_record(node: Node) -> tuple[str, str]:
    record = node.child("record")
    if record is None:
        node.refuse("is required", "record", "name the parameter and its value")
        return "", ""
    value = record.child("value")
    if value is None:
        record.refuse("is required", "value", "write a string")
    return record.get("key"), "" if value is None else value.format("string_value")
