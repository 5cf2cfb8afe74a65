"""The load generators' reports, as they were printed, and the constant-rate client against a socket."""

from __future__ import annotations

import itertools
import json
import socket
import threading

import pytest

from benchmarks.constant_rate import arrivals, drive, service_calls
from benchmarks.load import UnreadableOutput, parse_iperf3, parse_wrk

WRK = """\
Running 3s test @ http://127.0.0.1:40123/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.34ms  402.11us   9.87ms   91.22%
    Req/Sec    23.92k     1.02k   25.10k    80.00%
  Latency Distribution
     50%    1.29ms
     75%    1.41ms
     90%  987.00us
     99%    2.04ms
  71412 requests in 3.00s, 16.21MB read
Requests/sec:  23803.12
Transfer/sec:      5.40MB
"""


def test_wrk_report() -> None:
    load = parse_wrk(WRK)
    assert (load.requests, load.seconds, load.p50_ms, load.p99_ms, load.errors) == (71412, 3.0, 1.29, 2.04, 0)
    assert load.rate == 23804.0
    assert load.bytes_read == 16.21 * 1024 * 1024


@pytest.mark.parametrize(
    ("printed", "milliseconds"), [("987.00us", 0.987), ("2.04ms", 2.04), ("1.50s", 1500.0), ("1.00m", 60_000.0)]
)
def test_wrk_units_of_time(printed: str, milliseconds: float) -> None:
    load = parse_wrk(WRK.replace("99%    2.04ms", f"99%    {printed}"))
    assert load.p99_ms == pytest.approx(milliseconds)


def test_wrk_counts_every_kind_of_error() -> None:
    noise = "read\n  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 50\nRequests/sec"
    assert parse_wrk(WRK.replace("read\nRequests/sec", noise)).errors == 60


def test_wrk_report_that_is_none() -> None:
    with pytest.raises(UnreadableOutput, match="requests in"):
        parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_iperf3_report() -> None:
    report = json.dumps({"end": {"sum_received": {"bits_per_second": 18.5e9, "bytes": 2312500000}}})
    assert parse_iperf3(report) == (18.5e9, 2312500000.0)
    with pytest.raises(UnreadableOutput):
        parse_iperf3('{"error": "unable to connect"}')


def test_arrivals_are_poisson_and_repeatable() -> None:
    due = arrivals(2000.0, 5.0)
    assert due == arrivals(2000.0, 5.0)
    assert due == sorted(due)
    assert due[-1] < 5.0
    assert 9_600 < len(due) < 10_400
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(due))
    assert gaps[len(gaps) // 2] == pytest.approx(0.693 / 2000, rel=0.1)


def test_service_calls_differ() -> None:
    calls = service_calls("orders")
    ids = {next(line for line in call.split(b"\r\n") if line.startswith(b"x-request-id")) for call in calls}
    assert len(ids) == len(calls) > 4000
    assert len({call.split(b" ")[1] for call in calls}) == 512
    assert all(call.count(b"\r\n") == 14 and call.endswith(b"\r\n\r\n") for call in calls)


class Answering(threading.Thread):
    """Answers every request on every connection, in two pieces; the last one of `count` only when `released`."""

    def __init__(self, status: bytes, count: int, released: threading.Event) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.head = b"HTTP/1.1 " + status + b"\r\ncontent-length: 4\r\n\r\nbo"
        self.left = count
        self.released = released

    def run(self) -> None:
        client, _ = self.listener.accept()
        with client, self.listener:
            while self.left and client.recv(65536):
                self.left -= 1
                if not self.left:
                    self.released.wait(10)
                client.sendall(self.head)
                client.sendall(b"dy")


def test_constant_rate_counts_latency_from_when_a_request_was_due() -> None:
    held = threading.Event()
    server = Answering(b"200 OK", 11, held)
    server.start()
    timer = threading.Timer(0.6, held.set)
    timer.start()
    due = [0.0] * 11
    load = drive(server.port, due, [b"GET / HTTP/1.1\r\n\r\n"], connections=1, body_bytes=4)
    server.join(5)
    timer.join()
    assert (load.requests, load.errors) == (11, 0)
    assert load.p99_ms > 300
    assert load.p50_ms < load.p99_ms


def test_constant_rate_counts_other_statuses_as_errors() -> None:
    held = threading.Event()
    held.set()
    server = Answering(b"503 No", 3, held)
    server.start()
    load = drive(server.port, [0.0, 0.001, 0.002], [b"GET / HTTP/1.1\r\n\r\n"], connections=1, body_bytes=4)
    server.join(5)
    assert (load.requests, load.errors) == (3, 3)
