"""Our own gRPC client against grpcio's server, over HTTP/2: all four kinds of calls, failures, deadlines, pace, TLS."""

from __future__ import annotations

import asyncio
import base64
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from h2.events import DataReceived

from sidecar.client_stack import ClientStack
from sidecar.codec.grpc import frame
from sidecar.config.retry_policy import RetryBackOff, RetryPolicy
from sidecar.core.address import Address
from sidecar.core.client import GrpcError, GrpcOptions
from sidecar.pool.client_stream import ClientStream
from tests.sidecar.bootstraps import address, cluster
from tests.sidecar.pool.asking import Sink, over_http2
from tests.sidecar.pool.grpc_services import PIECE, Service, path, service
from tests.sidecar.pool.http2_services import Peer, serving_http2
from tests.sidecar.pool.test_client_against_servers import clients, run
from tests.sidecar.tls_bootstraps import counted, originating, until
from tests.sidecar.transport.serving import AUTHORITY, CLIENT, SERVER


@asynccontextmanager
async def calling(options: GrpcOptions | None = None, **more: Any) -> AsyncIterator[tuple[Any, Service, Any]]:
    """A client of a service, the service, and the sidecar; ``more`` is configuration of the cluster."""
    with service() as made:
        async with clients({**over_http2(cluster("up", made.port)), **more}) as (ours, server):
            yield ours.grpc("up", options or GrpcOptions()), made, server


# unary


def test_a_unary_call_with_metadata_both_ways() -> None:
    async def main() -> None:
        async with calling(GrpcOptions(timeout=5.0, initial_metadata=((b"x-all", b"1"),))) as (client, made, server):
            metadata = [(b"x-one", b"2"), (b"x-bytes-bin", base64.b64encode(b"\x00\xff"))]
            reply = await client.call(path("Echo"), b"hello", metadata)
            assert reply.message == b"hello"
            assert (b"x-initial", b"1") in reply.initial_metadata
            assert (b"x-initial-bin", base64.b64encode(b"\x00\xff").rstrip(b"=")) in [
                (name, value.rstrip(b"=")) for name, value in reply.initial_metadata
            ]
            assert dict(reply.trailers)[b"x-trailing-bin"].rstrip(b"=") == base64.b64encode(b"\x01\xfe").rstrip(b"=")
            (seen,) = made.metadata
            assert (seen["x-all"], seen["x-one"], seen["x-bytes-bin"]) == ("1", "2", b"\x00\xff")
            assert seen["x-envoy-internal"] == "true"
            assert seen["user-agent"] == "grpc-python-mizzen"
            assert 3.0 < made.remaining[0] <= 5.0
            found = counted(server)
            assert found["cluster.up.internal.upstream_rq_200"] == found["http.async-client.rq_total"] == 1

    run(main())


@pytest.mark.parametrize("size", [0, 1, 10_000, 271_828, 4 << 20])
def test_messages_of_all_sizes(size: int) -> None:
    async def main() -> None:
        async with calling() as (client, _, _):
            message = bytes(size)
            reply = await client.call(path("Echo"), message)
            assert reply.message == message

    run(main())


def test_many_calls_at_once_share_a_connection() -> None:
    async def main() -> None:
        async with calling() as (client, _, server):
            replies = await asyncio.gather(*(client.call(path("Echo"), b"%d" % number) for number in range(300)))
            assert [reply.message for reply in replies] == [b"%d" % number for number in range(300)]
            found = counted(server)
            assert found["cluster.up.upstream_cx_total"] == 1
            assert "cluster.up.upstream_rq_active" not in found

    run(main())


@pytest.mark.parametrize(
    ("method", "message", "status", "words"),
    [
        ("Fail", b"2 test status message", 2, "test status message"),
        (
            "Fail",
            "9 \t\ntest ☃ with\r\nwhitespace and 100%\t\n".encode(),
            9,
            "\t\ntest ☃ with\r\nwhitespace and 100%\t\n",
        ),
        ("Fail", b"16 ", 16, ""),
        ("Nothing", b"", 12, "Method not found!"),
    ],
)
def test_a_server_that_says_no(method: str, message: bytes, status: int, words: str) -> None:
    async def main() -> None:
        async with calling() as (client, _, _):
            with pytest.raises(GrpcError) as failed:
                await client.call(path(method), message)
            assert (failed.value.status, failed.value.message) == (status, words)
            assert failed.value.failure is None

    run(main())


