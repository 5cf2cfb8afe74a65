"""Pools without sockets: who gets which connection, who waits, and what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.cluster.circuit_breaker import CircuitBreaker
from sidecar.codec.wire import FieldLines
from sidecar.core.address import Address
from sidecar.core.head import RequestHead
from sidecar.core.upstream import CONNECTION_FAILURE, CONNECTION_TERMINATION, CONNECTION_TIMEOUT, NO_POOL, OVERFLOW
from sidecar.core.worker import Worker
from sidecar.pool.http1 import Http1Pool
from sidecar.pool.http1_connection import Http1Connection
from sidecar.pool.options import PoolOptions
from sidecar.telemetry.groups.cluster import ClusterStats

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Transport:
    """What a connection needs of a transport, written down."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False
        self.reading = True

    def write(self, data: bytes) -> None:
        assert not self.aborted, "written to after its end"
        self.written += data

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def get_extra_info(self, name: str) -> Any:
        if name != "socket":
            return None
        return SimpleNamespace(family=2, getsockname=lambda: ("127.0.0.1", 1), fileno=lambda: -1)


class Dialer:
    """Keeps what was dialled until the test lets it connect or fail."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Http1Connection, Any]] = []

    def dial(
        self, address: Address, protocol: Any, timeout: float, connected: Any, hostname: str, options: Any
    ) -> None:
        self.waiting.append((protocol, connected))

    def connect(self) -> Transport:
        protocol, connected = self.waiting.pop(0)
        transport = Transport()
        protocol.connection_made(transport)
        connected(protocol, None, False)
        return transport

    def fail(self, timed_out: bool = False) -> None:
        protocol, connected = self.waiting.pop(0)
        connected(protocol, "refused", timed_out)


class Sink:
    """The requester: what happened, in order."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.connection: Any = None

    def on_ready(self, connection: Any) -> None:
        self.connection = connection
        self.events.append("ready")

    def on_reset(self, reason: str, failure: str = "") -> None:
        self.events.append(reason)

    def on_head(self, head: Any, end: bool) -> None:
        self.events.append((head.status, end))

    def on_data(self, data: bytes, end: bool) -> None:
        self.events.append((data, end))

    def on_trailers(self, trailers: Any) -> None:
        self.events.append(trailers)

    def on_message(self, head: Any, body: bytes) -> None:
        self.events.append((head.status, body))

    def on_full(self) -> None:
        self.events.append("full")

    def on_writable(self) -> None:
        self.events.append("writable")


class Bench:
    def __init__(self, loop: asyncio.AbstractEventLoop, options: PoolOptions, most: tuple[int, int]) -> None:
        self.worker = Worker(loop)
        self.host = SimpleNamespace(
            address=Address("127.0.0.1", 1), hostname="", cx_active=0, cx_total=0, cx_connect_fail=0, rq_active=0
        )
        self.stats = ClusterStats()
        self.breaker, self.high = CircuitBreaker(*most), CircuitBreaker()
        self.dialer = Dialer()
        self.pool = Http1Pool(
            self.worker,
            self.host,
            self.stats,
            (self.breaker, self.high),
            options,
            self.dialer,
            FieldLines(),  # type: ignore[arg-type]
        )

    def acquire(self, priority: int = 0) -> tuple[Sink, Any]:
        sink = Sink()
        return sink, self.pool.acquire(sink, priority)

    def at_rest(self) -> bool:
        stats = self.stats
        return (
            not self.breaker.cx_active and not self.breaker.rq_pending and not self.host.cx_active
            and not self.breaker.cx_pools and not self.high.cx_active and not self.high.cx_pools and not self.pool.high
            and not stats.upstream_cx_active and not stats.upstream_rq_pending_active and not self.pool.connecting
            and not self.pool.all and not self.pool.idle and not self.pool.pending and len(self.worker.wheel) == 0
        )  # fmt: skip


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def bench(loop: asyncio.AbstractEventLoop, connections: int = 1024, pending: int = 1024, **options: Any) -> Bench:
    return Bench(loop, PoolOptions(**options), (connections, pending))


