"""The ext_authz filter's configuration: each setting, its defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.core_types import HeaderValueOption
from sidecar.config.filters.ext_authz import (
    TYPE,
    TYPE_PER_ROUTE,
    BufferSettings,
    ExtAuthz,
    ExtAuthzPerRoute,
    GrpcAuthorization,
    HttpAuthorization,
    parse_ext_authz,
    parse_ext_authz_per_route,
)
from sidecar.config.grpc_service import GrpcService
from sidecar.config.matcher import MetadataMatcher, PresentMatch, RegexMatcher, StringMatcher
from sidecar.config.mutation_rules import MutationRules
from sidecar.config.retry_policy import RetryBackOff, RetryPolicy
from tests.sidecar.config.building import build, problems

GRPC = {"envoy_grpc": {"cluster_name": "a"}}
HTTP = {"server_uri": {"uri": "http://x", "cluster": "a", "timeout": "1s"}}


def patterns(*names: str) -> dict[str, Any]:
    return {"patterns": [{"exact": name} for name in names]}


def exactly(*names: bytes) -> tuple[StringMatcher, ...]:
    return tuple(StringMatcher("exact", name) for name in names)


def read(**fields: Any) -> ExtAuthz:
    return build(TYPE, fields, parse_ext_authz)


def test_defaults_fail_closed() -> None:
    found = read(grpc_service=GRPC)
    assert found == ExtAuthz(GrpcAuthorization(GrpcService("a"), 0.2))
    assert (found.failure_mode_allow, found.status_on_error) == (False, 403)
    assert found.filter_enabled is None


def test_every_setting() -> None:
    found = read(
        grpc_service={**GRPC, "timeout": "1.5s"},
        transport_api_version="V3",
        failure_mode_allow=True,
        failure_mode_allow_header_add=True,
        with_request_body={"max_request_bytes": 9, "allow_partial_message": True, "pack_as_bytes": True},
        clear_route_cache=True,
        status_on_error={"code": "BadGateway"},
        validate_mutations=True,
        metadata_context_namespaces=["m"],
        route_metadata_context_namespaces=["r"],
        filter_enabled={"default_value": {"numerator": 5, "denominator": "MILLION"}},
        filter_enabled_metadata={"filter": "f", "path": [{"key": "k"}], "value": {"present_match": True}},
        deny_at_disable={"default_value": True, "runtime_key": "k"},
        include_peer_certificate=True,
        include_tls_session=True,
        stat_prefix="s",
        bootstrap_metadata_labels_key="labels",
        allowed_headers=patterns("x-a"),
        disallowed_headers=patterns("x-b"),
        charge_cluster_response_stats=False,
        encode_raw_headers=True,
        decoder_header_mutation_rules={"allow_envoy": True, "allow_expression": {"regex": "x.*"}},
        enable_dynamic_metadata_ingestion=False,
        max_denied_response_body_bytes=7,
        enforce_response_header_limits=True,
    )
    assert found == ExtAuthz(
        GrpcAuthorization(GrpcService("a"), 1.5),
        failure_mode_allow=True,
        failure_mode_allow_header_add=True,
        with_request_body=BufferSettings(9, True, True),
        clear_route_cache=True,
        status_on_error=502,
        validate_mutations=True,
        metadata_context_namespaces=("m",),
        route_metadata_context_namespaces=("r",),
        filter_enabled=(5, 1_000_000),
        filter_enabled_metadata=MetadataMatcher("f", ("k",), PresentMatch(True)),
        deny_at_disable=True,
        include_peer_certificate=True,
        include_tls_session=True,
        stat_prefix="s",
        bootstrap_metadata_labels_key="labels",
        allowed_headers=exactly(b"x-a"),
        disallowed_headers=exactly(b"x-b"),
        charge_cluster_response_stats=False,
        encode_raw_headers=True,
        decoder_header_mutation_rules=MutationRules(allow_envoy=True, allow_expression=RegexMatcher(b"x.*")),
        enable_dynamic_metadata_ingestion=False,
        max_denied_response_body_bytes=7,
        enforce_response_header_limits=True,
    )


def test_an_http_service() -> None:
    found = read(
        http_service={
            **HTTP,
            "path_prefix": "/check",
            "retry_policy": {
                "retry_on": "5xx",
                "num_retries": 2,
                "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.5s"},
            },
            "authorization_request": {
                "allowed_headers": patterns("x-old"),
                "headers_to_add": [{"key": "X-Added", "value": "%PROTOCOL%"}],
            },
            "authorization_response": {
                "allowed_upstream_headers": patterns("a"),
                "allowed_upstream_headers_to_append": patterns("b"),
                "allowed_client_headers": patterns("c"),
                "allowed_client_headers_on_success": patterns("d"),
                "dynamic_metadata_from_headers": patterns("e"),
            },
        }
    )
    assert found.service == HttpAuthorization(
        "a",
        1.0,
        "/check",
        exactly(b"x-old"),
        (HeaderValueOption(b"x-added", "%PROTOCOL%", "OVERWRITE_IF_EXISTS_OR_ADD", False),),
        exactly(b"a"),
        exactly(b"b"),
        exactly(b"c"),
        exactly(b"d"),
        exactly(b"e"),
        RetryPolicy(frozenset({"5xx"}), 2, per_try_timeout=0.5, retry_back_off=RetryBackOff(0.1, 0.5)),
    )


def test_routes() -> None:
    def read_route(**fields: Any) -> ExtAuthzPerRoute:
        return build(TYPE_PER_ROUTE, fields, parse_ext_authz_per_route)

    assert read_route(disabled=True) == ExtAuthzPerRoute(disabled=True)
    assert read_route(check_settings={}) == ExtAuthzPerRoute()
    assert read_route(
        check_settings={
            "context_extensions": {"a": "b"},
            "with_request_body": {"max_request_bytes": 5},
            "grpc_service": {**GRPC, "timeout": "0s"},
        }
    ) == ExtAuthzPerRoute(False, {"a": "b"}, False, BufferSettings(5), GrpcAuthorization(GrpcService("a"), 0.0))
    assert read_route(check_settings={"disable_request_body_buffering": True}).disable_request_body_buffering


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({}, ""),
        ({"grpc_service": GRPC, "transport_api_version": "V2"}, "transport_api_version"),
        ({"grpc_service": {"google_grpc": {"target_uri": "x", "stat_prefix": "s"}}}, "google_grpc"),
        ({"http_service": {**HTTP, "path_prefix": "check"}}, "path_prefix"),
        ({"http_service": {}}, "server_uri"),
        (
            {
                "http_service": {**HTTP, "authorization_request": {"allowed_headers": patterns("a")}},
                "allowed_headers": patterns("b"),
            },
            "allowed_headers",
        ),
        ({"grpc_service": GRPC, "typed_metadata_context_namespaces": ["x"]}, "typed_metadata_context_namespaces"),
        (
            {"grpc_service": GRPC, "route_typed_metadata_context_namespaces": ["x"]},
            "route_typed_metadata_context_namespaces",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(fields: dict[str, Any], place: str) -> None:
    found = problems(TYPE, fields, parse_ext_authz)
    assert any(place in path for path, _ in found), found


def test_a_route_sends_the_body_or_does_not() -> None:
    fields = {"check_settings": {"disable_request_body_buffering": True, "with_request_body": {"max_request_bytes": 5}}}
    (problem,) = problems(TYPE_PER_ROUTE, fields, parse_ext_authz_per_route)
    assert problem[0] == "check_settings.with_request_body"
