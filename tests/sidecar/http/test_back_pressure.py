"""Whoever has no room makes the other side wait, and nothing is kept beyond the limits."""

from __future__ import annotations

from tests.sidecar.http.running import GET, HELLO, http_filter, running

LIMIT = 10_000
_BYTES = {"per_connection_buffer_limit_bytes": LIMIT}
LIMITED = {"listener": _BYTES, "clusters": {"up": _BYTES}}
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
PIECE = b"x" * 4000


def test_a_full_client_pauses_the_host() -> None:
    with running(**LIMITED) as sidecar:
        client = sidecar.client()
        client.transport.room = 0
        client.send(GET)
        host = sidecar.host.send(LONG)
        for _ in range(25):
            host.send(PIECE)
        assert not host.transport.reading
        assert len(client.transport.written) < LIMIT + len(LONG) + 3 * len(PIECE)
        assert sidecar.stat("cluster.up.upstream_flow_control_paused_reading_total") == 1
        client.transport.take(5000)
        assert not host.transport.reading  # not before the low watermark
        client.transport.take(1 << 30)
        assert host.transport.reading
        assert client.receive().endswith(b"\r\n\r\n" + PIECE * 25)
        assert sidecar.stat("cluster.up.upstream_flow_control_resumed_reading_total") == 1
        client.send(GET)
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"hello")


def test_a_full_host_pauses_the_client() -> None:
    with running(**LIMITED) as sidecar:
        client = sidecar.client().send(POST)
        host = sidecar.host
        host.transport.room = 0
        for _ in range(25):
            client.send(PIECE)
        assert not client.transport.reading
        assert len(host.transport.written) < LIMIT + 500 + 3 * len(PIECE)
        assert sidecar.stat("http.in.downstream_flow_control_paused_reading_total") == 1
        host.transport.take(1 << 30)
        assert host.receive().endswith(b"\r\n\r\n" + PIECE * 25)
        assert sidecar.stat("http.in.downstream_flow_control_resumed_reading_total") == 1
        host.send(HELLO)
        assert client.receive().endswith(b"hello")


def test_a_body_waits_for_the_connection_within_the_limit() -> None:
    with running(**LIMITED) as sidecar:
        sidecar.dialer.waits = True
        client = sidecar.client().send(POST)
        for _ in range(25):
            client.send(PIECE)
        assert not client.transport.reading
        assert sum(map(len, client.transport.undelivered)) > 100_000 - LIMIT - 2 * len(PIECE)
        sidecar.dialer.go_on()
        assert sidecar.host.receive().endswith(b"\r\n\r\n" + PIECE * 25)


def test_what_is_pipelined_behind_a_slow_request_is_not_read_without_end() -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET)
        for _ in range(100):
            client.send(GET * 100)
        assert not client.transport.reading
        assert client.protocol.reader.held_size() < 64 * 1024 + 100 * len(GET)
        for number in range(10_001):
            ((host, _),) = sidecar.asked()
            host.send(HELLO)
            assert number % 1000 or client.receive().endswith(b"hello")
        assert client.transport.reading
        assert len(sidecar.log) == 10_001


def test_a_host_that_is_paused_and_left_alone() -> None:
    with running(**LIMITED) as sidecar:
        client = sidecar.client()
        client.transport.room = 0
        client.send(GET)
        host = sidecar.host.send(LONG, *[PIECE] * 10)
        assert not host.transport.reading
        client.close()
        assert host.closed
        assert len(sidecar.log) == 1


def test_the_end_of_a_response_waits_for_room_too() -> None:
    """The response is whole in the sidecar, the client has not taken it: the connection closes when it has."""
    with running(**LIMITED) as sidecar:
        client = sidecar.client()
        client.transport.room = 0
        client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        sidecar.host.send(HELLO)
        assert len(sidecar.log) == 1
        client.transport.take(1 << 20)
        assert client.receive().endswith(b"hello")
        assert client.transport.half_closed


ALWAYS = {"numerator": 100}
DELAY = {"fixed_delay": "1s", "percentage": ALWAYS}


def test_a_request_that_is_delayed_is_read_no_further_than_can_be_held() -> None:
    with running(filters=[http_filter("fault.v3.HTTPFault", delay=DELAY)], **LIMITED) as sidecar:
        client = sidecar.client().send(POST)
        for _ in range(25):
            client.send(PIECE)
        assert not client.transport.reading
        assert sum(map(len, client.transport.undelivered)) > 100_000 - LIMIT - 2 * len(PIECE)
        sidecar.advance(1.1)
        assert sidecar.host.receive().endswith(b"\r\n\r\n" + PIECE * 25)
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"hello")
        assert client.transport.reading


def test_a_request_that_is_refused_after_a_delay_is_read_on() -> None:
    fault = http_filter("fault.v3.HTTPFault", delay=DELAY, abort={"http_status": 503, "percentage": ALWAYS})
    with running(filters=[fault], **LIMITED) as sidecar:
        client = sidecar.client().send(POST)
        for _ in range(25):
            client.send(PIECE)
        assert not client.transport.reading
        sidecar.advance(1.1)
        assert client.receive().startswith(b"HTTP/1.1 503 ")
        assert client.transport.reading or client.closed
        assert sidecar.hosts == []
