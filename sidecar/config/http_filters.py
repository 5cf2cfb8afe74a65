"""HTTP filters in a connection manager's chain, and what routes, virtual hosts and clusters say to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from sidecar.config.extensions import TYPED_STRUCTS, type_name_of
from sidecar.config.fields import Node

if TYPE_CHECKING:
    from sidecar.config.config_source import ConfigSource
    from sidecar.config.filters import (
        adaptive_concurrency,
        admission_control,
        buffer,
        compressor,
        cors,
        decompressor,
        dynamic_forward_proxy,
        ext_authz,
        fault,
        grpc_http1_bridge,
        grpc_stats,
        grpc_web,
        header_mutation,
        health_check,
        jwt_authn,
        local_ratelimit,
        ratelimit,
        rbac,
        router,
        set_filter_state,
        stateful_session,
        user_filter,
    )

    FilterConfig: TypeAlias = (
        router.Router
        | fault.HTTPFault
        | rbac.HttpRbac
        | jwt_authn.JwtAuthentication
        | local_ratelimit.LocalRateLimit
        | ratelimit.HttpRateLimit
        | ext_authz.ExtAuthz
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
        | set_filter_state.SetFilterState
        | stateful_session.StatefulSession
        | dynamic_forward_proxy.DynamicForwardProxy
        | user_filter.UserFilter
    )
    PerRouteConfig: TypeAlias = (
        fault.HTTPFault
        | rbac.HttpRbac
        | jwt_authn.JwtPerRoute
        | local_ratelimit.LocalRateLimit
        | ratelimit.HttpRateLimitPerRoute
        | ext_authz.ExtAuthzPerRoute
        | cors.CorsPolicy
        | header_mutation.HeaderMutation
        | buffer.Buffer
        | compressor.CompressorPerRoute
        | set_filter_state.SetFilterState
        | stateful_session.StatefulSession
        | dynamic_forward_proxy.DynamicForwardProxyPerRoute
        | user_filter.UserFilter
    )

Reader: TypeAlias = tuple[str, str]
"""The module of `sidecar.config.filters` and the function in it that reads a configuration: loaded when one is read."""

_HTTP = "envoy.extensions.filters.http."

HTTP_FILTERS: Mapping[str, Reader] = {
    _HTTP + "router.v3.Router": ("router", "parse_router"),
    _HTTP + "fault.v3.HTTPFault": ("fault", "parse_fault"),
    _HTTP + "rbac.v3.RBAC": ("rbac", "parse_http_rbac"),
    _HTTP + "jwt_authn.v3.JwtAuthentication": ("jwt_authn", "parse_jwt_authn"),
    _HTTP + "local_ratelimit.v3.LocalRateLimit": ("local_ratelimit", "parse_local_rate_limit"),
    _HTTP + "ratelimit.v3.RateLimit": ("ratelimit", "parse_http_rate_limit"),
    _HTTP + "ext_authz.v3.ExtAuthz": ("ext_authz", "parse_ext_authz"),
    _HTTP + "cors.v3.Cors": ("cors", "parse_cors"),
    _HTTP + "header_mutation.v3.HeaderMutation": ("header_mutation", "parse_header_mutation"),
    _HTTP + "health_check.v3.HealthCheck": ("health_check", "parse_health_check"),
    _HTTP + "buffer.v3.Buffer": ("buffer", "parse_buffer"),
    _HTTP + "compressor.v3.Compressor": ("compressor", "parse_compressor"),
    _HTTP + "decompressor.v3.Decompressor": ("decompressor", "parse_decompressor"),
    _HTTP + "grpc_stats.v3.FilterConfig": ("grpc_stats", "parse_grpc_stats"),
    _HTTP + "grpc_web.v3.GrpcWeb": ("grpc_web", "parse_grpc_web"),
    _HTTP + "grpc_http1_bridge.v3.Config": ("grpc_http1_bridge", "parse_grpc_http1_bridge"),
    _HTTP + "adaptive_concurrency.v3.AdaptiveConcurrency": ("adaptive_concurrency", "parse_adaptive_concurrency"),
    _HTTP + "admission_control.v3.AdmissionControl": ("admission_control", "parse_admission_control"),
    _HTTP + "set_filter_state.v3.Config": ("set_filter_state", "parse_set_filter_state"),
    _HTTP + "stateful_session.v3.StatefulSession": ("stateful_session", "parse_stateful_session"),
    _HTTP + "dynamic_forward_proxy.v3.FilterConfig": ("dynamic_forward_proxy", "parse_dynamic_forward_proxy"),
}
"""By the full name of the message that configures a filter, what reads it."""

PER_ROUTE_CONFIGS: Mapping[str, Reader] = {
    _HTTP + "fault.v3.HTTPFault": ("fault", "parse_fault"),
    _HTTP + "rbac.v3.RBACPerRoute": ("rbac", "parse_http_rbac_per_route"),
    _HTTP + "jwt_authn.v3.PerRouteConfig": ("jwt_authn", "parse_jwt_per_route"),
    _HTTP + "local_ratelimit.v3.LocalRateLimit": ("local_ratelimit", "parse_local_rate_limit"),
    _HTTP + "ratelimit.v3.RateLimitPerRoute": ("ratelimit", "parse_http_rate_limit_per_route"),
    _HTTP + "ext_authz.v3.ExtAuthzPerRoute": ("ext_authz", "parse_ext_authz_per_route"),
    _HTTP + "cors.v3.CorsPolicy": ("cors", "parse_cors_policy"),
    _HTTP + "header_mutation.v3.HeaderMutationPerRoute": ("header_mutation", "parse_header_mutation_per_route"),
    _HTTP + "buffer.v3.BufferPerRoute": ("buffer", "parse_buffer_per_route"),
    _HTTP + "compressor.v3.CompressorPerRoute": ("compressor", "parse_compressor_per_route"),
    _HTTP + "set_filter_state.v3.Config": ("set_filter_state", "parse_set_filter_state"),
    _HTTP + "stateful_session.v3.StatefulSessionPerRoute": ("stateful_session", "parse_stateful_session_per_route"),
    _HTTP + "dynamic_forward_proxy.v3.PerRouteConfig": (
        "dynamic_forward_proxy",
        "parse_dynamic_forward_proxy_per_route",
    ),
}
"""The same for the messages in `typed_per_filter_config`."""

_WRAPPER = "envoy.config.route.v3.FilterConfig"


@dataclass(frozen=True, slots=True)
class MissingConfig:
    """That of a filter whose configuration has not come, and has no default."""


@dataclass(frozen=True, slots=True)
class ConfigDiscovery:
    """Where the configuration of a filter comes from; it must be of one of `type_urls`. Nobody waits for it if
    `without_warming`.
    """

    config_source: ConfigSource
    type_urls: tuple[str, ...]
    without_warming: bool = False


@dataclass(frozen=True, slots=True)
class HttpFilter:
    """One filter of the chain. A `disabled` one runs only where a route, virtual host or cluster enables it.

    With `discovery` the configuration comes later and may change; `config` is the default, which holds until then.
    """

    name: str
    config: FilterConfig | MissingConfig
    disabled: bool = False
    discovery: ConfigDiscovery | None = None


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
    if node.which("config_type") == "config_discovery":
        return _parse_discovered(node, name)
    config = node.extension(known=HTTP_FILTERS, structs=True)
    return HttpFilter(
        name,
        _nothing() if config is None else _parse(config, HTTP_FILTERS) or _nothing(),
        node.get("disabled"),
    )


def _parse_discovered(node: Node, name: str) -> HttpFilter:
    """`core.v3.ExtensionConfigSource`."""
    from sidecar.config.config_source import parse_config_source  # only for those who use it

    discovery = node.child("config_discovery")
    source = None if discovery is None else discovery.child("config_source")
    if discovery is None or source is None:
        node.refuse("is required", "config_discovery.config_source", "say where the configuration comes from")
        return HttpFilter(name, MissingConfig())
    type_urls = discovery.get("type_urls")
    for type_url in type_urls:
        if type_name_of(type_url) not in HTTP_FILTERS and type_name_of(type_url) not in TYPED_STRUCTS:
            discovery.refuse(
                f"{type_url!r} is not implemented by Mizzen",
                "type_urls",
                f"known here: {', '.join(sorted(HTTP_FILTERS))}",
            )
    default: FilterConfig | MissingConfig = MissingConfig()
    without_warming = discovery.get("apply_default_config_without_warming")
    if discovery.has("default_config"):
        config = discovery.any("default_config", HTTP_FILTERS, structs=True)
        if config is not None:
            default = _parse(config, HTTP_FILTERS) or _nothing()
    elif without_warming:
        discovery.refuse("needs default_config", "apply_default_config_without_warming", "add default_config")
    return HttpFilter(
        name,
        default,
        node.get("disabled"),
        ConfigDiscovery(parse_config_source(source), type_urls, without_warming),
    )


def parse_extension_config(node: Node) -> FilterConfig:
    """`core.v3.TypedExtensionConfig` of an HTTP filter."""
    config = node.extension(known=[one for one in HTTP_FILTERS if not one.endswith(".Router")], structs=True)
    parsed: FilterConfig = _nothing() if config is None else _parse(config, HTTP_FILTERS) or _nothing()
    return parsed


def parse_typed_per_filter_config(node: Node) -> Mapping[str, PerFilterConfig]:
    """The `typed_per_filter_config` of `node`, by the names of the filters."""
    configs = {}
    for name, packed in node.map("typed_per_filter_config").items():
        config = packed.unpacked((*PER_ROUTE_CONFIGS, _WRAPPER), structs=True)
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
    config = node.any("config", PER_ROUTE_CONFIGS, structs=True)
    return PerFilterConfig(None if config is None else _parse(config, PER_ROUTE_CONFIGS), disabled)


def _parse(node: Node, readers: Mapping[str, Reader]) -> Any:
    if node.type_name in TYPED_STRUCTS:
        return _function("user_filter", "parse_user_filter")(node)
    return _function(*readers[node.type_name])(node)


def _function(module: str, name: str) -> Callable[[Node], Any]:
    function: Callable[[Node], Any] = getattr(import_module(f"sidecar.config.filters.{module}"), name)
    return function


def _nothing() -> FilterConfig:
    """What stands for a filter whose configuration is wrong, and is refused."""
    from sidecar.config.filters.buffer import Buffer

    return Buffer(None)
