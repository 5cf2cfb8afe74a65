"""Exchanges over one connection: keep-alive, pipelining, HTTP/1.0, heads without bodies, chunks, early responses."""

from __future__ import annotations

import re

import pytest

from tests.sidecar.http.running import GET, HELLO, TO_UP, Sidecar, running

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"
HTTP_10 = {"http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "a"}}
TRAILERS = {"http_protocol_options": {"enable_trailers": True}}
UP_TRAILERS = {
    "up": {
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
            }
        }
    }
}
DIRECT = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "here"}}}]


def numbered(number: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number


def test_a_connection_is_kept_on_both_sides() -> None:
    with running() as sidecar:
        client = sidecar.client()
        for number in range(5):
            client.send(numbered(number))
            assert sidecar.host.receive().startswith(b"GET /%d HTTP/1.1\r\n" % number)
            sidecar.host.send(HELLO)
            assert client.receive().endswith(b"\r\n\r\nhello")
        assert sidecar.stat("cluster.up.upstream_cx_total") == 1
        assert [line.split()[1] for line in sidecar.log] == ["/0", "/1", "/2", "/3", "/4"]


def test_pipelined_requests_are_answered_in_their_order() -> None:
    with running() as sidecar:
        client = sidecar.client().send(b"".join(map(numbered, range(40))))
        for number in range(40):
            ((host, asked),) = sidecar.asked()  # one at a time
            assert asked.startswith(b"GET /%d HTTP/1.1\r\n" % number)
            host.send(HELLO[:-5] + b"%05d" % number)
            assert client.receive().endswith(b"\r\n\r\n%05d" % number)


def test_pipelined_requests_share_one_upstream_connection() -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET * 5)
        for _ in range(5):
            ((host, _),) = sidecar.asked()
            host.send(HELLO)
        assert client.receive().count(b"hello") == 5
        connections = len(sidecar.hosts)
    assert connections == 1


def test_no_more_than_32_pipelined_requests_are_taken_in_a_turn() -> None:
    with running(routes=DIRECT) as sidecar:
        client = sidecar.client()
        client.transport.receive(GET * 100)
        for expected in (32, 64, 96, 100):
            assert len(sidecar.log) == expected
            sidecar.loop.turn()
        assert client.receive().count(b"here") == 100


def test_14000_pipelined_requests() -> None:
    with running(routes=DIRECT) as sidecar:
        before = sidecar.loop.turns
        client = sidecar.client().send(GET * 14_000)
        assert client.receive().count(b"HTTP/1.1 200 OK\r\n") == 14_000
        assert sidecar.loop.turns - before >= 14_000 // 32
        assert len(sidecar.log) == 14_000


def test_pipelined_requests_wait_for_room_in_a_full_client() -> None:
    with running(routes=DIRECT, listener={"per_connection_buffer_limit_bytes": 1000}) as sidecar:
        client = sidecar.client()
        client.transport.room = 0
        client.send(GET * 1000)
        answered = client.transport.written.count(b"here")
        assert answered < 100
        client.transport.take(1 << 30)
        assert client.receive().count(b"here") == 1000


def test_a_request_behind_one_that_closes_is_not_served() -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
        sidecar.host.send(HELLO)
        assert b"\r\nconnection: close\r\n" in client.receive()
        assert client.closed
        assert len(sidecar.log) == 1


def test_max_requests_per_connection() -> None:
    with running(manager={"common_http_protocol_options": {"max_requests_per_connection": 2}}) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(HELLO)
        assert b"connection: close" not in client.receive()
        client.send(GET + GET)
        sidecar.host.send(HELLO)
        assert b"\r\nconnection: close\r\n" in client.receive()
        assert client.closed
        assert sidecar.stat("http.in.downstream_cx_max_requests_reached") == 1


@pytest.mark.parametrize(("field", "kept"), [(b"", False), (b"Connection: keep-alive\r\n", True)])
def test_http_10(field: bytes, kept: bool) -> None:
    with running(manager=HTTP_10) as sidecar:
        client = sidecar.client().send(b"GET / HTTP/1.0\r\n" + field + b"\r\n")
        assert sidecar.host.receive().startswith(b"GET / HTTP/1.1\r\nhost: a\r\n")
        sidecar.host.send(HELLO)
        reply = client.receive()
        assert reply.startswith(b"HTTP/1.0 200 OK\r\n") and reply.endswith(b"hello")
        assert client.closed != kept
        assert (b"\r\nconnection: keep-alive\r\n" if kept else b"\r\nconnection: close\r\n") in reply


def test_http_10_knows_no_chunks() -> None:
    with running(manager=HTTP_10) as sidecar:
        client = sidecar.client().send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        sidecar.host.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        reply = client.receive()
        assert reply.endswith(b"\r\n\r\nhello") and b"chunked" not in reply
        assert client.closed  # which tells the body's end


