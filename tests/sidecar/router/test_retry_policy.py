"""Retry policies: their tables, what a request's headers add, and how long to wait."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from sidecar.config.retry_policy import parse_retry_policy
from sidecar.core.head import ResponseHead
from sidecar.router.retry_policy import NO_RETRIES, RetryPolicy, for_request
from tests.sidecar.config.building import build
from tests.sidecar.router.compiling import request

POLICY = "envoy.config.route.v3.RetryPolicy"


def policy(retry_on: str, **fields: Any) -> RetryPolicy:
    return RetryPolicy(build(POLICY, {"retry_on": retry_on, **fields}, parse_retry_policy))


def response(status: int, *fields: tuple[bytes, bytes]) -> ResponseHead:
    return ResponseHead(status, list(fields))


@pytest.mark.parametrize(
    ("retry_on", "statuses"),
    [
        ("5xx", set(range(500, 600))),
        ("gateway-error", {502, 503, 504}),
        ("retriable-4xx", {409}),
        ("retriable-status-codes", {418, 599}),
        ("retriable-4xx,gateway-error", {409, 502, 503, 504}),
        ("reset,connect-failure,refused-stream", set()),
    ],
)
def test_statuses(retry_on: str, statuses: set[int]) -> None:
    made = policy(retry_on, retriable_status_codes=[418, 599, 700])
    assert {status for status in range(600) if made.retriable_status[status]} == statuses
    assert {status for status in range(100, 1000) if made.would_retry(response(status))} == statuses


@pytest.mark.parametrize(
    ("retry_on", "flags"),
    [
        ("5xx", (True, True, True, True)),
        ("gateway-error", (True, True, True, True)),
        ("reset", (True, True, True, True)),
        ("reset-before-request", (False, True, True, False)),
        ("connect-failure", (False, False, True, False)),
        ("refused-stream", (False, False, False, True)),
        ("retriable-4xx", (False, False, False, False)),
    ],
)
def test_failures(retry_on: str, flags: tuple[bool, ...]) -> None:
    made = policy(retry_on)
    assert (
        made.on_reset,
        made.on_reset_before_request,
        made.on_connect_failure,
        made.on_refused_stream,
    ) == flags


def test_a_rate_limited_response_is_tried_again_only_where_that_is_said() -> None:
    limited = response(503, (b"x-envoy-ratelimited", b"true"))
    assert not policy("5xx").would_retry(limited)
    assert policy("envoy-ratelimited").would_retry(limited)
    assert not policy("envoy-ratelimited").would_retry(response(429))


def test_retriable_headers() -> None:
    matchers = [{"name": "x-again", "string_match": {"exact": "yes"}}]
    made = policy("retriable-headers", retriable_headers=matchers)
    assert made.header_matchers
    assert made.would_retry(response(200, (b"x-again", b"yes")))
    assert not made.would_retry(response(200, (b"x-again", b"no")))
    assert not policy("5xx", retriable_headers=matchers).would_retry(response(200, (b"x-again", b"yes")))


def test_grpc_statuses() -> None:
    made = policy("cancelled,unavailable")
    assert [status for status in range(17) if made.would_retry(response(200, (b"grpc-status", b"%d" % status)))] == [
        1,
        14,
    ]
    assert not made.would_retry(response(200))


def test_a_route_without_a_policy_does_what_the_request_asks_for() -> None:
    assert for_request(None, request()) is None
    head = request(headers=[("x-envoy-retry-on", "5xx, reset"), ("x-envoy-max-retries", "3"), ("x", "1")])
    found = for_request(None, head)
    assert found is not None
    assert (found.num_retries, found.on_reset, found.retriable_status[500]) == (3, True, 1)
    assert head.fields == [(b"x", b"1")]


def test_the_headers_of_a_request_are_merged_into_the_policy() -> None:
    base = policy("connect-failure", num_retries=2, retriable_status_codes=[418], per_try_timeout="1s")
    head = request(
        headers=[
            ("x-envoy-retry-on", "retriable-status-codes,retriable-headers,nonsense"),
            ("x-envoy-retry-grpc-on", "internal,5xx"),
            ("x-envoy-retriable-status-codes", "404,x, 7"),
            ("x-envoy-retriable-header-names", "X-Again, ,x-more"),
            ("x-envoy-max-retries", "many"),
            ("x-envoy-hedge-on-per-try-timeout", "true"),
        ]
    )
    found = base.for_request(head)
    assert found is not None
    assert found.config.retry_on == {"connect-failure", "retriable-status-codes", "retriable-headers", "internal"}
    assert (found.num_retries, found.per_try_timeout, found.on_connect_failure) == (2, 1.0, True)
    assert [status for status in range(600) if found.retriable_status[status]] == [7, 404, 418]
    assert found.would_retry(response(200, (b"x-again", b"")))
    assert found.would_retry(response(200, (b"grpc-status", b"13")))
    assert head.fields == []
    assert base.for_request(request()) is base


def test_headers_that_are_not_trusted_only_go() -> None:
    head = request(headers=[("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "9")])
    assert NO_RETRIES.for_request(head, trusted=False) is None
    assert head.fields == []


def test_no_condition_is_no_policy_and_no_retries_are_a_limit() -> None:
    none = policy("5xx").for_request(request(headers=[("x-envoy-max-retries", "0")]))
    assert none is not None and none.num_retries == 0
    assert policy("").for_request(request(headers=[("x-envoy-max-retries", "4")])) is None


def test_merged_policies_are_remembered_within_bounds() -> None:
    base = policy("5xx")
    first = base.for_request(request(headers=[("x-envoy-max-retries", "7")]))
    assert base.for_request(request(headers=[("x-envoy-max-retries", "7")])) is first
    for number in range(1000):
        base.for_request(request(headers=[("x-envoy-max-retries", str(number))]))
    base.for_request(request(headers=[("x-envoy-retriable-header-names", "a," * 5000)]))
    assert len(base._memo) <= 256
    assert all(sum(map(len, key)) <= 1024 for key in base._memo)


def test_only_requests_with_a_retriable_header_are_tried_again() -> None:
    made = policy("5xx", retriable_request_headers=[{"name": "x-a"}, {"name": ":method", "exact_match": "PUT"}])
    assert made.for_request(request()) is None
    assert made.for_request(request(headers=[("x-a", "1")])) is made
    assert made.for_request(request(method="PUT")) is made


def test_waits_double_up_to_the_longest_with_full_jitter() -> None:
    made = policy("5xx", retry_back_off={"base_interval": "0.1s", "max_interval": "0.35s"})
    random = Random(1)
    for retry, longest in ((0, 0.1), (1, 0.2), (2, 0.35), (3, 0.35), (5000, 0.35)):
        waits = [made.back_off(retry, random) for _ in range(300)]
        assert 0 <= min(waits) < 0.1 * longest
        assert 0.9 * longest < max(waits) <= longest


def test_the_response_says_how_long_to_wait() -> None:
    headers = [{"name": "retry-after", "format": "SECONDS"}, {"name": "x-reset", "format": "UNIX_TIMESTAMP"}]
    made = policy("5xx", rate_limited_retry_back_off={"reset_headers": headers, "max_interval": "60s"})
    for fields, least in (
        ([(b"retry-after", b"4")], 4.0),
        ([(b"x-reset", b"1010")], 10.0),
        ([(b"retry-after", b"61"), (b"x-reset", b"1010")], 10.0),
        ([(b"retry-after", b"0")], None),
        ([(b"x-reset", b"999")], None),
        ([(b"retry-after", b"soon")], None),
        ([], None),
    ):
        wait = made.rate_limited_back_off(response(503, *fields), 1000.0, Random(3))
        if least is None:
            assert wait is None
        else:
            assert wait is not None
            assert least <= wait < 1.5 * least


def test_previous_hosts_are_avoided_where_that_is_said() -> None:
    predicate = {
        "name": "p",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
        },
    }
    made = policy("5xx", retry_host_predicate=[predicate], host_selection_retry_max_attempts=5)
    assert made.host_predicates is not None and made.host_predicates.previous
    assert made.host_selection_retry_max_attempts == 5
    assert policy("5xx").host_predicates is None