def test_a_reply_that_is_too_large() -> None:
    async def main() -> None:
        async with calling(GrpcOptions(max_message_bytes=1000)) as (client, _, server):
            with pytest.raises(GrpcError) as failed:
                await client.call(path("Echo"), bytes(100_000))
            assert failed.value.status == 8
            assert (await client.call(path("Echo"), bytes(1000))).message == bytes(1000)
            assert counted(server)["cluster.up.upstream_cx_total"] == 1  # the connection is none the worse for it

    run(main())


def test_a_compressed_reply_is_refused() -> None:
    async def main() -> None:
        async with calling() as (client, _, _):
            with pytest.raises(GrpcError) as failed:
                await client.call(path("Compressed"), bytes(10_000))
            assert (failed.value.status, failed.value.message) == (13, "a compressed message, which was not asked for")

    run(main())


def test_a_deadline_that_passes() -> None:
    async def main() -> None:
        async with calling(GrpcOptions(timeout=0.2)) as (client, made, server):
            with pytest.raises(GrpcError) as failed:
                await client.call(path("Wait"), b"")
            assert failed.value.status == 4  # whichever of the two noticed first
            await until(made.cancelled.is_set)
            made.go_on.set()
            assert 0.0 < made.remaining[0] <= 0.2
            assert "cluster.up.upstream_rq_active" not in counted(server)
            assert (await client.call(path("Echo"), b"after")).message == b"after"

    run(main())


def test_cancelling_reaches_the_server() -> None:
    async def main() -> None:
        async with calling() as (client, made, server):
            task = asyncio.create_task(client.call(path("Wait"), b""))
            await until(made.begun.is_set)
            assert not made.cancelled.is_set()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(made.cancelled.is_set)
            assert "cluster.up.upstream_rq_active" not in counted(server)

    run(main())


# streams


def test_an_empty_stream() -> None:
    async def main() -> None:
        async with calling() as (client, _, _):
            sink = Sink()
            call = client.stream(path("Chat"), sink)
            call.half_close()
            await until(lambda: call.over)
            assert sink.last == ("close", 0)
            assert not [event for event in sink.events if event[0] == "message"]

    run(main())


def test_a_stream_from_the_server() -> None:
    async def main() -> None:
        async with calling() as (client, _, _):
            sink = Sink()
            call = client.stream(path("Count"), sink)
            call.send(b"1000")
            call.half_close()
            await until(lambda: call.over)
            assert sink.events == ["metadata", *(("message", b"%d" % at) for at in range(1000)), ("close", 0)]

    run(main())


def test_a_stream_to_the_server() -> None:
    async def main() -> None:
        async with calling() as (client, _, _):
            sink = Sink()
            call = client.stream(path("Sum"), sink)
            for number in range(1000):
                call.send(b"%d" % number)
            call.half_close()
            await until(lambda: call.over)
            assert sink.events == ["metadata", ("message", b"499500"), ("close", 0)]

    run(main())


def test_ping_pong() -> None:
    async def main() -> None:
        async with calling() as (client, _, _):
            sent = 0

            def serve() -> None:
                nonlocal sent
                sent += 1
                if sent < 100:
                    call.send(b"%d" % sent)
                else:
                    call.half_close()

            sink = Sink({"message": serve})
            call = client.stream(path("Chat"), sink)
            call.send(b"0")
            await until(lambda: call.over)
            assert sink.events == ["metadata", *(("message", b"%d" % at) for at in range(100)), ("close", 0)]

    run(main())


def test_a_stream_that_fails_behind_its_messages() -> None:
    async def main() -> None:
        async with calling() as (client, _, _):
            sink = Sink()
            call = client.stream(path("Count"), sink)
            call.send(b"-3")
            call.half_close()
            await until(lambda: call.over)
            assert [event[0] for event in sink.events[1:]] == ["message"] * 3 + ["close"]
            assert (sink.error.status, sink.error.message) == (15, "lost ☃ 100%\n")

    run(main())


def test_a_server_that_ends_first() -> None:
    async def main() -> None:
        async with calling() as (client, _, server):
            sink = Sink()
            call = client.stream(path("Chat"), sink)
            call.send(b"enough")
            await until(lambda: call.over)
            assert sink.last == ("close", 0)
            call.send(b"dropped")
            assert (await client.call(path("Echo"), b"after")).message == b"after"
            found = counted(server)
            assert found["cluster.up.upstream_cx_total"] == 1
            assert "cluster.up.upstream_rq_active" not in found
            assert "cluster.up.http2.streams_active" not in found

    run(main())


