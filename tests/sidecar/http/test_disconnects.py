"""Peers that leave, in every state of an exchange: what the other side sees, what is counted, and one line in the log."""

from __future__ import annotations

import pytest

from tests.sidecar.http.running import GET, HELLO, Sidecar, running

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"
LEFT = "downstream_remote_disconnect"


@pytest.mark.parametrize("way", ["close", "reset"])
@pytest.mark.parametrize(
    ("sent", "answered", "line"),
    [
        (b"GET / HT", b"", f"- - HTTP/1.1 0 DC {LEFT} 0 0 0 - 0\n"),
        (GET, b"", f"GET / HTTP/1.1 0 DC {LEFT} 0 0 0 up 1\n"),
        (POST, b"", f"POST / HTTP/1.1 0 DC {LEFT} 0 0 0 up 1\n"),
        (POST + b"12345", b"", f"POST / HTTP/1.1 0 DC {LEFT} 5 0 0 up 1\n"),
        (GET, b"HTTP/1.1 200 O", f"GET / HTTP/1.1 0 DC {LEFT} 0 0 0 up 1\n"),
        (GET, b"HTTP/1.1 100 Continue\r\n\r\n", f"GET / HTTP/1.1 0 DC {LEFT} 0 0 0 up 1\n"),
        (GET, LONG, f"GET / HTTP/1.1 200 DC {LEFT} 0 4 0 up 1\n"),
        (GET, CHUNKED, f"GET / HTTP/1.1 200 DC {LEFT} 0 4 0 up 1\n"),
        (GET + GET, b"", f"GET / HTTP/1.1 0 DC {LEFT} 0 0 0 up 1\n"),
    ],
)
def test_a_client_that_leaves(way: str, sent: bytes, answered: bytes, line: str) -> None:
    with running() as sidecar:
        client = sidecar.client().send(sent)
        if answered:
            sidecar.host.send(answered)
        getattr(client, way)()
        assert sidecar.log == [line]
        assert sidecar.stat("http.in.downstream_rq_rx_reset") == 1
        assert sidecar.stat("http.in.downstream_rq_active") == 0
        assert sidecar.stat("http.in.downstream_cx_destroy_remote") == 1
        assert all(host.closed for host in sidecar.hosts)
        if sent.startswith((b"GET / HTTP", b"POST")):
            assert sidecar.stat("cluster.up.upstream_cx_destroy_local_with_active_rq") == 1
            assert sidecar.stat("http.in.downstream_cx_destroy_remote_active_rq") == 1


def test_a_client_that_leaves_before_the_host_is_reached() -> None:
    with running() as sidecar:
        sidecar.dialer.waits = True
        sidecar.client().send(GET).close()
        assert sidecar.log == [f"GET / HTTP/1.1 0 DC {LEFT} 0 0 0 up 1\n"]
        assert sidecar.stat("cluster.up.upstream_rq_cancelled") == 1
        sidecar.dialer.go_on()
        assert not sidecar.host.closed  # it serves the next request
        client = sidecar.client().send(GET)
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"hello")


def test_a_client_that_leaves_without_a_request_leaves_no_line() -> None:
    with running() as sidecar:
        sidecar.client().close()
        assert sidecar.log == []


def test_a_client_that_leaves_between_two_requests() -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(HELLO)
        client.close()
        assert len(sidecar.log) == 1
        assert sidecar.stat("http.in.downstream_rq_rx_reset") == 0
        assert not sidecar.host.closed


def test_a_client_that_leaves_while_a_retry_waits() -> None:
    retries = {"retry_policy": {"retry_on": "5xx", "retry_back_off": {"base_interval": "1s"}}}
    with running(routes=[{"match": {"prefix": "/"}, "route": {"cluster": "up", **retries}}]) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        assert sidecar.under_way()["up.breaker0.retries_active"] == 1
        client.close()
        assert sidecar.log == [f"GET / HTTP/1.1 0 DC {LEFT} 0 0 0 up 1\n"]
        sidecar.advance(2.0)
        assert sidecar.stat("cluster.up.upstream_rq_total") == 1


def test_a_client_that_leaves_while_it_is_not_read_from_is_noticed() -> None:
    with running(listener={"per_connection_buffer_limit_bytes": 1024}) as sidecar:
        sidecar.dialer.waits = True
        client = sidecar.client().send(POST.replace(b"10", b"90000"), b"x" * 2000)
        assert not client.transport.reading
        client.close()
        assert sidecar.log == []
        sidecar.advance(1.5)
        (line,) = sidecar.log
        assert line.split()[3:7] == ["0", "DC", LEFT, "2000"]


