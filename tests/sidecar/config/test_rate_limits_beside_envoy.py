"""Rate limits, good and bad: real Envoy's `--mode validate` says the same of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.sidecar.config.test_envoy_agrees import (
    HTTP,
    KEY,
    Document,
    action,
    bootstrap,
    http,
    limit,
    problem_of_envoy,
    problem_of_ours,
    rate,
    route,
)

SERVICE: Document = {"grpc_service": {"envoy_grpc": {"cluster_name": "a"}}, "transport_api_version": "V3"}
ACTIONS: Document = {"actions": [{"generic_key": {"descriptor_value": "v"}}]}
LIMIT: Document = {"dynamic_metadata": {"metadata_key": KEY}}
SHARE: Document = {"runtime_key": "k", "default_value": {"numerator": 5}}


def asked(**fields: Any) -> list[Document]:
    """The filter that asks a service."""
    return http("ratelimit.v3.RateLimit", **{"domain": "d", "rate_limit_service": SERVICE, **fields})


def service(**fields: Any) -> list[Document]:
    grpc = {"envoy_grpc": {"cluster_name": "a"}, **fields}
    return asked(rate_limit_service={"grpc_service": grpc, "transport_api_version": "V3"})


def own(**fields: Any) -> list[Document]:
    return asked(rate_limits=[{**ACTIONS, **fields}])


def routed(**fields: Any) -> list[Document]:
    return action(rate_limits=[{**ACTIONS, **fields}])


def per_route(**fields: Any) -> list[Document]:
    return route(typed_per_filter_config={"f": {"@type": HTTP + "ratelimit.v3.RateLimitPerRoute", **fields}})


GOOD: dict[str, list[Document]] = {
    "plain": asked(),
    "every setting": asked(
        stage=10,
        request_type="external",
        timeout="0s",
        failure_mode_deny=True,
        rate_limited_as_resource_exhausted=True,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        disable_x_envoy_ratelimited_header=True,
        rate_limited_status={"code": "OK"},
        status_on_error={"code": "OK"},
        response_headers_to_add=[{"header": {"key": "x", "value": "1"}}],
        stat_prefix="p",
        filter_enabled=SHARE,
        filter_enforced=SHARE,
        failure_mode_deny_percent=SHARE,
    ),
    "rate limits of its own": own(limit=LIMIT, apply_on_stream_done=True, hits_addend={"number": 0}),
    "hits by a format": own(hits_addend={"format": "%REQ(x)%"}),
    "service": service(initial_metadata=[{"key": "k", "value": "v"}], retry_policy={"num_retries": 2}),
    "authority": service(envoy_grpc={"cluster_name": "a", "authority": "x", "max_receive_message_length": 4}),
    "version AUTO": asked(rate_limit_service={"grpc_service": SERVICE["grpc_service"]}),
    "of a route": routed(stage=10, disable_key="k", limit=LIMIT, apply_on_stream_done=True),
    "virtual host's, too": action(include_vh_rate_limits=True),
    "per route": per_route(vh_rate_limits="INCLUDE", rate_limits=[ACTIONS], domain="d"),
    "local stage": limit(stage=10, vh_rate_limits="IGNORE"),
    "local hits by a format": rate(hits_addend={"format": "%BYTES_RECEIVED%"}),
    "local when done": rate(apply_on_stream_done=True),
}

BAD: dict[str, list[Document]] = {
    "no domain": asked(domain=""),
    "no service": asked(rate_limit_service={}),
    "version 2": asked(rate_limit_service={**SERVICE, "transport_api_version": "V2"}),
    "stage 11": asked(stage=11),
    "type": asked(request_type="neither"),
    "negative timeout": asked(timeout="-1s"),
    "share without a default": asked(filter_enabled={"runtime_key": "k"}),
    "eleven headers": asked(response_headers_to_add=[{"header": {"key": f"x-{n}", "value": "1"}} for n in range(11)]),
    "own stage": own(stage=0),
    "own disable key": own(disable_key="k"),
    "own without actions": asked(rate_limits=[{}]),
    "two ways to count": own(hits_addend={"number": 1, "format": "%BYTES_SENT%"}),
    "no way to count": own(hits_addend={}),
    "two commands": own(hits_addend={"format": "%BYTES_SENT%%BYTES_SENT%"}),
    "text": own(hits_addend={"format": "3"}),
    "local, two ways to count": rate(hits_addend={"number": 1, "format": "%BYTES_SENT%"}),
    "local limit": rate(limit=LIMIT),
    "local stage 11": limit(stage=11),
    "local cluster without a name": limit(local_cluster_rate_limit={}),
    "route's stage 11": routed(stage=11),
    "per route's stage": per_route(rate_limits=[{**ACTIONS, "stage": 1}]),
    "action that was removed": action(
        rate_limits=[{"actions": [{"dynamic_metadata": {"descriptor_key": "k", "metadata_key": KEY}}]}]
    ),
}

EXPRESSION = "type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor"
STRICTER: dict[str, list[Document]] = {
    "a cluster that there is not": service(envoy_grpc={"cluster_name": "none"}),
    "Google's client": service(envoy_grpc=None, google_grpc={"target_uri": "a:1", "stat_prefix": "s"}),
    "metadata by a format": service(initial_metadata=[{"key": "k", "value": "%REQ(x)%"}]),
    "actions by extensions": action(
        rate_limits=[
            {"actions": [{"extension": {"name": "e", "typed_config": {"@type": EXPRESSION, "text": "request.path",
                                                                      "descriptor_key": "k"}}}]}
        ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_ones_are_accepted(name: str) -> None:
    assert problem_of_ours(bootstrap(GOOD[name])) == ""


def test_good_ones_are_accepted_by_envoy(tmp_path: Path) -> None:
    assert problem_of_envoy(bootstrap([manager for managers in GOOD.values() for manager in managers]), tmp_path) == ""


@pytest.mark.parametrize("name", BAD)
def test_bad_ones_are_refused_by_both(name: str, tmp_path: Path) -> None:
    document = bootstrap(BAD[name])
    assert problem_of_ours(document) != ""
    assert problem_of_envoy(document, tmp_path) != ""


@pytest.mark.parametrize("name", STRICTER)
def test_what_only_mizzen_refuses(name: str, tmp_path: Path) -> None:
    document = bootstrap(STRICTER[name])
    assert problem_of_ours(document) != ""
    assert problem_of_envoy(document, tmp_path) == ""