@pytest.mark.parametrize("after", ["begun", "first reply"])
def test_cancelling_a_stream(after: str) -> None:
    async def main() -> None:
        async with calling() as (client, made, _):
            sink = Sink()
            call = client.stream(path("Chat"), sink)
            if after == "begun":
                await until(made.begun.is_set)
            else:
                call.send(b"x")
                await until(lambda: ("message", b"x") in sink.events)
            heard = list(sink.events)
            call.cancel()
            await until(made.cancelled.is_set)
            assert sink.events == heard

    run(main())


def test_the_deadline_of_a_stream() -> None:
    async def main() -> None:
        async with calling(GrpcOptions(max_duration=0.2)) as (client, made, _):
            sink = Sink()
            call = client.stream(path("Chat"), sink)
            call.send(b"x")
            await until(lambda: call.over)
            assert sink.last == ("close", 4)
            await until(made.cancelled.is_set)

    run(main())


def test_a_receiver_that_pauses_stops_the_server() -> None:
    async def main() -> None:
        async with calling() as (client, made, server):
            sink = Sink({"metadata": lambda: call.pause()})
            call = client.stream(path("Pour"), sink)
            call.send(b"2000")
            call.half_close()
            await until(lambda: sink.events)
            stats = server.stack.clusters.get("up").stats
            await until(lambda: made.sent)
            before = -1
            while before != made.sent:  # until all windows and buffers on the way are full
                before = made.sent
                await client.call(path("Echo"), bytes(100))  # other calls over the connection go on
            assert stats.upstream_flow_control_paused_reading_total == 1
            assert made.sent < 2000
            call.resume()
            await until(lambda: call.over)
            assert sink.events[1:] == [*[("message", PIECE)] * 2000, ("close", 0)]

    run(main())


def test_a_server_that_does_not_read_stops_the_sender() -> None:
    async def main() -> None:
        async with calling() as (client, made, _):
            pieces = 1000
            sent = 0

            def fill() -> None:
                nonlocal sent
                while sent < pieces and not call.full:
                    call.send(PIECE)
                    sent += 1
                    if sent == pieces:
                        call.half_close()

            sink = Sink({"writable": fill})
            call = client.stream(path("Swallow"), sink)
            fill()
            await until(made.begun.is_set)
            assert call.full
            assert sent < pieces
            made.go_on.set()
            await until(lambda: call.over, 20.0)
            assert ("message", b"%d" % (pieces * len(PIECE))) in sink.events
            assert sink.last == ("close", 0)
            assert sink.events.count("full") == sink.events.count("writable")

    run(main())


@pytest.mark.parametrize("event", ["full", "metadata", "message", "writable"])
@pytest.mark.parametrize("ready", [True, False])
def test_cancelling_from_within_callbacks(event: str, ready: bool) -> None:
    async def main() -> None:
        async with calling() as (client, made, server):
            if ready:
                await client.call(path("Echo"), b"")  # there is a connection
            sink = Sink({event: lambda: call.cancel()})
            call = client.stream(path("Chat" if event != "writable" else "Swallow"), sink)
            for number in range(100):
                call.send(b"small" if event in ("metadata", "message") else PIECE)
                if number == 50:
                    await until(lambda: made.begun.is_set() or call.over)
            made.go_on.set()
            await until(lambda: call.over)
            heard = list(sink.events)
            assert heard[-1][0] == event or heard[-1] == event
            assert (await client.call(path("Echo"), b"after")).message == b"after"
            assert sink.events == heard
            found = counted(server)
            assert found["cluster.up.upstream_cx_total"] == 1
            assert "cluster.up.upstream_rq_active" not in found
            assert "cluster.up.http2.streams_active" not in found

    run(main())


# hosts, limits, TLS


def test_the_protocol_of_the_downstream_is_http2() -> None:
    async def main() -> None:
        how = {"use_downstream_protocol_config": {"http2_protocol_options": {}}}
        with service() as made:
            async with clients(over_http2(cluster("up", made.port), **how)) as (ours, _):
                assert (await ours.grpc("up").call(path("Echo"), b"x")).message == b"x"

    run(main())


def test_http2_is_negotiated() -> None:
    async def main() -> None:
        with service((SERVER.pem, SERVER.key_pem)) as made:
            plain = over_http2(cluster("up", made.port), auto_config={})
            async with clients(originating(plain, sni="server.example")) as (ours, _):
                assert (await ours.grpc("up").call(path("Echo"), b"x")).message == b"x"

    run(main())


