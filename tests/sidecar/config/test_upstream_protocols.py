"""How endpoints are spoken to: protocols, their options, what TLS takes from requests; in both places that say it."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.http2_protocol_options import Http2ProtocolOptions
from sidecar.config.match_predicate import MatchPredicate
from sidecar.config.matcher import HeaderMatcher, StringMatcher
from sidecar.config.protocol_options import Http1ProtocolOptions, HttpProtocolOptions, ProperCaseWords
from sidecar.config.upstream_protocols import HTTP_PROTOCOL_OPTIONS, UpstreamHttpProtocolOptions
from tests.sidecar.config.resources import Document, bootstrap, cluster, load, load_cluster, refusals

HERE = "static_resources.clusters[0]"
EXTENSION = f'{HERE}.typed_extension_protocol_options["{HTTP_PROTOCOL_OPTIONS}"]'
TLS_CONTEXT = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
TLS: Document = {"name": "tls", "typed_config": {"@type": TLS_CONTEXT}}
SYSTEM: Document = {"common_tls_context": {"validation_context": {"system_root_certs": {}}}}
VERIFYING: Document = {"name": "tls", "typed_config": {"@type": TLS_CONTEXT, **SYSTEM}}
HTTP1: Document = {"http_protocol_options": {}}
HTTP2: Document = {"http2_protocol_options": {"max_concurrent_streams": 7}}


def http_options(**fields: object) -> Document:
    return {HTTP_PROTOCOL_OPTIONS: {"@type": f"type.googleapis.com/{HTTP_PROTOCOL_OPTIONS}", **fields}}


def extended(**fields: object) -> Document:
    return {"typed_extension_protocol_options": http_options(**fields)}


def test_http_protocol_options() -> None:
    common = {
        "idle_timeout": "0s",
        "max_headers_count": 1,
        "max_response_headers_kb": 2,
        "max_requests_per_connection": 3,
    }
    http1 = {
        "header_key_format": {"proper_case_words": {}},
        "enable_trailers": True,
    }
    built = load_cluster(
        typed_extension_protocol_options=http_options(
            common_http_protocol_options=common, explicit_http_config={"http_protocol_options": http1}
        )
    )
    expected = HttpProtocolOptions(0.0, max_headers_count=1, max_response_headers_kb=2, max_requests_per_connection=3)
    assert built.common_http_protocol_options == expected
    assert built.http_protocol_options == Http1ProtocolOptions(
        header_key_format=ProperCaseWords(), enable_trailers=True
    )
    legacy = load_cluster(
        common_http_protocol_options={**common, "max_requests_per_connection": None},
        max_requests_per_connection=3,
        http_protocol_options=http1,
    )
    assert legacy.common_http_protocol_options == expected
    assert legacy.http_protocol_options == built.http_protocol_options


@pytest.mark.parametrize(
    ("fields", "protocol", "streams"),
    [
        ({}, "http1", 1024),
        (extended(explicit_http_config=HTTP1), "http1", 1024),
        (extended(explicit_http_config=HTTP2), "http2", 7),
        (extended(use_downstream_protocol_config={}), "downstream", 1024),
        (extended(use_downstream_protocol_config={**HTTP1, **HTTP2}), "downstream", 7),
        ({**extended(auto_config={}), "transport_socket": TLS}, "auto", 1024),
        ({**extended(auto_config={**HTTP1, **HTTP2}), "transport_socket": TLS}, "auto", 7),
        (HTTP1, "http1", 1024),
        (HTTP2, "http2", 7),
        ({"protocol_selection": "USE_CONFIGURED_PROTOCOL"}, "http1", 1024),
        ({"protocol_selection": "USE_DOWNSTREAM_PROTOCOL"}, "downstream", 1024),
        ({"protocol_selection": "USE_DOWNSTREAM_PROTOCOL", **HTTP1, **HTTP2}, "downstream", 7),
    ],
)
def test_the_protocol_and_its_options(fields: Document, protocol: str, streams: int) -> None:
    built = load_cluster(**fields)
    assert built.upstream_protocol == protocol
    assert built.http2_options == Http2ProtocolOptions(max_concurrent_streams=streams)


@pytest.mark.parametrize("choice", ["use_downstream_protocol_config", "auto_config"])
def test_the_options_of_http1_where_another_protocol_may_be_spoken(choice: str) -> None:
    http1 = {"http_protocol_options": {"enable_trailers": True}}
    built = load_cluster(**extended(**{choice: http1}), transport_socket=TLS)
    assert built.http_protocol_options == Http1ProtocolOptions(enable_trailers=True)


def test_equal_options_of_clusters_are_one_object() -> None:
    extension = extended(explicit_http_config=HTTP2, upstream_http_protocol_options={"auto_sni": True})
    built, _ = load(bootstrap([], [cluster(name=name, **extension) for name in ("a", "b")]))
    one, other = built.static_resources.clusters
    assert one.http2_options is other.http2_options
    assert one.upstream_http_options is other.upstream_http_options


def test_requests_per_connection_beside_the_extension_are_not_looked_at_and_that_is_said() -> None:
    told = cluster(max_requests_per_connection=1, **extended(explicit_http_config=HTTP2))
    loaded, warnings = load(bootstrap([], [told]))
    (made,) = loaded.static_resources.clusters
    assert made.common_http_protocol_options.max_requests_per_connection == 0
    (warning,) = warnings
    assert warning.endswith(
        ".max_requests_per_connection: is ignored: typed_extension_protocol_options says what holds"
    )


def test_what_tls_takes_from_requests() -> None:
    fields = {"auto_sni": True, "auto_san_validation": True, "override_auto_sni_header": "X-Host"}
    expected = UpstreamHttpProtocolOptions(True, True, b"x-host")
    assert load_cluster().upstream_http_options == UpstreamHttpProtocolOptions(False, False, b"")
    deprecated = load_cluster(upstream_http_protocol_options=fields, transport_socket=VERIFYING)
    assert deprecated.upstream_http_options == expected
    extension = extended(upstream_http_protocol_options=fields, explicit_http_config=HTTP1)
    assert load_cluster(**extension, transport_socket=VERIFYING).upstream_http_options == expected
    assert load_cluster(upstream_http_protocol_options={"auto_sni": True}).upstream_http_options.auto_sni


@pytest.mark.parametrize(
    ("fields", "path", "problem"),
    [
        (
            extended(explicit_http_config={"http3_protocol_options": {}}),
            f"{EXTENSION}.explicit_http_config.http3_protocol_options",
            "is not implemented by Mizzen",
        ),
        (
            extended(use_downstream_protocol_config={"http3_protocol_options": {}}),
            f"{EXTENSION}.use_downstream_protocol_config.http3_protocol_options",
            "is not implemented by Mizzen",
        ),
        (
            {**extended(auto_config={"http3_protocol_options": {}}), "transport_socket": TLS},
            f"{EXTENSION}.auto_config.http3_protocol_options",
            "is not implemented by Mizzen",
        ),
        (extended(auto_config={}), f"{HERE}.transport_socket", "is required for auto_config"),
        (extended(explicit_http_config={}), f"{EXTENSION}.explicit_http_config", "must have one of"),
        ({**HTTP1, **HTTP2}, f"{HERE}.http2_protocol_options", "is set together with http_protocol_options"),
        *(
            (
                {name: value, **extended(explicit_http_config=HTTP1)},
                f"{HERE}.{name}",
                "is overridden by typed_extension_protocol_options",
            )
            for name, value in (
                ("common_http_protocol_options", {}),
                ("http_protocol_options", {}),
                ("http2_protocol_options", {}),
                ("upstream_http_protocol_options", {}),
                ("protocol_selection", "USE_DOWNSTREAM_PROTOCOL"),
            )
        ),
        (
            {
                "typed_extension_protocol_options": {
                    "x": http_options(explicit_http_config=HTTP1)[HTTP_PROTOCOL_OPTIONS]
                }
            },
            f'{HERE}.typed_extension_protocol_options["x"]',
            "'x' names no protocol options",
        ),
        (
            {"upstream_http_protocol_options": {"auto_san_validation": True}},
            f"{HERE}.transport_socket",
            "does not verify certificates",
        ),
        (
            {"upstream_http_protocol_options": {"auto_san_validation": True}, "transport_socket": TLS},
            f"{HERE}.transport_socket",
            "does not verify certificates",
        ),
    ],
)
def test_what_is_wrong_is_refused(fields: dict[str, Any], path: str, problem: str) -> None:
    found = refusals(bootstrap([], [cluster(**fields)]))
    assert [path for path, _ in found] == [path]
    assert found[0][1].startswith(problem)


def matching(predicate: dict[str, Any]) -> dict[str, Any]:
    return extended(explicit_http_config=HTTP1, outlier_detection={"error_matcher": predicate})


MISSING = {"http_response_headers_match": {"headers": [{"name": ":status", "string_match": {"exact": "404"}}]}}


def test_which_responses_are_errors_may_be_said() -> None:
    headers = MatchPredicate("headers", headers=(HeaderMatcher(b":status", StringMatcher("exact", b"404")),))
    rules = [MISSING, {"not_match": MISSING}, {"any_match": True}]
    of_rules = (headers, MatchPredicate("not", (headers,)), MatchPredicate("any"))
    assert load_cluster().error_matcher is None
    assert load_cluster(**matching(MISSING)).error_matcher == headers
    assert load_cluster(**matching({"or_match": {"rules": rules}})).error_matcher == MatchPredicate("or", of_rules)
    assert load_cluster(**matching({"and_match": {"rules": rules}})).error_matcher == MatchPredicate("and", of_rules)


@pytest.mark.parametrize(
    "rule",
    [
        "http_request_headers_match",
        "http_request_trailers_match",
        "http_response_trailers_match",
    ],
)
def test_an_error_is_known_by_the_head_of_a_response(rule: str) -> None:
    predicate = {"not_match": {rule: {"headers": [{"name": "x", "present_match": True}]}}}
    found = refusals(bootstrap([], [cluster(**matching(predicate))]))
    assert [(path.rpartition(".")[2], problem) for path, problem in found] == [(rule, "is not implemented by Mizzen")]
