"""What hostile peers and unlucky moments do to a connection: memory stays bounded, nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import ssl
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.core.address import Address
from sidecar.core.stream_info import ConnectionInfo
from sidecar.listener.client_hello import parse_client_hello
from sidecar.transport.downstream import DownstreamConnection, DownstreamTls
from sidecar.transport.failures import TlsFailure
from sidecar.transport.stream import TlsStream
from tests.sidecar.transport.serving import (
    AUTHORITY,
    SERVER,
    Factory,
    Inner,
    Stats,
    client_context,
    dial,
    downstream,
    echo,
    exchange,
    in_thread,
    on_loop,
    originating,
    run,
    serving,
    surroundings,
    upstream,
)


class Raw:
    """A raw transport in memory. ``unsent`` is what it says of its buffer."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.calls: list[str] = []
        self.unsent = 0

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self.calls.append(name)

    def take(self) -> bytes:
        data = bytes(self.written)
        self.written.clear()
        return data


class Pair:
    """Our server and a client of the ssl module, in memory."""

    def __init__(self, tls: DownstreamTls, context: ssl.SSLContext | None = None) -> None:
        here = Address("127.0.0.1", 1)
        self.connection: DownstreamConnection = tls.accept(ConnectionInfo(1, here, here, 0.0))
        self.raw = Raw()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = (context or client_context()).wrap_bio(
            self.incoming, self.outgoing, server_hostname="server.example"
        )
        self.connection.connection_made(self.raw)

    def shake(self) -> None:
        for _ in range(4):
            with suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            if self.outgoing.pending:
                self.connection.data_received(self.outgoing.read())
            self.incoming.write(self.raw.take())

    def sent(self, data: bytes) -> bytes:
        self.client.write(data)
        return self.outgoing.read()

    def received(self) -> bytes:
        """What the client has got since it last looked."""
        self.incoming.write(self.raw.take())
        data = b""
        with suppress(ssl.SSLWantReadError):
            while piece := self.client.read(65536):
                data += piece
        return data


def in_memory(*certificates: Any, make: Any = lambda info: Inner(echo)) -> DownstreamTls:
    around = surroundings()
    return DownstreamTls(
        downstream(*certificates),
        around.secrets,
        Stats(),
        Factory(),
        around.worker,
        around.limit,
        parse_client_hello,
        make,
        0,
    )


@on_loop
async def test_a_peer_that_makes_tls_answer_and_reads_nothing_is_given_up() -> None:
    pair = Pair(in_memory())
    pair.shake()
    connection = pair.connection

    def provoke(times: int) -> None:
        for _ in range(times):  # as a key update does, which the ssl module cannot send
            connection.outgoing.write(b"answer")
            connection.data_received(b"")

    provoke(1000)
    assert "abort" not in pair.raw.calls  # it reads
    pair.raw.unsent = 2 << 20
    pair.raw.take()
    connection.data_received(pair.sent(b"data"))
    connection.outgoing.write(b"answer")
    connection.data_received(pair.sent(b"more"))
    provoke(32)
    assert "abort" not in pair.raw.calls
    provoke(1)
    assert "abort" in pair.raw.calls and connection.is_closing()


@on_loop
async def test_a_connection_that_was_given_up_before_it_was_made_is_aborted() -> None:
    connection = in_memory().accept(ConnectionInfo(1, Address("127.0.0.1"), Address("127.0.0.1"), 0.0))
    connection.abort()
    raw = Raw()
    connection.connection_made(raw)
    assert raw.calls == ["abort"] and not connection.limit.active
    connection.connection_lost(None)


@on_loop
async def test_cancelling_a_wait_for_the_handshake_aborts_it() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        heard.set()
        writer.close()

    heard = asyncio.Event()
    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    tls = originating(upstream(), surroundings())
    inner = Inner()
    connection = tls.connect(inner)
    await asyncio.get_running_loop().create_connection(
        lambda: connection, "127.0.0.1", listener.sockets[0].getsockname()[1]
    )
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await connection.ready()
    async with asyncio.timeout(5):
        await heard.wait()
    assert inner.events == [] and not tls.limit.active
    listener.close()


@on_loop
async def test_waiting_for_a_handshake_that_is_over_returns_at_once() -> None:
    async with serving(downstream()) as server:
        connection, _ = await dial(originating(upstream(), server.surroundings), server.port)
        await connection.ready()
        failing = originating(upstream(sni="x.example", auto_sni_san_validation=True), server.surroundings)
        refused = failing.connect(Inner())
        await asyncio.get_running_loop().create_connection(lambda: refused, "127.0.0.1", server.port)
        with pytest.raises(TlsFailure):
            await refused.ready()
        with pytest.raises(TlsFailure):
            await refused.ready()


@on_loop
async def test_connections_are_freed_without_the_collector() -> None:
    def alive() -> int:
        return sum(isinstance(one, (TlsStream, Inner)) for one in gc.get_objects())

    async with serving(downstream(), lambda: Inner(echo, keep_half_open=False)) as server:
        await in_thread(exchange, server.port, client_context())
        server.connections.clear()
        server.inners.clear()
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for _ in range(5):
                await in_thread(exchange, server.port, client_context())
            await server.until(lambda: ["lost" in inner.events for inner in server.inners] == [True] * 5)
            server.connections.clear()
            while server.inners:
                server.inners.pop().transport = None  # a protocol lets go of its transport when that is lost
            await server.until(lambda: alive() <= before, 5)
        finally:
            gc.enable()


