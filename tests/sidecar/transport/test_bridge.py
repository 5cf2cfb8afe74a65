"""A socket pair in front of TLS: both directions whole, each with its own end, and the end of either side told."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sidecar.transport.bridge import SocketBridge
from sidecar.transport.downstream import DownstreamTls
from tests.sidecar.transport.serving import (
    Inner,
    Serving,
    dial,
    downstream,
    on_loop,
    originating,
    run,
    serving,
    upstream,
)

BIG = os.urandom(1 << 20) * 8


def bridging(server_test: Callable[[Serving, list[SocketBridge]], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """Run with a server whose connections end in socket pairs."""

    async def wrapped() -> None:
        bridges: list[SocketBridge] = []

        def make() -> Any:
            bridges.append(SocketBridge(asyncio.get_running_loop(), 65536))
            return bridges[-1]

        async with serving(downstream(), make) as server:
            assert isinstance(server.tls, DownstreamTls)
            await server_test(server, bridges)
            for bridge in bridges:
                bridge.far.close()

    wrapped.__name__ = server_test.__name__
    return wrapped


async def joined(server: Serving, bridges: list[SocketBridge]) -> tuple[Any, Inner, socket.socket]:
    connection, inner = await dial(originating(upstream(), server.surroundings), server.port)
    await server.until(lambda: bridges)
    return connection, inner, bridges[0].far


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_both_directions_and_both_ends(loop: str) -> None:
    @bridging
    async def test(server: Serving, bridges: list[SocketBridge]) -> None:
        connection, inner, far = await joined(server, bridges)
        here = asyncio.get_running_loop()

        async def send() -> None:
            await here.sock_sendall(far, BIG)
            far.shutdown(socket.SHUT_WR)

        async def receive() -> bytes:
            data = bytearray()
            while piece := await here.sock_recv(far, 65536):
                data += piece
            return bytes(data)

        sending = here.create_task(send())
        connection.write(BIG[::-1])
        connection.write_eof()
        assert await receive() == BIG[::-1]
        await inner.until(lambda: "eof" in inner.events, 30)
        assert bytes(inner.received) == BIG
        await sending
        await inner.until(lambda: "eof" in inner.events)
        await server.until(lambda: bridges[0].transport is None)
        assert bridges[0].near.fileno() == -1

    run(test(), loop)  # type: ignore[arg-type]


@on_loop
@bridging
async def test_the_answer_comes_after_the_end_of_the_question(server: Serving, bridges: list[SocketBridge]) -> None:
    connection, inner, far = await joined(server, bridges)
    loop = asyncio.get_running_loop()
    connection.write(b"question")
    connection.write_eof()
    assert await loop.sock_recv(far, 100) == b"question"
    assert await loop.sock_recv(far, 100) == b""
    await loop.sock_sendall(far, b"answer")
    far.shutdown(socket.SHUT_WR)
    await inner.until(lambda: "eof" in inner.events)
    assert inner.received == b"answer"


@on_loop
@bridging
async def test_closing_the_far_end_closes_the_connection(server: Serving, bridges: list[SocketBridge]) -> None:
    _, inner, far = await joined(server, bridges)
    far.send(b"bye")
    far.close()
    await inner.until(lambda: "eof" in inner.events)
    assert inner.received == b"bye"
    await server.until(lambda: bridges[0].transport is None)


@on_loop
@bridging
async def test_closing_the_far_end_with_unread_data_closes_the_connection(
    server: Serving, bridges: list[SocketBridge]
) -> None:
    connection, inner, far = await joined(server, bridges)
    connection.write(BIG)
    await server.until(lambda: bridges[0].rest)
    far.close()
    await inner.until(lambda: "eof" in inner.events or "lost" in inner.events)
    await server.until(lambda: bridges[0].transport is None)
    assert not bridges[0].rest


@on_loop
@bridging
async def test_a_lost_connection_ends_the_far_end(server: Serving, bridges: list[SocketBridge]) -> None:
    connection, _, far = await joined(server, bridges)
    connection.abort()
    assert await asyncio.get_running_loop().sock_recv(far, 100) == b""


@on_loop
@bridging
async def test_a_far_end_that_does_not_read_stops_the_client(server: Serving, bridges: list[SocketBridge]) -> None:
    connection, inner, far = await joined(server, bridges)
    connection.set_write_buffer_limits(high=65536)
    written = 0
    while "pause" not in inner.events:
        connection.write(BIG[:65536])
        written += 65536
        assert written < 64 << 20
        await asyncio.sleep(0)
    got = 0
    while got < written:
        got += len(await asyncio.get_running_loop().sock_recv(far, 1 << 20))
    await inner.until(lambda: "resume" in inner.events)


@on_loop
async def test_an_endpoint_behind_tls_is_a_socket_too() -> None:
    async with serving(downstream()) as server:
        tls = originating(upstream(), server.surroundings)
        loop = asyncio.get_running_loop()
        bridge = SocketBridge(loop, 65536)
        connection = tls.connect(bridge)
        await loop.create_connection(lambda: connection, "127.0.0.1", server.port)
        await connection.ready()
        with bridge.far as far:
            await loop.sock_sendall(far, b"through a socket")
            assert await loop.sock_recv(far, 100) == b"through a socket"
        await server.until(lambda: bridge.transport is None)


@on_loop
@bridging
async def test_what_had_come_before_the_connection_was_lost_is_delivered(
    server: Serving, bridges: list[SocketBridge]
) -> None:
    connection, _, far = await joined(server, bridges)
    loop = asyncio.get_running_loop()
    far.send(b"our side ends first")
    far.shutdown(socket.SHUT_WR)
    connection.write(BIG)
    connection.write_eof()
    await server.until(lambda: bridges[0].rest)
    got = bytearray()
    while piece := await loop.sock_recv(far, 100_000):
        got += piece
    assert bytes(got) == BIG
    await server.until(lambda: bridges[0].transport is None)


@on_loop
@bridging
async def test_bytes_held_when_the_connection_is_reset_are_delivered(
    server: Serving, bridges: list[SocketBridge]
) -> None:
    connection, _, far = await joined(server, bridges)
    loop = asyncio.get_running_loop()
    connection.write(BIG)
    await server.until(lambda: bridges[0].rest)
    server.connections[0].abort()
    await server.until(lambda: bridges[0].transport is None)
    held = len(bridges[0].rest)
    got = bytearray()
    while piece := await loop.sock_recv(far, 100_000):
        got += piece
    assert len(got) > held > 0 and BIG.startswith(bytes(got))
    await server.until(lambda: bridges[0].near.fileno() == -1)
