"""Clients that abuse TLS: handshakes that stop, never end, come by the thousand, or are no handshakes; records that are none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sidecar import Server
from tests.hostile.surroundings import eventually
from tests.sidecar.bootstraps import direct, http_listener
from tests.sidecar.tls_bootstraps import client_context, connected, counted, secured, serving
from tests.sidecar.transport.serving import client_hello

ADDRESS = "listener.127.0.0.1_0"
HELLO = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


@contextlib.asynccontextmanager
async def tls_sidecar(handshake_timeout: str = "15s") -> AsyncIterator[Server]:
    """A sidecar that answers by itself behind TLS; whatever happened, it is at rest and serves in the end."""
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    listener = secured(http_listener("in", 0, [direct("hello")]))
    listener["filter_chains"][0]["transport_socket_connect_timeout"] = handshake_timeout
    async with asyncio.timeout(60), serving(listener) as server:
        yield server
        await serves(server)
        await eventually(lambda: not counted(server).get(ADDRESS + ".downstream_cx_active"))
        assert server.stack is not None
        limit = server.stack.tls.limit
        assert not limit.active and not limit.waiting
    assert not problems, problems


async def serves(server: Server) -> None:
    """A proper client gets its answer."""
    async with connected(server.address("in")[1], client_context(names=True)) as client:
        assert await client.get() == (200, b"hello")


def client_bytes(server_port: int, version: ssl.TLSVersion) -> list[bytes]:
    """What a proper client sends to shake hands, flight by flight."""
    context = client_context()
    context.minimum_version = context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="server.example")
    flights = []
    with socket.create_connection(("127.0.0.1", server_port), timeout=10) as plain:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                flights.append(outgoing.read())
                plain.sendall(flights[-1])
                incoming.write(plain.recv(65536))
        if outgoing.pending:
            flights.append(outgoing.read())
            plain.sendall(flights[-1])
    return flights


def cuts(data: bytes) -> Iterator[int]:
    """Where to cut: within each record's header, at its end, and here and there."""
    at = 0
    while at < len(data):
        end = at + 5 + int.from_bytes(data[at + 3 : at + 5], "big")
        yield from (at + 1, at + 4, at + 5, at + 6, (at + end) // 2, end - 1, end)
        at = end


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize("abruptly", [False, True], ids=["end", "reset"])
async def test_handshakes_that_stop_anywhere(version: ssl.TLSVersion, abruptly: bool) -> None:
    async with tls_sidecar() as server:
        port = server.address("in")[1]
        loop = asyncio.get_running_loop()
        flights = await loop.run_in_executor(None, client_bytes, port, version)
        await eventually(lambda: counted(server).get(ADDRESS + ".ssl.handshake") == 1)
        stops = 0
        for number, flight in enumerate(flights):
            for cut in sorted(set(cuts(flight)))[: -1 if flight is flights[-1] else None]:
                client = await dial(port, flights[:number], abruptly)
                await loop.sock_sendall(client, flight[:cut])
                client.close()
                stops += 1
        await eventually(lambda: counted(server).get(ADDRESS + ".downstream_cx_destroy", 0) >= stops + 1)
        assert stops > 10 and counted(server)[ADDRESS + ".ssl.handshake"] == 1


async def dial(port: int, flights: list[bytes] | None = None, abruptly: bool = False) -> socket.socket:
    """A client that has sent these flights and read what came back; ``abruptly`` it will go with a reset."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setblocking(False)
    if abruptly:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await loop.sock_connect(client, ("127.0.0.1", port))
    for flight in flights or []:
        await loop.sock_sendall(client, flight)
        await loop.sock_recv(client, 65536)
    return client


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("part", "bytes_each"), [("half", 12_000), ("all", 48_000)])
async def test_a_flood_of_client_hellos(part: str, bytes_each: int) -> None:
    """More than may shake hands at a time, and never to the end: others are served, and what each one costs is bounded."""
    count = 1200
    limit, highest = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < 2 * count + 200:
        if highest < 2 * count + 200:
            pytest.skip("needs more open files than this system allows")
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * count + 200, highest))
    async with tls_sidecar() as server:
        port = server.address("in")[1]
        await serves(server)
        hello = client_hello()
        if part == "half":
            hello = hello[: len(hello) // 2]
        assert server.stack is not None
        shaking = server.stack.tls.limit
        loop = asyncio.get_running_loop()
        before = resident()
        flood = []
        for _ in range(count):
            flood.append(await dial(port))
            await loop.sock_sendall(flood[-1], hello)
        await eventually(lambda: counted(server).get(ADDRESS + ".downstream_cx_active") == count, 20)
        if part == "half":
            assert not shaking.active and not shaking.waiting
        else:
            await eventually(lambda: len(shaking.active) == shaking.maximum == 1024 and shaking.waiting, 20)
        assert (resident() - before) / count < bytes_each
        await serves(server)
        for client in flood:
            client.close()


async def test_a_handshake_in_single_bytes_is_ended_in_time() -> None:
    async with tls_sidecar("0.3s") as server:
        port = server.address("in")[1]
        loop = asyncio.get_running_loop()
        client = await dial(port)
        started = loop.time()
        with contextlib.suppress(ConnectionError):
            for byte in client_hello():
                await loop.sock_sendall(client, bytes((byte,)))
                if counted(server).get(ADDRESS + ".downstream_cx_transport_socket_connect_timeout"):
                    break
                await asyncio.sleep(0.01)
        assert 0.2 < loop.time() - started < 3
        client.close()


RECORDS = {
    "plain HTTP": HELLO,
    "an empty handshake record again and again": b"\x16\x03\x01\x00\x00" * 20_000,
    "change cipher specs": b"\x14\x03\x03\x00\x01\x01" * 20_000,
    "warnings": b"\x15\x03\x01\x00\x02\x01\x5a" * 20_000,
    "a record longer than any": b"\x16\x03\x01\xff\xff" + bytes(65535),
    "a hello longer than any": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff"
    + bytes(0x3FFC)
    + (b"\x16\x03\x01\x40\x00" + bytes(0x4000)) * 60,
    "data before the handshake": b"\x17\x03\x03\x00\x20" + bytes(32),
    "heartbeats": b"\x18\x03\x03\x00\x03\x01\xff\xff" * 1000,
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40),
    "chance": random.Random(1).randbytes(100_000),
}  # fmt: skip


@pytest.mark.parametrize("sent", RECORDS.values(), ids=RECORDS.keys())
async def test_what_is_no_handshake(sent: bytes) -> None:
    async with tls_sidecar("2s") as server:
        client = await dial(server.address("in")[1])
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(client, sent)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := await loop.sock_recv(client, 65536):
                answer += data
        client.close()
        assert len(answer) < 100, "an alert at most"
        assert not counted(server).get(ADDRESS + ".ssl.handshake")


@pytest.mark.parametrize("kind", [b"\x16", b"\x17", b"\x15", b"\x00"])
async def test_records_that_nobody_encrypted_in_an_open_connection(kind: bytes) -> None:
    async with tls_sidecar() as server:
        context = client_context()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="server.example")
        loop = asyncio.get_running_loop()
        client = await dial(server.address("in")[1])
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await loop.sock_sendall(client, outgoing.read())
                incoming.write(await loop.sock_recv(client, 65536))
        tls.write(HELLO)
        await loop.sock_sendall(client, outgoing.read() + kind + b"\x03\x03\x00\x20" + bytes(32))
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := await loop.sock_recv(client, 65536):
                answer += data
        incoming.write(answer)
        with pytest.raises(ssl.SSLError, match="ALERT"):
            tls.read(65536)
        client.close()
        assert counted(server)[ADDRESS + ".ssl.connection_error"] == 1
