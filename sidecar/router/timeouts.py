"""How long a request may take: the route's timeouts, and what request headers make of them.

Source: Envoy's router filter reference on ``x-envoy-upstream-rq-timeout-ms``,
``x-envoy-upstream-rq-per-try-timeout-ms`` and ``x-envoy-expected-rq-timeout-ms``, and its
``RouteAction.MaxStreamDuration`` reference. Whether these headers are to be trusted is decided before, by taking them
out of requests from outside. Times are in seconds; 0 is no limit.
"""

from __future__ import annotations

from math import inf
from typing import Any

from sidecar.core.grpc import is_grpc
from sidecar.core.head import RequestHead
from sidecar.core.matching import parse_unsigned
from sidecar.router.retry_policy import RetryPolicy
from sidecar.router.route import Route

UPSTREAM_TIMEOUT = b"x-envoy-upstream-rq-timeout-ms"
PER_TRY_TIMEOUT = b"x-envoy-upstream-rq-per-try-timeout-ms"
EXPECTED_TIMEOUT = b"x-envoy-expected-rq-timeout-ms"
GRPC_TIMEOUT = b"grpc-timeout"

_GRPC_UNITS = {b"H": 3600 * 10**9, b"M": 60 * 10**9, b"S": 10**9, b"m": 10**6, b"u": 1000, b"n": 1}
_MOST = 99_999_999


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
    if route.max_grpc_timeout is not None and (each or whole) and is_grpc(request):
        request.set(GRPC_TIMEOUT, grpc_timeout(expected_timeout_ms(whole, each)))
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


def tell_timeout(
    request: RequestHead, route: Route, whole: float, each: float, elapsed: float, in_header: bool
) -> None:
    """Tell the upstream of a further attempt its time, ``elapsed`` seconds after the request was whole.

    ``in_header``: by ``x-envoy-expected-rq-timeout-ms``, too.
    """
    milliseconds = expected_timeout_ms(whole, each, elapsed)
    if not milliseconds:
        return
    if in_header:
        request.set(EXPECTED_TIMEOUT, b"%d" % milliseconds)
    if route.max_grpc_timeout is not None and is_grpc(request):
        request.set(GRPC_TIMEOUT, grpc_timeout(milliseconds))


def parse_grpc_timeout(value: bytes) -> int | None:
    """The milliseconds, rounded up, in a ``grpc-timeout`` header, or None if it is malformed for Envoy.

    Source: gRPC over HTTP/2, "Requests"; Envoy is wider in how the number may be written.
    """
    nanoseconds = _GRPC_UNITS.get(value[-1:])
    number = None if nanoseconds is None else parse_unsigned(value[:-1])
    if nanoseconds is None or number is None or number > _MOST:
        return None
    return -(-number * nanoseconds // 1_000_000)


def grpc_timeout(milliseconds: int) -> bytes:
    """A ``grpc-timeout`` header: milliseconds, or the next larger unit in which they have eight digits."""
    if milliseconds <= _MOST:
        return b"%dm" % milliseconds
    number = milliseconds // 1000
    if number <= _MOST:
        return b"%dS" % number
    number //= 60
    if number <= _MOST:
        return b"%dM" % number
    return b"%dH" % min(number // 60, _MOST)


def limit_stream(route: Route, stream: Any) -> None:
    """Give the stream the route's own deadlines in place of the connection manager's, and tell the upstream."""
    if route.idle_timeout is not None:
        stream.idle_timeout = route.idle_timeout or inf
    request = stream.request
    deadline = stream.duration_deadline
    duration = _duration(route, request, deadline - stream.start)
    stream.duration_deadline = stream.start + duration
    if route.limits_streams:
        if duration != inf:
            if is_grpc(request):
                request.set(GRPC_TIMEOUT, grpc_timeout(_whole_milliseconds(duration)))
        elif deadline != inf and is_grpc(request):
            request.remove(GRPC_TIMEOUT)
    elif route.max_grpc_timeout is not None and UPSTREAM_TIMEOUT not in request.index and is_grpc(request):
        request.set(UPSTREAM_TIMEOUT, b"%d" % _call_timeout(route, request))  # as if the caller had asked for it
    due = min(stream.last_activity + stream.idle_timeout, stream.duration_deadline)
    if due != inf:
        stream.downstream.wake_by(due)


def _duration(route: Route, request: RequestHead, default: float) -> float:
    """How long the stream may live; ``default`` is what the connection manager says."""
    longest = route.grpc_timeout_header_max
    if longest is not None and GRPC_TIMEOUT in request.index:
        milliseconds = parse_grpc_timeout(request.index[GRPC_TIMEOUT])
        if milliseconds is not None:
            timeout = milliseconds / 1000
            if longest and timeout > longest:
                timeout = longest
            return max(timeout - (route.grpc_timeout_header_offset or 0.0), 0.0)
    if route.max_stream_duration is not None:
        return route.max_stream_duration or inf
    return default


def _call_timeout(route: Route, request: RequestHead) -> int:
    """The milliseconds that a call may take where ``max_grpc_timeout`` says so, 0 for as long as it wants."""
    longest = _whole_milliseconds(route.max_grpc_timeout or 0.0)
    offset = _whole_milliseconds(route.grpc_timeout_offset or 0.0)
    timeout = parse_grpc_timeout(request.index.get(GRPC_TIMEOUT, b"")) or 0
    if offset < timeout:
        timeout -= offset
    return longest if longest and not 0 < timeout <= longest else timeout


def _whole_milliseconds(seconds: float) -> int:
    return int(seconds * 1000 + 1e-6)
