"""Our own gRPC client over the real stack in memory, whose hosts speak HTTP/1.1 with trailers: framing, statuses, pace."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sidecar.codec.grpc import frame
from sidecar.config.retry_policy import RetryBackOff, RetryPolicy
from sidecar.core.client import GrpcOptions
from sidecar.core.head import ResponseHead
from sidecar.pool.client_stream import ClientStream
from sidecar.pool.grpc_client import error_in, grpc_timeout
from tests.sidecar.pool.asking import Sink, asking

PATH = b"/pkg.Service/Method"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
NO_LIMIT = GrpcOptions(timeout=0.0)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def trailers(*lines: bytes) -> bytes:
    return b"0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def only_trailers(*lines: bytes) -> bytes:
    head = (b"HTTP/1.1 200 OK", b"content-type: application/grpc", b"content-length: 0", *lines)
    return b"\r\n".join(head) + b"\r\n\r\n"


OK = trailers(b"grpc-status: 0")


@contextmanager
def calling(**cluster: Any) -> Iterator[tuple[Any, Any]]:
    """As ``asking``, with trailers over HTTP/1.1."""
    options = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
        }
    }
    with asking(typed_extension_protocol_options=options, **cluster) as found:
        yield found


# unary


def test_a_unary_call() -> None:
    with calling() as (sidecar, clients):
        sink = Sink()
        client = clients.grpc("up", GrpcOptions(timeout=0.7, initial_metadata=((b"x-a", b"1"),)))
        exchange = client.unary(PATH, b"question", sink, [(b"x-b", b"2")])
        assert sidecar.host.receive() == (
            b"POST /pkg.Service/Method HTTP/1.1\r\nhost: up\r\nte: trailers\r\ngrpc-timeout: 700m\r\n"
            b"content-type: application/grpc\r\nuser-agent: grpc-python-mizzen\r\nx-a: 1\r\nx-b: 2\r\n"
            b"x-envoy-internal: true\r\nx-forwarded-for: 10.1.2.3\r\nx-envoy-expected-rq-timeout-ms: 700\r\n"
            b"transfer-encoding: chunked\r\n\r\nd\r\n\x00\x00\x00\x00\x08question\r\n0\r\n\r\n"
        )
        sidecar.host.send(HEAD, chunk(frame(b"answer")), trailers(b"grpc-status: 0", b"x-t: 3"))
        assert sink.events == [("reply", b"answer")]
        assert (b"content-type", b"application/grpc") in sink.reply.initial_metadata
        assert sink.reply.trailers == [(b"grpc-status", b"0"), (b"x-t", b"3")]
        assert exchange.over


def test_the_authority_is_configurable() -> None:
    with calling() as (sidecar, clients):
        clients.grpc("up", GrpcOptions(authority=b"b.example", user_agent=b"")).unary(PATH, b"", Sink())
        sent = sidecar.host.receive()
        assert b"host: b.example\r\n" in sent
        assert b"user-agent" not in sent


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (only_trailers(b"grpc-status: 14", b"grpc-message: no%20way"), 14, "no way"),
        (HEAD + chunk(frame(b"x")) + trailers(b"grpc-status: 5", b"grpc-message: %C3%BC %zz %"), 5, "ü %zz %"),
        (HEAD + chunk(frame(b"x")) + trailers(b"grpc-status: 4242"), 4242, ""),
        (HEAD + chunk(frame(b"x")) + trailers(b"grpc-status: -1"), 2, ""),
        (HEAD + trailers(b"grpc-message: %FF", b"grpc-status: 2"), 2, "\ufffd"),
        (HEAD + OK, 13, "0 messages in the reply to a unary call"),
        (HEAD + chunk(frame(b"x") * 2) + OK, 13, "2 messages in the reply to a unary call"),
        (HEAD + chunk(frame(b"xyz")[:-1]) + OK, 13, "0 messages in the reply to a unary call"),
        (HEAD + chunk(frame(b"x", True)) + OK, 13, "a compressed message, which was not asked for"),
        (HEAD + chunk(b"\x07\0\0\0\0") + OK, 13, "a gRPC message begins with flag 7, which is neither 0 nor 1"),
        (HEAD + chunk(frame(b"x")) + b"0\r\n\r\n", 2, "the response ended without a grpc-status"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhtml", 2, "the response ended without a grpc-status"),
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", 14, "HTTP status 503"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nhtml", 12, "HTTP status 404"),
        (b"HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\n\r\n", 2, "HTTP status 418"),
        (b"HTTP/1.1 503 Oh\r\ncontent-length: 0\r\ngrpc-status: 8\r\n\r\n", 8, ""),
    ],
)
def test_how_a_unary_call_may_fail(answer: bytes, status: int, message: str) -> None:
    with calling() as (sidecar, clients):
        sink = Sink()
        clients.grpc("up").unary(PATH, b"x", sink)
        sidecar.host.send(answer)
        assert sink.events == [("error", status, message)]
        assert sink.error.failure is None


def test_a_reply_that_is_too_large() -> None:
    with calling() as (sidecar, clients):
        client = clients.grpc("up", GrpcOptions(max_message_bytes=8))
        fits, does_not = Sink(), Sink()
        client.unary(PATH, b"x", fits)
        sidecar.host.send(HEAD + chunk(frame(b"12345678")) + OK)
        client.unary(PATH, b"x", does_not)
        sidecar.host.send(HEAD + chunk(frame(b"123456789")))
        assert fits.last == ("reply", b"12345678")
        assert does_not.last[:2] == ("error", 8)
        assert sidecar.host.closed


def test_a_call_that_takes_too_long() -> None:
    with calling() as (sidecar, clients):
        sink = Sink()
        clients.grpc("up", GrpcOptions(timeout=0.5)).unary(PATH, b"x", sink)
        sidecar.host.receive()
        sidecar.advance(0.6)
        assert sink.events == [("error", 4, "upstream request timeout")]
        assert sink.error.failure.details == "response_timeout"


def test_a_host_that_is_not_there() -> None:
    with calling() as (sidecar, clients):
        sidecar.dialer.fails = "refused"
        sink, stream = Sink(), Sink()
        clients.grpc("up").unary(PATH, b"x", sink)
        clients.grpc("nowhere").stream(PATH, stream)
        sidecar.loop.settle()
        assert sink.last[:2] == ("error", 14)
        assert sink.error.failure.details.startswith("upstream_reset_before_response_started{remote_connection_failure")
        assert stream.events == [("close", 14)]
        assert stream.error.failure.details == "cluster_not_found"


def test_a_call_is_tried_again_for_a_grpc_status() -> None:
    policy = RetryPolicy(frozenset({"unavailable"}), retry_back_off=RetryBackOff(0.001, 0.001))
    with calling() as (sidecar, clients):
        sink = Sink()
        clients.grpc("two", GrpcOptions(retry=policy)).unary(PATH, b"question", sink)
        sidecar.hosts[0].send(only_trailers(b"grpc-status: 14"))
        sidecar.advance(0.1)
        ((host, asked),) = sidecar.asked()[-1:]
        assert frame(b"question") in asked
        host.send(HEAD + chunk(frame(b"answer")) + OK)
        assert sink.events == [("reply", b"answer")]
        assert sidecar.stat("cluster.two.upstream_rq_retry") == 1


def test_cancelling_a_call() -> None:
    with calling() as (sidecar, clients):
        sink = Sink()
        exchange = clients.grpc("up").unary(PATH, b"x", sink)
        sidecar.host.receive()
        exchange.cancel()
        assert sidecar.host.closed
        assert sink.events == []


# streams


def test_messages_both_ways() -> None:
    with calling() as (sidecar, clients):
        sink = Sink()
        call = clients.grpc("up", GrpcOptions(max_duration=90.0)).stream(PATH, sink)
        call.send(b"one")
        call.send(b"two")
        sent = sidecar.host.receive()
        assert b"grpc-timeout: 90000m\r\n" in sent
        assert sent.endswith(chunk(frame(b"one")) + chunk(frame(b"two")))
        sidecar.host.send(HEAD, chunk(frame(b"a") + frame(b"")), chunk(frame(b"bc")[:6]), chunk(frame(b"bc")[6:]))
        assert sink.events == ["metadata", ("message", b"a"), ("message", b""), ("message", b"bc")]
        call.half_close()
        assert sidecar.host.receive() == b"0\r\n\r\n"
        assert not call.over
        sidecar.host.send(OK)
        assert sink.last == ("close", 0)
        assert sink.error is None
        assert call.over
        assert call.info.response_code == 200


def test_a_stream_without_limits_lives_on() -> None:
    with calling() as (sidecar, clients):
        sink = Sink()
        call = clients.grpc("up").stream(PATH, sink)
        call.half_close()
        assert b"grpc-timeout" not in sidecar.host.receive()
        sidecar.host.send(HEAD)
        sidecar.advance(3000.0)
        assert sink.events == ["metadata"]
        call.cancel()


@pytest.mark.parametrize(
    ("answer", "events"),
    [
        (only_trailers(b"grpc-status: 12"), [("close", 12)]),
        (only_trailers(b"grpc-status: 0"), [("close", 0)]),
        (b"HTTP/1.1 503 Oh\r\ncontent-length: 4\r\n\r\nhtml", [("close", 14)]),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\nhtml", [("close", 2)]),
        (HEAD + chunk(frame(b"x")) + b"0\r\n\r\n", ["metadata", ("message", b"x"), ("close", 2)]),
        (HEAD + chunk(frame(b"xyz")[:-1]) + OK, ["metadata", ("close", 13)]),
        (HEAD + chunk(frame(b"xyz")[:-1]) + trailers(b"grpc-status: 1"), ["metadata", ("close", 1)]),
        (HEAD + chunk(frame(b"x") + frame(b"x", True)) + OK, ["metadata", ("message", b"x"), ("close", 13)]),
        (HEAD + chunk(b"\0\1\0\0\0") + OK, ["metadata", ("close", 8)]),
    ],
)
def test_how_a_stream_may_end(answer: bytes, events: list[Any]) -> None:
    with calling() as (sidecar, clients):
        sink = Sink()
        call = clients.grpc("up", GrpcOptions(max_message_bytes=1000)).stream(PATH, sink)
        sidecar.host.receive()
        sidecar.host.send(answer)
        assert sink.events == events
        assert call.over
        call.send(b"x")
        call.half_close()
        call.cancel()
        assert sink.events == events


def test_a_connection_that_breaks() -> None:
    with calling() as (sidecar, clients):
        sink = Sink()
        clients.grpc("up", NO_LIMIT).stream(PATH, sink)
        sidecar.host.send(HEAD, chunk(frame(b"x")))
        sidecar.host.reset()
        assert sink.last == ("close", 13)
        assert sink.error is not None
        assert sink.error.failure is not None
        assert sink.error.failure.details.startswith("upstream_reset_after_response_started{")


def test_the_deadline_of_a_stream() -> None:
    with calling() as (sidecar, clients):
        sink = Sink()
        clients.grpc("up", GrpcOptions(max_duration=1.0)).stream(PATH, sink)
        sidecar.host.send(HEAD, chunk(frame(b"x")))
        sidecar.advance(1.1)
        assert sink.last == ("close", 4)
        assert sidecar.host.closed


def test_messages_wait_while_the_sink_is_paused() -> None:
    with calling() as (sidecar, clients):
        sink = Sink({"message": lambda: call.pause()})
        call = clients.grpc("up").stream(PATH, sink)
        sidecar.host.send(HEAD, chunk(frame(b"1") + frame(b"2") + frame(b"3")), chunk(frame(b"4")))
        assert sink.events == ["metadata", ("message", b"1")]
        for number in (b"2", b"3", b"4"):
            call.resume()
            sidecar.loop.settle()
            assert sink.last == ("message", number)
        call.resume()
        sidecar.host.send(OK)
        assert sink.last == ("close", 0)  # nothing is held that the end would have to wait for


def test_the_end_waits_behind_the_messages() -> None:
    with calling() as (sidecar, clients):
        sink = Sink({"metadata": lambda: call.pause()})
        call = clients.grpc("up", GrpcOptions(max_duration=10.0)).stream(PATH, sink)
        sidecar.host.receive()
        sidecar.host.send(HEAD + chunk(frame(b"1") + frame(b"2")) + OK)
        assert sink.events == ["metadata"]
        sidecar.advance(20.0)  # the server has answered in time
        assert not call.over
        call.send(b"dropped")
        call.resume()
        sidecar.loop.settle()
        assert sink.events == ["metadata", ("message", b"1"), ("message", b"2"), ("close", 0)]


def test_a_paused_stream_is_cancelled() -> None:
    with calling() as (sidecar, clients):
        sink = Sink({"message": lambda: call.pause()})
        call = clients.grpc("up").stream(PATH, sink)
        sidecar.host.send(HEAD, chunk(frame(b"1") + frame(b"2")))
        call.cancel()
        call.resume()
        assert sink.events == ["metadata", ("message", b"1")]
        assert sidecar.host.closed


def test_a_slow_server_stops_the_sender() -> None:
    with calling(per_connection_buffer_limit_bytes=1024) as (sidecar, clients):
        sink = Sink()
        call = clients.grpc("up").stream(PATH, sink)
        sidecar.host.transport.room = 0
        call.send(b"x" * 4096)
        sidecar.loop.settle()
        assert sink.events == ["full"]
        assert call.full
        sidecar.host.transport.take(10_000)
        assert sink.events == ["full", "writable"]
        call.cancel()


def test_a_sink_that_fails_ends_its_call(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    for event in ("metadata", "message", "close"):
        with calling() as (sidecar, clients), caplog.at_level(logging.ERROR, "sidecar.client"):
            sink = Sink({event: fail})
            call = clients.grpc("up").stream(PATH, sink)
            sidecar.host.receive()
            sidecar.host.send(HEAD, chunk(frame(b"x") + frame(b"y")))
            if event == "close":
                sidecar.host.send(OK)
            assert call.over
            assert sink.last[0] == event or sink.last == event
            assert "ZeroDivisionError" in caplog.text
            caplog.clear()


def test_reference_counting_frees_a_call() -> None:
    class Holder(Sink):
        call: Any = None

    gc.collect()
    gc.disable()
    try:
        with calling() as (sidecar, clients):
            for kind in ("stream", "unary"):
                sink = Holder()
                client = clients.grpc("up")
                sink.call = client.stream(PATH, sink) if kind == "stream" else client.unary(PATH, b"x", sink)
                if kind == "stream":
                    sink.call.half_close()
                sidecar.hosts[-1].send(HEAD + chunk(frame(b"x")) + OK)
                assert sink.call.over
                del sink
                sidecar.loop.settle()
                assert not [one for one in gc.get_objects() if isinstance(one, (ClientStream, Holder))]
    finally:
        gc.enable()


# the parts


@pytest.mark.parametrize(
    ("seconds", "value"),
    [(0.7, b"700m"), (0.0001, b"1m"), (99999.999, b"99999999m"), (100_000.0, b"100000S"), (1e8, b"1666667M"),
     (1e12, b"99999999H")],
)  # fmt: skip
def test_grpc_timeout(seconds: float, value: bytes) -> None:
    assert grpc_timeout(seconds) == value


@pytest.mark.parametrize("value", [b"", b"-1", b"1_0", b"99999999999999999999", b"ok"])
def test_a_status_that_is_no_number_is_unknown(value: bytes) -> None:
    error = error_in(ResponseHead(200, []), [(b"grpc-status", value)])
    assert error is not None
    assert error.status == 2