@on_loop
async def test_records_after_the_end_are_not_delivered() -> None:
    pair = Pair(in_memory())
    pair.shake()
    inner = pair.connection.inner
    pair.connection.close()
    pair.connection.data_received(pair.sent(b"too late"))
    assert inner.received == b"" and pair.received() == b""
    assert pair.raw.calls[-1] == "close"
    pair.connection.connection_lost(None)
    assert inner.events == ["made", "lost"]
    pair.connection.write(b"nothing happens")
    pair.connection.close()


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40_000), max_size=6),
    cuts=st.lists(st.integers(1, 20_000), min_size=1, max_size=20),
    pauses=st.lists(st.booleans(), min_size=1, max_size=8),
    several=st.booleans(),
)
def test_any_stream_cut_anyhow_with_any_pauses_arrives_whole(
    pieces: list[bytes], cuts: list[int], pauses: list[bool], several: bool
) -> None:
    class Moody(Inner):
        """Pauses after some pieces, and goes on a little later."""

        reads = 0

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.write(data)
            self.reads += 1
            if pauses[self.reads % len(pauses)]:
                self.transport.pause_reading()
                asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    async def test() -> None:
        certificates = [SERVER, AUTHORITY.issue("a", ["a.example"])] if several else [SERVER]
        pair = Pair(in_memory(*certificates, make=lambda info: Moody()))
        pair.shake()
        inner = pair.connection.inner
        stream = b"".join(pair.sent(piece) for piece in pieces)
        with pytest.raises(ssl.SSLWantReadError):
            pair.client.unwrap()
        stream += pair.outgoing.read()
        at = number = 0
        while at < len(stream):
            size = cuts[number % len(cuts)]
            number += 1
            pair.connection.data_received(stream[at : at + size])
            at += size
            if number % 3 == 0:
                await asyncio.sleep(0)
        for _ in range(len(pieces) * 4 + 20):
            await asyncio.sleep(0)
        assert inner.received == b"".join(pieces)
        assert inner.events == ["made", "eof"]
        assert pair.raw.calls.count("close") == 0

    run(test(), "asyncio")


@on_loop
async def test_bytes_changed_on_the_way_break_the_connection_and_nothing_else() -> None:
    choose = random.Random(5)
    tls = in_memory()
    for _ in range(60):
        pair = Pair(tls)
        pair.shake()
        inner = pair.connection.inner
        stream = bytearray(pair.sent(b"a" * 500) + pair.sent(b"b" * 500))
        stream[choose.randrange(len(stream))] ^= 1 << choose.randrange(8)
        pair.connection.data_received(bytes(stream))
        for _ in range(3):
            await asyncio.sleep(0)
        assert bytes(inner.received) in (b"", b"a" * 500)
        pair.connection.connection_lost(None)
        assert inner.events == ["made", "lost"]


@on_loop
async def test_random_bytes_in_place_of_a_handshake() -> None:
    choose = random.Random(7)
    for certificates in ([SERVER], [SERVER, AUTHORITY.issue("a", ["a.example"])]):
        tls = in_memory(*certificates)
        for _ in range(200):
            pair = Pair(tls)
            with pytest.raises(ssl.SSLWantReadError):
                pair.client.do_handshake()
            hello = bytearray(pair.outgoing.read())
            if choose.random() < 0.3:
                hello = bytearray(os.urandom(choose.randrange(1, 2000)))
            for _ in range(choose.randrange(1, 4)):
                hello[choose.randrange(len(hello))] = choose.randrange(256)
            pair.connection.data_received(bytes(hello))
            pair.connection.connection_lost(None)
            assert pair.connection.failure is not None
        assert not tls.limit.active


@on_loop
async def test_a_handshake_that_fails_shows_nothing_to_the_inner_protocol() -> None:
    made: list[Any] = []
    tls = in_memory(make=lambda info: made.append(info))
    pair = Pair(tls, ssl.create_default_context())  # trusts others than us
    with pytest.raises(ssl.SSLCertVerificationError):
        pair.shake()
    pair.connection.data_received(pair.outgoing.read())
    assert made == []
    assert pair.connection.info.transport_failure_reason == (
        "TLS_error:|268436504:SSL routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA:TLS_error_end"
    )
    stats = tls.stats
    assert isinstance(stats, Stats) and stats.set() == {"connection_error": 1}


class Once(Raw):
    """Keeps its writes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        super().write(data)
        self.writes.append(bytes(data))

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))


@on_loop
@pytest.mark.parametrize("size", [1, 16384])
async def test_the_last_words_leave_with_the_tickets_and_close_notify_in_one_write(size: int) -> None:
    pair = Pair(in_memory(SERVER))
    raw = pair.raw = Once()
    pair.connection.raw = raw
    pair.shake()
    handshake = len(raw.writes)
    pair.connection.write_last(b"w" * size)
    assert len(raw.writes) == handshake + 1
    assert raw.calls[-1] == "write_eof"
    pair.incoming.write(raw.take())
    assert pair.client.read(65536) == b"w" * size
    assert pair.client.read(1) == b""  # close_notify
    pair.connection.write_eof()  # has been said
    with pytest.raises(RuntimeError, match="after write_eof"):
        pair.connection.write_last(b"more")
    assert len(raw.writes) == handshake + 1


@on_loop
async def test_last_words_of_many_records_come_whole() -> None:
    pair = Pair(in_memory(SERVER))
    pair.raw = pair.connection.raw = Once()
    pair.shake()
    data = random.Random(7).randbytes(300_000)
    pair.connection.write_last(data)
    pair.incoming.write(pair.raw.take())
    got = b""
    while piece := pair.client.read(65536):
        got += piece
    assert got == data
    assert pair.raw.calls[-1] == "write_eof"
