"""What HTTP responses make of a check, event by event; and that segments are found one behind the other."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.cluster.health_checks.events import HealthCheckEvents
from sidecar.cluster.health_checks.http import HttpCheck, contains
from sidecar.cluster.host import Host
from sidecar.config.core_types import Locality
from sidecar.config.health_check import HttpHealthCheck
from sidecar.core.address import Address
from sidecar.core.head import RequestHead, ResponseHead

GET = RequestHead(b"GET", b"/", b"a", [])


class Told:
    """The outcome of one check."""

    def __init__(self) -> None:
        self.host = None
        self.outcome: tuple[Any, ...] = ()

    def succeeded(self, degraded: bool = False) -> None:
        self.outcome = ("degraded",) if degraded else ("healthy",)

    def failed(self, reason: str, retriable: bool = False, status: int = 0, exclude: bool = False) -> None:
        self.outcome = (reason, status, *(["retriable"] if retriable else []), *(["exclude"] if exclude else []))


FAIL = (b"x-envoy-immediate-health-check-fail", b"1")
DEGRADED = (b"x-envoy-degraded", b"")
SERVICE = (b"x-envoy-upstream-healthchecked-cluster", b"right")


@pytest.mark.parametrize(
    ("fields", "status", "headers", "body", "outcome"),
    [
        ({}, 200, [], b"", ("healthy",)),
        ({}, 201, [], b"", ("ACTIVE", 201)),
        ({}, 200, [DEGRADED], b"", ("degraded",)),
        ({}, 200, [FAIL], b"", ("healthy",)),
        ({}, 503, [FAIL], b"", ("ACTIVE", 503, "exclude")),
        ({"expected_statuses": ((200, 300), (404, 405))}, 404, [], b"", ("healthy",)),
        ({"expected_statuses": ((201, 300),)}, 200, [], b"", ("ACTIVE", 200)),
        ({"retriable_statuses": ((500, 504),)}, 503, [], b"", ("ACTIVE", 503, "retriable")),
        ({"retriable_statuses": ((500, 504),)}, 504, [], b"", ("ACTIVE", 504)),
        ({"receive": (b"o", b"k")}, 200, [], b"xo--k", ("healthy",)),
        ({"receive": (b"o", b"k")}, 200, [], b"ko", ("ACTIVE", 200)),
        ({"receive": (b"no",), "retriable_statuses": ((500, 504),)}, 503, [FAIL], b"", ("ACTIVE", 503, "exclude")),
    ],
)
def test_judgement(
    fields: dict[str, Any], status: int, headers: list[Any], body: bytes, outcome: tuple[Any, ...]
) -> None:
    told = Told()
    check = HttpCheck(HttpHealthCheck("/", **fields), lambda host: GET)
    check.judge(told, ResponseHead(status, list(headers)), body)
    assert told.outcome == outcome


def test_the_name_of_the_service() -> None:
    asked: list[bytes] = []

    def is_right(name: bytes) -> bool:
        asked.append(name)
        return name == b"right"

    check = HttpCheck(HttpHealthCheck("/"), lambda host: GET, is_right)
    for headers, outcome in (([SERVICE], ("healthy",)), ([SERVICE, DEGRADED], ("degraded",)), ([], ("ACTIVE", 200))):
        told = Told()
        check.judge(told, ResponseHead(200, list(headers)), b"")
        assert told.outcome == outcome
    assert asked == [b"right", b"right", b""]
    unasked = HttpCheck(HttpHealthCheck("/"), lambda host: GET, is_right, lambda: False)
    told = Told()
    unasked.judge(told, ResponseHead(200, []), b"")
    assert told.outcome == ("healthy",)


@pytest.mark.parametrize(
    ("data", "segments", "found"),
    [
        (b"abc", (), True),
        (b"abc", (b"ab", b"bc"), False),
        (b"abbc", (b"ab", b"bc"), True),
        (b"", (b"a",), False),
    ],
)
def test_segments(data: bytes, segments: tuple[bytes, ...], found: bool) -> None:
    assert contains(data, segments) is found


def test_lines_of_the_event_log_are_as_envoy_writes_them() -> None:
    lines: list[bytes] = []
    events = HealthCheckEvents("HTTP", "c", [lines.append], lambda: 1_790_000_000.5)
    host = Host(
        Address("10.0.0.1", 80), locality=Locality("r", "z", ""), metadata={"envoy.lb": {"a": 1, "b": [True, "ü"]}}
    )
    events.eject_unhealthy(host, "ACTIVE", 503)
    events.failure(Host(Address(None, 0, "/run/s")), "NETWORK", True, 0)
    events.success(host)
    events.degraded(host, True)
    metadata = '"metadata":{"filter_metadata":{"envoy.lb":{"a":1,"b":[true,"ü"]}},"typed_filter_metadata":{}}'
    locality = '"locality":{"region":"r","zone":"z","sub_zone":""}'
    where = (
        '{"health_checker_type":"HTTP","host":{"socket_address":{"protocol":"TCP","address":"10.0.0.1","port_value":80,'
        '"resolver_name":"","ipv4_compat":false,"network_namespace_filepath":""}},"cluster_name":"c",'
    )
    time = '"timestamp":"2026-09-21T14:13:20.500Z",'
    assert [line.decode() for line in lines] == [
        f'{where}"eject_unhealthy_event":{{"failure_type":"ACTIVE","http_status_code":503}},{time}{metadata},{locality}}}\n',
        '{"health_checker_type":"HTTP","host":{"pipe":{"path":"/run/s","mode":0}},"cluster_name":"c",'
        f'{time}"health_check_failure_event":{{"failure_type":"NETWORK","first_check":true,"http_status_code":0}},'
        '"metadata":{"filter_metadata":{},"typed_filter_metadata":{}},'
        '"locality":{"region":"","zone":"","sub_zone":""}}\n',
        f'{where}{time}{metadata},{locality},"successful_health_check_event":{{}}}}\n',
        f'{where}{time}"degraded_healthy_host":{{}},{metadata},{locality}}}\n',
    ]


def test_a_whole_second_has_no_fraction_and_nobody_reading_costs_nothing() -> None:
    lines: list[bytes] = []
    HealthCheckEvents("TCP", "c", [lines.append], lambda: 1_790_000_000.0).success(Host(Address("10.0.0.1", 80)))
    assert b'"timestamp":"2026-09-21T14:13:20Z"' in lines[0]

    def no_time() -> float:
        raise AssertionError("nobody wants to know")

    HealthCheckEvents("TCP", "c", [], no_time).success(Host(Address("10.0.0.1", 80)))
