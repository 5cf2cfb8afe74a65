"""Upstreams that mean harm or break: a client gets the whole response, an error, or a response that is visibly cut."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.hostile.surroundings import GET, HELLO, Peer, eventually, hello, saying, sidecar

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
RETRIES = [
    {
        "match": {"prefix": "/"},
        "route": {
            "cluster": "up",
            "retry_policy": {
                "retry_on": "5xx,reset",
                "num_retries": 3,
                "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.02s"},
            },
        },
    }
]


def verdict(answer: bytes) -> str:
    """What a client makes of everything that it got until the connection closed."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return "cut"
    lower = head.lower() + b"\r\n"
    status = head.split(b" ")[1]
    if b"\r\ntransfer-encoding: chunked\r\n" in lower:
        return status.decode() if body.endswith(b"0\r\n\r\n") else "cut"
    if b"\r\ncontent-length: " in lower:
        length = int(lower.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
        assert len(body) <= length
        return status.decode() if len(body) == length else "cut"
    return status.decode() + " to the end"


@pytest.mark.parametrize(
    "response",
    [
        b"garbage\r\n\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 000 Zero\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 99 Short\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 1000 Long\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nbytes",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nConte",
    ],
)
async def test_what_is_no_response_becomes_a_502(response: bytes) -> None:
    async with sidecar(saying(response, close=True)) as setting:
        client = await setting.client()
        for _ in range(2):
            await client.send(GET)
            head, _ = await client.message()
            assert head.startswith(b"HTTP/1.1 502 ")
        client.close()
        assert setting.stat("cluster.up.upstream_cx_protocol_error") == 2


@pytest.mark.parametrize(
    "response",
    [
        HELLO,
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"2;x\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO,
        b"HTTP/1.1 500 Odd\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
    ],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_an_upstream_that_closes_at_every_byte(response: bytes, reset: bool) -> None:
    at = 0

    async def upstream(peer: Peer) -> None:
        await peer.message()
        await peer.send(response[:at])
        if reset:
            await asyncio.sleep(0.002)
            peer.reset()

    async with sidecar(upstream) as setting:
        seen: set[str] = set()
        for at in range(len(response) + 1):
            answer = await setting.exchange(GET[:-2] + b"Connection: close\r\n\r\n")
            result = verdict(answer)
            if at == len(response):
                assert result == response.split(b"HTTP/1.1 ")[-1][:3].decode() and b"hello" in answer
            else:
                assert result in ("502", "503", "cut"), (at, answer)
            seen.add(result)
        assert "cut" in seen and "503" in seen and ("502" in seen or reset)


async def test_a_body_to_the_end_of_the_connection_that_is_reset_is_cut() -> None:
    async def upstream(peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await asyncio.sleep(0.02)
        peer.reset()

    async with sidecar(upstream) as setting:
        answer = await setting.exchange(GET)
        assert verdict(answer) == "cut" and b"hello" in answer

    async with sidecar(saying(b"HTTP/1.1 200 OK\r\n\r\nhello", close=True)) as setting:
        client = await setting.client()
        await client.send(GET)
        assert (await client.message())[1] == b"hello"
        client.close()


@pytest.mark.parametrize("pause", [0.0, 0.05])
async def test_bytes_behind_a_response_do_not_reach_the_next_client(pause: float) -> None:
    async def upstream(peer: Peer) -> None:
        await peer.message()
        evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        if pause:
            await peer.send(HELLO)
            await asyncio.sleep(pause / 2)
            await peer.send(evil)
        else:
            await peer.send(HELLO + evil)
        await peer.rest()

    async with sidecar(upstream) as setting:
        for _ in range(3):
            client = await setting.client()
            await client.send(GET)
            assert (await client.message())[1] == b"hello"
            await asyncio.sleep(pause)
            client.close()
        assert setting.stat("cluster.up.upstream_cx_total") == 3


async def test_a_response_before_any_request_is_nobodys() -> None:
    first = True

    async def upstream(peer: Peer) -> None:
        nonlocal first
        if first:
            first = False
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await hello(peer)

    async with sidecar(upstream, routes=RETRIES) as setting:
        for _ in range(3):
            client = await setting.client()
            await client.send(GET)
            _, body = await client.message()
            assert body in (b"hello", b"evil")  # one that races with the request cannot be told from its answer
            client.close()
        await setting.serves()


async def test_a_flood_of_interim_responses() -> None:
    async def upstream(peer: Peer) -> None:
        while True:
            await peer.message()
            await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 20_000 + HELLO)

    async with sidecar(upstream) as setting:
        client = await setting.client()
        await client.send(GET)
        others = asyncio.create_task(setting.serves())
        assert (await client.message())[1] == b"hello"
        await others
        client.close()


async def test_a_huge_response_of_tiny_chunks() -> None:
    async def upstream(peer: Peer) -> None:
        await peer.message()
        await peer.send(CHUNKED + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n")
        await peer.rest()

    async with sidecar(upstream) as setting:
        client = await setting.client()
        await client.send(GET)
        assert (await client.message())[1] == b"x" * 200_000
        client.close()


async def test_a_huge_request_of_tiny_chunks() -> None:
    async def upstream(peer: Peer) -> None:
        _, body = await peer.message()
        assert body == b"x" * 200_000
        await peer.send(HELLO)
        await peer.rest()

    async with sidecar(upstream) as setting:
        client = await setting.client()
        request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(request + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n")
        assert (await client.message())[1] == b"hello"
        client.close()


@pytest.mark.parametrize("method", [b"GET", b"POST", b"PUT", b"PUT with a body", b"GET after an interim response"])
async def test_a_reused_connection_that_was_closed(method: bytes) -> None:
    """DESIGN.md's one rule: repeated only if it is idempotent, has no body, and nothing of an answer came."""
    heads: list[tuple[bytes, bytes]] = []

    async def upstream(peer: Peer) -> None:
        await peer.message()
        await peer.send(HELLO)
        heads.append(await peer.message())
        if b"interim" in method:
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(0.02)

    async with sidecar(upstream) as setting:
        client = await setting.client()
        await client.send(GET)
        assert (await client.message())[1] == b"hello"
        body = b"12345" if b"body" in method else b""
        await client.send(
            method.split()[0] + b" /2 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        head, _ = await client.message()
        repeated = method in (b"GET", b"PUT")
        assert head.startswith(b"HTTP/1.1 200 " if repeated else b"HTTP/1.1 503 ")
        assert len(heads) == 1
        assert setting.stat("cluster.up.upstream_rq_total") == 3 if repeated else 2
        assert setting.stat("cluster.up.upstream_rq_retry") == int(repeated)
        client.close()


async def test_a_connection_that_closed_while_idle_is_not_used() -> None:
    async with sidecar(saying(HELLO, close=True)) as setting:
        client = await setting.client()
        for _ in range(5):
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            assert (await client.message())[1] == b"hello"
            await eventually(lambda: setting.stat("cluster.up.upstream_cx_active") == 0)
        client.close()
        assert setting.stat("cluster.up.upstream_cx_total") == 5


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_early_answer_reaches_the_client(chunked: bool) -> None:
    """413 and close before the body is read: the write fails, and what the upstream said is read out first."""

    async def upstream(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        # the body is not read: closing sends an RST

    async with sidecar(upstream) as setting:
        framing = b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % (8 << 20)
        for _ in range(10):
            client = await setting.client()

            async def pour(client: Peer = client) -> None:
                await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
                for _ in range(128):
                    piece = b"x" * 65536
                    await client.send(b"10000\r\n" + piece + b"\r\n" if chunked else piece)

            pouring = asyncio.create_task(pour())
            head, body = await client.message()
            assert head.startswith(b"HTTP/1.1 413 ") and body == b"big", head
            assert b"\r\nconnection: close\r\n" in head
            await asyncio.gather(pouring, return_exceptions=True)
            client.close()
            await setting.at_rest()


@pytest.mark.parametrize("sends", [b"", b"HTTP/1.1 200 OK\r\n"])
async def test_a_slow_response_against_the_timeout(sends: bytes) -> None:
    async def upstream(peer: Peer) -> None:
        await peer.message()
        await peer.send(sends)
        await peer.rest()

    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0.1s"}}]
    async with sidecar(upstream, routes=routes) as setting:
        client = await setting.client()
        await client.send(GET)
        head, body = await client.message()
        assert head.startswith(b"HTTP/1.1 504 ") and body == b"upstream request timeout"
        client.close()


async def test_a_body_that_never_ends_against_the_timeout() -> None:
    async def upstream(peer: Peer) -> None:
        await peer.message()
        await peer.send(CHUNKED)
        while True:
            await peer.send(b"1\r\nx\r\n")
            await asyncio.sleep(0.01)

    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0.1s"}}]
    async with sidecar(upstream, routes=routes) as setting:
        assert verdict(await setting.exchange(GET)) == "cut"


async def test_per_try_timeouts_go_to_another_attempt() -> None:
    attempts = 0

    async def upstream(peer: Peer) -> None:
        nonlocal attempts
        await peer.message()
        attempts += 1
        if attempts == 3:
            await peer.send(HELLO)
        await peer.rest()

    policy = {"retry_on": "5xx", "num_retries": 3, "per_try_timeout": "0.1s"}
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": policy}}]
    async with sidecar(upstream, routes=routes) as setting:
        client = await setting.client()
        await client.send(GET)
        assert (await client.message())[1] == b"hello"
        assert setting.stat("cluster.up.upstream_rq_per_try_timeout") == 2
        client.close()


async def test_a_connection_that_takes_too_long() -> None:
    """A full backlog: the kernel drops our SYN."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        cluster = {"connect_timeout": "0.15s"}
        async with sidecar(cluster=cluster, port=full.getsockname()[1]) as setting:
            client = await setting.client()
            await client.send(GET)
            head, body = await client.message()
            assert head.startswith(b"HTTP/1.1 503 ") and b"connection timeout" in body
            assert setting.stat("cluster.up.upstream_cx_connect_timeout") == 1
            client.close()
        for filler in fillers:
            filler.close()


async def test_a_refused_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    async with sidecar(port=port) as setting:
        client = await setting.client()
        for _ in range(3):
            await client.send(GET)
            head, body = await client.message()
            assert head.startswith(b"HTTP/1.1 503 ") and b"remote connection failure" in body
        client.close()
        assert setting.stat("cluster.up.upstream_cx_connect_fail") == 3


async def test_an_upstream_that_resets_what_it_accepts() -> None:
    async def upstream(peer: Peer) -> None:
        peer.reset()

    async with sidecar(upstream) as setting:
        for _ in range(20):
            client = await setting.client()
            await client.send(GET)
            head, _ = await client.message()
            assert head.startswith(b"HTTP/1.1 503 ")
            client.close()


async def test_no_descriptors_left_for_an_upstream_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    from sidecar.pool.dialing import Dialer

    def none_left(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    async with sidecar() as setting:
        client = await setting.client()
        with monkeypatch.context() as patched:
            patched.setattr(Dialer, "_socket", none_left)
            await client.send(GET)
            head, body = await client.message()
            assert head.startswith(b"HTTP/1.1 503 ") and body.endswith(b"remote connection failure")
        await client.send(GET)
        assert (await client.message())[1] == b"hello"
        client.close()


async def test_stopping_while_a_connection_is_being_made() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        async with sidecar(port=full.getsockname()[1], at_rest=False) as setting:
            client = await setting.client()
            await client.send(GET)
            await eventually(lambda: setting.stat("cluster.up.upstream_cx_active") == 1)
        for filler in fillers:
            filler.close()
        client.close()
