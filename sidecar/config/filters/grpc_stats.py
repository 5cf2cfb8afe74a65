"""Statistics of gRPC calls: `extensions.filters.http.grpc_stats.v3.FilterConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecar.config.fields import Node

TYPE = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"


@dataclass(frozen=True, slots=True)
class GrpcStats:
    """Count calls by service and method: all of them, or those in `methods` (by service); the others together.

    `replace_dots`: the dots in a service's name become underscores in names of statistics. `upstream_stats`: measure how
    long hosts take, too. `emit_filter_state`: access logs see the numbers of messages.
    """

    all_methods: bool = False
    methods: Mapping[str, frozenset[str]] = field(default_factory=dict)
    emit_filter_state: bool = False
    upstream_stats: bool = False
    replace_dots: bool = False


def parse_grpc_stats(node: Node) -> GrpcStats:
    """`FilterConfig`."""
    methods: dict[str, frozenset[str]] = {}
    listed = node.child("individual_method_stats_allowlist")
    for service in () if listed is None else listed.children("services"):
        name = service.get("name")
        methods[name] = methods.get(name, frozenset()) | frozenset(service.get("method_names"))
    return GrpcStats(
        node.wrapped("stats_for_all_methods", False),
        methods,
        node.get("emit_filter_state"),
        node.get("enable_upstream_stats"),
        node.get("replace_dots_in_grpc_service_name"),
    )
