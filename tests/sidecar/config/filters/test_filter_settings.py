"""Every setting of the filters whose configuration is small."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.core_types import HeaderValueOption
from sidecar.config.filters import cors, fault, header_mutation, health_check, rbac, router
from sidecar.config.filters.compression import (
    BrotliCompressor,
    BrotliDecompressor,
    GzipCompressor,
    GzipDecompressor,
    ZstdCompressor,
    ZstdDecompressor,
    parse_compressor_library,
    parse_decompressor_library,
)
from sidecar.config.filters.fault import FaultAbort, FaultDelay, FaultRateLimit, HTTPFault
from sidecar.config.filters.header_mutation import QueryParameterMutation, RemoveHeader, RemoveOnMatch
from sidecar.config.matcher import HeaderMatcher, StringMatcher
from sidecar.config.rbac import Rbac
from tests.sidecar.config.building import build, problems

EXTENSION = "envoy.config.core.v3.TypedExtensionConfig"


def library(type_name: str, **fields: Any) -> dict[str, Any]:
    return {"name": "l", "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.{type_name}", **fields}}


def test_router() -> None:
    document = {
        "suppress_envoy_headers": True,
        "strict_check_headers": ["x-envoy-max-retries"],
        "respect_expected_rq_timeout": True,
    }
    assert build(router.TYPE, document, router.parse_router) == router.Router(True, (b"x-envoy-max-retries",), True)
    assert problems(router.TYPE, {"upstream_log": [{"name": "x"}]}, router.parse_router) == [
        ("upstream_log", "is not implemented by Mizzen")
    ]


def test_fault() -> None:
    half = {"numerator": 50}
    document = {
        "delay": {"fixed_delay": "1.5s", "percentage": half},
        "abort": {"http_status": 503, "percentage": {"numerator": 7, "denominator": "MILLION"}},
        "response_rate_limit": {"fixed_limit": {"limit_kbps": 8}},
        "upstream_cluster": "a",
        "headers": [{"name": "X"}],
        "downstream_nodes": ["n1"],
        "max_active_faults": 0,
        "disable_downstream_cluster_stats": True,
    }
    assert build(fault.TYPE, document, fault.parse_fault) == HTTPFault(
        FaultDelay(1.5, (50, 100)),
        FaultAbort(503, None, (7, 1_000_000)),
        FaultRateLimit(8, (0, 100)),
        "a",
        (HeaderMatcher(b"x", True),),
        frozenset({b"n1"}),
        0,
        True,
    )


def test_faults_that_headers_control() -> None:
    document: dict[str, Any] = {
        "delay": {"header_delay": {}},
        "abort": {"header_abort": {}},
        "response_rate_limit": {"header_limit": {}},
    }
    never = (0, 100)
    found = build(fault.TYPE, document, fault.parse_fault)
    assert (found.delay, found.abort, found.response_rate_limit) == (
        FaultDelay(None, never),
        FaultAbort(None, None, never),
        FaultRateLimit(None, never),
    )


def test_an_abort_with_a_grpc_status_of_zero_is_not_one_by_header() -> None:
    found = build(fault.TYPE, {"abort": {"grpc_status": 0}}, fault.parse_fault)
    assert found.abort == FaultAbort(None, 0, (0, 100))


def test_rbac() -> None:
    document = {
        "rules": {"action": "DENY"},
        "shadow_rules": {},
        "rules_stat_prefix": "r",
        "shadow_rules_stat_prefix": "s",
    }
    assert build(rbac.TYPE, document, rbac.parse_http_rbac) == rbac.HttpRbac(
        Rbac("DENY", ()), Rbac("ALLOW", ()), "r", "s"
    )
    assert ("matcher", "is not implemented by Mizzen") in problems(
        rbac.TYPE, {"matcher": {"on_no_match": {"keep_matching": True}}}, rbac.parse_http_rbac
    )


@pytest.mark.parametrize("type_name", [cors.TYPE_PER_ROUTE, "envoy.config.route.v3.CorsPolicy"])
def test_cors_policy(type_name: str) -> None:
    document = {
        "allow_origin_string_match": [{"suffix": ".example"}],
        "allow_methods": "GET",
        "allow_headers": "x-a",
        "expose_headers": "x-b",
        "max_age": "60",
        "allow_credentials": False,
        "filter_enabled": {"default_value": {"numerator": 0}},
        "shadow_enabled": {"default_value": {"numerator": 100}},
        "allow_private_network_access": True,
        "forward_not_matching_preflights": False,
    }
    assert build(type_name, document, cors.parse_cors_policy) == cors.CorsPolicy(
        (StringMatcher("suffix", b".example"),), b"GET", b"x-a", b"x-b", b"60", False, (0, 100), (100, 100), True, False
    )


def test_header_mutation() -> None:
    added = {"header": {"key": "X-A", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS"}
    document = {
        "mutations": {
            "request_mutations": [{"append": added}, {"remove": "X-B"}],
            "response_mutations": [{"remove_on_match": {"key_matcher": {"prefix": "x-internal-"}}}],
            "query_parameter_mutations": [
                {"append": {"record": {"key": "q", "value": "%PROTOCOL%"}, "action": "ADD_IF_ABSENT"}},
                {"remove": "old"},
            ],
        },
        "most_specific_header_mutations_wins": True,
    }
    found = build(header_mutation.TYPE, document, header_mutation.parse_header_mutation)
    assert found == header_mutation.HeaderMutation(
        (HeaderValueOption(b"x-a", "1", "OVERWRITE_IF_EXISTS", False), RemoveHeader(b"x-b")),
        (RemoveOnMatch(StringMatcher("prefix", b"x-internal-")),),
        (QueryParameterMutation("q", "%PROTOCOL%", "ADD_IF_ABSENT"), QueryParameterMutation("old", None, "")),
        True,
    )


@pytest.mark.parametrize(
    ("mutations", "path", "words"),
    [
        ({"request_mutations": [{"remove": ":path"}]}, "request_mutations[0].remove", "pseudo-header"),
        (
            {"request_mutations": [{"append": {"header": {"key": "Host", "value": "h"}}}]},
            "request_mutations[0].append.header.key",
            "pseudo-header or host",
        ),
        ({"query_parameter_mutations": [{}]}, "query_parameter_mutations[0]", "needs append or remove"),
        (
            {"query_parameter_mutations": [{"append": {"record": {"key": "a", "value": 1}}}]},
            "query_parameter_mutations[0].append.record.value.number_value",
            "is not implemented by Mizzen",
        ),
        (
            {"response_trailers_mutations": [{"remove": "x"}]},
            "response_trailers_mutations",
            "is not implemented by Mizzen",
        ),
    ],
)
def test_header_mutations_that_are_refused(mutations: dict[str, Any], path: str, words: str) -> None:
    document = {"mutations": mutations}
    ((found, problem),) = problems(header_mutation.TYPE, document, header_mutation.parse_header_mutation)
    assert found == f"mutations.{path}"
    assert words in problem


def test_health_check() -> None:
    document = {"pass_through_mode": True, "cache_time": "2.5s", "headers": [{"name": ":path", "exact_match": "/h"}]}
    assert build(health_check.TYPE, document, health_check.parse_health_check) == health_check.HealthCheck(
        True, 2.5, {}, (HeaderMatcher(b":path", StringMatcher("exact", b"/h")),)
    )
    document = {"pass_through_mode": False, "cluster_min_healthy_percentages": {"a": {"value": 12.5}}}
    found = build(health_check.TYPE, document, health_check.parse_health_check)
    assert found.cluster_min_healthy_percentages == {"a": 12.5}


def test_health_checks_that_are_refused() -> None:
    document = {"pass_through_mode": False, "cache_time": "1s"}
    assert problems(health_check.TYPE, document, health_check.parse_health_check) == [
        ("cache_time", "goes with pass_through_mode only")
    ]
    document = {"pass_through_mode": False, "cluster_min_healthy_percentages": {"c": {"value": 1}}}
    assert problems(health_check.TYPE, document, health_check.parse_health_check) == [
        ("cluster_min_healthy_percentages", "there is no cluster called 'c'")
    ]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (library("compression.gzip.compressor.v3.Gzip"), GzipCompressor()),
        (
            library(
                "compression.gzip.compressor.v3.Gzip",
                memory_level=9,
                compression_level="BEST_COMPRESSION",
                compression_strategy="RLE",
                window_bits=15,
            ),
            GzipCompressor(9, 9, "RLE", 15),
        ),
        (
            library("compression.gzip.compressor.v3.Gzip", compression_level="COMPRESSION_LEVEL_4"),
            GzipCompressor(compression_level=4),
        ),
        (library("compression.brotli.compressor.v3.Brotli"), BrotliCompressor()),
        (
            library(
                "compression.brotli.compressor.v3.Brotli",
                quality=0,
                encoder_mode="TEXT",
                window_bits=10,
                input_block_bits=16,
            ),
            BrotliCompressor(0, "TEXT", 10, 16),
        ),
        (library("compression.zstd.compressor.v3.Zstd"), ZstdCompressor()),
        (
            library(
                "compression.zstd.compressor.v3.Zstd",
                compression_level=19,
                enable_checksum=True,
                strategy="BTOPT",
            ),
            ZstdCompressor(19, True, "BTOPT"),
        ),
    ],
)
def test_compressor_library(document: dict[str, Any], expected: object) -> None:
    assert build(EXTENSION, document, parse_compressor_library) == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (library("compression.gzip.decompressor.v3.Gzip"), GzipDecompressor()),
        (
            library("compression.gzip.decompressor.v3.Gzip", window_bits=9, max_inflate_ratio=5),
            GzipDecompressor(9, 5),
        ),
        (library("compression.brotli.decompressor.v3.Brotli"), BrotliDecompressor()),
        (library("compression.zstd.decompressor.v3.Zstd"), ZstdDecompressor()),
    ],
)
def test_decompressor_library(document: dict[str, Any], expected: object) -> None:
    assert build(EXTENSION, document, parse_decompressor_library) == expected


def test_a_decompressor_does_not_compress() -> None:
    document = library("compression.gzip.decompressor.v3.Gzip")
    ((_, problem),) = problems(EXTENSION, document, parse_compressor_library)
    assert "is not implemented by Mizzen" in problem
