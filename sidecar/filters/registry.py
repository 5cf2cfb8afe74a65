"""From the configuration of an HTTP filter to the object that streams call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sidecar.core.http_filter import HttpFilter
from sidecar.filters.context import FilterContext, NamedFilter

if TYPE_CHECKING:
    from sidecar.config.http_filters import FilterConfig, PerRouteConfig


def make_filter(config: Any, name: str, context: FilterContext) -> HttpFilter:
    """The chain's own instance of a filter. Raises ValueError for a format or a user's filter that is wrong.

    ``config`` is a ``FilterConfig``, or a ``PerRouteConfig`` of the same form: each filter is loaded, and what reads its
    configuration, by the first configuration that has it.
    """
    match type(config).__name__:
        case "HTTPFault":
            from sidecar.filters.fault import make_fault

            return make_fault(config, name, context)
        case "HttpRbac":
            from sidecar.filters.rbac import make_rbac

            return make_rbac(config, name, context)
        case "JwtAuthentication":
            from sidecar.filters.jwt.filter import make_jwt_authn

            return make_jwt_authn(config, name, context)
        case "LocalRateLimit":
            from sidecar.filters.local_ratelimit import make_local_rate_limit

            return make_local_rate_limit(config, name, context)
        case "HttpRateLimit":
            from sidecar.filters.ratelimit import make_rate_limit

            return make_rate_limit(config, name, context)
        case "ExtAuthz":
            from sidecar.filters.ext_authz import make_ext_authz

            return make_ext_authz(config, name, context)
        case "MissingConfig":
            from sidecar.filters.missing_config import MissingConfigFilter

            return MissingConfigFilter(name)
        case "Cors":
            return NamedFilter(name)
        case "HeaderMutation":
            from sidecar.filters.header_mutation import make_header_mutation

            return make_header_mutation((config,), name, context)
        case "HealthCheck":
            from sidecar.filters.health_check import HealthCheckFilter

            return HealthCheckFilter(name, config, context)
        case "Buffer":
            from sidecar.filters.buffer import BufferFilter

            limit = config.max_request_bytes
            return NamedFilter(name) if limit is None else BufferFilter(name, limit)
        case "Compressor":
            from sidecar.filters.compressor import make_compressor

            return make_compressor(config, name, context)
        case "Decompressor":
            from sidecar.filters.decompressor import DecompressorFilter

            return DecompressorFilter(name, config, context)
        case "GrpcStats":
            from sidecar.filters.grpc_stats import GrpcStatsFilter

            return GrpcStatsFilter(name, config, context)
        case "GrpcWeb":
            from sidecar.filters.grpc_web import GrpcWebFilter

            return GrpcWebFilter(name, context)
        case "GrpcHttp1Bridge":
            from sidecar.filters.grpc_http1_bridge import GrpcHttp1BridgeFilter

            return GrpcHttp1BridgeFilter(name, config)
        case "AdaptiveConcurrency":
            from sidecar.filters.adaptive_concurrency import AdaptiveConcurrencyFilter

            adaptive = AdaptiveConcurrencyFilter(name, config, context)
            return adaptive if config.enabled else NamedFilter(name)  # its statistics are there in any case
        case "AdmissionControl":
            from sidecar.filters.admission_control import AdmissionControlFilter

            admission = AdmissionControlFilter(name, config, context)
            return admission if config.enabled else NamedFilter(name)
        case "SetFilterState":
            from sidecar.filters.set_filter_state import make_set_filter_state

            return make_set_filter_state((config,), name)
        case "StatefulSession":
            from sidecar.filters.stateful_session import make_stateful_session

            return make_stateful_session(config, name, context)
        case "DynamicForwardProxy":
            from sidecar.filters.dynamic_forward_proxy import make_dynamic_forward_proxy

            return make_dynamic_forward_proxy(config, name, context)
        case "UserFilter":
            from sidecar.filters.user import make_user_filter

            return make_user_filter(config, name, context)
        case _:
            raise TypeError(f"{type(config).__name__} is no filter of a chain")


def make_route_filter(
    base: HttpFilter,
    base_config: FilterConfig,
    per_route_config: PerRouteConfig,
    context: FilterContext,
    levels: Sequence[PerRouteConfig] = (),
) -> HttpFilter:
    """What takes the place of ``base`` on a route that has a configuration of its own for it.

    ``per_route_config`` is the most specific one; ``levels`` are those of all levels, from the route configuration to
    the route, for filters that merge them. The same configurations give the same object, so that routes which share
    them share rate limits too.
    """
    levels = tuple(levels) or (per_route_config,)
    key = (id(base), *map(id, levels))
    known = context.route_filters.get(key)
    if known is None:
        made = _make_route_filter(base, base_config, per_route_config, context, levels)
        known = context.route_filters[key] = ((base, levels), made)
    return known[1]


def _make_route_filter(
    base: HttpFilter,
    base_config: Any,
    config: Any,
    context: FilterContext,
    levels: Sequence[PerRouteConfig],
) -> HttpFilter:
    match type(config).__name__:
        case "HttpRbac":
            from sidecar.filters.rbac import make_route_rbac

            return make_route_rbac(base, config)  # type: ignore[arg-type]
        case "JwtPerRoute":
            from sidecar.filters.jwt.filter import JwtAuthnFilter, make_route_jwt_authn

            assert isinstance(base, JwtAuthnFilter)
            return make_route_jwt_authn(base, config)
        case "HttpRateLimitPerRoute":
            from sidecar.filters.ratelimit import RateLimitFilter, make_route_rate_limit

            assert isinstance(base, RateLimitFilter)
            return make_route_rate_limit(base, config, context)
        case "ExtAuthzPerRoute":
            from sidecar.config.filters.ext_authz import ExtAuthzPerRoute
            from sidecar.filters.ext_authz import make_route_ext_authz

            return make_route_ext_authz(base, config, _all_of(ExtAuthzPerRoute, levels), context)
        case "CorsPolicy":
            from sidecar.config.filters.cors import CorsPolicy
            from sidecar.filters.cors import CorsFilter, merge_policies

            return CorsFilter(base.name, merge_policies(_all_of(CorsPolicy, levels)), context)
        case "HeaderMutation":
            from sidecar.config.filters.header_mutation import HeaderMutation
            from sidecar.filters.header_mutation import make_route_header_mutation

            return make_route_header_mutation(base_config, _all_of(HeaderMutation, levels), base.name, context)
        case "SetFilterState":
            from sidecar.config.filters.set_filter_state import SetFilterState
            from sidecar.filters.set_filter_state import make_set_filter_state

            return make_set_filter_state((base_config, *_all_of(SetFilterState, levels)), base.name)
        case "DynamicForwardProxyPerRoute":
            from sidecar.filters.dynamic_forward_proxy import DynamicForwardProxyFilter

            assert isinstance(base, DynamicForwardProxyFilter)
            return base.of_route(config)
        case "CompressorPerRoute":
            from sidecar.filters.compressor import make_route_compressor

            return make_route_compressor(base_config, config, base.name, context)
        case _:
            return make_filter(config, base.name, context)


_Level = TypeVar("_Level")


def _all_of(kind: type[_Level], levels: Sequence[PerRouteConfig]) -> list[_Level]:
    return [level for level in levels if isinstance(level, kind)]
