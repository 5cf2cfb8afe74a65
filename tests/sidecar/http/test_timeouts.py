"""Every timeout of the connection manager, by a clock that the tests move."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sidecar.http.running import GET, HELLO, running

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"


def common(**options: Any) -> dict[str, Any]:
    return {"common_http_protocol_options": options}


def test_idle_before_the_first_request() -> None:
    with running(manager=common(idle_timeout="3s")) as sidecar:
        client = sidecar.client()
        sidecar.advance(2.9)
        assert not client.closed
        sidecar.advance(0.2)
        assert client.closed
        assert sidecar.stat("http.in.downstream_cx_idle_timeout") == 1
        assert sidecar.log == []


def test_idle_between_requests_begins_anew_with_each() -> None:
    with running(manager=common(idle_timeout="3s")) as sidecar:
        client = sidecar.client()
        for _ in range(3):
            client.send(GET)
            sidecar.host.send(HELLO)
            sidecar.advance(2.5)
            assert not client.closed
        sidecar.advance(1.0)
        assert client.closed


def test_a_request_under_way_is_not_idle() -> None:
    with running(manager=common(idle_timeout="3s")) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.advance(10.0)
        assert not client.closed
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"hello")


def test_idle_begins_when_the_response_ends() -> None:
    with running(manager=common(idle_timeout="3s")) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.advance(2.9)
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"hello")
        sidecar.advance(2.5)
        assert not client.closed
        sidecar.advance(1.0)
        assert client.closed


def test_a_pipelined_request_lasts_from_when_it_is_taken() -> None:
    with running() as sidecar:
        sidecar.client().send(GET + GET)
        for _ in range(2):
            sidecar.advance(1.0)
            ((host, _),) = sidecar.asked()
            host.send(HELLO)
        assert [line.split()[8] for line in sidecar.log] == ["1000", "1000"]


def test_stream_idle_before_the_response() -> None:
    with running(manager={"stream_idle_timeout": "2s"}) as sidecar:
        client = sidecar.client().send(GET)
        host = sidecar.host
        sidecar.advance(1.9)
        assert client.receive() == b""
        sidecar.advance(0.2)
        reply = client.receive()
        assert reply.startswith(b"HTTP/1.1 504 ") and reply.endswith(b"stream timeout")
        assert host.closed and not client.closed
        assert sidecar.log[0].split()[3:6] == ["504", "SI", "stream_idle_timeout"]
        assert sidecar.stat("http.in.downstream_rq_idle_timeout") == 1


def test_stream_idle_within_the_request() -> None:
    with running(manager={"stream_idle_timeout": "2s"}) as sidecar:
        client = sidecar.client().send(POST + b"1")
        sidecar.advance(1.5)
        client.send(b"2")  # which counts
        sidecar.advance(1.5)
        assert client.receive() == b""
        sidecar.advance(1.0)
        assert client.receive().startswith(b"HTTP/1.1 408 ")
        assert client.closed


def test_stream_idle_within_the_response() -> None:
    with running(manager={"stream_idle_timeout": "2s"}) as sidecar:
        client = sidecar.client().send(GET)
        host = sidecar.host.send(HELLO[:-4])
        sidecar.advance(1.5)
        host.send(HELLO[-4:-3])
        sidecar.advance(1.5)
        assert not client.closed
        sidecar.advance(1.0)
        assert client.transport.closing and host.closed
        assert sidecar.log[0].split()[3:6] == ["200", "SI", "stream_idle_timeout"]


def test_the_request_must_come_in_time() -> None:
    with running(manager={"request_timeout": "2s"}) as sidecar:
        client = sidecar.client().send(POST + b"1")
        for _ in range(3):
            sidecar.advance(0.6)
            client.send(b"2")
        assert client.receive() == b""
        sidecar.advance(0.3)
        assert client.receive().endswith(b"request timeout")
        assert sidecar.stat("http.in.downstream_rq_timeout") == 1
        assert client.closed


def test_a_request_that_came_in_time_may_take_its_time() -> None:
    with running(manager={"request_timeout": "2s"}) as sidecar:
        client = sidecar.client().send(POST + b"1234567890")
        sidecar.advance(5.0)
        sidecar.host.send(HELLO)
        assert client.receive().endswith(b"hello")


@pytest.mark.parametrize(
    ("option", "body", "details", "counter"),
    [
        (
            "request_headers_timeout",
            b"request header timeout",
            "request_header_timeout",
            "downstream_rq_header_timeout",
        ),
        ("request_timeout", b"request timeout", "request_overall_timeout", "downstream_rq_timeout"),
        ("stream_idle_timeout", b"stream timeout", "stream_idle_timeout", "downstream_rq_idle_timeout"),
    ],
)
def test_a_head_must_come_in_time(option: str, body: bytes, details: str, counter: str) -> None:
    with running(manager={option: "2s"}) as sidecar:
        client = sidecar.client()
        sidecar.advance(10.0)  # nothing runs before its first byte
        client.send(b"G")
        sidecar.advance(1.0)
        client.send(b"ET ")
        sidecar.advance(0.9)
        assert client.receive() == b""
        sidecar.advance(0.2)
        reply = client.receive()
        assert reply.startswith(b"HTTP/1.1 408 ") and reply.endswith(body)
        assert client.closed
        assert sidecar.log[0].split()[5] == details
        assert sidecar.stat(f"http.in.{counter}") == 1


def test_a_stream_lasts_no_longer_than_allowed() -> None:
    with running(manager=common(max_stream_duration="2s")) as sidecar:
        client = sidecar.client().send(GET)
        host = sidecar.host.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(3):
            sidecar.advance(0.6)
            host.send(b"x")
        assert not client.closed
        sidecar.advance(0.3)
        assert client.transport.closing
        assert sidecar.stat("http.in.downstream_rq_max_duration_reached") == 1
        assert sidecar.log[0].split()[5] == "max_duration_timeout"


def test_a_connection_that_has_lasted_long_enough_closes_with_its_next_response() -> None:
    with running(manager={**common(max_connection_duration="2s"), "drain_timeout": "3s"}) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(HELLO)
        sidecar.advance(2.5)
        assert not client.closed
        assert sidecar.stat("http.in.downstream_cx_max_duration_reached") == 1
        client.send(GET)
        sidecar.host.send(HELLO)
        assert b"\r\nconnection: close\r\n" in client.receive()
        assert client.closed


def test_a_connection_that_has_lasted_long_enough_closes_idle_after_the_drain_timeout() -> None:
    with running(manager={**common(max_connection_duration="2s"), "drain_timeout": "3s"}) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(HELLO)
        sidecar.advance(4.8)
        assert not client.closed
        sidecar.advance(0.3)
        assert client.closed


def test_a_connection_that_never_said_anything_closes_when_it_has_lasted_long_enough() -> None:
    with running(manager=common(max_connection_duration="2s")) as sidecar:
        client = sidecar.client()
        sidecar.advance(1.9)
        assert not client.closed
        sidecar.advance(0.3)
        assert client.closed
        assert sidecar.stat("http.in.downstream_cx_max_duration_reached") == 1
        assert sidecar.stat("http.in.downstream_cx_total") == 1
        assert sidecar.stat("http.in.downstream_cx_active") == 0


def test_a_connection_is_cut_off_when_the_peer_does_not_close() -> None:
    with running(manager={"delayed_close_timeout": "2s"}) as sidecar:
        client = sidecar.client().send(b"nonsense\r\n\r\n")
        assert client.transport.half_closed and not client.transport.closing
        sidecar.advance(1.9)
        assert not client.transport.closing
        sidecar.advance(0.2)
        assert client.transport.closing


def test_a_connection_closes_at_once_without_a_delay() -> None:
    with running(manager={"delayed_close_timeout": "0s"}) as sidecar:
        client = sidecar.client().send(b"nonsense\r\n\r\n")
        assert client.transport.closing and not client.transport.half_closed
        assert client.receive().startswith(b"HTTP/1.1 400 ")


def test_a_route_gives_up_on_a_host() -> None:
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "2s"}}]
    with running(routes=routes) as sidecar:
        client = sidecar.client().send(GET)
        host = sidecar.host
        sidecar.advance(2.1)
        assert client.receive().endswith(b"upstream request timeout")
        assert host.closed
        assert sidecar.log[0].split()[3:6] == ["504", "UT", "response_timeout"]


def test_upstream_connections_are_closed_when_idle() -> None:
    idle = {
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": "2s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        }
    }
    with running(clusters={"up": idle}) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(HELLO)
        sidecar.advance(1.5)
        client.send(GET)
        sidecar.host.send(HELLO)
        sidecar.advance(1.9)
        assert not sidecar.host.closed
        sidecar.advance(1.2)
        assert sidecar.host.closed
        assert sidecar.stat("cluster.up.upstream_cx_idle_timeout") == 1
