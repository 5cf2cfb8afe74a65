"""Clients that are slow, many, or do not speak TLS at all."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sidecar.transport.handshake_limit import HandshakeLimit
from tests.sidecar.transport.serving import (
    AUTHORITY,
    OPENSSL,
    SERVER,
    client_context,
    client_hello,
    command,
    dial,
    downstream,
    exchange,
    in_thread,
    needs_openssl,
    on_loop,
    originating,
    serving,
    upstream,
    versions,
)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "268435612:SSL routines:OPENSSL_internal:HTTP_REQUEST:"),
        (b"\x00\x01 this is no TLS at all", "268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:"),
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", ""),
    ],
)
@pytest.mark.parametrize("several", [False, True])
@on_loop
async def test_what_is_no_client_hello_is_refused(sent: bytes, reason: str, several: bool) -> None:
    def talk(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(sent)
            while plain.recv(1000):
                pass

    certificates = [SERVER, AUTHORITY.issue("a", ["a.example"])] if several else [SERVER]
    async with serving(downstream(*certificates)) as server:
        await in_thread(talk, server.port)
        await server.until(lambda: server.stats.connection_error == 1)
        assert reason in server.reasons[0]
        assert server.inners == []
        assert len(server.surroundings.limit.active) == 0


@on_loop
async def test_a_client_that_goes_within_the_handshake_counts_as_nothing() -> None:
    async with serving(downstream()) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"\x16\x03\x01\x02\x00\x01")
        writer.close()
        await server.until(lambda: server.connections and server.connections[0].failure is not None)
        assert server.stats.set() == {} and server.reasons == [""]


@on_loop
async def test_a_slow_handshake_is_ended() -> None:
    async with serving(downstream(), handshake_timeout=0.05) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"\x16\x03\x01")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        assert server.timeouts == ["timeout"]
        assert server.connections[0].info.termination_details == "transport socket timeout was reached"
        writer.close()


@on_loop
async def test_a_quick_handshake_is_not_ended_later() -> None:
    async with serving(downstream(), handshake_timeout=0.1) as server:
        connection, inner = await dial(originating(upstream(), server.surroundings), server.port)
        await asyncio.sleep(0.2)
        connection.write(b"still here")
        await inner.until(lambda: inner.received == b"still here")
        assert len(server.surroundings.worker.wheel) == 0


@on_loop
async def test_handshakes_beyond_the_limit_wait_for_their_turn() -> None:
    limit = HandshakeLimit(maximum=1, patience=60.0)
    async with serving(downstream(), limit=limit) as server:
        _, first = await asyncio.open_connection("127.0.0.1", server.port)
        first.write(client_hello())
        await server.until(lambda: limit.active)
        waiting = asyncio.ensure_future(in_thread(exchange, server.port, client_context()))
        await server.until(lambda: limit.waiting)
        assert not waiting.done()
        first.close()
        assert await waiting == b"ping"
        assert not limit.active and not limit.waiting


@on_loop
async def test_who_waits_gets_the_place_of_one_that_has_had_its_time() -> None:
    limit = HandshakeLimit(maximum=1, patience=0.05)
    async with serving(downstream(), limit=limit) as server:
        _, first = await asyncio.open_connection("127.0.0.1", server.port)
        first.write(client_hello())
        await server.until(lambda: limit.active)
        assert await in_thread(exchange, server.port, client_context()) == b"ping"
        assert not limit.active and not limit.waiting
        first.close()


@on_loop
async def test_who_has_not_said_hello_does_not_count() -> None:
    limit = HandshakeLimit(maximum=1, patience=60.0)
    async with serving(downstream(), limit=limit) as server:
        writers = []
        for begun in (b"", client_hello()[:4], client_hello()[:-1]):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(begun)
            writers.append(writer)
        await server.until(lambda: len(server.connections) == 3)
        assert await in_thread(exchange, server.port, client_context()) == b"ping"
        assert not limit.active and not limit.waiting
        for writer in writers:
            writer.close()


@on_loop
async def test_a_flood_of_half_open_handshakes_makes_room_for_others() -> None:
    limit = HandshakeLimit(maximum=50, patience=0.0)
    async with serving(downstream(), limit=limit) as server:
        flood = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(200)]
        for _, writer in flood:
            writer.write(client_hello())
        await server.until(lambda: len(server.connections) == 200 and len(limit.active) == 50)
        for _ in range(3):
            assert await in_thread(exchange, server.port, client_context()) == b"ping"
        for _, writer in flood:
            writer.close()
        await server.until(lambda: not limit.active and not limit.waiting)


@needs_openssl
@on_loop
async def test_renegotiation_is_refused() -> None:
    async with serving(downstream(common=versions("TLSv1_2", "TLSv1_2"))) as server:
        assert OPENSSL is not None
        _, output = await command(
            OPENSSL, "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_2", given=b"R\n", timeout=10
        )
        assert "RENEGOTIATING" in output and "no renegotiation" in output