def test_a_head_that_breaks_in_its_second_read_is_one_request() -> None:
    with running() as sidecar:
        client = sidecar.client().send(b"GET / HT", b"TP/9\r\n\r\n")
        assert client.receive().startswith(b"HTTP/1.1 400 ")
        client.close()
        assert len(sidecar.log) == 1
        assert sidecar.stat("http.in.downstream_rq_total") == 1


BROKEN = "upstream_reset_before_response_started{%s}"
BODY = b"upstream connect error or disconnect/reset before headers. reset reason: %b"


@pytest.mark.parametrize("way", ["close", "reset"])
@pytest.mark.parametrize(
    ("sent", "answered", "status", "reason", "flags"),
    [
        (GET, b"", 503, "connection termination", "UC"),
        (POST, b"", 503, "connection termination", "UC"),
        (POST + b"12345", b"", 503, "connection termination", "UC"),
        (GET, b"HTTP/1.1 200 O", 502, "protocol error", "UPE"),
        (GET, b"HTTP/1.1 200 OK\r\nContent-", 502, "protocol error", "UPE"),
    ],
)
def test_a_host_that_leaves_before_its_response(
    way: str, sent: bytes, answered: bytes, status: int, reason: str, flags: str
) -> None:
    with running() as sidecar:
        client = sidecar.client().send(sent)
        host = sidecar.host
        if answered:
            host.send(answered)
        getattr(host, way)()
        reply = client.receive()
        assert reply.startswith(b"HTTP/1.1 %d " % status)
        assert reply.endswith(BODY % reason.encode())
        (line,) = sidecar.log
        assert line.split()[3:6] == [str(status), flags, BROKEN % reason.replace(" ", "_")]
        assert client.closed == (sent != GET)  # the rest of a body has no place to go
        assert sidecar.stat("cluster.up.upstream_cx_active") == 0
        assert sidecar.stat("cluster.up.upstream_cx_protocol_error") == (status == 502)


@pytest.mark.parametrize("way", ["close", "reset"])
@pytest.mark.parametrize("answered", [LONG, CHUNKED])
def test_a_host_that_leaves_within_its_response(way: str, answered: bytes) -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET)
        host = sidecar.host.send(answered)
        assert b"part" in client.receive()
        getattr(host, way)()
        assert client.receive() == b""
        assert client.transport.closing and not client.transport.half_closed  # cut off: it cannot be taken for whole
        (line,) = sidecar.log
        assert line.split()[3:6] == ["200", "UPE", "upstream_reset_after_response_started{protocol_error}"]
        assert sidecar.stat("http.in.downstream_rq_tx_reset") == 1


@pytest.mark.parametrize("way", ["close", "reset"])
def test_a_host_that_leaves_between_two_requests(way: str) -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(HELLO)
        getattr(sidecar.host, way)()
        client.receive()
        client.send(GET)
        sidecar.hosts[1].send(HELLO)
        assert client.receive().endswith(b"hello")
        assert sidecar.stat("cluster.up.upstream_cx_total") == 2
        assert sidecar.stat("cluster.up.upstream_cx_destroy_remote_with_active_rq") == 0


@pytest.mark.parametrize(("method", "repeated"), [(b"GET", True), (b"PUT", True), (b"POST", False)])
def test_a_reused_connection_that_closes_at_once_is_tried_again_if_that_is_safe(method: bytes, repeated: bool) -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(HELLO)
        client.receive()
        client.send(GET.replace(b"GET", method))
        sidecar.hosts[0].reset()
        sidecar.advance(0.1)
        assert len(sidecar.hosts) == 1 + repeated
        if repeated:
            sidecar.hosts[1].send(HELLO)
        assert client.receive().startswith(b"HTTP/1.1 200 " if repeated else b"HTTP/1.1 503 ")


def test_a_host_that_refuses() -> None:
    with running() as sidecar:
        sidecar.dialer.fails = "delayed connect error: Connection refused"
        client = sidecar.client().send(GET)
        assert client.receive().endswith(BODY % b"remote connection failure")
        (line,) = sidecar.log
        details = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
        assert line.split()[3:6] == ["503", "UF", details]
        assert sidecar.stat("cluster.up.upstream_cx_connect_fail") == 1


def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET)
        host = sidecar.host.send(HELLO + HELLO)
        assert client.receive().count(b"hello") == 1
        assert host.closed
        client.send(GET)
        sidecar.hosts[1].send(HELLO)
        assert client.receive().count(b"hello") == 1


def test_everybody_leaves_at_once() -> None:
    sidecar = Sidecar()
    clients = [sidecar.client().send(GET) for _ in range(5)]
    for number, host in enumerate(sidecar.hosts):
        host.transport.break_off()
        clients[number].transport.break_off()
    sidecar.end()
    assert len(sidecar.log) == 5
