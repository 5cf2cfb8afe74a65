"""The ratelimit filter's configuration: each setting, its defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.core_types import HeaderValueOption
from sidecar.config.filters.ratelimit import (
    TYPE,
    TYPE_PER_ROUTE,
    HttpRateLimit,
    HttpRateLimitPerRoute,
    parse_http_rate_limit,
    parse_http_rate_limit_per_route,
)
from sidecar.config.grpc_service import GrpcService
from sidecar.config.rate_limit import GenericKey, RateLimit
from sidecar.config.retry_policy import RetryBackOff, RetryPolicy
from tests.sidecar.config.building import build, build_with_warnings, problems

ACTIONS = {"actions": [{"generic_key": {"descriptor_value": "v"}}]}
ACTION = (GenericKey("v", "generic_key"),)


def limit(service: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    grpc = {"envoy_grpc": {"cluster_name": "a"}, **(service or {})}
    return {"domain": "d", "rate_limit_service": {"grpc_service": grpc, "transport_api_version": "V3"}, **fields}


def read(**fields: Any) -> HttpRateLimit:
    return build(TYPE, limit(**fields), parse_http_rate_limit)


def test_defaults() -> None:
    found = read()
    assert found == HttpRateLimit("d", GrpcService("a"))
    assert (found.timeout, found.rate_limited_status, found.status_on_error) == (0.02, 429, 500)
    assert (found.failure_mode_deny, found.filter_enabled, found.filter_enforced) == ((0, 100), (100, 100), (100, 100))


def test_every_setting() -> None:
    share = {"default_value": {"numerator": 5, "denominator": "TEN_THOUSAND"}, "runtime_key": "k"}
    service = {
        "envoy_grpc": {"cluster_name": "b", "authority": "x.test", "max_receive_message_length": 99},
        "initial_metadata": [{"key": "X-From", "value": "here"}],
        "retry_policy": {"retry_on": "5xx", "num_retries": 2},
    }
    found = read(
        service=service,
        stage=3,
        request_type="internal",
        timeout="1.5s",
        rate_limited_as_resource_exhausted=True,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        disable_x_envoy_ratelimited_header=True,
        rate_limited_status={"code": "ServiceUnavailable"},
        status_on_error={"code": "BadGateway"},
        response_headers_to_add=[{"header": {"key": "X-Limited", "value": "1"}}],
        stat_prefix="p",
        filter_enabled=share,
        filter_enforced=share,
        failure_mode_deny_percent=share,
        rate_limits=[ACTIONS],
    )
    assert found == HttpRateLimit(
        "d",
        GrpcService(
            "b",
            "x.test",
            ((b"x-from", b"here"),),
            RetryPolicy(frozenset({"5xx"}), 2, retry_back_off=RetryBackOff(1.0, 10.0)),
            99,
        ),
        stage=3,
        request_type="internal",
        timeout=1.5,
        failure_mode_deny=(5, 10_000),
        rate_limited_as_resource_exhausted=True,
        enable_x_ratelimit_headers=True,
        disable_x_envoy_ratelimited_header=True,
        rate_limited_status=503,
        status_on_error=502,
        response_headers_to_add=(HeaderValueOption(b"x-limited", "1", "APPEND_IF_EXISTS_OR_ADD", False),),
        stat_prefix="p",
        filter_enabled=(5, 10_000),
        filter_enforced=(5, 10_000),
        rate_limits=(RateLimit(ACTION),),
    )


def test_deny() -> None:
    assert read(failure_mode_deny=True).failure_mode_deny == (100, 100)


def test_a_status_that_is_no_error_becomes_429_but_errors_may_have_any() -> None:
    assert read(rate_limited_status={"code": "OK"}).rate_limited_status == 429
    assert read(status_on_error={"code": "OK"}).status_on_error == 200


def test_per_route() -> None:
    document = {"vh_rate_limits": "IGNORE", "rate_limits": [ACTIONS], "domain": "o"}
    expected = HttpRateLimitPerRoute("IGNORE", (RateLimit(ACTION),), "o")
    assert build(TYPE_PER_ROUTE, document, parse_http_rate_limit_per_route) == expected


def test_what_has_no_effect_is_named() -> None:
    document = {"override_option": "OVERRIDE_POLICY"}
    _, warnings = build_with_warnings(TYPE_PER_ROUTE, document, parse_http_rate_limit_per_route)
    assert len(warnings) == 1 and "override_option" in warnings[0]


LIMIT = {"dynamic_metadata": {"metadata_key": {"key": "m", "path": [{"key": "a"}, {"key": "b"}]}}}


def test_a_limit_of_its_own_and_when_it_counts() -> None:
    found = read(rate_limits=[{**ACTIONS, "limit": LIMIT, "apply_on_stream_done": True, "hits_addend": {"number": 3}}])
    assert found.rate_limits == (RateLimit(ACTION, 3, limit=("m", "a", "b"), apply_on_stream_done=True),)


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        (limit(rate_limits=[{**ACTIONS, "stage": 0}]), "rate_limits[0]", "has a stage"),
        (limit(rate_limits=[{**ACTIONS, "disable_key": "k"}]), "rate_limits[0]", "has a stage or a disable_key"),
        (limit(service={"envoy_grpc": {"cluster_name": "none"}}), "envoy_grpc.cluster_name", "no cluster called 'none'"),
        (
            limit(service={"initial_metadata": [{"key": "k", "value": "%REQ(x)%"}]}),
            "initial_metadata[0].value",
            "has a format",
        ),
        (
            limit(rate_limits=[{"actions": [{"extension": {"name": "e"}}]}]),
            "rate_limits[0].actions[0].extension",
            "is not implemented",
        ),
        (
            {"domain": "d", "rate_limit_service": {"grpc_service": {"google_grpc": {"target_uri": "x:1",
             "stat_prefix": "s"}}}},
            "google_grpc",
            "is not implemented",
        ),
    ],
)  # fmt: skip
def test_refused(document: dict[str, Any], path: str, words: str) -> None:
    found = problems(TYPE, document, parse_http_rate_limit)
    assert [problem for place, problem in found if place.endswith(path) and words in problem], found
