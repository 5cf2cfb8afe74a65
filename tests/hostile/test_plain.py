"""The surroundings themselves, and the ordinary exchanges that every hostile one is measured by."""

from __future__ import annotations

from tests.hostile.surroundings import GET, HELLO, Peer, sidecar


async def test_keep_alive_and_reuse() -> None:
    async with sidecar() as setting:
        client = await setting.client()
        for _ in range(3):
            await client.send(GET)
            head, body = await client.message()
            assert head.startswith(b"HTTP/1.1 200 OK\r\n") and body == b"hello"
        client.close()
        await setting.at_rest()
        assert setting.stat("cluster.up.upstream_cx_total") == 1


async def test_a_body_each_way() -> None:
    async def echo(peer: Peer) -> None:
        while True:
            _, body = await peer.message()
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

    async with sidecar(echo) as setting:
        client = await setting.client()
        for request in (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nworld",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nworld\r\n0\r\n\r\n",
        ):
            await client.send(request)
            assert (await client.message())[1] == b"world"
        client.close()


async def test_http_10() -> None:
    manager = {"http_protocol_options": {"accept_http_10": True}}
    async with sidecar(manager=manager) as setting:
        assert (await setting.exchange(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")).endswith(b"hello")
        client = await setting.client()
        for _ in range(2):
            await client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            head, body = await client.message()
            assert b"\r\nconnection: keep-alive\r\n" in head and body == HELLO[-5:]
        client.close()