def ask(connection: Any, sink: Sink, method: bytes = b"GET") -> None:
    connection.send_head(sink, RequestHead(method, b"/", b"a", []), True, 0.0)


def test_idle_connections_are_reused_last_in_first_out(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop)
    sinks = [made.acquire()[0] for _ in range(3)]
    for _ in range(3):
        made.dialer.connect()
    connections = [sink.connection for sink in sinks]
    for sink in sinks:
        ask(sink.connection, sink)
        sink.connection.data_received(RESPONSE)
        assert sink.events == ["ready", (200, b"hi")]
    assert made.acquire()[1] is connections[2]
    assert made.acquire()[1] is connections[1]
    made.pool.close()
    for connection in connections:
        connection.connection_lost(None)
    assert made.at_rest()


def test_those_who_wait_are_served_in_order_by_whichever_comes_free(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop, connections=1)
    first, second, third = (made.acquire()[0] for _ in range(3))
    assert len(made.dialer.waiting) == 1 and made.stats.upstream_cx_overflow == 2
    made.dialer.connect()
    assert first.events == ["ready"] and second.events == third.events == []
    ask(first.connection, first)
    first.connection.data_received(RESPONSE)
    assert second.events == ["ready"] and third.events == []
    made.pool.forget(third)
    assert made.stats.upstream_rq_pending_active == 0 and made.breaker.rq_pending == 0


def test_no_more_wait_than_may(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop, pending=1)
    made.acquire()
    sink, _ = made.acquire()
    assert sink.events == [OVERFLOW]


def test_connections_count_at_the_priority_that_they_are_made_for(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop, connections=1)
    for priority in (1, 1, 0, 0):
        made.acquire(priority)
    assert (made.high.cx_active, made.breaker.cx_active) == (2, 1)
    assert (made.high.cx_pools, made.breaker.cx_pools) == (1, 0)
    assert made.stats.upstream_cx_overflow == 1
    for _ in range(3):
        made.dialer.fail()
    assert made.at_rest()


def test_each_host_has_its_own_limit_of_connections(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop)
    made.breaker.max_connections_per_host = 2
    for _ in range(4):
        made.acquire()
    assert (len(made.dialer.waiting), made.stats.upstream_cx_overflow) == (2, 2)
    assert not made.breaker.cx_open


def test_no_more_pools_than_may_have_connections(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop)
    made.breaker.max_connection_pools = 1
    made.breaker.cx_pools = 1  # another host's
    sink, _ = made.acquire()
    assert sink.events == [NO_POOL]
    assert (made.stats.upstream_cx_pool_overflow, made.stats.upstream_rq_pending_total) == (1, 0)
    made.breaker.cx_pools = 0
    made.acquire()
    made.acquire()
    assert len(made.dialer.waiting) == 2 and made.breaker.cx_pool_open
    made.dialer.fail()
    made.dialer.fail()
    assert made.at_rest()


@pytest.mark.parametrize("timed_out", [False, True])
def test_a_failed_connection_fails_all_who_wait(loop: asyncio.AbstractEventLoop, timed_out: bool) -> None:
    made = bench(loop, connections=1)
    sinks = [made.acquire()[0] for _ in range(3)]
    made.dialer.fail(timed_out)
    reason = CONNECTION_TIMEOUT if timed_out else CONNECTION_FAILURE
    assert [sink.events for sink in sinks] == [[reason]] * 3
    assert made.at_rest() and not made.dialer.waiting


def test_a_connection_lost_before_it_is_used_takes_one_request_with_it(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop, connections=1)
    first, second = made.acquire()[0], made.acquire()[0]
    protocol, connected = made.dialer.waiting.pop()
    protocol.connection_made(Transport())
    protocol.connection_lost(ConnectionResetError())
    connected(protocol, None, False)
    assert first.events == [CONNECTION_TERMINATION] and second.events == []
    made.dialer.connect()
    assert second.events == ["ready"]