def test_a_host_is_asked_directly() -> None:
    async def main() -> None:
        async with calling() as (_, made, server):
            stack = server.stack
            ours = ClientStack(stack.worker, stack.clusters.get, stack.pool_of, stack.async_client_stats, "10.1.2.3")
            one = ours.to_host(stack.clusters.get("up"), Address("127.0.0.1", made.port))
            assert (await one.grpc().call(path("Echo"), b"well?")).message == b"well?"
            assert not {name for name in made.metadata[0] if name.startswith("x-")}
            found = counted(server)
            assert "cluster.up.upstream_cx_total" not in found
            assert "http.async-client.rq_total" not in found
            one.close()

    run(main())


def test_another_host_is_tried() -> None:
    async def main() -> None:
        with service() as good:
            with service() as gone:
                pass
            both = over_http2(cluster("up", gone.port))
            more = {"endpoint": {"address": address(good.port)}}
            both["load_assignment"]["endpoints"][0]["lb_endpoints"].append(more)
            policy = RetryPolicy(
                frozenset({"connect-failure"}), num_retries=3, retry_back_off=RetryBackOff(0.001, 0.002)
            )
            async with clients(both) as (ours, server):
                client = ours.grpc("up", GrpcOptions(retry=policy))
                for number in range(10):
                    assert (await client.call(path("Echo"), b"%d" % number)).message == b"%d" % number
                assert counted(server)["cluster.up.upstream_rq_retry_success"] > 0

    run(main())


def test_a_server_that_stops_ends_its_streams() -> None:
    async def main() -> None:
        async with calling() as (client, made, _):
            sink = Sink()
            call = client.stream(path("Chat"), sink)
            call.send(b"x")
            await until(lambda: ("message", b"x") in sink.events)
            await asyncio.get_running_loop().run_in_executor(None, made.stop)
            await until(lambda: call.over)
            assert sink.last[0] == "close"
            assert sink.error.status in (1, 13, 14)  # what it says when it goes differs from version to version

    run(main())


def test_circuit_breakers() -> None:
    async def main() -> None:
        limits = {"thresholds": [{"max_requests": 1}]}
        async with calling(circuit_breakers=limits) as (client, made, server):
            first = asyncio.create_task(client.call(path("Wait"), b"first"))
            await until(made.begun.is_set)
            with pytest.raises(GrpcError) as failed:
                await client.call(path("Echo"), b"second")
            assert failed.value.status == 14
            assert failed.value.failure is not None
            assert failed.value.failure.details == "upstream_reset_before_response_started{overflow}"
            made.go_on.set()
            assert (await first).message == b"first"
            assert counted(server)["cluster.up.internal.upstream_rq_503"] == 1

    run(main())


def test_mutual_tls() -> None:
    async def main() -> None:
        with service((SERVER.pem, SERVER.key_pem), AUTHORITY.pem) as made:
            plain = over_http2(cluster("up", made.port))
            async with clients(originating(plain, CLIENT, sni="server.example")) as (ours, server):
                assert (await ours.grpc("up").call(path("Echo"), b"secret")).message == b"secret"
                assert counted(server)["cluster.up.ssl.handshake"] == 1
            async with clients(originating(over_http2(cluster("up", made.port)), sni="server.example")) as (ours, _):
                with pytest.raises(GrpcError) as failed:  # without a certificate
                    await ours.grpc("up").call(path("Echo"), b"secret")
                assert failed.value.status == 14

    run(main())


# servers that misbehave


@asynccontextmanager
async def against(answer: Any, options: GrpcOptions | None = None) -> AsyncIterator[tuple[Any, list[Peer], Any]]:
    async with serving_http2(answer) as (port, peers), clients(over_http2(cluster("up", port))) as (ours, server):
        yield ours.grpc("up", options or GrpcOptions()), peers, server


def nothing(peer: Peer, stream: int, head: dict[bytes, bytes]) -> None:
    """No answer."""


def test_cancelling_while_what_had_to_wait_is_sent() -> None:
    async def main() -> None:
        async with against(nothing) as (client, peers, server):
            sink = Sink({"full": lambda: call.cancel()})
            call = client.stream(path("Chat"), sink)
            for _ in range(10):
                call.send(PIECE)
            assert sink.events == []  # all of it waits for the connection, and is less than what may wait
            await until(lambda: call.over)
            assert sink.events == ["full"]
            await until(lambda: peers and peers[0].resets())
            assert peers[0].resets() == [2]
            assert counted(server)["cluster.up.upstream_cx_active"] == 1

    run(main())


