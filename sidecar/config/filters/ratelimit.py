"""Rate limits that a service keeps: `extensions.filters.http.ratelimit.v3.RateLimit`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sidecar.config.core_types import Fraction, HeaderValueOption, parse_header_value_option
from sidecar.config.fields import Node
from sidecar.config.grpc_service import GrpcService, parse_rate_limit_service
from sidecar.config.rate_limit import RateLimit, VirtualHostRateLimits, parse_filter_rate_limit, parse_vh_rate_limits

TYPE = "envoy.extensions.filters.http.ratelimit.v3.RateLimit"
TYPE_PER_ROUTE = "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute"

RequestType: TypeAlias = Literal["both", "internal", "external"]

ALL: Fraction = (100, 100)
_TIMEOUT = 0.02
_TOO_MANY_REQUESTS = 429
_INTERNAL_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class HttpRateLimit:
    """Ask `rate_limit_service`, with `domain` and the descriptors of a request, whether it may pass.

    The descriptors are those of `rate_limits`, or, without any, those of the route and its virtual host with the same
    `stage`. `timeout` is in seconds, 0 for none. What is over a limit gets `rate_limited_status` with
    `response_headers_to_add`; gRPC calls get RESOURCE_EXHAUSTED for `rate_limited_as_resource_exhausted`. When the service
    gives no answer, `failure_mode_deny` is the share of requests that get `status_on_error`; the others pass.

    `filter_enabled` is the share of requests for which the service is asked, `filter_enforced` the share of those over a
    limit that are refused.
    """

    domain: str
    rate_limit_service: GrpcService
    stage: int = 0
    request_type: RequestType = "both"
    timeout: float = _TIMEOUT
    failure_mode_deny: Fraction = (0, 100)
    rate_limited_as_resource_exhausted: bool = False
    enable_x_ratelimit_headers: bool = False
    disable_x_envoy_ratelimited_header: bool = False
    rate_limited_status: int = _TOO_MANY_REQUESTS
    status_on_error: int = _INTERNAL_SERVER_ERROR
    response_headers_to_add: tuple[HeaderValueOption, ...] = ()
    stat_prefix: str = ""
    filter_enabled: Fraction = ALL
    filter_enforced: Fraction = ALL
    rate_limits: tuple[RateLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpRateLimitPerRoute:
    """What a route or virtual host says: `rate_limits` and `domain` stand in the filter's place unless they are empty."""

    vh_rate_limits: VirtualHostRateLimits = "OVERRIDE"
    rate_limits: tuple[RateLimit, ...] = ()
    domain: str = ""


def parse_http_rate_limit(node: Node) -> HttpRateLimit:
    """`RateLimit` in the filter chain."""
    runtime = node.context.runtime
    enabled, enforced = (
        runtime.integer("ratelimit.http_filter_enabled"),
        runtime.integer("ratelimit.http_filter_enforcing"),
    )
    status, on_error = node.child("rate_limited_status"), node.child("status_on_error")
    limited_code = 0 if status is None else status.get("code")
    error_code = 0 if on_error is None else on_error.get("code")
    deny: Fraction = (100, 100) if node.get("failure_mode_deny") else (0, 100)
    timeout = node.duration("timeout")
    return HttpRateLimit(
        domain=node.get("domain"),
        rate_limit_service=parse_rate_limit_service(node.child("rate_limit_service")),
        stage=node.get("stage"),
        request_type=node.get("request_type") or "both",
        timeout=_TIMEOUT if timeout is None else timeout,
        failure_mode_deny=node.runtime_fraction("failure_mode_deny_percent") or deny,
        rate_limited_as_resource_exhausted=node.get("rate_limited_as_resource_exhausted"),
        enable_x_ratelimit_headers=node.enum("enable_x_ratelimit_headers") != "OFF",
        disable_x_envoy_ratelimited_header=node.get("disable_x_envoy_ratelimited_header"),
        rate_limited_status=limited_code if limited_code >= 400 else _TOO_MANY_REQUESTS,
        status_on_error=error_code or _INTERNAL_SERVER_ERROR,
        response_headers_to_add=tuple(map(parse_header_value_option, node.children("response_headers_to_add"))),
        stat_prefix=node.get("stat_prefix"),
        filter_enabled=node.runtime_fraction("filter_enabled") or (100 if enabled is None else enabled, 100),
        filter_enforced=node.runtime_fraction("filter_enforced") or (100 if enforced is None else enforced, 100),
        rate_limits=tuple(map(parse_filter_rate_limit, node.children("rate_limits"))),
    )


def parse_http_rate_limit_per_route(node: Node) -> HttpRateLimitPerRoute:
    """`RateLimitPerRoute`."""
    node.ignore("override_option", "it has no effect in Envoy either")
    return HttpRateLimitPerRoute(
        parse_vh_rate_limits(node),
        tuple(map(parse_filter_rate_limit, node.children("rate_limits"))),
        node.get("domain"),
    )
