"""What of a request is counted by rate limits: `route.v3.RateLimit` and its actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sidecar.config.fields import Node
from sidecar.config.matcher import (
    HeaderMatcher,
    QueryParameterMatcher,
    header_name,
    parse_header_matchers,
    parse_query_parameter_matcher,
)


@dataclass(frozen=True, slots=True)
class SourceCluster:
    """(`source_cluster`, the cluster of the node that this proxy is)."""


@dataclass(frozen=True, slots=True)
class DestinationCluster:
    """(`destination_cluster`, the cluster that the route goes to)."""


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """(`descriptor_key`, the header's value). Without the header: this entry (`skip_if_absent`) or all are left out."""

    header_name: bytes
    descriptor_key: str
    skip_if_absent: bool


@dataclass(frozen=True, slots=True)
class QueryParameters:
    """(`descriptor_key`, the query parameter's value); as RequestHeaders without one."""

    query_parameter_name: bytes
    descriptor_key: str
    skip_if_absent: bool


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """(`remote_address`, the trusted address of the downstream)."""


@dataclass(frozen=True, slots=True)
class MaskedRemoteAddress:
    """(`masked_remote_address`, that address as a range of so many bits)."""

    v4_prefix_mask_len: int
    v6_prefix_mask_len: int


@dataclass(frozen=True, slots=True)
class GenericKey:
    """(`descriptor_key`, `descriptor_value`), always."""

    descriptor_value: str
    descriptor_key: str


@dataclass(frozen=True, slots=True)
class HeaderValueMatch:
    """(`descriptor_key`, `descriptor_value`) if all of `headers` match is what `expect_match` says; else no entry."""

    descriptor_key: str
    descriptor_value: str
    expect_match: bool
    headers: tuple[HeaderMatcher, ...]


@dataclass(frozen=True, slots=True)
class QueryParameterValueMatch:
    """The same for query parameters."""

    descriptor_key: str
    descriptor_value: str
    expect_match: bool
    query_parameters: tuple[QueryParameterMatcher, ...]


@dataclass(frozen=True, slots=True)
class MetadataAction:
    """(`descriptor_key`, the string under `path` of `key` in the metadata, else `default_value`).

    With neither: this entry (`skip_if_absent`) or all are left out.
    """

    descriptor_key: str
    key: str
    path: tuple[str, ...]
    default_value: str
    source: Literal["DYNAMIC", "ROUTE_ENTRY"]
    skip_if_absent: bool


RateLimitAction: TypeAlias = (
    SourceCluster
    | DestinationCluster
    | RequestHeaders
    | QueryParameters
    | RemoteAddress
    | MaskedRemoteAddress
    | GenericKey
    | HeaderValueMatch
    | QueryParameterValueMatch
    | MetadataAction
)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The actions yield one entry each, which together are a descriptor. A request counts `hits_addend` times."""

    actions: tuple[RateLimitAction, ...]
    hits_addend: int = 1


def parse_rate_limit(node: Node) -> RateLimit:
    """`route.v3.RateLimit` of a local rate limit or of a route; stages, overrides and disabling keys are refused."""
    addend = node.child("hits_addend")
    hits = 1 if addend is None else addend.wrapped("number", 1)
    actions = map(_parse_action, node.children("actions"))
    return RateLimit(tuple(action for action in actions if action is not None), hits)


def _parse_action(node: Node) -> RateLimitAction | None:
    kind = node.which("action_specifier")
    if kind is None or kind not in _PARSERS:
        return None  # not read, so refused
    inner = node.child(kind)
    return None if inner is None else _PARSERS[kind](inner)


def _parse_masked(node: Node) -> RateLimitAction:
    return MaskedRemoteAddress(node.wrapped("v4_prefix_mask_len", 32), node.wrapped("v6_prefix_mask_len", 128))


def _parse_request_headers(node: Node) -> RateLimitAction:
    return RequestHeaders(header_name(node.get("header_name")), node.get("descriptor_key"), node.get("skip_if_absent"))


def _parse_query_parameters(node: Node) -> RateLimitAction:
    name = node.get("query_parameter_name").encode()
    return QueryParameters(name, node.get("descriptor_key"), node.get("skip_if_absent"))


def _parse_generic_key(node: Node) -> RateLimitAction:
    return GenericKey(node.get("descriptor_value"), node.get("descriptor_key") or "generic_key")


def _parse_header_value_match(node: Node) -> RateLimitAction:
    return HeaderValueMatch(
        node.get("descriptor_key") or "header_match",
        node.get("descriptor_value"),
        node.wrapped("expect_match", True),
        parse_header_matchers(node.children("headers")),
    )


def _parse_query_parameter_value_match(node: Node) -> RateLimitAction:
    return QueryParameterValueMatch(
        node.get("descriptor_key") or "query_match",
        node.get("descriptor_value"),
        node.wrapped("expect_match", True),
        tuple(map(parse_query_parameter_matcher, node.children("query_parameters"))),
    )


def _parse_metadata(node: Node) -> RateLimitAction:
    key = node.child("metadata_key")
    return MetadataAction(
        node.get("descriptor_key"),
        "" if key is None else key.get("key"),
        () if key is None else tuple(segment.get("key") for segment in key.children("path")),
        node.get("default_value"),
        "ROUTE_ENTRY" if node.enum("source") == "ROUTE_ENTRY" else "DYNAMIC",
        node.get("skip_if_absent"),
    )


_PARSERS: Mapping[str, Callable[[Node], RateLimitAction]] = {
    "source_cluster": lambda node: SourceCluster(),
    "destination_cluster": lambda node: DestinationCluster(),
    "remote_address": lambda node: RemoteAddress(),
    "masked_remote_address": _parse_masked,
    "request_headers": _parse_request_headers,
    "query_parameters": _parse_query_parameters,
    "generic_key": _parse_generic_key,
    "header_value_match": _parse_header_value_match,
    "query_parameter_value_match": _parse_query_parameter_value_match,
    "metadata": _parse_metadata,
}
