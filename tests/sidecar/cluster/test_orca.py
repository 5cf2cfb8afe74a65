"""Load reports in all their forms, and the weight that is made of one."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xds.data.orca.v3.orca_load_report_pb2 import OrcaLoadReport

from sidecar.cluster.orca import HEADER, HEADER_BIN, parse_load_report

MESSAGE = OrcaLoadReport(
    cpu_utilization=0.5,
    mem_utilization=0.25,
    application_utilization=0.75,
    rps_fractional=100.5,
    eps=2.0,
    named_metrics={"foo": 0.1},
    utilization={"bar": 0.2},
    request_cost={"baz": 0.3},
)
BINARY = b64encode(MESSAGE.SerializeToString())
TEXT = (
    b"cpu_utilization=0.5,mem_utilization=0.25, application_utilization=0.75,rps_fractional=100.5,eps:2,"
    b"named_metrics.foo=0.1,utilization.bar=0.2,request_cost.baz=0.3"
)
JSON = (
    b'{"cpu_utilization": 0.5, "memUtilization": 0.25, "application_utilization": 0.75, "rpsFractional": 100.5, "eps": 2,'
    b' "named_metrics": {"foo": 0.1}, "utilization": {"bar": 0.2}, "request_cost": {"baz": 0.3}, "unknown": 1}'
)


@pytest.mark.parametrize(
    "fields",
    [
        {HEADER: b"TEXT " + TEXT},
        {HEADER: b"JSON " + JSON},
        {HEADER: b"BIN " + BINARY},
        {HEADER_BIN: BINARY},
        {HEADER_BIN: BINARY.rstrip(b"=")},
    ],
    ids=["text", "json", "bin", "bin-header", "without-padding"],
)
def test_all_forms_say_the_same(fields: dict[bytes, bytes]) -> None:
    report = parse_load_report(fields)
    assert report is not None
    assert (report.cpu_utilization, report.mem_utilization, report.application_utilization) == (0.5, 0.25, 0.75)
    assert (report.rps_fractional, report.eps) == (100.5, 2.0)
    assert report.metrics == {"named_metrics.foo": 0.1, "utilization.bar": 0.2, "request_cost.baz": 0.3}


@pytest.mark.parametrize(
    "value",
    [
        TEXT,
        b"XML cpu_utilization=1",
        b"TEXT cpu_utilization",
        b"TEXT cpu_utilization=",
        b"TEXT cpu_utilization=much",
        b"TEXT cpu_utilization=nan",
        b"TEXT cpu_utilization=inf",
        b"TEXT cpu_utilization=1_0",
        b"TEXT cpu_utilization=1,cpu_utilization=1",
        b"TEXT disk=1",
        b"TEXT named_metrics.=1",
        b"JSON {",
        b"BIN !",
        b"BIN " + b64encode(b"\x0a\xff"),
        b"",
    ],
)
def test_what_is_wrong_is_no_report(value: bytes) -> None:
    assert parse_load_report({HEADER: value}) is None


def test_without_the_header_there_is_no_report() -> None:
    assert parse_load_report({b"content-type": b"text/plain"}) is None


@pytest.mark.parametrize(
    ("text", "names", "penalty", "weight"),
    [
        (b"cpu_utilization=0.5,rps_fractional=100", (), 1.0, 200),
        (b"cpu_utilization=0.5,rps_fractional=100,eps=25", (), 2.0, 100),
        (b"cpu_utilization=0.5,rps_fractional=100,eps=25", (), 0.0, 200),
        (b"cpu_utilization=0.5,application_utilization=0.25,rps_fractional=100", (), 1.0, 400),
        (b"named_metrics.a=0.2,application_utilization=0.9,rps_fractional=100", ("named_metrics.a",), 1.0, 500),
        (b"named_metrics.a=0.2,utilization.b=0.8,rps_fractional=100", ("named_metrics.a", "utilization.b"), 1.0, 125),
        (b"mem_utilization=0.5,cpu_utilization=0.1,rps_fractional=100", ("mem_utilization",), 1.0, 200),
        (b"cpu_utilization=0.5,rps_fractional=100", ("named_metrics.a",), 1.0, 200),
        (b"cpu_utilization=0.5", (), 1.0, None),
        (b"cpu_utilization=0.5,rps_fractional=-1", (), 1.0, None),
        (b"rps_fractional=100", (), 1.0, None),
        (b"cpu_utilization=0.5,rps_fractional=0.1", (), 1.0, 0),
        (b"cpu_utilization=0.00001,rps_fractional=1000000", (), 1.0, 0xFFFFFFFF),
    ],
)
def test_the_weight_is_the_rate_for_each_unit_of_utilization(
    text: bytes, names: tuple[str, ...], penalty: float, weight: int | None
) -> None:
    report = parse_load_report({HEADER: b"TEXT " + text})
    assert report is not None
    assert report.weight(names, penalty) == weight


@given(st.binary(max_size=60), st.sampled_from([b"", b"TEXT ", b"JSON ", b"BIN "]))
def test_no_bytes_do_harm(value: bytes, kind: bytes) -> None:
    for fields in ({HEADER: kind + value}, {HEADER_BIN: value}):
        report = parse_load_report(fields)
        if report is not None:
            assert report.weight((), 1.0) is None or isinstance(report.weight((), 1.0), int)
