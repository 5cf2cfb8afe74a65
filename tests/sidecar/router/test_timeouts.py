"""How long a stream may live, and what is told of the time that is left."""

from __future__ import annotations

import pytest

from sidecar.router.route import Route
from sidecar.router.timeouts import expected_timeout_ms, parse_grpc_timeout, request_timeouts, stream_duration
from tests.sidecar.router.compiling import request


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1H", 3600.0),
        (b"2M", 120.0),
        (b"3S", 3.0),
        (b"99999999m", 99999.999),
        (b"5u", 5e-6),
        (b"7n", 7e-9),
        (b"0S", 0.0),
        (b"100000000S", None),
        (b"S", None),
        (b"1", None),
        (b"-1S", None),
        (b"1.5S", None),
        (b"1s", None),
        (b"1_0S", None),
    ],
)
def test_grpc_timeouts(value: bytes, seconds: float | None) -> None:
    assert parse_grpc_timeout(value) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("most", "longest", "offset", "header", "default", "seconds"),
    [
        (None, None, None, None, None, None),
        (None, None, None, None, 9.0, 9.0),
        (5.0, None, None, None, 9.0, 5.0),
        (0.0, None, None, None, 9.0, None),
        (5.0, None, None, "2S", 9.0, 5.0),
        (5.0, 3.0, None, "2S", 9.0, 2.0),
        (5.0, 3.0, None, "4S", 9.0, 3.0),
        (5.0, 0.0, None, "40S", 9.0, 40.0),
        (5.0, 0.0, None, "0S", 9.0, None),
        (5.0, 3.0, 0.5, "2S", 9.0, 1.5),
        (5.0, 3.0, 2.5, "2S", 9.0, 2.0),
        (5.0, 3.0, None, "soon", 9.0, 5.0),
        (5.0, 3.0, None, None, 9.0, 5.0),
    ],
)
def test_how_long_a_stream_may_live(
    most: float | None,
    longest: float | None,
    offset: float | None,
    header: str | None,
    default: float | None,
    seconds: float | None,
) -> None:
    route = Route("r", "v")
    route.max_stream_duration, route.grpc_timeout_header_max, route.grpc_timeout_header_offset = most, longest, offset
    head = request(headers=[] if header is None else [("grpc-timeout", header)])
    assert stream_duration(route, head, default) == seconds


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
