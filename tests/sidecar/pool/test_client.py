"""Our own HTTP client over the real stack in memory: what goes out, what comes back, and what is counted."""

from __future__ import annotations

import gc
import logging
from typing import Any

import pytest

from sidecar.config.hash_policy import HashHeader
from sidecar.config.retry_policy import RetryBackOff, RetryPolicy
from sidecar.core import response_flags as flag
from sidecar.core.address import Address
from sidecar.core.client import ClientOptions
from sidecar.core.head import RequestHead
from sidecar.pool.client_stream import ClientStream
from tests.sidecar.http.running import HELLO
from tests.sidecar.pool.asking import Sink, asking, get, post

AT_ONCE = RetryBackOff(0.001, 0.001)


def retry(*on: str, **more: Any) -> ClientOptions:
    return ClientOptions(retry=RetryPolicy(frozenset(on), retry_back_off=AT_ONCE, **more))


def breakers(**thresholds: int) -> dict[str, Any]:
    return {"circuit_breakers": {"thresholds": [{"priority": "DEFAULT", **thresholds}]}}


# whole requests


def test_a_whole_request_and_its_response() -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        exchange = clients.http("up").request(post((b"x-a", b"b")), b"body", sink)
        assert sidecar.host.receive() == (
            b"POST / HTTP/1.1\r\nhost: a\r\nx-a: b\r\ncontent-length: 4\r\nx-envoy-internal: true\r\n"
            b"x-forwarded-for: 10.1.2.3\r\nx-envoy-expected-rq-timeout-ms: 15000\r\n\r\nbody"
        )
        assert not exchange.over
        sidecar.host.send(HELLO)
        assert sink.events == [("response", 200, b"hello", None)]
        assert exchange.over
        assert exchange.info.response_code == 200
        assert exchange.info.response_code_details == "via_upstream"
        assert exchange.info.host is sidecar.stack.clusters.get("up").hosts[0]


def test_what_is_counted_is_what_envoy_counts() -> None:
    with asking() as (sidecar, clients):
        clients.http("up").request(get(), b"", Sink())
        sidecar.host.send(HELLO)
        counted = {
            name: value
            for name, value in sidecar.used_stats().items()
            if name.startswith(("cluster.up.", "http.")) and "rq" in name and "time" not in name
        }
        assert counted == {
            "cluster.up.upstream_rq_total": 1,
            "cluster.up.upstream_rq_pending_total": 1,
            "cluster.up.upstream_rq_200": 1,
            "cluster.up.upstream_rq_2xx": 1,
            "cluster.up.upstream_rq_completed": 1,
            "cluster.up.internal.upstream_rq_200": 1,
            "cluster.up.internal.upstream_rq_2xx": 1,
            "cluster.up.internal.upstream_rq_completed": 1,
            "http.async-client.rq_total": 1,
        }


def test_a_response_in_pieces_with_trailers_is_collected() -> None:
    with asking(
        typed_extension_protocol_options={
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
            }
        }
    ) as (sidecar, clients):
        sink = Sink()
        clients.http("up").request(get(), b"", sink)
        sidecar.host.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nhe\r\n", b"3\r\nllo\r\n")
        assert sink.events == []
        sidecar.host.send(b"0\r\nx-t: 1\r\n\r\n")
        assert sink.events == [("response", 200, b"hello", [(b"x-t", b"1")])]


def test_without_a_body() -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        client = clients.http("up", ClientOptions(send_x_forwarded_for=False, timeout=0.0))
        client.request(get(), b"", sink)
        assert sidecar.host.receive() == b"GET / HTTP/1.1\r\nhost: a\r\nx-envoy-internal: true\r\n\r\n"
        sidecar.host.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert sink.events == [("response", 204, b"", None)]


def test_where_the_request_came_from_is_kept() -> None:
    with asking() as (sidecar, clients):
        clients.http("up").request(post((b"x-forwarded-for", b"1.1.1.1")), b"", Sink())
        assert b"x-forwarded-for: 1.1.1.1,10.1.2.3\r\n" in sidecar.host.receive()


def test_a_connection_is_used_again() -> None:
    with asking() as (sidecar, clients):
        client = clients.http("up")
        for _ in range(3):
            client.request(get(), b"", Sink())
            sidecar.host.send(HELLO)
        assert sidecar.stat("cluster.up.upstream_cx_total") == 1