@pytest.mark.parametrize("early", [b"220 hello\r\n", RESPONSE])
def test_bytes_that_nobody_asked_for_end_a_connection(loop: asyncio.AbstractEventLoop, early: bytes) -> None:
    made = bench(loop)
    sink, _ = made.acquire()
    transport = made.dialer.connect()
    ask(sink.connection, sink)
    sink.connection.data_received(RESPONSE)
    assert made.pool.idle
    sink.connection.data_received(early)
    assert transport.aborted and made.at_rest()
    assert made.acquire()[1] is None


def test_an_idle_connection_whose_peer_ends_it_is_not_given_out(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop)
    sink, _ = made.acquire()
    made.dialer.connect()
    ask(sink.connection, sink)
    sink.connection.data_received(RESPONSE)
    sink.connection.eof_received()
    assert made.acquire()[1] is None
    sink.connection.connection_lost(None)
    assert made.stats.upstream_cx_destroy_remote == 1 and made.stats.upstream_cx_destroy == 1


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        RESPONSE + b"more",
    ],
)
def test_connections_that_may_not_be_reused(loop: asyncio.AbstractEventLoop, response: bytes) -> None:
    made = bench(loop)
    sink, _ = made.acquire()
    transport = made.dialer.connect()
    ask(sink.connection, sink)
    sink.connection.data_received(response)
    assert sink.events[-1] == (200, b"hi") or sink.events[-1] == (b"hi", True)
    assert transport.aborted and made.at_rest()


def test_an_answer_before_the_request_is_sent_ends_the_connection(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop)
    sink, _ = made.acquire()
    transport = made.dialer.connect()
    head = RequestHead(b"POST", b"/", b"a", [(b"content-length", b"9")])
    sink.connection.send_head(sink, head, False, 0.0)
    sink.connection.data_received(RESPONSE)
    assert sink.events[-1] == (200, b"hi") and transport.aborted and made.at_rest()


def test_a_cancelled_request_hears_nothing_even_of_the_read_under_way(loop: asyncio.AbstractEventLoop) -> None:
    class Canceller(Sink):
        def on_head(self, head: Any, end: bool) -> None:
            super().on_head(head, end)
            self.connection.cancel()

    made = bench(loop)
    sink = Canceller()
    made.pool.acquire(sink, 0)
    transport = made.dialer.connect()
    ask(sink.connection, sink)
    sink.connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
    sink.connection.connection_lost(None)
    assert sink.events == ["ready", (200, False)] and transport.aborted and made.at_rest()


def test_requests_per_connection(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop, max_requests=1)
    sink, _ = made.acquire()
    transport = made.dialer.connect()
    ask(sink.connection, sink)
    sink.connection.data_received(RESPONSE)
    assert transport.aborted and made.at_rest()


def test_a_drained_pool_keeps_nothing(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop)
    first, second = made.acquire()[0], made.acquire()[0]
    idle, busy = made.dialer.connect(), made.dialer.connect()
    ask(first.connection, first)
    ask(second.connection, second)
    first.connection.data_received(RESPONSE)
    made.pool.drain()
    assert idle.aborted and not busy.aborted
    second.connection.data_received(RESPONSE)
    assert second.events[-1] == (200, b"hi") and busy.aborted and made.at_rest()


def test_those_who_wait_when_a_pool_is_drained_are_still_served(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop, connections=1)
    first, second, third = (made.acquire()[0] for _ in range(3))
    busy = made.dialer.connect()
    ask(first.connection, first)
    made.pool.drain()
    first.connection.data_received(RESPONSE)
    assert busy.aborted and second.events == []
    made.pool.forget(third)
    made.dialer.connect()
    ask(second.connection, second)
    second.connection.data_received(RESPONSE)
    assert second.events == ["ready", (200, b"hi")] and made.at_rest()