@pytest.mark.parametrize(
    ("code", "answered", "status"), [(8, False, 14), (2, False, 14), (7, False, 14), (2, True, 13), (8, True, 13)]
)
def test_a_stream_that_is_reset(code: int, answered: bool, status: int) -> None:
    async def main() -> None:
        def reset(peer: Peer, stream: int, head: dict[bytes, bytes]) -> None:
            if answered:
                peer.reply(stream, ("content-type", "application/grpc"), end=False)
            peer.codec.reset_stream(stream, code)

        async with against(reset) as (client, _, server):
            sink = Sink()
            call = client.stream(path("Chat"), sink)
            await until(lambda: call.over)
            assert sink.last == ("close", status)
            assert sink.error.failure is not None
            started = "after" if answered else "before"
            assert f"_{started}_response_started" in sink.error.failure.details
            found = counted(server)
            assert found.get("cluster.up.upstream_rq_rx_reset", 0) == (
                code != 7
            )  # a refused stream is none, as in Envoy
            assert found["cluster.up.upstream_cx_active"] == 1

    run(main())


def hello(peer: Peer, stream: int) -> None:
    peer.reply(stream, ("content-type", "application/grpc"), end=False)
    peer.codec.send_data(stream, frame(b"hello"))
    peer.codec.send_headers(stream, [("grpc-status", "0")], end_stream=True)


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("how", ["refused", "goaway"])
def test_a_call_that_was_not_processed_is_made_again(how: str, ready: bool) -> None:
    async def main() -> None:
        asked = 0

        def answer(peer: Peer, stream: int, head: dict[bytes, bytes]) -> None:
            nonlocal asked
            asked += 1
            if asked != 1 + ready:
                hello(peer, stream)
            elif how == "refused":
                peer.codec.reset_stream(stream, 7)
            else:
                peer.codec.close_connection(0, last_stream_id=stream - 2 if stream > 1 else 0)

        async with against(answer) as (client, peers, server):
            for _ in range(1 + ready):
                assert (await client.call(path("Echo"), b"once")).message == b"hello"
            assert asked == 2 + ready
            assert len(peers) == (2 if how == "goaway" else 1)
            assert counted(server)["cluster.up.upstream_rq_retry_success"] == 1
            bodies = [event.data for peer in peers for event in peer.events if isinstance(event, DataReceived)]
            assert bodies.count(frame(b"once")) >= 1 + ready

    run(main())


def test_a_call_that_is_refused_for_good() -> None:
    async def main() -> None:
        async with against(lambda peer, stream, head: peer.codec.reset_stream(stream, 7)) as (client, _, _):
            with pytest.raises(GrpcError) as failed:
                await client.call(path("Echo"), b"")
            assert failed.value.status == 14
            assert "remote_refused_stream_reset" in failed.value.failure.details  # type: ignore[union-attr]

    run(main())


def test_the_head_of_a_call() -> None:
    async def main() -> None:
        heads: list[dict[bytes, bytes]] = []

        def answer(peer: Peer, stream: int, head: dict[bytes, bytes]) -> None:
            heads.append(head)
            peer.reply(stream)

        async with against(answer, GrpcOptions(timeout=0.7)) as (client, _, _):
            with pytest.raises(GrpcError):  # no message
                await client.call(path("Echo"), b"")
            assert heads == [
                {
                    b":method": b"POST",
                    b":path": b"/test.Service/Echo",
                    b":authority": b"up",
                    b":scheme": b"http",
                    b"te": b"trailers",
                    b"grpc-timeout": b"700m",
                    b"content-type": b"application/grpc",
                    b"user-agent": b"grpc-python-mizzen",
                    b"x-envoy-internal": b"true",
                    b"x-forwarded-for": b"10.1.2.3",
                    b"x-envoy-expected-rq-timeout-ms": b"700",
                }
            ]

    run(main())


def test_reference_counting_frees_calls() -> None:
    async def main() -> None:
        def answer(peer: Peer, stream: int, head: dict[bytes, bytes]) -> None:
            if head[b":path"] == path("Echo"):
                hello(peer, stream)
            elif head[b":path"] == path("Fail"):
                peer.codec.reset_stream(stream, 2)

        async with against(answer) as (client, peers, _):
            gc.collect()
            gc.disable()
            try:
                for method in ("Echo", "Fail", "Wait"):
                    sinks = [Sink(), Sink()]
                    calls = [client.unary(path(method), b"x", sinks[0]), client.stream(path(method), sinks[1])]
                    if method == "Wait":
                        await until(lambda: len(peers[0].codec.streams) >= 2)
                        for call in calls:
                            call.cancel()
                    await until(lambda calls=calls: all(call.over for call in calls))  # type: ignore[misc]
                    del calls, sinks
                    call = None
                    await until(lambda: not [one for one in gc.get_objects() if isinstance(one, (ClientStream, Sink))])
            finally:
                gc.enable()

    run(main())