def test_http_10_is_refused_unless_configured() -> None:
    with running() as sidecar:
        client = sidecar.client().send(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        assert client.receive().split()[1] == b"426"
        assert sidecar.hosts == []


@pytest.mark.parametrize(
    ("method", "response"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    ],
)
def test_responses_without_a_body_and_the_next_one(method: bytes, response: bytes) -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET.replace(b"GET", method))
        sidecar.host.send(response)
        assert client.receive().endswith(b"\r\n\r\n")
        client.send(GET)
        sidecar.host.send(HELLO)  # over the same connection
        assert client.receive().endswith(b"\r\n\r\nhello")
        assert [line.split()[7] for line in sidecar.log] == ["0", "5"]


def test_a_client_that_waits_for_100_is_told_to_go_on() -> None:
    with running() as sidecar:
        client = sidecar.client().send(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert b"100-continue" not in sidecar.host.receive()
        client.send(b"body")
        assert sidecar.host.receive() == b"body"
        sidecar.host.send(HELLO)
        assert client.receive().startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_hosts_own_100_goes_through_where_that_is_configured() -> None:
    with running(manager={"proxy_100_continue": True}) as sidecar:
        client = sidecar.client().send(POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert client.receive() == b""
        assert b"\r\nexpect: 100-continue\r\n" in sidecar.host.receive()
        sidecar.host.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"body")
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"hello")


def test_chunks_and_trailers_both_ways() -> None:
    with running(manager=TRAILERS, clusters=UP_TRAILERS) as sidecar:
        client = sidecar.client().send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"3;extension=1\r\nabc\r\n",
            b"2\r\nde\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n",
        )
        asked = sidecar.host.receive()
        assert b"\r\ntransfer-encoding: chunked\r\n" in asked
        assert asked.endswith(
            b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 1\r\n\r\n"
        )  # what belongs in heads is dropped
        sidecar.host.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", b"1\r\ny\r\n", b"0\r\nX-End: 1\r\n\r\n"
        )
        assert client.receive().endswith(
            b"\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n1\r\ny\r\n0\r\nx-end: 1\r\n\r\n"
        )
        client.send(GET)
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"\r\n\r\nhello")


def test_trailers_are_dropped_unless_configured() -> None:
    with running() as sidecar:
        client = sidecar.client().send(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"
        )
        assert sidecar.host.receive().endswith(b"\r\n\r\n1\r\na\r\n0\r\n\r\n")
        sidecar.host.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-End: 1\r\n\r\n")
        assert client.receive().endswith(b"\r\n\r\n1\r\nx\r\n0\r\n\r\n")


def test_a_response_until_the_end_of_the_connection_becomes_chunks() -> None:
    with running() as sidecar:
        client = sidecar.client().send(GET)
        host = sidecar.host.send(b"HTTP/1.1 200 OK\r\n\r\nall", b" there is")
        host.close()
        assert client.receive().endswith(b"\r\n\r\n3\r\nall\r\n9\r\n there is\r\n0\r\n\r\n")
        assert not client.closed
        assert sidecar.log[0].split()[3:6] == ["200", "-", "via_upstream"]


def test_an_early_response_ends_the_exchange() -> None:
    with running() as sidecar:
        client = sidecar.client().send(POST.replace(b"4", b"400") + b"some")
        host = sidecar.host.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        reply = client.receive()
        assert reply.startswith(b"HTTP/1.1 413 ") and reply.endswith(b"big")
        assert b"\r\nconnection: close\r\n" in reply and client.closed
        assert host.closed
        client.send(b"more")
        assert len(sidecar.log) == 1


def test_an_early_response_goes_on_while_the_body_still_comes() -> None:
    with running() as sidecar:
        client = sidecar.client().send(POST + b"bo")
        host = sidecar.host.send(HELLO[:-3])
        assert client.receive().endswith(b"\r\n\r\nhe")
        client.send(b"dy")
        assert host.receive().endswith(b"body")
        host.send(b"llo")
        assert client.receive() == b"llo"


def test_every_request_of_every_client_leaves_one_line() -> None:
    with running(routes=[{"match": {"prefix": "/direct"}, "direct_response": {"status": 204}}, TO_UP]) as sidecar:
        for client in [sidecar.client() for _ in range(5)]:
            client.send(GET.replace(b"/ ", b"/direct ") * 3 + GET)
        for host in sidecar.hosts:
            host.send(HELLO)
        sidecar.client().send(b"nonsense\r\n\r\n")
        assert len(sidecar.log) == 5 * 4 + 1


def test_requests_that_wait_share_one_connection() -> None:
    breakers = {"circuit_breakers": {"thresholds": [{"max_connections": 1, "max_pending_requests": 2}]}}
    with running(clusters={"up": breakers}) as sidecar:
        clients = [sidecar.client().send(GET) for _ in range(4)]
        assert clients[3].receive().startswith(b"HTTP/1.1 503 ")  # one is sent, two wait
        for client in clients[:3]:
            sidecar.host.send(HELLO)
            assert client.receive().endswith(b"hello")
        assert sidecar.stat("cluster.up.upstream_rq_pending_overflow") == 1


def test_the_stack_needs_no_loop_of_its_own() -> None:
    assert Sidecar().under_way() == {}


def test_a_date_is_there_from_the_first_response_on() -> None:
    with running() as sidecar:
        client = sidecar.client()
        for _ in range(6):
            client.send(GET)
            sidecar.host.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")
            assert re.search(rb"\r\ndate: \w{3}, ", client.receive())
