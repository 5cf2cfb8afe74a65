"""Access-log filters: which streams are logged."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from sidecar.config.access_log import (
    AccessLogFilter,
    AndFilter,
    DurationFilter,
    GrpcStatusFilter,
    HeaderFilter,
    LogTypeFilter,
    MetadataFilter,
    NotHealthCheckFilter,
    OrFilter,
    ResponseFlagFilter,
    RuntimeFilter,
    StatusCodeFilter,
    TraceableFilter,
)
from sidecar.config.matcher import HeaderMatcher, MetadataMatcher, NullMatch, StringMatcher
from sidecar.core.response_flags import NO_ROUTE_FOUND, UPSTREAM_CONNECTION_FAILURE
from sidecar.telemetry.log_filters import compile_filter
from tests.sidecar.telemetry.finished_streams import http_stream, tcp_stream


def logged(filter: AccessLogFilter, stream: Any = None, kind: str = "DownstreamEnd") -> bool:
    return compile_filter(filter, Random(1), kind)(http_stream() if stream is None else stream)


@pytest.mark.parametrize(
    ("op", "values"), [("EQ", (False, True, False)), ("NE", (True, False, True)),
                       ("GE", (True, True, False)), ("LE", (False, True, True))]
)  # fmt: skip
def test_comparisons(op: str, values: tuple[bool, bool, bool]) -> None:
    assert tuple(logged(StatusCodeFilter(op, value)) for value in (199, 200, 201)) == values
    assert tuple(logged(DurationFilter(op, value)) for value in (249, 250, 251)) == values


def test_a_stream_without_a_response_has_status_0_and_without_an_end_no_duration() -> None:
    assert logged(StatusCodeFilter("EQ", 0), tcp_stream())
    assert not logged(DurationFilter("GE", 0), http_stream(end=0.0))


def test_health_checks_and_traces() -> None:
    assert logged(NotHealthCheckFilter())
    assert not logged(NotHealthCheckFilter(), http_stream(response_code_details="health_check_ok"))
    assert not logged(TraceableFilter())


def test_a_share_by_request_id_is_the_same_everywhere() -> None:
    half = RuntimeFilter((50, 100), False)
    for start, expected in ((b"00000031", True), (b"00000032", False), (b"00000064", True)):
        stream = http_stream(request_id=start + b"-0000-4000-8000-000000000000")
        assert {logged(half, stream) for _ in range(20)} == {expected}


@pytest.mark.parametrize("independent", [True, False])
def test_a_share_by_chance(independent: bool) -> None:
    test = compile_filter(RuntimeFilter((2500, 10_000), independent), Random(7))
    request_id = b"ffffffff-0000-4000-8000-000000000000" if independent else b"no uuid"
    stream = http_stream(request_id=request_id)
    assert 2200 < sum(test(stream) for _ in range(10_000)) < 2800


def test_and_or() -> None:
    yes, no = StatusCodeFilter("EQ", 200), StatusCodeFilter("EQ", 500)
    assert logged(AndFilter((yes, yes)))
    assert not logged(AndFilter((yes, no)))
    assert logged(OrFilter((no, yes)))
    assert not logged(OrFilter((no, no)))


def test_headers() -> None:
    matcher = HeaderFilter(HeaderMatcher(b"x-a", StringMatcher("prefix", b"v")))
    assert logged(matcher, http_stream((b"x-a", b"value")))
    assert not logged(matcher)
    assert not logged(matcher, tcp_stream())


def test_response_flags() -> None:
    failed = http_stream(response_flags=UPSTREAM_CONNECTION_FAILURE | NO_ROUTE_FOUND)
    assert logged(ResponseFlagFilter(frozenset(("UF", "UT"))), failed)
    assert not logged(ResponseFlagFilter(frozenset(("UT",))), failed)
    assert logged(ResponseFlagFilter(frozenset()), failed)
    assert not logged(ResponseFlagFilter(frozenset()))


def test_grpc_status() -> None:
    ended = http_stream(response_trailers=[(b"grpc-status", b"14")])
    assert logged(GrpcStatusFilter(frozenset((14,)), exclude=False), ended)
    assert not logged(GrpcStatusFilter(frozenset((14,)), exclude=True), ended)
    unavailable = http_stream(response_code=503)
    assert logged(GrpcStatusFilter(frozenset((14,)), exclude=False), unavailable)
    assert logged(GrpcStatusFilter(frozenset((2,)), exclude=False), tcp_stream())


def test_metadata() -> None:
    matcher = MetadataMatcher("ns", ("a", "b"), StringMatcher("exact", b"x"))
    for value, expected in (("x", True), ("y", False)):
        stream = http_stream(dynamic_metadata={"ns": {"a": {"b": value}}})
        assert logged(MetadataFilter(matcher, False), stream) is expected
    for stream in (http_stream(), http_stream(dynamic_metadata={"ns": {"a": 1}})):
        assert logged(MetadataFilter(matcher, True), stream)
        assert not logged(MetadataFilter(matcher, False), stream)
    null = MetadataMatcher("ns", ("a",), NullMatch())
    assert logged(MetadataFilter(null, False), http_stream(dynamic_metadata={"ns": {"a": None}}))
    assert logged(MetadataFilter(None, True))
    assert not logged(MetadataFilter(None, False))


def test_log_types() -> None:
    tcp = LogTypeFilter(frozenset(("TcpConnectionEnd",)), exclude=False)
    assert logged(tcp, kind="TcpConnectionEnd")
    assert not logged(tcp)
    assert logged(LogTypeFilter(frozenset(("TcpConnectionEnd",)), exclude=True))
