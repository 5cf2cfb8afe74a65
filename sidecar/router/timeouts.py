"""How long a request may take: the route's timeouts, and what request headers make of them.

Source: Envoy's router filter reference on ``x-envoy-upstream-rq-timeout-ms``,
``x-envoy-upstream-rq-per-try-timeout-ms`` and ``x-envoy-expected-rq-timeout-ms``, and its
``RouteAction.MaxStreamDuration`` reference. Whether these headers are to be trusted is decided before, by taking them
out of requests from outside. Times are in seconds; 0 is no limit.
"""

from __future__ import annotations

import re
from math import inf
from typing import Any

from sidecar.core.head import RequestHead
from sidecar.core.matching import parse_unsigned
from sidecar.router.retry_policy import RetryPolicy
from sidecar.router.route import Route

UPSTREAM_TIMEOUT = b"x-envoy-upstream-rq-timeout-ms"
PER_TRY_TIMEOUT = b"x-envoy-upstream-rq-per-try-timeout-ms"
EXPECTED_TIMEOUT = b"x-envoy-expected-rq-timeout-ms"

_GRPC_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_GRPC_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")


def _milliseconds(value: bytes) -> float | None:
    number = parse_unsigned(value)
    return None if number is None else number / 1000


def request_timeouts(
    route: Route, retry: RetryPolicy | None, request: RequestHead, respect_expected: bool = False
) -> tuple[float, float]:
    """(whole request, each try) for a request, where 0 is no limit; takes the headers that count out of the request.

    ``respect_expected`` is the router's ``respect_expected_rq_timeout``: the timeout that the Envoy before this one
    has set then goes before the caller's.
    """
    whole = route.timeout or 0.0
    each = (retry.per_try_timeout or 0.0) if retry is not None else 0.0
    index = request.index
    if respect_expected and EXPECTED_TIMEOUT in index:
        whole = _or(_milliseconds(index[EXPECTED_TIMEOUT]), whole)
    elif UPSTREAM_TIMEOUT in index:
        whole = _or(_milliseconds(index[UPSTREAM_TIMEOUT]), whole)
        request.remove(UPSTREAM_TIMEOUT)
    if PER_TRY_TIMEOUT in index:
        each = _or(_milliseconds(index[PER_TRY_TIMEOUT]), each)
        request.remove(PER_TRY_TIMEOUT)
    if whole and each >= whole:
        each = 0.0
    return whole, each


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def expected_timeout_ms(whole: float, each: float, elapsed: float = 0.0) -> int:
    """What ``x-envoy-expected-rq-timeout-ms`` tells the upstream, in milliseconds; 0 means that it is not set."""
    expected = each or whole
    if not expected:
        return 0
    if whole:
        if elapsed >= whole:
            return 1  # out of time, and 0 would mean for ever
        expected = min(expected, whole - elapsed)
    return int(expected * 1000 + 1e-6)


def parse_grpc_timeout(value: bytes) -> float | None:
    """The seconds in a ``grpc-timeout`` header (gRPC over HTTP/2, "Requests"), or None if it is malformed."""
    found = _GRPC_TIMEOUT.fullmatch(value)
    return None if found is None else int(found[1]) * _GRPC_UNITS[found[2]]


def stream_duration(route: Route, request: RequestHead, default: float | None) -> float | None:
    """How long the stream may live, None for ever; ``default`` is the connection manager's limit."""
    if route.grpc_timeout_header_max is not None and b"grpc-timeout" in request.index:
        timeout = parse_grpc_timeout(request.index[b"grpc-timeout"])
        if timeout is not None:
            return _limit_grpc_timeout(route, timeout) or None
    if route.max_stream_duration is not None:
        return route.max_stream_duration or None
    return default or None


def limit_stream(route: Route, stream: Any) -> None:
    """Give the stream the route's own deadlines in place of the connection manager's."""
    if route.idle_timeout is not None:
        stream.idle_timeout = route.idle_timeout or inf
    deadline = stream.duration_deadline
    duration = stream_duration(route, stream.request, None if deadline == inf else deadline - stream.start)
    stream.duration_deadline = inf if duration is None else stream.start + duration
    due = min(stream.last_activity + stream.idle_timeout, stream.duration_deadline)
    if due != inf:
        stream.downstream.wake_by(due)


def _limit_grpc_timeout(route: Route, timeout: float) -> float:
    longest, offset = route.grpc_timeout_header_max, route.grpc_timeout_header_offset
    if longest and (timeout > longest or not timeout):
        timeout = longest
    if offset and timeout > offset:
        timeout -= offset
    return timeout
