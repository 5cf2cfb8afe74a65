"""Clients that mean harm or know no better: what they get, and that others are served meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest

from sidecar.http.detection import UndecidedConnection
from tests.hostile.surroundings import GET, HELLO, Peer, eventually, hello, sidecar

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
SMUGGLING = [
    POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n",
    POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nhello",
    POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    POST + b"Foo: bar\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"Content-Length: +4\r\n\r\nabcd",
    POST + b"Content-Length: 0x4\r\n\r\nabcd",
    POST + b"Content-Length: 4\n\r\nabcd",
    POST + b"X: a\nTransfer-Encoding: chunked\r\n\r\n",
    POST + b"X: a\rTransfer-Encoding: chunked\r\n\r\n",
    POST + b"X: a\x00b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 30 + b"\r\n\r\n",
]


@pytest.mark.parametrize("data", SMUGGLING)
async def test_smuggling_is_refused_and_the_connection_closes(data: bytes) -> None:
    async with sidecar() as setting:
        answer = await setting.exchange(data + GET)
        assert answer[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")
        assert answer.count(b"HTTP/1.1 ") == 1 and b"\r\nconnection: close\r\n" in answer
        assert setting.stat("cluster.up.upstream_rq_total") == 0
        await setting.serves()


@pytest.mark.parametrize(
    "body",
    [b"0x5\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"5\r\nhello\r\n1_0\r\n", b"5\nhello\r\n0\r\n\r\n"],
)
async def test_bad_chunks_never_complete_a_request_upstream(body: bytes) -> None:
    complete = 0

    async def upstream(peer: Peer) -> None:
        nonlocal complete
        while True:
            await peer.message()
            complete += 1
            await peer.send(HELLO)

    async with sidecar(upstream) as setting:
        answer = await setting.exchange(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + GET)
        assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1 ") == 1
        assert complete == 0
        await setting.serves()


@pytest.mark.parametrize("value", [b"a%0d%0aX: y", b"a\\r\\nX: y", "a\u010dX: y".encode(), b"a\xc4\x8d\xc4\x8ab"])
async def test_no_value_splits_a_message(value: bytes) -> None:
    seen = b""

    async def upstream(peer: Peer) -> None:
        nonlocal seen
        seen, _ = await peer.message()
        await peer.send(HELLO)

    async with sidecar(upstream) as setting:
        client = await setting.client()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nV: " + value + b"\r\n\r\n")
        assert (await client.message())[1] == b"hello"
        assert b"\r\nv: " + value + b"\r\n" in seen and b"\r\nX: y" not in seen
        client.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 10_000_000 + b"\r\nhello\r\n0\r\n\r\n", b"400"),
        (POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", b"400"),
    ],
    ids=["20 MB field", "long target", "many fields", "10 MB chunk extension", "huge length"],
)
async def test_oversized(data: bytes, status: bytes) -> None:
    async with sidecar() as setting:
        client = await setting.client()
        sending = asyncio.create_task(client.send(data))
        answer = await client.until(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status)
        await setting.serves()
        client.close()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def lag(seconds: float) -> float:
    """The longest time that the loop did not come back, in seconds."""
    longest, end = 0.0, time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        await asyncio.sleep(0)
        longest = max(longest, time.monotonic() - now)
    return longest


@pytest.mark.parametrize("local", [False, True], ids=["upstream", "local"])
async def test_14000_pipelined_requests_in_one_segment(local: bool) -> None:
    async def upstream(peer: Peer) -> None:
        while True:
            head = await peer.until(b"\r\n\r\n")
            path = head.split(b" ")[1]
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    count = 14_000 if local else 3_000
    routes = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x"}}}]
    async with sidecar(upstream, routes=routes if local else None) as setting:
        client = await setting.client()
        sending = asyncio.create_task(
            client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(count)))
        )
        lagging = asyncio.create_task(lag(0.5))
        others = asyncio.create_task(setting.serves())
        for number in range(count):
            _, body = await client.message()
            assert body == (b"x" if local else b"/%d" % number)
        await sending
        await others
        assert await lagging < 0.25  # a few milliseconds on an idle machine; this loop also runs client and upstream
        client.close()


async def test_pipelined_requests_with_bodies() -> None:
    async def echo(peer: Peer) -> None:
        while True:
            _, body = await peer.message()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with sidecar(echo) as setting:
        client = await setting.client()
        requests = b"".join(
            POST + b"Content-Length: %d\r\n\r\n%b" % (len(b"%d" % number), b"%d" % number)
            if number % 2
            else POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%d\r\n0\r\n\r\n" % (len(b"%d" % number), number)
            for number in range(500)
        )
        sending = asyncio.create_task(client.send(requests))
        for number in range(500):
            assert (await client.message())[1] == b"%d" % number
        await sending
        client.close()


async def test_pipelined_local_answers_to_a_client_that_does_not_read_are_bounded() -> None:
    routes = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x" * 4000}}}]
    async with sidecar(routes=routes, listener={"per_connection_buffer_limit_bytes": 65536}) as setting:
        client = await setting.client(receive_buffer=4096)
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await client.send(GET * 2000)
                sent += 2000

        flooding = asyncio.create_task(flood())
        (connection,) = await first_connections(setting)
        await eventually(lambda: connection.full and connection.paused)
        answered = setting.stat("http.in.downstream_rq_total")
        await asyncio.sleep(0.1)
        assert setting.stat("http.in.downstream_rq_total") == answered, "answers without room for them"
        assert connection.transport.get_write_buffer_size() < 65536 + 32 * 4200
        assert connection.reader.held_size() < 600_000
        await setting.serves()
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        client.reset()


async def first_connections(setting: object) -> list[object]:
    """The connections whose version is known: one is undecided until its first bytes have been read."""
    stack = setting.server.stack  # type: ignore[attr-defined]

    def decided() -> list[object]:
        each = [connection for manager in stack.managers for connection in manager.connections]
        return [connection for connection in each if not isinstance(connection, UndecidedConnection)]

    await eventually(decided)
    return decided()


async def test_a_reader_that_never_reads_holds_back_the_upstream() -> None:
    sent = 0

    async def upstream(peer: Peer) -> None:
        nonlocal sent
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        for _ in range(64 * 16):
            await peer.send(b"x" * 65536)
            sent += 65536

    async with sidecar(upstream) as setting:
        client = await setting.client(receive_buffer=4096)
        await client.send(GET)
        await eventually(lambda: setting.stat("cluster.up.upstream_flow_control_paused_reading_total") > 0)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        (connection,) = await first_connections(setting)
        assert connection.transport.get_write_buffer_size() < 3 << 20  # type: ignore[attr-defined]
        assert sent < 32 << 20  # what the kernel keeps for both connections is a few megabytes
        client.reset()
        await setting.at_rest()


async def test_the_upstream_holds_back_a_client() -> None:
    go_on = asyncio.Event()

    async def upstream(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await go_on.wait()
        left = (16 << 20) - len(peer.read)
        while left:
            left -= len(await peer.receive(min(left, 1 << 20)))
        await peer.send(HELLO)

    async with sidecar(upstream) as setting:
        client = await setting.client()
        size = 16 << 20
        sending = asyncio.create_task(client.send(POST + b"Content-Length: %d\r\n\r\n" % size + b"x" * size))
        await eventually(lambda: setting.stat("http.in.downstream_flow_control_paused_reading_total") > 0)
        assert not sending.done()
        go_on.set()
        assert (await client.message())[1] == b"hello"
        await sending
        client.close()


async def silent(peer: Peer) -> None:
    """Reads and never answers."""
    await peer.rest()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", GET, POST + b"Content-Length: 9\r\n\r\nabc"])
@pytest.mark.parametrize("how", ["half_close", "close", "reset"])
async def test_a_client_that_goes_away(sent: bytes, how: str) -> None:
    async with sidecar(silent) as setting:
        client = await setting.client()
        await client.send(sent)
        whole_head = b"\r\n\r\n" in sent
        await eventually(lambda: setting.stat("http.in.downstream_cx_rx_bytes_total") == len(sent))
        await eventually(lambda: setting.stat("http.in.downstream_rq_active") == int(whole_head))
        await eventually(lambda: bool(setting.stat("cluster.up.upstream_cx_tx_bytes_total")) is whole_head)
        getattr(client, how)()
        await setting.at_rest()
        await eventually(lambda: setting.stat("cluster.up.upstream_cx_active") == 0)
        client.close()


@pytest.mark.parametrize("how", ["half_close", "close", "reset"])
async def test_a_client_that_goes_away_within_the_response(how: str) -> None:
    async def upstream(peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\npart")
        await peer.rest()

    async with sidecar(upstream) as setting:
        client = await setting.client()
        await client.send(GET)
        await client.until(b"part")
        getattr(client, how)()
        await setting.at_rest()
        client.close()


@pytest.mark.parametrize("how", ["half_close", "close", "reset"])
async def test_a_client_that_goes_away_while_it_is_not_read_from(how: str) -> None:
    """uvloop tells nothing of a FIN or RST then: the connection looks for itself."""

    async def upstream(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await asyncio.Event().wait()  # never reads

    async with sidecar(upstream, listener={"per_connection_buffer_limit_bytes": 65536}) as setting:
        client = await setting.client()
        await client.send(POST + b"Content-Length: %d\r\n\r\n" % (64 << 20))
        (connection,) = await first_connections(setting)
        while not connection.paused:  # type: ignore[attr-defined]
            await client.send(b"x" * 65536)
            await asyncio.sleep(0.001)
        getattr(client, how)()
        await eventually(lambda: not setting.stat("http.in.downstream_cx_active"), 4.0)
        await setting.at_rest()
        client.close()


@pytest.mark.parametrize(
    ("manager", "sent", "body"),
    [
        ({"request_headers_timeout": "0.1s"}, b"GET / HTTP/1.1\r\nHo", b"request header timeout"),
        ({"request_timeout": "0.1s"}, b"GET / HTTP/1.1\r\nHo", b"request timeout"),
        ({"stream_idle_timeout": "0.1s"}, b"GET / HTTP/1.1\r\nHo", b"stream timeout"),
        ({"request_timeout": "0.1s"}, POST + b"Content-Length: 9\r\n\r\nabc", b"request timeout"),
        ({"stream_idle_timeout": "0.1s"}, POST + b"Content-Length: 9\r\n\r\nabc", b"stream timeout"),
        ({"request_timeout": "0.1s"}, POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", b"request timeout"),
    ],
)
async def test_slow_heads_and_bodies(manager: dict[str, str], sent: bytes, body: bytes) -> None:
    async with sidecar(silent, manager=manager) as setting:
        answer = await setting.exchange(sent)
        assert answer.startswith(b"HTTP/1.1 408 ") and answer.endswith(b"\r\n\r\n" + body)
        await setting.at_rest()


async def test_a_head_that_comes_byte_by_byte_is_timed_from_its_first_byte() -> None:
    async with sidecar(manager={"request_headers_timeout": "0.3s"}) as setting:
        client = await setting.client()
        await client.send(GET)
        assert (await client.message())[1] == b"hello"
        await asyncio.sleep(0.4)  # idle between requests does not count
        began = time.monotonic()

        async def drip() -> None:
            for byte in b"GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":
                await client.send(bytes([byte]))
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        head, body = await client.message()
        assert head.startswith(b"HTTP/1.1 408 ") and body == b"request header timeout"
        assert 0.25 < time.monotonic() - began < 1.5
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        client.close()


async def test_expect_100_continue() -> None:
    async def upstream(peer: Peer) -> None:
        while True:
            head, body = await peer.message()
            assert b"\r\nexpect:" not in head.lower()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async with sidecar(upstream) as setting:
        client = await setting.client()
        await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"world")
        assert (await client.message())[1] == b"world"
        client.close()


async def test_expect_from_http_10_gets_no_interim_response() -> None:
    async with sidecar(manager={"http_protocol_options": {"accept_http_10": True}}) as setting:
        fields = b"Host: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n"
        answer = await setting.exchange(b"POST / HTTP/1.0\r\n" + fields + b"\r\nx")
        assert answer.startswith(b"HTTP/1.0 200 ")


async def test_interim_responses_are_for_those_who_asked() -> None:
    async def upstream(peer: Peer) -> None:
        while True:
            await peer.until(b"\r\n\r\n")
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HELLO)

    async with sidecar(upstream) as setting:
        client = await setting.client()
        await client.send(GET)
        assert (await client.message())[0].startswith(b"HTTP/1.1 200 ")
        client.close()
    async with sidecar(upstream, manager={"proxy_100_continue": True}) as setting:
        client = await setting.client()
        await client.send(GET)
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.close()


async def test_connect_is_refused_when_it_is_not_enabled() -> None:
    async with sidecar() as setting:
        answer = await setting.exchange(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n" + GET)
        assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 404 ")) and answer.count(b"HTTP/1.1 ") == 1
        assert setting.stat("cluster.up.upstream_rq_total") == 0


async def test_an_upgrade_that_is_not_enabled_is_refused_and_what_follows_is_not_sent_on() -> None:
    async with sidecar() as setting:
        answer = await setting.exchange(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + GET
        )
        assert answer.startswith(b"HTTP/1.1 403 ") and answer.count(b"HTTP/1.1 ") == 1
        assert setting.stat("cluster.up.upstream_rq_total") == 0


async def test_head_responses() -> None:
    async def upstream(peer: Peer) -> None:
        while True:
            head = await peer.until(b"\r\n\r\n")
            await peer.send(HELLO[:-5] if head[:4] == b"HEAD" else HELLO)

    async with sidecar(upstream) as setting:
        client = await setting.client()
        for _ in range(3):
            await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"\r\ncontent-length: 5\r\n" in await client.until(b"\r\n\r\n")
            await client.send(GET)
            assert (await client.message())[1] == b"hello"
        client.close()
        assert setting.stat("cluster.up.upstream_cx_total") == 1


async def test_many_connections_that_say_nothing() -> None:
    async with sidecar(hello, manager={"common_http_protocol_options": {"idle_timeout": "0.2s"}}) as setting:
        clients = [await setting.client() for _ in range(200)]
        await setting.serves()
        await setting.at_rest()
        assert setting.stat("http.in.downstream_cx_idle_timeout") >= 200
        for client in clients:
            client.close()
