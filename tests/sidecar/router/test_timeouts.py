"""How long a stream may live, and what is told of the time that is left."""

from __future__ import annotations

from math import inf

import pytest

from sidecar.core.head import RequestHead
from sidecar.router.route import Route
from sidecar.router.timeouts import (
    expected_timeout_ms,
    grpc_timeout,
    limit_stream,
    parse_grpc_timeout,
    request_timeouts,
)
from tests.sidecar.router.compiling import request


class Stopwatch:
    """A stream as far as its deadlines go; it began at 100."""

    def __init__(self, request: RequestHead, limit: float | None) -> None:
        self.request = request
        self.downstream = self
        self.start = self.last_activity = 100.0
        self.idle_timeout = inf
        self.duration_deadline = inf if limit is None else self.start + limit
        self.woken_at = inf

    def wake_by(self, due: float) -> None:
        self.woken_at = due


def call(*fields: tuple[str, str]) -> RequestHead:
    return request("POST", headers=[("content-type", "application/grpc"), *fields])


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (b"1H", 3_600_000),
        (b"2M", 120_000),
        (b"3S", 3000),
        (b"99999999m", 99_999_999),
        (b"1000u", 1),
        (b"1001u", 2),
        (b"5u", 1),
        (b"7n", 1),
        (b"0n", 0),
        (b"0S", 0),
        (b"000000005S", 5000),
        (b"+5S", 5000),
        (b" 5S", 5000),
        (b"100000000S", None),
        (b"S", None),
        (b"", None),
        (b"1", None),
        (b"-1S", None),
        (b"1.5S", None),
        (b"1s", None),
        (b"1_0S", None),
    ],
)
def test_grpc_timeouts(value: bytes, milliseconds: int | None) -> None:
    assert parse_grpc_timeout(value) == milliseconds


@pytest.mark.parametrize(
    ("milliseconds", "value"),
    [
        (0, b"0m"),
        (99_999_999, b"99999999m"),
        (100_000_000, b"100000S"),
        (99_999_999_999, b"99999999S"),
        (100_000_000_000, b"1666666M"),
        (100_000_000 * 60_000, b"1666666H"),
        (10**18, b"99999999H"),
    ],
)
def test_timeouts_are_told_in_eight_digits(milliseconds: int, value: bytes) -> None:
    assert grpc_timeout(milliseconds) == value


@pytest.mark.parametrize(
    ("most", "longest", "offset", "header", "default", "seconds", "told"),
    [
        (None, None, None, None, None, None, None),
        (None, None, None, None, 9.0, 9.0, "9000m"),
        (None, None, None, "2S", None, None, "2S"),
        (5.0, None, None, None, 9.0, 5.0, "5000m"),
        (0.0, None, None, "2S", 9.0, None, None),
        (0.0, None, None, "2S", None, None, "2S"),
        (5.0, None, None, "2S", 9.0, 5.0, "5000m"),
        (5.0, 3.0, None, "2S", 9.0, 2.0, "2000m"),
        (5.0, 3.0, None, "4S", 9.0, 3.0, "3000m"),
        (5.0, 0.0, None, "40S", 9.0, 40.0, "40000m"),
        (5.0, 0.0, None, "0S", 9.0, 0.0, "0m"),
        (5.0, 3.0, 0.5, "2S", 9.0, 1.5, "1500m"),
        (5.0, 3.0, 2.5, "2S", 9.0, 0.0, "0m"),
        (5.0, 3.0, None, "soon", 9.0, 5.0, "5000m"),
        (5.0, 3.0, None, None, 9.0, 5.0, "5000m"),
    ],
)
def test_how_long_a_stream_may_live_and_what_the_upstream_is_told(
    most: float | None,
    longest: float | None,
    offset: float | None,
    header: str | None,
    default: float | None,
    seconds: float | None,
    told: str | None,
) -> None:
    route = Route("r", "v")
    route.limits_streams = True
    route.max_stream_duration, route.grpc_timeout_header_max, route.grpc_timeout_header_offset = most, longest, offset
    stream = Stopwatch(call(*([] if header is None else [("grpc-timeout", header)])), default)
    limit_stream(route, stream)
    assert stream.duration_deadline == stream.woken_at == (inf if seconds is None else 100.0 + seconds)
    assert stream.request.get(b"grpc-timeout") == (None if told is None else told.encode())


def test_what_is_no_call_keeps_its_grpc_timeout() -> None:
    route = Route("r", "v")
    route.limits_streams, route.grpc_timeout_header_max = True, 1.0
    stream = Stopwatch(request(headers=[("grpc-timeout", "2S")]), None)
    limit_stream(route, stream)
    assert stream.duration_deadline == 101.0
    assert stream.request.get(b"grpc-timeout") == b"2S"


@pytest.mark.parametrize(
    ("longest", "offset", "header", "per_try", "timeouts", "told"),
    [
        (0.0, None, "2S", None, (2.0, 0.0), "2000m"),
        (1.0, None, "2S", None, (1.0, 0.0), "1000m"),
        (1.0, None, "0S", None, (1.0, 0.0), "1000m"),
        (1.0, None, None, None, (1.0, 0.0), "1000m"),
        (0.0, None, None, None, (0.0, 0.0), None),
        (0.0, 0.5, "2S", None, (1.5, 0.0), "1500m"),
        (0.0, 2.5, "2S", None, (2.0, 0.0), "2000m"),
        (0.0, None, "2S", "300", (2.0, 0.3), "300m"),
    ],
)
def test_a_maximum_of_the_route_makes_grpc_timeout_the_timeout(
    longest: float,
    offset: float | None,
    header: str | None,
    per_try: str | None,
    timeouts: tuple[float, float],
    told: str | None,
) -> None:
    route = Route("r", "v")
    route.max_grpc_timeout, route.grpc_timeout_offset = longest, offset
    fields = [] if header is None else [("grpc-timeout", header)]
    if per_try is not None:
        fields.append(("x-envoy-upstream-rq-per-try-timeout-ms", per_try))
    stream = Stopwatch(call(*fields), None)
    limit_stream(route, stream)
    assert request_timeouts(route, None, stream.request) == pytest.approx(timeouts)
    assert stream.request.get(b"grpc-timeout") == (None if told is None else told.encode())
    assert stream.request.get(b"x-envoy-upstream-rq-timeout-ms") is None


def test_the_timeout_that_the_caller_asks_for_goes_before_its_grpc_timeout() -> None:
    route = Route("r", "v")
    route.max_grpc_timeout = 0.0
    stream = Stopwatch(call(("grpc-timeout", "2S"), ("x-envoy-upstream-rq-timeout-ms", "700")), None)
    limit_stream(route, stream)
    assert request_timeouts(route, None, stream.request) == (0.7, 0.0)


def test_what_is_left_is_told() -> None:
    assert expected_timeout_ms(2.0, 0.0) == 2000
    assert expected_timeout_ms(2.0, 0.5) == 500
    assert expected_timeout_ms(2.0, 1.0, elapsed=1.75) == 250
    assert expected_timeout_ms(2.0, 1.0, elapsed=2.5) == 1
    assert expected_timeout_ms(0.0, 0.3, elapsed=9.0) == 300
    assert expected_timeout_ms(0.0, 0.0) == 0


def test_a_plain_request_has_the_timeouts_of_its_route() -> None:
    route = Route("r", "v")
    assert request_timeouts(route, None, request()) == (15.0, 0.0)
    route.timeout = None
    assert request_timeouts(route, None, request()) == (0.0, 0.0)
