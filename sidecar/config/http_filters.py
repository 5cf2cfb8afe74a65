"""HTTP filters in a connection manager's chain, and what routes, virtual hosts and clusters say to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from sidecar.config.extensions import TYPED_STRUCTS
from sidecar.config.fields import Node
from sidecar.config.filters import (
    adaptive_concurrency,
    admission_control,
    buffer,
    compressor,
    cors,
    decompressor,
    fault,
    grpc_http1_bridge,
    grpc_stats,
    grpc_web,
    header_mutation,
    health_check,
    local_ratelimit,
    ratelimit,
    rbac,
    router,
    stateful_session,
    user_filter,
)

FilterConfig: TypeAlias = (
    router.Router
    | fault.HTTPFault
    | rbac.HttpRbac
    | local_ratelimit.LocalRateLimit
    | ratelimit.HttpRateLimit
    | cors.Cors
    | header_mutation.HeaderMutation
    | health_check.HealthCheck
    | buffer.Buffer
    | compressor.Compressor
    | decompressor.Decompressor
    | grpc_stats.GrpcStats
    | grpc_web.GrpcWeb
    | grpc_http1_bridge.GrpcHttp1Bridge
    | adaptive_concurrency.AdaptiveConcurrency
    | admission_control.AdmissionControl
    | stateful_session.StatefulSession
    | user_filter.UserFilter
)
PerRouteConfig: TypeAlias = (
    fault.HTTPFault
    | rbac.HttpRbac
    | local_ratelimit.LocalRateLimit
    | ratelimit.HttpRateLimitPerRoute
    | cors.CorsPolicy
    | header_mutation.HeaderMutation
    | buffer.Buffer
    | compressor.CompressorPerRoute
    | stateful_session.StatefulSession
    | user_filter.UserFilter
)

HTTP_FILTERS: Mapping[str, Callable[[Node], FilterConfig]] = {
    router.TYPE: router.parse_router,
    fault.TYPE: fault.parse_fault,
    rbac.TYPE: rbac.parse_http_rbac,
    local_ratelimit.TYPE: local_ratelimit.parse_local_rate_limit,
    ratelimit.TYPE: ratelimit.parse_http_rate_limit,
    cors.TYPE: cors.parse_cors,
    header_mutation.TYPE: header_mutation.parse_header_mutation,
    health_check.TYPE: health_check.parse_health_check,
    buffer.TYPE: buffer.parse_buffer,
    compressor.TYPE: compressor.parse_compressor,
    decompressor.TYPE: decompressor.parse_decompressor,
    grpc_stats.TYPE: grpc_stats.parse_grpc_stats,
    grpc_web.TYPE: grpc_web.parse_grpc_web,
    grpc_http1_bridge.TYPE: grpc_http1_bridge.parse_grpc_http1_bridge,
    adaptive_concurrency.TYPE: adaptive_concurrency.parse_adaptive_concurrency,
    admission_control.TYPE: admission_control.parse_admission_control,
    stateful_session.TYPE: stateful_session.parse_stateful_session,
}
"""By the full name of the message that configures a filter, the function that reads it."""

PER_ROUTE_CONFIGS: Mapping[str, Callable[[Node], PerRouteConfig]] = {
    fault.TYPE: fault.parse_fault,
    rbac.TYPE_PER_ROUTE: rbac.parse_http_rbac_per_route,
    local_ratelimit.TYPE: local_ratelimit.parse_local_rate_limit,
    ratelimit.TYPE_PER_ROUTE: ratelimit.parse_http_rate_limit_per_route,
    cors.TYPE_PER_ROUTE: cors.parse_cors_policy,
    header_mutation.TYPE_PER_ROUTE: header_mutation.parse_header_mutation_per_route,
    buffer.TYPE_PER_ROUTE: buffer.parse_buffer_per_route,
    compressor.TYPE_PER_ROUTE: compressor.parse_compressor_per_route,
    stateful_session.TYPE_PER_ROUTE: stateful_session.parse_stateful_session_per_route,
}
"""The same for the messages in `typed_per_filter_config`."""

_Config = TypeVar("_Config")

_WRAPPER = "envoy.config.route.v3.FilterConfig"


@dataclass(frozen=True, slots=True)
class HttpFilter:
    """One filter of the chain. A `disabled` one runs only where a route, virtual host or cluster enables it."""

    name: str
    config: FilterConfig
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class PerFilterConfig:
    """What one level says to the filter of this name: that it is disabled, or else enabled and, if not None, how."""

    config: PerRouteConfig | None
    disabled: bool = False


_OPTIONAL = "a filter that Mizzen has not got is refused, optional or not"


def parse_http_filter(node: Node) -> HttpFilter:
    """`HttpFilter` of the HTTP connection manager. A filter that Mizzen has not got is refused, optional or not."""
    node.ignore("is_optional", _OPTIONAL)
    name = node.get("name")
    config = node.extension(known=HTTP_FILTERS)
    return HttpFilter(
        name,
        buffer.Buffer(None) if config is None else _parse(config, HTTP_FILTERS) or buffer.Buffer(None),
        node.get("disabled"),
    )


def parse_typed_per_filter_config(node: Node) -> Mapping[str, PerFilterConfig]:
    """The `typed_per_filter_config` of `node`, by the names of the filters."""
    configs = {}
    for name, packed in node.map("typed_per_filter_config").items():
        config = packed.unpacked((*PER_ROUTE_CONFIGS, _WRAPPER))
        if config is not None:
            configs[name] = (
                _parse_wrapped(config)
                if config.type_name == _WRAPPER
                else PerFilterConfig(_parse(config, PER_ROUTE_CONFIGS))
            )
    return configs


def _parse_wrapped(node: Node) -> PerFilterConfig:
    node.ignore("is_optional", _OPTIONAL)
    disabled = node.get("disabled")
    if not disabled and not node.has("config"):
        node.refuse("is required unless the filter is disabled", "config", "set config, or disabled")
    config = node.any("config", PER_ROUTE_CONFIGS)
    return PerFilterConfig(None if config is None else _parse(config, PER_ROUTE_CONFIGS), disabled)


def _parse(node: Node, parsers: Mapping[str, Callable[[Node], _Config]]) -> _Config | user_filter.UserFilter | None:
    if node.type_name in TYPED_STRUCTS:
        return user_filter.parse_user_filter(node)
    return parsers[node.type_name](node)
