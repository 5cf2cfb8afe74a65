"""What of a request is counted by rate limits: `route.v3.RateLimit` and its actions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sidecar.config.core_types import Fraction
from sidecar.config.fields import Node
from sidecar.config.matcher import (
    HeaderMatcher,
    QueryParameterMatcher,
    header_name,
    parse_header_matchers,
    parse_query_parameter_matcher,
)

VirtualHostRateLimits: TypeAlias = Literal["OVERRIDE", "INCLUDE", "IGNORE"]
"""When the rate limits of a virtual host count beside those of a route: if that has none, always, or never."""

_ONE_COMMAND = re.compile(r"%(\w+(\([^)]*\))?(:\d+)?)?%")
_VIRTUAL_HOST: tuple[VirtualHostRateLimits, ...] = ("OVERRIDE", "INCLUDE", "IGNORE")


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
    """The actions yield one entry each, which together are a descriptor, for filters of the same `stage`.

    A request counts `hits_addend` times, or as often as `hits_format` says, which is a format for one number; None and
    empty leave that to who counts. `enabled` is the share of requests for which there is a descriptor. `limit` is where in
    the dynamic metadata another limit than the service's stands, as a `requests_per_unit` and a `unit`. With
    `apply_on_stream_done` the request counts when it is over, and is not held up.
    """

    actions: tuple[RateLimitAction, ...]
    hits_addend: int | None = None
    hits_format: str = ""
    stage: int = 0
    enabled: Fraction | None = None
    limit: tuple[str, ...] = ()
    apply_on_stream_done: bool = False


def parse_rate_limit(node: Node) -> RateLimit:
    """`route.v3.RateLimit` of a route or a virtual host."""
    node.ignore("hits_addend", "it counts in typed_per_filter_config and in filters only, as in Envoy")
    disable_key = node.get("disable_key")
    enabled = None
    if disable_key:
        percent = node.context.runtime.integer(f"ratelimit.{disable_key}.http_filter_enabled")
        enabled = (100 if percent is None else percent, 100)
    return RateLimit(
        _parse_actions(node),
        stage=node.wrapped("stage", 0),
        enabled=enabled,
        limit=_parse_limit(node.child("limit")),
        apply_on_stream_done=node.get("apply_on_stream_done"),
    )


def parse_vh_rate_limits(node: Node) -> VirtualHostRateLimits:
    """The field `vh_rate_limits` of a filter."""
    number: int = node.get("vh_rate_limits")
    return _VIRTUAL_HOST[number]


def parse_filter_rate_limit(node: Node) -> RateLimit:
    """The same in a filter's own configuration, where there are no stages, and nothing to disable it by."""
    if node.has("stage") or node.has("disable_key"):
        node.refuse("has a stage or a disable_key, which only those of routes and virtual hosts have", do="remove them")
        node.wrapped("stage", 0)
        node.get("disable_key")
    addend = node.child("hits_addend")
    return RateLimit(
        _parse_actions(node),
        None if addend is None else addend.wrapped("number", None),
        "" if addend is None else _parse_hits_format(addend),
        limit=_parse_limit(node.child("limit")),
        apply_on_stream_done=node.get("apply_on_stream_done"),
    )


def parse_local_rate_limit(node: Node) -> RateLimit:
    """The same for a filter that counts by itself: there is no service whose limit could be another."""
    if node.has("limit"):
        node.refuse("is for limits of a service", "limit", "remove it")
    return parse_filter_rate_limit(node)


def _parse_hits_format(node: Node) -> str:
    hits = node.format("format")
    if node.has("number") == bool(hits):
        node.refuse("says how often a request counts in no way, or in two", do="set either number or format")
    if hits and not _ONE_COMMAND.fullmatch(hits):
        node.refuse("is not one command alone, such as %BYTES_SENT%", "format", "leave out what stands around it")
    return hits


def _parse_limit(node: Node | None) -> tuple[str, ...]:
    metadata = None if node is None else node.child("dynamic_metadata")
    return () if metadata is None else _parse_metadata_key(metadata.child("metadata_key"))


def _parse_metadata_key(node: Node | None) -> tuple[str, ...]:
    """The filter's name, and the way below it."""
    if node is None:
        return ()
    return node.get("key"), *(segment.get("key") for segment in node.children("path"))


def _parse_actions(node: Node) -> tuple[RateLimitAction, ...]:
    actions = map(_parse_action, node.children("actions"))
    return tuple(action for action in actions if action is not None)


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
    key, *path = _parse_metadata_key(node.child("metadata_key")) or ("",)
    return MetadataAction(
        node.get("descriptor_key"),
        key,
        tuple(path),
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