def test_a_connection_that_a_drained_pool_no_longer_needs_is_closed(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop)
    sink, _ = made.acquire()
    made.pool.drain()
    made.pool.forget(sink)
    assert made.dialer.connect().aborted and made.at_rest()


def test_connections_to_a_host_that_fares_badly_end_and_new_ones_stay(loop: asyncio.AbstractEventLoop) -> None:
    made = bench(loop)
    first, second = made.acquire()[0], made.acquire()[0]
    idle, busy = made.dialer.connect(), made.dialer.connect()
    ask(first.connection, first)
    ask(second.connection, second)
    first.connection.data_received(RESPONSE)
    made.pool.drain_connections()
    assert idle.aborted and not busy.aborted
    second.connection.data_received(RESPONSE)
    assert second.events[-1] == (200, b"hi") and busy.aborted and made.at_rest()
    third, _ = made.acquire()
    made.dialer.connect()
    ask(third.connection, third)
    third.connection.data_received(RESPONSE)
    assert made.pool.idle == [third.connection]


@pytest.mark.parametrize("active", [False, True])
def test_ends_of_connections_add_up(loop: asyncio.AbstractEventLoop, active: bool) -> None:
    made = bench(loop)
    for remote in (True, False):
        sink, _ = made.acquire()
        made.dialer.connect()
        connection = sink.connection
        ask(connection, sink)
        if not active:
            connection.data_received(RESPONSE)
        if remote:
            connection.connection_lost(None)
        elif active:
            connection.cancel()
        else:
            connection.close()
    stats = made.stats
    assert (stats.upstream_cx_destroy, stats.upstream_cx_destroy_remote, stats.upstream_cx_destroy_local) == (2, 1, 1)
    assert stats.upstream_cx_destroy_with_active_rq == 2 * active
    assert stats.upstream_cx_destroy_remote_with_active_rq == stats.upstream_cx_destroy_local_with_active_rq == active


@pytest.mark.parametrize("timed_out", [False, True])
def test_a_failed_connection_is_one_that_ended_without_a_request(
    loop: asyncio.AbstractEventLoop, timed_out: bool
) -> None:
    made = bench(loop)
    made.acquire()
    made.dialer.fail(timed_out)
    stats = made.stats
    assert (stats.upstream_cx_destroy_local, stats.upstream_cx_destroy_remote) == (timed_out, not timed_out)
    assert stats.upstream_cx_destroy == 1
    assert not stats.upstream_rq_per_cx.view().cumulative and stats.upstream_cx_length_ms.view().cumulative


@pytest.mark.parametrize(
    ("method", "fields", "end", "line"),
    [
        (b"GET", [], True, None),
        (b"POST", [], True, b"content-length: 0"),
        (b"POST", [(b"content-length", b"0")], True, b"content-length: 0"),
        (b"POST", [], False, b"transfer-encoding: chunked"),
        (b"POST", [(b"content-length", b"5")], False, b"content-length: 5"),
    ],
)
def test_framing_is_made_here(
    loop: asyncio.AbstractEventLoop, method: bytes, fields: list[tuple[bytes, bytes]], end: bool, line: bytes | None
) -> None:
    made = bench(loop)
    sink, _ = made.acquire()
    transport = made.dialer.connect()
    sink.connection.send_head(sink, RequestHead(method, b"/p", b"a.example", fields), end, 0.0)
    if not end:
        sink.connection.send_data(b"he", False)
        sink.connection.send_data(b"llo", True)
    sink.connection.flush()
    head, _, body = transport.written.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[:2] == [method + b" /p HTTP/1.1", b"host: a.example"]
    assert lines[2:] == ([] if line is None else [line])
    assert body == (b"" if end else b"hello" if fields else b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")
