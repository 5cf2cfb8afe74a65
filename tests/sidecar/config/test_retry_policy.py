"""Retry policies: defaults, limits, and words that are not known."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.config.matcher import HeaderMatcher
from sidecar.config.retry_policy import (
    PreviousHosts,
    PreviousPriorities,
    RateLimitedRetryBackOff,
    ResetHeader,
    RetryBackOff,
    RetryPolicy,
    parse_retry_policy,
)
from tests.sidecar.config.building import build, build_with_warnings, problems

RETRY = "envoy.config.route.v3.RetryPolicy"
PRIORITIES = "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
HOST = "type.googleapis.com/envoy.extensions.retry.host."


def test_an_empty_policy_has_the_defaults_of_envoy() -> None:
    policy = build(RETRY, {}, parse_retry_policy)
    assert policy == RetryPolicy(frozenset())
    assert policy.num_retries == 1
    assert policy.per_try_timeout is None
    assert policy.host_selection_retry_max_attempts == 1
    assert policy.retry_back_off == RetryBackOff(0.025, 0.25)


def test_every_field() -> None:
    document = {
        "retry_on": "5xx, gateway-error,retriable-headers,unavailable",
        "num_retries": 0,
        "per_try_timeout": "0.250s",
        "retry_host_predicate": [
            {"name": "p", "typed_config": {"@type": HOST + "previous_hosts.v3.PreviousHostsPredicate"}},
        ],
        "retry_priority": {
            "name": "q",
            "typed_config": {"@type": PRIORITIES, "update_frequency": 2},
        },
        "host_selection_retry_max_attempts": 5,
        "retriable_status_codes": [503, 409],
        "retry_back_off": {"base_interval": "0.1s"},
        "rate_limited_retry_back_off": {
            "reset_headers": [{"name": "Retry-After"}, {"name": "X-Reset", "format": "UNIX_TIMESTAMP"}]
        },
        "retriable_headers": [{"name": "x-again"}],
        "retriable_request_headers": [{"name": "x-safe"}],
    }
    assert build(RETRY, document, parse_retry_policy) == RetryPolicy(
        retry_on=frozenset({"5xx", "gateway-error", "retriable-headers", "unavailable"}),
        num_retries=0,
        per_try_timeout=0.25,
        retry_priority=PreviousPriorities(2),
        retry_host_predicate=(PreviousHosts(),),
        host_selection_retry_max_attempts=5,
        retriable_status_codes=frozenset({409, 503}),
        retry_back_off=RetryBackOff(0.1, 1.0),
        rate_limited_retry_back_off=RateLimitedRetryBackOff(
            (ResetHeader(b"retry-after", "SECONDS"), ResetHeader(b"x-reset", "UNIX_TIMESTAMP")), 300.0
        ),
        retriable_headers=(HeaderMatcher(b"x-again", True),),
        retriable_request_headers=(HeaderMatcher(b"x-safe", True),),
    )


def test_unknown_conditions_count_for_nothing_and_are_warned_of() -> None:
    policy, warnings = build_with_warnings(RETRY, {"retry_on": "5xx,often"}, parse_retry_policy)
    assert policy.retry_on == {"5xx"}
    assert len(warnings) == 1 and "'often'" in warnings[0]


def test_a_per_try_timeout_of_nothing_is_none() -> None:
    assert build(RETRY, {"per_try_timeout": "0s"}, parse_retry_policy).per_try_timeout is None


def test_back_off_intervals_are_at_least_a_millisecond() -> None:
    document = {"retry_back_off": {"base_interval": "0.0001s", "max_interval": "0.0002s"}}
    assert build(RETRY, document, parse_retry_policy).retry_back_off == RetryBackOff(0.001, 0.001)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            {"retry_back_off": {"base_interval": "2s", "max_interval": "1s"}},
            ("retry_back_off.max_interval", "is shorter than base_interval"),
        ),
        (
            {"retry_priority": {"name": "x"}},
            ("retry_priority.typed_config", "is required to tell which extension is meant"),
        ),
        (
            {"retry_options_predicates": [{"name": "x", "typed_config": {"@type": PRIORITIES, "update_frequency": 1}}]},
            ("retry_options_predicates", "is not implemented by Mizzen"),
        ),
        (
            {"retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts"}]},
            ("retry_host_predicate[0].typed_config", "is required to tell which extension is meant"),
        ),
    ],
)
def test_refused(document: dict[str, Any], expected: tuple[str, str]) -> None:
    assert problems(RETRY, document, parse_retry_policy) == [expected]
