"""Bytes through TLS: nothing is lost, both directions end on their own, back-pressure reaches the other end."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl

import pytest

from sidecar.transport.failures import TlsFailure
from tests.sidecar.transport.serving import (
    CLIENT,
    OPENSSL,
    Inner,
    client_context,
    command,
    dial,
    downstream,
    echo,
    in_thread,
    needs_openssl,
    on_loop,
    originating,
    run,
    serving,
    upstream,
)

BIG = os.urandom(1 << 20) * 10
LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
VERSIONS = pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])


def only(version: str) -> dict[str, object]:
    return {"tls_params": {"tls_minimum_protocol_version": version, "tls_maximum_protocol_version": version}}


@LOOPS
@VERSIONS
def test_ten_megabytes_both_ways_with_both_ends_reading_slowly(loop: str, version: str) -> None:
    class Slow(Inner):
        """Stops reading after each piece for a turn of the loop, and writes only while it may."""

        def __init__(self) -> None:
            super().__init__()
            self.rest = memoryview(BIG)
            self.may_write = True
            self.pauses = 0

        def connection_made(self, transport: object) -> None:
            super().connection_made(transport)
            self.transport.set_write_buffer_limits(high=65536)
            self.pump()

        def pump(self) -> None:
            while self.may_write and self.rest:
                self.transport.write(self.rest[:100_000])
                self.rest = self.rest[100_000:]
            if not self.rest and self.may_write:
                self.transport.write_eof()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.transport.pause_reading()
            self.pauses += 1
            asyncio.get_running_loop().call_soon(self.transport.resume_reading)

        def pause_writing(self) -> None:
            super().pause_writing()
            self.may_write = False

        def resume_writing(self) -> None:
            super().resume_writing()
            self.may_write = True
            self.pump()

    async def test() -> None:
        async with serving(downstream(), Slow) as server:
            tls = originating(upstream(common=only(version)), server.surroundings)
            connection, inner = await dial(tls, server.port, Slow())
            await inner.until(lambda: "eof" in inner.events, 60)
            await server.until(lambda: "eof" in server.inners[0].events, 60)
            there = await server.first()
            assert bytes(inner.received) == BIG
            assert bytes(there.received) == BIG
            assert "pause" in inner.events or "pause" in there.events
            connection.close()
            there.transport.close()
            await inner.until(lambda: "lost" in inner.events)
            await there.until(lambda: "lost" in there.events)
            assert inner.error is None and there.error is None

    run(test(), loop)


@LOOPS
def test_a_client_that_does_not_read_stops_the_writer(loop: str) -> None:
    async def test() -> None:
        async with serving(downstream(), lambda: Inner()) as server:
            tls = originating(upstream(), server.surroundings)
            connection, inner = await dial(tls, server.port)
            connection.pause_reading()
            there = await server.first()
            there.transport.set_write_buffer_limits(high=65536)
            written = 0
            while "pause" not in there.events:
                there.transport.write(BIG[:65536])
                written += 65536
                assert written < 64 << 20
            assert there.transport.get_write_buffer_size() > 65536
            assert not inner.received
            connection.resume_reading()
            await there.until(lambda: "resume" in there.events)
            await inner.until(lambda: len(inner.received) == written)

    run(test(), loop)


@LOOPS
@VERSIONS
def test_each_direction_ends_on_its_own(loop: str, version: str) -> None:
    async def test() -> None:
        async with serving(downstream(), lambda: Inner()) as server:
            tls = originating(upstream(common=only(version)), server.surroundings)
            connection, inner = await dial(tls, server.port)
            there = await server.first()
            connection.write(b"question")
            connection.write_eof()
            await there.until(lambda: "eof" in there.events)
            assert there.received == b"question"
            for piece in (b"a ", b"late ", b"answer"):
                there.transport.write(piece)
                await asyncio.sleep(0)
            there.transport.write_eof()
            await inner.until(lambda: "eof" in inner.events)
            assert inner.received == b"a late answer"
            assert "lost" not in inner.events and "lost" not in there.events
            connection.close()
            there.transport.close()
            await inner.until(lambda: "lost" in inner.events)
            assert inner.error is None

    run(test(), loop)


@on_loop
async def test_writing_after_write_eof_is_an_error_and_a_second_write_eof_is_not() -> None:
    async with serving(downstream()) as server:
        connection, _ = await dial(originating(upstream(), server.surroundings), server.port)
        connection.write_eof()
        connection.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            connection.write(b"x")


@on_loop
async def test_an_inner_protocol_that_does_not_want_half_a_connection_has_it_closed() -> None:
    async with serving(downstream(), lambda: Inner(echo, keep_half_open=False)) as server:
        connection, inner = await dial(originating(upstream(), server.surroundings), server.port)
        connection.write(b"x")
        connection.write_eof()
        await inner.until(lambda: "eof" in inner.events)
        assert inner.received == b"x"
        await server.until(lambda: "lost" in server.inners[0].events)


@on_loop
async def test_what_was_written_before_close_arrives() -> None:
    def burst(inner: Inner, data: bytes) -> None:
        inner.transport.writelines([b"head", BIG[: 3 << 20]])
        inner.transport.close()
        inner.transport.write(b"too late")

    async with serving(downstream(), lambda: Inner(burst)) as server:
        connection, inner = await dial(originating(upstream(), server.surroundings), server.port)
        connection.write(b"go")
        await inner.until(lambda: "eof" in inner.events)
        assert bytes(inner.received) == b"head" + BIG[: 3 << 20]


@on_loop
async def test_write_eof_while_unread_data_is_held_loses_none_of_it() -> None:
    """OpenSSL throws away what it has not decrypted yet when it is told to shut down."""

    class Greedy(Inner):
        def connection_made(self, transport: object) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

    async with serving(downstream(), Greedy) as server:
        connection, _ = await dial(originating(upstream(), server.surroundings), server.port)
        there = await server.first()
        held = server.connections[0]
        # As if it had come with the end of the handshake: decrypting is the connection's business, not the socket's.
        connection.encrypt(b"early")
        held.incoming.write(connection.outgoing.read())
        there.transport.write_eof()
        assert there.received == b""
        there.transport.resume_reading()
        await there.until(lambda: there.received)
        assert there.received == b"early"
        connection.write(b" and late")
        await there.until(lambda: there.received == b"early and late")


@on_loop
async def test_data_and_the_end_in_one_read_come_apart() -> None:
    async with serving(downstream(), lambda: Inner()) as server:
        connection, _ = await dial(originating(upstream(), server.surroundings), server.port)
        there = await server.first()
        connection.encrypt(b"one")
        connection.encrypt(b"two")
        with pytest.raises(ssl.SSLWantReadError):
            assert connection.ssl_object is not None
            connection.ssl_object.unwrap()
        server.connections[0].data_received(connection.outgoing.read())
        await there.until(lambda: "eof" in there.events)
        assert there.received == b"onetwo"


@on_loop
async def test_data_in_front_of_an_alert_is_delivered() -> None:
    async with serving(downstream(), lambda: Inner()) as server:
        connection, _ = await dial(originating(upstream(), server.surroundings), server.port)
        there = await server.first()
        connection.encrypt(b"last words")
        server.connections[0].data_received(connection.outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
        await there.until(lambda: "lost" in there.events)
        assert there.received == b"last words"
        failure = there.transport.get_extra_info("tls_failure")
        assert isinstance(failure, TlsFailure)
        assert "DECRYPTION_FAILED_OR_BAD_RECORD_MAC" in failure.words
        assert server.reasons == [failure.words]
        assert there.error is None  # nobody is to look for more in the socket
        assert server.stats.connection_error == 1


@on_loop
async def test_an_end_without_close_notify_ends_the_stream_as_in_envoy() -> None:
    def truncated(port: int) -> bytes:
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        wrapped = client_context().wrap_socket(plain, server_hostname="server.example", suppress_ragged_eofs=False)
        wrapped.sendall(b"cut")
        answer = wrapped.recv(100)
        wrapped.shutdown(socket.SHUT_WR)
        wrapped.close()
        return answer

    async with serving(downstream()) as server:
        assert await in_thread(truncated, server.port) == b"cut"
        there = await server.first()
        await there.until(lambda: "eof" in there.events)
        assert there.received == b"cut"


@on_loop
async def test_a_record_cut_short_ends_the_connection_without_its_bytes() -> None:
    async with serving(downstream(), lambda: Inner(keep_half_open=False)) as server:
        connection, _ = await dial(originating(upstream(), server.surroundings), server.port)
        there = await server.first()
        connection.encrypt(b"x" * 1000)
        record = connection.outgoing.read()
        connection.raw.write(record[:-1])
        connection.raw.write_eof()
        await there.until(lambda: "lost" in there.events)
        assert there.received == b""


@LOOPS
def test_every_way_to_cut_the_stream_gives_the_same_bytes(loop: str) -> None:
    async def test() -> None:
        async with serving(downstream(), lambda: Inner()) as server:
            connection, _ = await dial(originating(upstream(), server.surroundings), server.port)
            there = await server.first()
            held = server.connections[0]
            for size in (1, 2, 5, 6, 7, 100, 4096):
                there.received.clear()
                connection.encrypt(b"a" * 300)
                connection.encrypt(b"b" * 20000)
                stream = connection.outgoing.read()
                for at in range(0, len(stream), size):
                    held.data_received(stream[at : at + size])
                assert there.received == b"a" * 300 + b"b" * 20000

    run(test(), loop)


@on_loop
async def test_the_transport_answers_questions_about_itself() -> None:
    config = upstream(CLIENT, common={"alpn_protocols": ["x", "y"]})
    server_config = downstream(common={"alpn_protocols": ["y"]})
    async with serving(server_config) as server:
        connection, inner = await dial(originating(config, server.surroundings), server.port)
        assert connection.get_extra_info("socket").getpeername()[1] == server.port
        assert connection.get_extra_info("ssl_object") is connection.ssl_object
        assert connection.get_extra_info("cipher")[1] == "TLSv1.2"
        assert connection.get_extra_info("peercert")["subject"] == ((("commonName", "server"),),)
        assert connection.get_extra_info("sslcontext").verify_mode == ssl.CERT_REQUIRED
        assert connection.get_extra_info("compression", "none") is None
        assert connection.get_extra_info("tls").application_protocol == "y"
        assert connection.get_extra_info("nothing", 3) == 3
        assert connection.can_write_eof() and connection.is_reading() and not connection.is_closing()
        assert connection.get_protocol() is connection
        connection.set_write_buffer_limits(high=1000, low=10)
        assert connection.get_write_buffer_limits() == (10, 1000)
        other = Inner()
        connection.switch(other)
        connection.write(b"to the other")
        await other.until(lambda: other.received)
        assert inner.received == b"" and other.received == b"to the other"
        assert "open" in repr(connection)


@on_loop
async def test_aborting_loses_the_connection_at_once() -> None:
    async with serving(downstream(), lambda: Inner(keep_half_open=False)) as server:
        connection, inner = await dial(originating(upstream(), server.surroundings), server.port)
        await server.first()
        connection.abort()
        assert connection.is_closing()
        await inner.until(lambda: "lost" in inner.events)
        await server.until(lambda: "lost" in server.inners[0].events)


@on_loop
async def test_what_the_peer_sent_before_a_reset_is_read_out() -> None:
    class Deaf(Inner):
        def connection_made(self, transport: object) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

    async with serving(downstream(), lambda: Inner()) as server:
        connection, inner = await dial(originating(upstream(), server.surroundings), server.port, Deaf())
        there = await server.first()
        there.transport.write(b"413")
        await asyncio.sleep(0.05)
        connection.paused = False  # reading was stopped, and then a write fails
        connection.connection_lost(ConnectionResetError())
        assert inner.received == b"413"
        assert "lost" in inner.events


@needs_openssl
@VERSIONS
def test_openssl_sees_our_close_notify_as_the_end(version: str) -> None:
    def answer_and_end(inner: Inner, data: bytes) -> None:
        inner.transport.write(data.upper())
        inner.transport.write_eof()

    async def test() -> None:
        async with serving(downstream(common=only(version)), lambda: Inner(answer_and_end)) as server:
            assert OPENSSL is not None
            status, output = await command(
                OPENSSL, "s_client", "-ign_eof", "-connect", f"127.0.0.1:{server.port}", given=b"through openssl\n"
            )
            assert status == 0
            assert "THROUGH OPENSSL" in output
            assert "closed" in output and "unexpected eof" not in output

    run(test())


class Watched:
    """A BIO that remembers how much it held at most: so much memory it keeps."""

    def __init__(self, bio: ssl.MemoryBIO) -> None:
        self.bio = bio
        self.most = 0

    @property
    def pending(self) -> int:
        self.most = max(self.most, self.bio.pending)
        return self.bio.pending

    def write(self, data: bytes) -> int:
        written = self.bio.write(data)
        self.most = max(self.most, self.bio.pending)
        return written

    def read(self) -> bytes:
        self.most = max(self.most, self.bio.pending)
        return self.bio.read()


@pytest.mark.parametrize("paused", [False, True])
@on_loop
async def test_what_connections_once_carried_does_not_stay_with_them(paused: bool) -> None:
    async with serving(downstream()) as server:
        connection, inner = await dial(originating(upstream(), server.surroundings), server.port)
        await server.first()
        watched: list[Watched] = []
        for end in (connection, *server.connections):
            incoming, outgoing = Watched(end.incoming), Watched(end.outgoing)
            end.incoming, end.outgoing = incoming, outgoing  # type: ignore[assignment]
            watched += incoming, outgoing
        if paused:
            connection.pause_reading()
        connection.write(BIG)
        if paused:
            await server.until(lambda: len(server.inners[0].received) == len(BIG))
            connection.resume_reading()
        await inner.until(lambda: len(inner.received) == len(BIG))
        assert inner.received == BIG
        assert 16384 < max(one.most for one in watched) < 40_000
