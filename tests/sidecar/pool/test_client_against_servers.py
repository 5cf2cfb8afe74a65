"""Our own HTTP client against real servers: sockets, TLS, hosts that fail, and peers that are slow."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from h2.events import DataReceived, StreamEnded, TrailersReceived

from sidecar.client_stack import ClientStack
from sidecar.config.retry_policy import RetryBackOff, RetryPolicy
from sidecar.core import response_flags as flag
from sidecar.core.client import ClientOptions, RequestFailed
from sidecar.core.head import RequestHead
from tests.sidecar.bootstraps import address, cluster
from tests.sidecar.pool.asking import Sink, get, over_http2, post
from tests.sidecar.pool.http2_services import Peer, serving_http2
from tests.sidecar.tls_bootstraps import counted, originating, serving, until
from tests.sidecar.transport.certificates import Certificate
from tests.sidecar.transport.serving import SERVER, STRANGERS

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main

    uvloop.run(bounded())


@asynccontextmanager
async def clients(*clusters: dict[str, Any]) -> AsyncIterator[tuple[ClientStack, Any]]:
    """The clients of a running sidecar with these clusters, and the sidecar."""
    async with serving(clusters=list(clusters)) as server:
        stack = server.stack
        assert stack is not None
        yield ClientStack(stack.worker, stack.clusters.get, stack.pool_of, stack.async_client_stats, "10.1.2.3"), server


@asynccontextmanager
async def listening(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a port of the system's choice, with TLS if there is a context."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def server_context(folder: Path, certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate.write(folder, "server"))
    return context


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with path and body, one request after the other."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            body = await reader.readexactly(int(length or b"0"))
            answer = head.split(b" ", 2)[1] + b" " + body
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def test_many_requests_at_once() -> None:
    async def main() -> None:
        async with listening(echo) as port, clients(cluster("up", port)) as (ours, server):
            client = ours.http("up")

            async def ask(number: int) -> None:
                body = b"x" * number
                response = await client.fetch(RequestHead(b"PUT", b"/%d" % number, b"a", []), body)
                assert (response.head.status, response.body) == (200, b"/%d %b" % (number, body))

            await asyncio.gather(*(ask(number) for number in range(100)))
            found = counted(server)
            assert found["cluster.up.internal.upstream_rq_200"] == found["http.async-client.rq_total"] == 100
            assert not [name for name in found if "rq" in name and name.endswith("active")]

    run(main())


def test_over_tls(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            listening(echo, server_context(tmp_path, SERVER)) as port,
            clients(originating(cluster("up", port), sni="server.example")) as (ours, server),
        ):
            for _ in range(3):
                response = await ours.http("up").fetch(get(b"/secret"))
                assert response.body == b"/secret "
            assert counted(server)["cluster.up.ssl.handshake"] == 1

    run(main())


def test_a_server_that_is_not_trusted(tmp_path: Path) -> None:
    async def main() -> None:
        stranger = server_context(tmp_path, STRANGERS.issue("server", ["server.example"]))
        async with listening(echo, stranger) as port, clients(originating(cluster("up", port))) as (ours, _):
            with pytest.raises(RequestFailed) as failed:
                await ours.http("up").fetch(get())
            assert failed.value.status == 503
            assert failed.value.flags == flag.UPSTREAM_CONNECTION_FAILURE
            assert "CERTIFICATE_VERIFY_FAILED" in failed.value.details

    run(main())


def test_another_host_is_tried() -> None:
    async def main() -> None:
        async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()

        async with listening(reset) as bad, listening(echo) as good:
            both = cluster("up", bad)
            both["load_assignment"]["endpoints"][0]["lb_endpoints"].append({"endpoint": {"address": address(good)}})
            policy = RetryPolicy(frozenset({"reset"}), num_retries=3, retry_back_off=RetryBackOff(0.001, 0.002))
            async with clients(both) as (ours, server):
                client = ours.http("up", ClientOptions(retry=policy))
                for number in range(10):
                    response = await client.fetch(post(), b"%d" % number)
                    assert response.body == b"/ %d" % number
                found = counted(server)
                assert found["cluster.up.upstream_rq_retry"] == found["cluster.up.upstream_rq_retry_success"] > 0

    run(main())


def test_nobody_listens() -> None:
    async def main() -> None:
        async with listening(echo) as port:
            pass
        async with clients(cluster("up", port)) as (ours, _):
            with pytest.raises(RequestFailed) as failed:
                await ours.http("up").fetch(get())
            assert failed.value.details.startswith("upstream_reset_before_response_started{remote_connection_failure")

    run(main())


def test_cancelling_a_task_reaches_the_server() -> None:
    async def main() -> None:
        arrived, left = asyncio.Event(), asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            arrived.set()
            await reader.read()
            left.set()
            writer.close()

        async with listening(silent) as port, clients(cluster("up", port)) as (ours, server):
            task = asyncio.create_task(ours.http("up").fetch(get()))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await left.wait()
            await until(lambda: "cluster.up.upstream_rq_active" not in counted(server))

    run(main())


def test_a_server_that_does_not_answer() -> None:
    async def main() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with listening(silent) as port, clients(cluster("up", port)) as (ours, _):
            with pytest.raises(RequestFailed) as failed:
                await ours.http("up", ClientOptions(timeout=0.05)).fetch(get())
            assert (failed.value.status, failed.value.message) == (504, "upstream request timeout")

    run(main())


def test_a_server_that_reads_slowly_stops_the_sender() -> None:
    async def main() -> None:
        size, piece = 16 << 20, b"x" * 65536
        go_on = asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await go_on.wait()
            await reader.readuntil(b"\r\n\r\n")
            missing = size
            while missing:
                missing -= len(await reader.read(1 << 20))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await reader.read()
            writer.close()

        async with listening(slow) as port, clients(cluster("up", port)) as (ours, _):
            sent = 0

            def fill() -> None:
                nonlocal sent
                while sent < size and not exchange.full:
                    sent += len(piece)
                    exchange.send_data(piece, sent == size)
                    if sent % (1 << 20) == 0:
                        asyncio.get_running_loop().call_soon(fill)  # what is sent leaves at the end of a turn
                        return

            sink = Sink({"writable": fill})
            exchange = ours.http("up").stream(post((b"content-length", b"%d" % size)), sink)
            fill()
            await until(lambda: "full" in sink.events)
            assert sent < size
            go_on.set()
            await until(lambda: exchange.over)
            assert sent == size
            assert sink.events.count("full") == sink.events.count("writable")
            assert sink.head.status == 200

    run(main())


def test_a_receiver_that_reads_slowly_stops_the_server() -> None:
    async def main() -> None:
        size, piece = 64 << 20, b"x" * (1 << 20)
        stuck = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            for _ in range(size // len(piece)):
                writer.write(piece)
                if writer.transport.get_write_buffer_size():
                    stuck.set()
                await writer.drain()
            await reader.read()
            writer.close()

        async with listening(serve) as port, clients(cluster("up", port)) as (ours, _):
            sink = Sink({"head": lambda: exchange.pause_response()})
            exchange = ours.http("up").stream(get(), sink, end=True)
            await until(lambda: sink.events)
            await stuck.wait()
            before = exchange.info.bytes_sent
            for _ in range(1000):
                await asyncio.sleep(0)
            assert exchange.info.bytes_sent == before < 1 << 20
            exchange.resume_response()
            await until(lambda: exchange.over)
            assert exchange.info.bytes_sent == size

    run(main())


# over HTTP/2


def test_over_http2_with_trailers_both_ways() -> None:
    async def main() -> None:
        def answer(peer: Peer, stream: int, head: dict[bytes, bytes]) -> None:
            assert head[b":path"] == b"/"
            peer.codec.send_headers(stream, [(":status", "200"), ("x-a", "1")])
            peer.codec.send_data(stream, b"he")
            peer.codec.send_data(stream, b"llo")
            peer.codec.send_headers(stream, [("x-t", "2")], end_stream=True)

        async with serving_http2(answer) as (port, peers), clients(over_http2(cluster("up", port))) as (ours, _):
            response = await ours.http("up").fetch(get())
            assert (response.head.status, response.body, response.trailers) == (200, b"hello", [(b"x-t", b"2")])
            sink = Sink()
            exchange = ours.http("up").stream(post(), sink)
            exchange.send_data(b"body", False)
            exchange.send_trailers([(b"x-u", b"3")])
            await until(lambda: exchange.over)
            assert sink.events[0] == ("head", 200, False)
            assert b"".join(event[1] for event in sink.events[1:-1]) == b"hello"
            assert sink.last == ("trailers", [(b"x-t", b"2")])
            events = peers[0].events
            await until(lambda: any(isinstance(event, TrailersReceived) for event in events))
            assert [event.data for event in events if isinstance(event, DataReceived)] == [b"body"]
            (trailers,) = [event for event in events if isinstance(event, TrailersReceived)]
            assert trailers.headers == [(b"x-u", b"3")]
            assert sum(isinstance(event, StreamEnded) for event in events) == 2

    run(main())


def test_over_http2_cancelling_resets_the_stream_alone() -> None:
    async def main() -> None:
        def answer(peer: Peer, stream: int, head: dict[bytes, bytes]) -> None:
            if head[b":path"] == b"/answered":
                peer.reply(stream, ("x-a", "1"))

        async with serving_http2(answer) as (port, peers), clients(over_http2(cluster("up", port))) as (ours, server):
            client = ours.http("up")
            exchange = client.request(get(b"/silent"), b"", Sink())
            assert (await client.fetch(get(b"/answered"))).head.status == 200
            exchange.cancel()
            await until(lambda: peers[0].resets() == [2])
            assert (await client.fetch(get(b"/answered"))).head.status == 200
            found = counted(server)
            assert found["cluster.up.upstream_cx_total"] == 1
            assert found["cluster.up.upstream_rq_tx_reset"] == 1

    run(main())