def test_a_request_from_within_a_callback() -> None:
    with asking() as (sidecar, clients):
        second = Sink()
        client = clients.http("up")
        client.request(get(), b"", Sink({"response": lambda: client.request(get(b"/2"), b"", second)}))
        sidecar.host.receive()
        sidecar.host.send(HELLO)
        ((host, asked),) = sidecar.asked()
        assert asked.startswith(b"GET /2 ")
        host.send(HELLO)
        assert second.last == ("response", 200, b"hello", None)


def test_a_response_that_is_too_large_is_given_up() -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        clients.http("up", ClientOptions(max_response_bytes=4)).request(get(), b"", sink)
        sidecar.host.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"12345")
        assert sink.events == [("failure", 502, "response_payload_too_large")]
        assert sidecar.host.closed


def test_it_opens_no_tunnels() -> None:
    with asking() as (_, clients):
        for head in (RequestHead(b"CONNECT", b"", b"a", []), post((b"upgrade", b"websocket"))):
            with pytest.raises(ValueError, match="tunnel"):
                clients.http("up").request(head, b"", Sink())


# in pieces


def test_a_request_and_its_response_in_pieces() -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        exchange = clients.http("up", ClientOptions(timeout=0.0)).stream(post(), sink)
        exchange.send_data(b"one", False)
        exchange.send_data(b"two", False)
        assert sidecar.host.receive().endswith(b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n")
        sidecar.host.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nhe\r\n")
        assert sink.events == [("head", 200, False), ("data", b"he", False)]
        exchange.send_data(b"", True)
        assert sidecar.host.receive() == b"0\r\n\r\n"
        sidecar.host.send(b"0\r\n\r\n")
        assert sink.last == ("data", b"", True)
        assert exchange.over
        assert exchange.info.bytes_received == 6
        exchange.cancel()


def test_a_response_without_a_body_is_its_own_end() -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        exchange = clients.http("up").stream(get(), sink, end=True)
        sidecar.host.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert sink.events == [("head", 204, True)]
        assert exchange.over


def test_a_response_before_the_request_has_ended_ends_it() -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        exchange = clients.http("up").stream(post(), sink)
        exchange.send_data(b"some", False)
        sidecar.host.send(b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n")
        assert sink.last == ("data", b"", True) or sink.last == ("head", 413, True)
        assert exchange.over
        exchange.send_data(b"more", True)
        assert sidecar.host.closed


def test_a_slow_upstream_stops_the_sender() -> None:
    with asking(per_connection_buffer_limit_bytes=1024) as (sidecar, clients):
        sink = Sink()
        exchange = clients.http("up").stream(post(), sink)
        sidecar.hosts[0].transport.room = 0
        exchange.send_data(b"x" * 4096, False)
        sidecar.loop.settle()
        assert sink.events == ["full"]
        assert exchange.full
        sidecar.host.transport.take(8192)
        assert sink.events == ["full", "writable"]
        assert not exchange.full
        exchange.send_data(b"", True)
        sidecar.host.send(HELLO)
        assert sink.last == ("data", b"hello", True)


def test_a_slow_receiver_stops_the_upstream() -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        exchange = clients.http("up").stream(get(), sink, end=True)
        sidecar.host.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n", b"1234")
        exchange.pause_response()
        sidecar.host.send(b"5678")
        assert sink.last == ("data", b"1234", False)
        exchange.resume_response()
        sidecar.loop.settle()
        assert sink.last == ("data", b"5678", True)


def test_pausing_before_there_is_a_connection_counts_from_the_head_on() -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        exchange = clients.http("up").stream(get(), sink, end=True)
        exchange.pause_response()
        sidecar.host.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", b"1234")
        assert sink.events == [("head", 200, False)]
        exchange.resume_response()
        sidecar.loop.settle()
        assert sink.last == ("data", b"1234", True)


# failures


def test_a_cluster_that_does_not_exist() -> None:
    with asking() as (_, clients):
        sink = Sink()
        exchange = clients.http("nowhere").request(get(), b"body", sink)
        assert sink.events == [("failure", 503, "cluster_not_found")]
        assert sink.failure.flags == flag.NO_CLUSTER_FOUND
        assert exchange.over


def test_a_cluster_without_hosts() -> None:
    with asking() as (sidecar, clients):
        sidecar.stack.clusters.get("up").update(())
        sink = Sink()
        clients.http("up").request(get(), b"", sink)
        assert sink.events == [("failure", 503, "no_healthy_upstream")]
        assert str(sink.failure) == "no healthy upstream"
        assert sink.failure.flags == flag.NO_HEALTHY_UPSTREAM
        assert sidecar.stat("cluster.up.internal.upstream_rq_503") == 1


def test_a_host_that_refuses() -> None:
    with asking() as (sidecar, clients):
        sidecar.dialer.fails = "delayed connect error: Connection refused"
        sink = Sink()
        exchange = clients.http("up").request(get(), b"", sink)
        sidecar.loop.settle()
        assert sink.failure.message == (
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
        )
        assert sink.failure.details.startswith("upstream_reset_before_response_started{remote_connection_failure|")
        assert sink.failure.flags == flag.UPSTREAM_CONNECTION_FAILURE
        assert exchange.info.upstream_failure_reason == "delayed connect error: Connection refused"
        assert sidecar.stat("cluster.up.internal.upstream_rq_503") == 1
        assert sidecar.stat("cluster.up.upstream_rq_pending_failure_eject") == 1


def test_a_connection_that_breaks_within_the_response() -> None:
    with asking() as (sidecar, clients):
        whole, pieces = Sink(), Sink()
        client = clients.http("up")
        client.request(get(), b"", whole)
        client.stream(get(), pieces, end=True)
        for host in sidecar.hosts:
            host.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
            host.close()
        details = "upstream_reset_after_response_started{protocol_error}"
        assert whole.events == [("failure", 502, details)]
        assert pieces.events == [("head", 200, False), ("data", b"some", False), ("failure", 502, details)]


def test_a_request_that_takes_too_long() -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        clients.http("up", ClientOptions(timeout=2.0)).request(post(), b"body", sink)
        sidecar.host.receive()
        sidecar.advance(1.9)
        assert sink.events == []
        sidecar.advance(0.2)
        assert sink.events == [("failure", 504, "response_timeout")]
        assert sink.failure.message == "upstream request timeout"
        assert sink.failure.flags == flag.UPSTREAM_REQUEST_TIMEOUT
        assert sidecar.host.closed
        assert sidecar.stat("cluster.up.upstream_rq_timeout") == 1
        assert sidecar.stat("cluster.up.internal.upstream_rq_504") == 1


def test_the_timeout_is_from_the_end_of_the_request() -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        exchange = clients.http("up", ClientOptions(timeout=2.0)).stream(post(), sink)
        sidecar.advance(10.0)
        assert sink.events == []
        exchange.send_data(b"", True)
        sidecar.advance(2.1)
        assert sink.events == [("failure", 504, "response_timeout")]


def test_the_longest_duration_is_from_the_beginning() -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        exchange = clients.http("up", ClientOptions(max_duration=2.0)).stream(post(), sink)
        sidecar.advance(1.9)
        exchange.send_data(b"x", False)
        sidecar.host.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        sidecar.advance(0.2)
        assert sink.last == ("failure", 408, "upstream_max_stream_duration_reached")
        assert sink.failure.flags == flag.UPSTREAM_MAX_STREAM_DURATION_REACHED
        assert sidecar.host.closed
        assert sidecar.stat("cluster.up.upstream_rq_max_duration_reached") == 1


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", b""])
def test_a_failed_attempt_is_repeated_with_its_body(answer: bytes) -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        exchange = clients.http("two", retry("5xx")).request(post(), b"body", sink)
        (first,) = sidecar.hosts
        if answer:
            first.send(answer)
        else:
            first.reset()
        sidecar.advance(0.1)
        second = sidecar.hosts[-1]
        assert second.receive().endswith(b"body")
        second.send(HELLO)
        assert sink.events == [("response", 200, b"hello", None)]
        assert exchange.info.attempt_count == 2
        assert sidecar.stat("cluster.two.upstream_rq_retry_success") == 1


def test_what_is_streamed_is_repeated_too() -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        exchange = clients.http("two", retry("reset")).stream(post(), sink)
        exchange.send_data(b"one", False)
        sidecar.hosts[0].receive()
        sidecar.hosts[0].reset()
        exchange.send_data(b"two", True)
        sidecar.advance(0.1)
        assert sidecar.hosts[-1].receive().endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        sidecar.hosts[-1].send(HELLO)
        assert sink.events == [("head", 200, False), ("data", b"hello", True)]


def test_retries_run_out() -> None:
    with asking() as (sidecar, clients):
        sidecar.dialer.fails = "refused"
        sink = Sink()
        clients.http("two", retry("connect-failure", num_retries=2)).request(get(), b"", sink)
        sidecar.loop.settle()
        sidecar.advance(1.0)
        assert len(sidecar.dialer.dialled) == 3
        assert sink.failure.flags == flag.UPSTREAM_RETRY_LIMIT_EXCEEDED | flag.UPSTREAM_CONNECTION_FAILURE
        assert sidecar.stat("cluster.two.upstream_rq_retry_limit_exceeded") == 1


def test_circuit_breakers() -> None:
    with asking(**breakers(max_requests=1)) as (sidecar, clients):
        first, second = Sink(), Sink()
        client = clients.http("up")
        client.request(get(), b"", first)
        client.request(get(), b"", second)
        assert second.events == [("failure", 503, "upstream_reset_before_response_started{overflow}")]
        assert second.failure.flags == flag.UPSTREAM_OVERFLOW
        sidecar.host.send(HELLO)
        assert first.last == ("response", 200, b"hello", None)
        assert sidecar.stat("cluster.up.upstream_rq_pending_overflow") == 0
        assert sidecar.stat("cluster.up.internal.upstream_rq_503") == 1


def test_the_high_priority_has_breakers_of_its_own() -> None:
    with asking(**breakers(max_requests=1)) as (sidecar, clients):
        first, second = Sink(), Sink()
        clients.http("up").request(get(), b"", first)
        clients.http("up", ClientOptions(high_priority=True)).request(get(), b"", second)
        for host in sidecar.hosts:
            host.send(HELLO)
        assert first.last == second.last == ("response", 200, b"hello", None)


def test_requests_of_one_hash_go_to_one_host() -> None:
    options = ClientOptions(hash_policy=(HashHeader(b"x-user", None),))
    with asking(lb_policy="RING_HASH") as (sidecar, clients):
        sidecar.advance(0.1)  # the ring is built in slices
        client = clients.http("two", options)
        for user in (b"a", b"b", b"c", b"d", b"e") * 3:
            client.request(post((b"x-user", user)), b"", Sink())
            for host, _ in sidecar.asked():
                host.send(HELLO)
        by_host = [host.rq_total for host in sidecar.stack.clusters.get("two").hosts]
        assert sum(by_host) == 15
        assert all(count % 3 == 0 for count in by_host)


# cancellation


def cancel_while_connecting(sidecar: Any, exchange: Any) -> None:
    exchange.cancel()


def cancel_while_waiting(sidecar: Any, exchange: Any) -> None:
    assert sidecar.host.receive()
    exchange.cancel()


def cancel_within_the_response(sidecar: Any, exchange: Any) -> None:
    sidecar.host.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
    exchange.cancel()


def cancel_while_backing_off(sidecar: Any, exchange: Any) -> None:
    sidecar.host.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    exchange.cancel()


@pytest.mark.parametrize(
    "when", [cancel_while_connecting, cancel_while_waiting, cancel_within_the_response, cancel_while_backing_off]
)
def test_nothing_is_heard_after_cancelling(when: Any) -> None:
    with asking() as (sidecar, clients):
        sink = Sink()
        exchange = clients.http("up", retry("5xx")).request(get(), b"", sink)
        when(sidecar, exchange)
        assert exchange.over
        heard = len(sink.events)
        for host in sidecar.hosts:
            if not host.closed and host.receive():
                host.send(HELLO)
        sidecar.advance(20.0)
        assert len(sink.events) == heard == 0
        assert not [name for name in sidecar.under_way() if "rq" in name or "retries" in name]
        exchange.cancel()


def test_cancelling_from_within_callbacks() -> None:
    with asking() as (sidecar, clients):
        exchanges: list[Any] = []
        for event in ("head", "data"):
            sink = Sink({event: lambda: exchanges[-1].cancel()})
            exchanges.append(clients.http("up").stream(get(), sink, end=True))
            sidecar.hosts[-1].send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
            assert sink.last[0] == event
            assert exchanges[-1].over
            assert sidecar.hosts[-1].closed


@pytest.mark.parametrize("event", ["response", "failure"])
def test_a_sink_that_fails_harms_nobody_else(event: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with asking() as (sidecar, clients), caplog.at_level(logging.ERROR, "sidecar.client"):
        client = clients.http("up")
        client.request(get(), b"", Sink({event: fail}))
        sidecar.host.receive()
        if event == "response":
            sidecar.host.send(HELLO)
        else:
            sidecar.host.reset()
        assert "ZeroDivisionError" in caplog.text
        other = Sink()
        client.request(get(), b"", other)
        sidecar.hosts[-1].send(HELLO)
        assert other.last == ("response", 200, b"hello", None)


@pytest.mark.parametrize("event", ["head", "data", "full"])
def test_a_sink_that_fails_midway_ends_its_exchange(event: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with (
        asking(per_connection_buffer_limit_bytes=1024) as (sidecar, clients),
        caplog.at_level(logging.ERROR, "sidecar.client"),
    ):
        exchange = clients.http("up").stream(post(), Sink({event: fail}))
        sidecar.host.receive()
        if event == "full":
            sidecar.host.transport.room = 0
            exchange.send_data(b"x" * 4096, False)
            sidecar.loop.settle()
        else:
            sidecar.host.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
        assert exchange.over
        assert sidecar.host.closed
        assert "ZeroDivisionError" in caplog.text


def test_reference_counting_frees_an_exchange() -> None:
    class Holder(Sink):
        exchange: Any = None

    def alive() -> int:
        return sum(isinstance(one, (ClientStream, Holder)) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        with asking() as (sidecar, clients):
            for end in ("response", "cancel", "failure"):
                sink = Holder()
                sink.exchange = clients.http("up").stream(get(), sink, end=True)
                if end == "response":
                    sidecar.hosts[-1].send(HELLO)
                elif end == "cancel":
                    sink.exchange.cancel()
                else:
                    sidecar.hosts[-1].reset()
                assert sink.exchange.over
                del sink
                sidecar.loop.settle()
                for transport in sidecar.dialer.made:
                    if transport.lost:
                        transport.protocol = None  # as a real one, which lets go of it
                assert alive() == 0, end
    finally:
        gc.enable()


def test_closing_fails_whatever_is_under_way() -> None:
    with asking() as (sidecar, clients):
        sidecar.dialer.waits = True
        sinks = [Sink() for _ in range(4)]
        waiting = clients.http("up").request(get(), b"", sinks[0])
        call = clients.grpc("up").stream(b"/a.B/C", sinks[1])
        sidecar.dialer.go_on()
        sidecar.hosts[0].send(HELLO)
        assert waiting.over
        assert not call.over
        sidecar.dialer.waits = True
        clients.http("two").request(get(), b"", sinks[2])
        other = clients.http("two", retry("connect-failure")).request(get(), b"", sinks[3])
        clients.close()
        assert call.over
        assert other.over
        assert sinks[0].last == ("response", 200, b"hello", None)
        assert sinks[1].events == [("close", 14)]
        assert sinks[2].events == sinks[3].events == [("failure", 503, "shutdown")]
        assert repr(clients) == "<ClientStack 0 of 4 requests under way>"


# one host


def test_a_host_is_asked_whatever_its_state_and_nothing_is_counted() -> None:
    with asking() as (sidecar, clients):
        cluster = sidecar.stack.clusters.get("up")
        host = cluster.hosts[0]
        host.set_flag(1, True)
        cluster.refresh_health()
        limit, cluster.breakers[0].max_requests = cluster.breakers[0].max_requests, 0
        before = sidecar.used_stats()
        one = clients.to_host(cluster, host.address)
        client = one.http(ClientOptions(timeout=2.0))
        for _ in range(2):
            sink = Sink()
            client.request(RequestHead(b"GET", b"/healthz", b"up", [(b"user-agent", b"Envoy/HC")]), b"", sink)
            assert sidecar.host.receive() == b"GET /healthz HTTP/1.1\r\nhost: up\r\nuser-agent: Envoy/HC\r\n\r\n"
            sidecar.host.send(HELLO)
            assert sink.events == [("response", 200, b"hello", None)]
            assert sink.head.fields == [(b"content-length", b"5")]
        assert sidecar.used_stats() == before
        assert (host.rq_total, host.cx_total, host.cx_active) == (0, 0, 0)
        one.close()
        sidecar.loop.settle()
        assert sidecar.host.closed
        cluster.breakers[0].max_requests = limit


@pytest.mark.parametrize("connected", [True, False])
def test_a_hosts_connections_are_ended_and_made_anew(connected: bool) -> None:
    with asking() as (sidecar, clients):
        sidecar.dialer.waits = not connected
        one = clients.to_host(sidecar.stack.clusters.get("up"), Address("127.0.0.1", 7999))
        sink = Sink()
        exchange = one.http().request(get(), b"", sink)
        assert len(sidecar.hosts) == connected
        assert [each.port for each in sidecar.dialer.dialled] == [7999]
        one.close()
        assert exchange.over
        assert sink.events == [("failure", 503, "shutdown")]
        sidecar.dialer.go_on()
        assert all(host.closed for host in sidecar.hosts)
        again = Sink()
        one.http().request(get(), b"", again)
        sidecar.hosts[-1].send(HELLO)
        assert len(sink.events) == 1
        assert again.last == ("response", 200, b"hello", None)
        one.close()
