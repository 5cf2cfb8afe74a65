"""Which requests a route is for: `route.v3.RouteMatch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sidecar.config.core_types import Fraction
from sidecar.config.fields import Node
from sidecar.config.matcher import (
    HeaderMatcher,
    MetadataMatcher,
    QueryParameterMatcher,
    parse_header_matchers,
    parse_metadata_matcher,
    parse_query_parameter_matcher,
    parse_regex,
)

PathSpecifier: TypeAlias = Literal["prefix", "path", "safe_regex", "path_separated_prefix", "connect_matcher"]


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """All of these must hold. `path` is compared as `path_specifier` says; for `connect_matcher` it says nothing.

    `case_sensitive` counts for every specifier but `safe_regex`. `runtime_fraction` is the share of requests, None for
    all. `grpc`: only gRPC requests. `dynamic_metadata` is what filters have said of the request: there is none of it when
    the route is looked up at first, and so only a filter that clears the route cache leads to these routes.
    """

    path_specifier: PathSpecifier
    path: bytes
    case_sensitive: bool = True
    runtime_fraction: Fraction | None = None
    headers: tuple[HeaderMatcher, ...] = ()
    query_parameters: tuple[QueryParameterMatcher, ...] = ()
    grpc: bool = False
    dynamic_metadata: tuple[MetadataMatcher, ...] = ()


def parse_route_match(node: Node) -> RouteMatch:
    """`route.v3.RouteMatch`."""
    specifier, path = _parse_path(node)
    return RouteMatch(
        path_specifier=specifier,
        path=path,
        case_sensitive=node.wrapped("case_sensitive", True),
        runtime_fraction=node.runtime_fraction("runtime_fraction"),
        headers=parse_header_matchers(node.children("headers")),
        query_parameters=tuple(map(parse_query_parameter_matcher, node.children("query_parameters"))),
        grpc=node.child("grpc") is not None,
        dynamic_metadata=tuple(map(parse_metadata_matcher, node.children("dynamic_metadata"))),
    )


def _parse_path(node: Node) -> tuple[PathSpecifier, bytes]:
    match node.which("path_specifier"):
        case "path":
            path = node.get("path").encode()
            if b"?" in path or b"#" in path:
                warning = "can never match: paths are compared without query and fragment"
                node.context.warn(node.path_of("path"), warning)
            return "path", path
        case "safe_regex":
            regex = node.child("safe_regex")
            return "safe_regex", b"" if regex is None else parse_regex(regex).regex
        case "path_separated_prefix":
            return "path_separated_prefix", node.get("path_separated_prefix").encode()
        case "connect_matcher":
            node.child("connect_matcher")
            return "connect_matcher", b""
        case _:
            return "prefix", node.get("prefix").encode()
