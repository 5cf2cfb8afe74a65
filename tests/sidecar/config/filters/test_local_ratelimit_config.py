"""Local rate limits: buckets, descriptors, and the actions that fill them."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.core_types import HeaderValueOption, TokenBucket
from sidecar.config.extensions import message_class
from sidecar.config.fields import Context, Node
from sidecar.config.filters.local_ratelimit import (
    TYPE,
    LocalRateLimit,
    LocalRateLimitDescriptor,
    parse_local_rate_limit,
)
from sidecar.config.matcher import HeaderMatcher, QueryParameterMatcher
from sidecar.config.rate_limit import (
    DestinationCluster,
    GenericKey,
    HeaderValueMatch,
    MaskedRemoteAddress,
    MetadataAction,
    QueryParameters,
    QueryParameterValueMatch,
    RateLimit,
    RateLimitAction,
    RemoteAddress,
    RequestHeaders,
    SourceCluster,
)
from sidecar.config.source import Source
from tests.sidecar.config.building import build, problems

BUCKET = {"max_tokens": 3, "fill_interval": "1s"}
KEY = {"key": "f", "path": [{"key": "a"}, {"key": "b"}]}


def limit(**fields: Any) -> dict[str, Any]:
    return {"stat_prefix": "s", **fields}


def descriptor(interval: str = "1s", value: str = "v") -> dict[str, Any]:
    return {
        "entries": [{"key": "k", "value": value}],
        "token_bucket": {"max_tokens": 1, "fill_interval": interval},
    }


def test_nothing_is_limited_unless_that_is_enabled_and_enforced() -> None:
    found = build(TYPE, limit(token_bucket=BUCKET), parse_local_rate_limit)
    assert found == LocalRateLimit("s", token_bucket=TokenBucket(3, 1, 1.0))
    assert found.filter_enabled == found.filter_enforced == (0, 100)
    assert found.status == 429


def test_every_setting() -> None:
    all_of = {"default_value": {"numerator": 100}, "runtime_key": "k"}
    document = limit(
        status={"code": "ServiceUnavailable"},
        token_bucket={**BUCKET, "tokens_per_fill": 2},
        filter_enabled=all_of,
        filter_enforced=all_of,
        request_headers_to_add_when_not_enforced=[{"header": {"key": "X-Over", "value": "1"}}],
        response_headers_to_add=[{"header": {"key": "X-Limit", "value": "1"}}],
        descriptors=[descriptor(), descriptor(value="")],
        rate_limits=[{"actions": [{"remote_address": {}}], "hits_addend": {"number": 2}}],
        local_rate_limit_per_downstream_connection=True,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        always_consume_default_token_bucket=False,
        max_dynamic_descriptors=5,
        stage=3,
        vh_rate_limits="INCLUDE",
    )
    one = TokenBucket(1, 1, 1.0)
    assert build(TYPE, document, parse_local_rate_limit) == LocalRateLimit(
        stat_prefix="s",
        status=503,
        token_bucket=TokenBucket(3, 2, 1.0),
        filter_enabled=(100, 100),
        filter_enforced=(100, 100),
        request_headers_to_add_when_not_enforced=(HeaderValueOption(b"x-over", "1", "APPEND_IF_EXISTS_OR_ADD", False),),
        response_headers_to_add=(HeaderValueOption(b"x-limit", "1", "APPEND_IF_EXISTS_OR_ADD", False),),
        descriptors=(
            LocalRateLimitDescriptor((("k", "v"),), one),
            LocalRateLimitDescriptor((("k", ""),), one),
        ),
        rate_limits=(RateLimit((RemoteAddress(),), 2),),
        local_rate_limit_per_downstream_connection=True,
        enable_x_ratelimit_headers=True,
        always_consume_default_token_bucket=False,
        max_dynamic_descriptors=5,
        stage=3,
        vh_rate_limits="INCLUDE",
    )


def own(**fields: Any) -> dict[str, Any]:
    """A rate limit of the filter's own."""
    return limit(rate_limits=[{"actions": [{"remote_address": {}}], **fields}])


