"""What is read from the reports of h2load and openssl s_time, and what makes a run worthless."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.backends import frames_backend
from benchmarks.h2load import Report, Shape, h2load, parse
from benchmarks.handshakes import parse_s_time
from benchmarks.http2_backend import grpc_message
from benchmarks.load import FailedRequests, UnreadableOutput, needs
from benchmarks.ports import free_ports

REPORT = """\
finished in 1.50s, 65844.00 req/s, 9.67MB/s
requests: 65844 total, 65972 started, 65844 done, 65844 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 65844 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 9.67MB (10140368) total, 3.33MB (3489732) headers (space savings 49.52%), 5.21MB (5465052) data
"""
needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")


def test_h2load_report() -> None:
    assert parse(REPORT) == Report(65844, 0, 1.5, 5465052)
    assert parse(REPORT).rate == 43896.0


@pytest.mark.parametrize(
    ("before", "after", "failures"),
    [
        ("0 failed, 0 errored, 0 timeout", "0 failed, 2 errored, 3 timeout", 5),
        ("65844 2xx, 0 3xx, 0 4xx, 0 5xx", "65840 2xx, 0 3xx, 0 4xx, 4 5xx", 4),
        ("65844 2xx, 0 3xx", "65841 2xx, 3 3xx", 3),
    ],
)
def test_h2load_failures(before: str, after: str, failures: int) -> None:
    assert before in REPORT
    assert parse(REPORT.replace(before, after)).failures == failures


def test_h2load_report_that_is_none() -> None:
    with pytest.raises(UnreadableOutput, match="h2load"):
        parse("h2load: unrecognized option\n")


@needs_h2load
def test_h2load_counts_the_bytes_of_bodies(tmp_path: Path) -> None:
    post = tmp_path / "message"
    post.write_bytes(grpc_message(50))
    with frames_backend(tmp_path, "unary") as backend:
        url = f"http://127.0.0.1:{backend.http2_port}/"
        report = h2load(url, Shape(1, 1), seconds=1, body_bytes=55, post=post)
        assert report.requests > 10
        with pytest.raises(FailedRequests, match="bytes"):
            h2load(url, Shape(1, 1), seconds=1, body_bytes=27, post=post)


@needs_h2load
def test_h2load_with_nobody_there() -> None:
    with pytest.raises(FailedRequests):
        h2load(f"http://127.0.0.1:{free_ports(1)[0]}/", Shape(1, 1), seconds=1, body_bytes=1)


def test_s_time_report() -> None:
    text = "Collecting\n\n513 connections in 0.31s; 1654.84 connections/user sec, bytes read 132867\n"
    assert parse_s_time(text + "513 connections in 3 real seconds, 259 bytes read per connection\n") == (513, 259)
    with pytest.raises(UnreadableOutput, match="s_time"):
        parse_s_time(text)


def test_a_tool_that_is_missing_is_named() -> None:
    with pytest.raises(LookupError, match="no-such-load-generator is not installed"):
        needs("no-such-load-generator")
