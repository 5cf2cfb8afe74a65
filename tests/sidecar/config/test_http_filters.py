"""The chain's filters and the per-route configurations: the registry, the wrapper, user filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sidecar.config.dns import DnsSettings
from sidecar.config.dns_cache import DnsCacheConfig
from sidecar.config.fields import Node
from sidecar.config.filters.adaptive_concurrency import AdaptiveConcurrency, GradientControllerConfig
from sidecar.config.filters.admission_control import AdmissionControl
from sidecar.config.filters.buffer import Buffer
from sidecar.config.filters.compression import GzipCompressor, GzipDecompressor
from sidecar.config.filters.compressor import Compressor, CompressorPerRoute
from sidecar.config.filters.cors import Cors, CorsPolicy
from sidecar.config.filters.decompressor import Decompressor
from sidecar.config.filters.dynamic_forward_proxy import DynamicForwardProxy, DynamicForwardProxyPerRoute
from sidecar.config.filters.ext_authz import ExtAuthz, ExtAuthzPerRoute, GrpcAuthorization
from sidecar.config.filters.fault import HTTPFault
from sidecar.config.filters.grpc_http1_bridge import GrpcHttp1Bridge
from sidecar.config.filters.grpc_stats import GrpcStats
from sidecar.config.filters.grpc_web import GrpcWeb
from sidecar.config.filters.header_mutation import HeaderMutation
from sidecar.config.filters.health_check import HealthCheck
from sidecar.config.filters.jwt_authn import JwtAuthentication, JwtPerRoute
from sidecar.config.filters.local_ratelimit import LocalRateLimit
from sidecar.config.filters.ratelimit import HttpRateLimit, HttpRateLimitPerRoute
from sidecar.config.filters.rbac import HttpRbac
from sidecar.config.filters.router import Router
from sidecar.config.filters.set_filter_state import FilterStateValue, SetFilterState
from sidecar.config.filters.stateful_session import CookieSessionState, HeaderSessionState, StatefulSession
from sidecar.config.filters.user_filter import UserFilter
from sidecar.config.grpc_service import GrpcService
from sidecar.config.http_filters import (
    HTTP_FILTERS,
    PER_ROUTE_CONFIGS,
    HttpFilter,
    PerFilterConfig,
    parse_http_filter,
    parse_typed_per_filter_config,
)
from sidecar.config.rbac import Rbac
from sidecar.core.tls_options import APPLICATION_PROTOCOLS, ApplicationProtocols
from tests.sidecar.config.building import build, problems

if TYPE_CHECKING:
    from sidecar.config.http_filters import FilterConfig, PerRouteConfig

HTTP_FILTER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter"
VIRTUAL_HOST = "envoy.config.route.v3.VirtualHost"
PREFIX = "type.googleapis.com/envoy.extensions.filters.http."
USER = "type.googleapis.com/mizzen.filters."
LIBRARY = {
    kind: {
        "name": "l",
        "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.compression.gzip.{kind}.v3.Gzip"},
    }
    for kind in ("compressor", "decompressor")
}


def http_filter(config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "f", "typed_config": config, **fields}


OFFERED = {
    "object_key": APPLICATION_PROTOCOLS,
    "format_string": {"text_format_source": {"inline_string": "istio-h2,istio"}},
}
SESSION_STATE = "type.googleapis.com/envoy.extensions.http.stateful_session."


def typed(type_name: str, **fields: Any) -> dict[str, Any]:
    return {"@type": PREFIX + type_name, **fields}


def user(name: str, value: dict[str, Any], *, package: str = "xds.type.v3") -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/{package}.TypedStruct", "type_url": name, "value": value}


def per_route(node: Node) -> dict[str, PerFilterConfig]:
    node.get("name"), node.get("domains")
    return dict(parse_typed_per_filter_config(node))


def on_host(config: dict[str, Any]) -> dict[str, Any]:
    return {"name": "v", "domains": ["*"], "typed_per_filter_config": {"f": config}}


SERVICE = {"envoy_grpc": {"cluster_name": "a"}}
SESSION_COOKIE = {
    "name": "envoy.http.stateful_session.cookie",
    "typed_config": {
        "@type": SESSION_STATE + "cookie.v3.CookieBasedSessionState",
        "cookie": {"name": "a", "ttl": "2.9s", "path": "/b", "attributes": [{"name": "Secure"}]},
    },
}
SESSION_HEADER = {
    "name": "envoy.http.stateful_session.header",
    "typed_config": {"@type": SESSION_STATE + "header.v3.HeaderBasedSessionState", "name": "X-Session"},
}

FILTERS: list[tuple[dict[str, Any], FilterConfig]] = [
    (typed("router.v3.Router"), Router()),
    (typed("fault.v3.HTTPFault"), HTTPFault()),
    (typed("rbac.v3.RBAC"), HttpRbac()),
    (typed("jwt_authn.v3.JwtAuthentication"), JwtAuthentication({})),
    (typed("local_ratelimit.v3.LocalRateLimit", stat_prefix="s"), LocalRateLimit("s")),
    (
        typed("ratelimit.v3.RateLimit", domain="d", rate_limit_service={"grpc_service": SERVICE}),
        HttpRateLimit("d", GrpcService("a")),
    ),
    (typed("ext_authz.v3.ExtAuthz", grpc_service=SERVICE), ExtAuthz(GrpcAuthorization(GrpcService("a")))),
    (typed("cors.v3.Cors"), Cors()),
    (typed("header_mutation.v3.HeaderMutation"), HeaderMutation()),
    (typed("health_check.v3.HealthCheck", pass_through_mode=False), HealthCheck(False, None, {}, ())),
    (typed("buffer.v3.Buffer", max_request_bytes=9), Buffer(9)),
    (typed("compressor.v3.Compressor", compressor_library=LIBRARY["compressor"]), Compressor(GzipCompressor())),
    (
        typed("decompressor.v3.Decompressor", decompressor_library=LIBRARY["decompressor"]),
        Decompressor(GzipDecompressor()),
    ),
    (typed("grpc_stats.v3.FilterConfig"), GrpcStats()),
    (typed("grpc_web.v3.GrpcWeb"), GrpcWeb()),
    (typed("grpc_http1_bridge.v3.Config"), GrpcHttp1Bridge()),
    (typed("admission_control.v3.AdmissionControl", success_criteria={}), AdmissionControl()),
    (
        typed(
            "adaptive_concurrency.v3.AdaptiveConcurrency",
            gradient_controller_config={
                "concurrency_limit_params": {"concurrency_update_interval": "1s"},
                "min_rtt_calc_params": {"interval": "60s"},
            },
        ),
        AdaptiveConcurrency(GradientControllerConfig(1.0, 60.0)),
    ),
    (typed("set_filter_state.v3.Config"), SetFilterState()),
    (
        typed("set_filter_state.v3.Config", on_request_headers=[OFFERED]),
        SetFilterState((FilterStateValue(APPLICATION_PROTOCOLS, ApplicationProtocols(("istio-h2", "istio"))),)),
    ),
    (typed("stateful_session.v3.StatefulSession"), StatefulSession()),
    (
        typed("stateful_session.v3.StatefulSession", session_state=SESSION_COOKIE, strict=True, stat_prefix="p"),
        StatefulSession(CookieSessionState(b"a", 2, b"/b", ((b"Secure", b""),)), True, "p"),
    ),
    (
        typed("dynamic_forward_proxy.v3.FilterConfig", dns_cache_config={"name": "names", "max_hosts": 7}),
        DynamicForwardProxy(
            DnsCacheConfig("names", DnsSettings(dns_refresh_rate=60.0, respect_dns_ttl=True), max_hosts=7)
        ),
    ),
    (user(USER + "tag", {"n": 1}), UserFilter("tag", {"n": 1})),
    (user(USER + "a.b", {"x": {"y": [None]}}, package="udpa.type.v1"), UserFilter("a.b", {"x": {"y": [None]}})),
    (user(PREFIX + "buffer.v3.Buffer", {"max_request_bytes": 3}), Buffer(3)),
]


@pytest.mark.parametrize(("config", "expected"), FILTERS)
def test_a_filter_and_its_defaults(config: dict[str, Any], expected: FilterConfig) -> None:
    assert build(HTTP_FILTER, http_filter(config), parse_http_filter) == HttpFilter("f", expected)


def test_every_filter_is_in_the_table_above() -> None:
    assert {PREFIX + name.removeprefix("envoy.extensions.filters.http.") for name in HTTP_FILTERS} == {
        config["@type"] for config, _ in FILTERS if "TypedStruct" not in config["@type"]
    }


def test_disabled() -> None:
    document = http_filter(typed("cors.v3.Cors"), disabled=True)
    assert build(HTTP_FILTER, document, parse_http_filter) == HttpFilter("f", Cors(), True)


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        (
            http_filter(typed("ext_proc.v3.ExternalProcessor"), is_optional=True),
            "typed_config",
            "is not implemented by Mizzen",
        ),
        (http_filter(user("type.googleapis.com/other.Filter", {})), "typed_config.type_url", "is not known"),
        (http_filter(user(USER, {})), "typed_config.type_url", "is not known"),
        (http_filter(typed("buffer.v3.BufferPerRoute", disabled=True)), "typed_config", "is not implemented by Mizzen"),
        ({"name": "f"}, "typed_config", "is required to tell which extension is meant"),
        (
            {"name": "f", "config_discovery": {"config_source": {"ads": {}}, "type_urls": ["x"]}},
            "config_discovery.type_urls",
            "is not implemented by Mizzen",
        ),
    ],
)
def test_filters_that_are_refused(document: dict[str, Any], path: str, words: str) -> None:
    assert [
        problem
        for found, problem in problems(HTTP_FILTER, document, parse_http_filter)
        if found == path and words in problem
    ]


PER_ROUTE: list[tuple[dict[str, Any], PerRouteConfig]] = [
    (typed("fault.v3.HTTPFault"), HTTPFault()),
    (typed("jwt_authn.v3.PerRouteConfig", requirement_name="n"), JwtPerRoute(requirement_name="n")),
    (typed("rbac.v3.RBACPerRoute"), HttpRbac()),
    (typed("rbac.v3.RBACPerRoute", rbac={"rules": {}}), HttpRbac(Rbac("ALLOW", ()))),
    (typed("local_ratelimit.v3.LocalRateLimit", stat_prefix="s"), LocalRateLimit("s")),
    (typed("ratelimit.v3.RateLimitPerRoute", domain="d"), HttpRateLimitPerRoute(domain="d")),
    (typed("ext_authz.v3.ExtAuthzPerRoute", disabled=True), ExtAuthzPerRoute(disabled=True)),
    (typed("cors.v3.CorsPolicy"), CorsPolicy()),
    (typed("header_mutation.v3.HeaderMutationPerRoute"), HeaderMutation()),
    (typed("buffer.v3.BufferPerRoute", disabled=True), Buffer(None)),
    (typed("buffer.v3.BufferPerRoute", buffer={"max_request_bytes": 2}), Buffer(2)),
    (typed("compressor.v3.CompressorPerRoute", disabled=True), CompressorPerRoute(True)),
    (
        typed(
            "compressor.v3.CompressorPerRoute",
            overrides={
                "response_direction_config": {"remove_accept_encoding_header": False},
                "compressor_library": LIBRARY["compressor"],
            },
        ),
        CompressorPerRoute(False, False, GzipCompressor()),
    ),
    (
        typed("set_filter_state.v3.Config", on_request_headers=[OFFERED]),
        SetFilterState((FilterStateValue(APPLICATION_PROTOCOLS, ApplicationProtocols(("istio-h2", "istio"))),)),
    ),
    (
        typed("dynamic_forward_proxy.v3.PerRouteConfig", host_rewrite_literal="a.test:1"),
        DynamicForwardProxyPerRoute(host_rewrite_literal=b"a.test:1"),
    ),
    (
        typed("dynamic_forward_proxy.v3.PerRouteConfig", host_rewrite_header="X-Host"),
        DynamicForwardProxyPerRoute(host_rewrite_header=b"x-host"),
    ),
    (typed("stateful_session.v3.StatefulSessionPerRoute", disabled=True), StatefulSession()),
    (
        typed("stateful_session.v3.StatefulSessionPerRoute", stateful_session={"session_state": SESSION_HEADER}),
        StatefulSession(HeaderSessionState(b"x-session")),
    ),
    (user(USER + "tag", {"a": "b"}), UserFilter("tag", {"a": "b"})),
]


@pytest.mark.parametrize(("config", "expected"), PER_ROUTE)
@pytest.mark.parametrize("wrapped", [False, True])
def test_per_route_configuration(config: dict[str, Any], expected: PerRouteConfig, wrapped: bool) -> None:
    if wrapped:
        config = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": config}
    assert build(VIRTUAL_HOST, on_host(config), per_route) == {"f": PerFilterConfig(expected)}


def test_every_per_route_configuration_is_in_the_table_above() -> None:
    assert {PREFIX + name.removeprefix("envoy.extensions.filters.http.") for name in PER_ROUTE_CONFIGS} == {
        config["@type"] for config, _ in PER_ROUTE if "TypedStruct" not in config["@type"]
    }


def test_a_filter_can_be_disabled_for_a_route() -> None:
    wrapper = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    assert build(VIRTUAL_HOST, on_host(wrapper), per_route) == {"f": PerFilterConfig(None, True)}


@pytest.mark.parametrize(
    ("config", "path", "words"),
    [
        (typed("router.v3.Router"), "", "is not implemented by Mizzen"),
        (
            {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig"},
            ".config",
            "is required unless the filter is disabled",
        ),
        (
            typed("rbac.v3.RBACPerRoute", rbac={"matcher": {}}),
            ".rbac.matcher",
            "is not implemented",
        ),
    ],
)
def test_per_route_configurations_that_are_refused(config: dict[str, Any], path: str, words: str) -> None:
    ((found, problem),) = problems(VIRTUAL_HOST, on_host(config), per_route)
    assert found == f'typed_per_filter_config["f"]{path}'
    assert words in problem