def test_a_status_that_is_no_error_becomes_429() -> None:
    assert build(TYPE, limit(status={"code": "OK"}), parse_local_rate_limit).status == 429


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ({"source_cluster": {}}, SourceCluster()),
        ({"destination_cluster": {}}, DestinationCluster()),
        ({"remote_address": {}}, RemoteAddress()),
        ({"masked_remote_address": {}}, MaskedRemoteAddress(32, 128)),
        ({"masked_remote_address": {"v4_prefix_mask_len": 0}}, MaskedRemoteAddress(0, 128)),
        (
            {"request_headers": {"header_name": "X-User", "descriptor_key": "user", "skip_if_absent": True}},
            RequestHeaders(b"x-user", "user", True),
        ),
        (
            {"query_parameters": {"query_parameter_name": "U", "descriptor_key": "user"}},
            QueryParameters(b"U", "user", False),
        ),
        ({"generic_key": {"descriptor_value": "v"}}, GenericKey("v", "generic_key")),
        ({"generic_key": {"descriptor_value": "v", "descriptor_key": "k"}}, GenericKey("v", "k")),
        (
            {"header_value_match": {"descriptor_value": "v", "headers": [{"name": "X"}]}},
            HeaderValueMatch("header_match", "v", True, (HeaderMatcher(b"x", True),)),
        ),
        (
            {
                "query_parameter_value_match": {
                    "descriptor_value": "v",
                    "expect_match": False,
                    "query_parameters": [{"name": "q"}],
                }
            },
            QueryParameterValueMatch("query_match", "v", False, (QueryParameterMatcher(b"q", True),)),
        ),
        (
            {"metadata": {"descriptor_key": "k", "metadata_key": KEY, "source": "ROUTE_ENTRY", "skip_if_absent": True}},
            MetadataAction("k", "f", ("a", "b"), "", "ROUTE_ENTRY", True),
        ),
        (
            {"metadata": {"descriptor_key": "k", "metadata_key": KEY, "default_value": "d"}},
            MetadataAction("k", "f", ("a", "b"), "d", "DYNAMIC", False),
        ),
    ],
)
def test_action(action: dict[str, Any], expected: RateLimitAction) -> None:
    found = build(TYPE, limit(rate_limits=[{"actions": [action]}]), parse_local_rate_limit)
    assert found.rate_limits == (RateLimit((expected,)),)


@pytest.mark.parametrize(
    ("document", "path", "words"),
    [
        (limit(token_bucket={**BUCKET, "fill_interval": "0.049s"}), "token_bucket.fill_interval", "shorter than 50 ms"),
        (limit(descriptors=[descriptor("0.01s")]), "descriptors[0].token_bucket.fill_interval", "shorter than 50 ms"),
        (limit(descriptors=[descriptor(), descriptor()]), "descriptors[1].entries", "has the same entries"),
        (own(stage=1), "rate_limits[0]", "has a stage"),
        (own(disable_key="k"), "rate_limits[0]", "has a stage"),
        (own(hits_addend={}), "rate_limits[0].hits_addend", "in no way, or in two"),
        (own(hits_addend={"number": 1, "format": "%BYTES_SENT%"}), "rate_limits[0].hits_addend", "in two"),
        (own(hits_addend={"format": "%PROTOCOL%%PROTOCOL%"}), "rate_limits[0].hits_addend.format", "one command"),
        (limit(local_cluster_rate_limit={}), "local_cluster_rate_limit", "none is named"),
    ],
)
def test_refused(document: dict[str, Any], path: str, words: str) -> None:
    ((found, problem),) = problems(TYPE, document, parse_local_rate_limit)
    assert found == path
    assert words in problem


def test_the_local_cluster_is_the_one_that_the_bootstrap_names() -> None:
    context = Context("test.yaml")
    context.local_cluster_name = "mine"
    document = limit(local_cluster_rate_limit={})
    message = Source(document, "test.yaml").read(message_class(TYPE)(), context.problems)
    with context:
        assert parse_local_rate_limit(Node(message, "", context)).local_cluster == "mine"
