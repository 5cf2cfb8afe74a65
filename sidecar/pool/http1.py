"""HTTP/1 connection pools: one for each host, idle connections reused last in, first out."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Any

from sidecar.codec.wire import FieldLines
from sidecar.core.upstream import (
    CONNECTION_FAILURE,
    CONNECTION_TERMINATION,
    CONNECTION_TIMEOUT,
    OVERFLOW,
    UpstreamSink,
)
from sidecar.core.worker import Worker
from sidecar.pool.dialing import Dialer
from sidecar.pool.http1_connection import Http1Connection
from sidecar.pool.options import PoolOptions


class Http1Pool:
    """The HTTP/1 connections to one host."""

    __slots__ = (
        "all",
        "breakers",
        "connecting",
        "dialer",
        "draining",
        "host",
        "idle",
        "lines_seen",
        "options",
        "pending",
        "plain",
        "stats",
        "worker",
    )  # fmt: skip

    def __init__(
        self,
        worker: Worker,
        host: Any,
        stats: Any,
        breakers: tuple[Any, Any],
        options: PoolOptions,
        dialer: Dialer,
        lines_seen: FieldLines,
    ) -> None:
        self.worker = worker
        self.host = host
        self.stats = stats
        self.breakers = breakers
        self.options = options
        self.plain = options.header_case == "lower"
        self.dialer = dialer
        self.lines_seen = lines_seen
        self.idle: list[Http1Connection] = []
        self.all: set[Http1Connection] = set()
        self.pending: deque[tuple[UpstreamSink, int]] = deque()
        self.connecting = 0
        self.draining = False

    def acquire(self, sink: UpstreamSink, priority: int) -> Http1Connection | None:
        idle = self.idle
        if idle:
            return idle.pop()
        self._wait(sink, priority)
        return None

    def forget(self, sink: UpstreamSink) -> None:
        for entry in self.pending:
            if entry[0] is sink:
                self.pending.remove(entry)
                self._left_pending(entry[1])
                self.stats.upstream_rq_cancelled += 1
                return

    def put_back(self, connection: Http1Connection) -> None:
        """A connection is free: the next who waits gets it, or it rests."""
        if self.pending:
            sink, priority = self.pending.popleft()
            self._left_pending(priority)
            sink.on_ready(connection)
        elif self.draining:
            connection.close()
        else:
            self.idle.append(connection)

    def connection_closed(self, connection: Http1Connection) -> None:
        """A connection is gone, for whatever reason; called once or twice."""
        if connection not in self.all:
            return
        self.all.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        self.worker.wheel.cancel(connection)
        stats = self.stats
        stats.upstream_cx_destroy += 1
        stats.upstream_cx_active -= 1
        if connection.requests:
            stats.upstream_rq_per_cx.record(connection.requests)
        stats.upstream_cx_length_ms.record(int((self.worker.clock() - connection.opened) * 1000))
        self.host.cx_active -= 1
        self.breakers[0].cx_active -= 1
        if len(self.pending) > self.connecting:
            self._connect()

    def drain(self) -> None:
        """The host is gone or closing: no connection is used again after its current request."""
        self.draining = True
        for connection in list(self.idle):
            connection.close()

    def drain_connections(self) -> None:
        """The host fares badly: as Envoy, what is under way ends, and further requests get new connections."""
        for connection in list(self.idle):
            connection.close()
        for connection in self.all:
            if connection.sink is not None:
                connection.retiring = True
                connection.respond = None  # the express lane would keep it

    def close(self) -> None:
        """End all connections now."""
        self.draining = True
        self.pending.clear()
        for connection in list(self.all):
            connection.out.clear()
            if connection.transport is not None:
                connection.transport.abort()

    def _wait(self, sink: UpstreamSink, priority: int) -> None:
        breaker = self.breakers[priority]
        stats = self.stats
        if breaker.rq_pending >= breaker.max_pending_requests:
            stats.upstream_rq_pending_overflow += 1
            sink.on_reset(OVERFLOW)
            return
        self.pending.append((sink, priority))
        breaker.counters = stats
        breaker.rq_pending += 1
        stats.upstream_rq_pending_total += 1
        stats.upstream_rq_pending_active += 1
        if len(self.pending) > self.connecting:
            if breaker.cx_active >= breaker.max_connections:
                stats.upstream_cx_overflow += 1
                # As Envoy: a host without any connection may have one, however many the cluster has elsewhere.
                if not self.all and not self.connecting:
                    self._connect()
            else:
                self._connect()

    def _left_pending(self, priority: int) -> None:
        self.breakers[priority].rq_pending -= 1
        self.stats.upstream_rq_pending_active -= 1

    def _connect(self) -> None:
        self.connecting += 1
        self.breakers[0].cx_active += 1
        host, stats = self.host, self.stats
        host.cx_active += 1
        host.cx_total += 1
        stats.upstream_cx_total += 1
        stats.upstream_cx_active += 1
        stats.upstream_cx_http1_total += 1
        connection = Http1Connection(self)
        connection.id = self.worker.next_id()
        connection.opened = self.worker.clock()
        self.all.add(connection)
        self.dialer.dial(host.address, connection, self.options.connect_timeout, self._connected, host.hostname)

    def _connected(self, connection: Any, failure: str | None, timed_out: bool) -> None:
        self.connecting -= 1
        now = self.worker.clock()
        if failure is None and connection.closed:  # it ended before we could use it
            self._broken_off()
        elif failure is None and connection.reader.held is not None and not (self.pending and self.pending[0][0].tunnels):
            connection.close()  # an answer before the question
            self._broken_off()
        elif failure is None:
            self.stats.upstream_cx_connect_ms.record(int((now - connection.opened) * 1000))
            connection.idle_since = now
            if self.options.max_duration != inf:
                connection.expires = connection.opened + self.options.max_duration
            connection.arm(now)
            self.put_back(connection)
        else:
            self.host.cx_connect_fail += 1
            self.stats.upstream_cx_connect_fail += 1
            if timed_out:
                self.stats.upstream_cx_connect_timeout += 1
                self.stats.upstream_cx_destroy_local += 1
            else:
                self.stats.upstream_cx_destroy_remote += 1
            connection.closed = True
            if connection.transport is not None:
                connection.transport.abort()
            waiting, self.pending = self.pending, deque()
            self.connection_closed(connection)
            # Envoy fails all who wait when a connection to the host fails: they may retry elsewhere.
            for sink, priority in waiting:
                self._left_pending(priority)
                self.stats.upstream_rq_pending_failure_eject += 1
                sink.on_reset(CONNECTION_TIMEOUT if timed_out else CONNECTION_FAILURE, failure)
        if self.worker.cork.waiting:
            self.worker.cork.pull()

    def _broken_off(self) -> None:
        """A connection was made and lost at once: as Envoy, it takes with it the one request that it was made for."""
        if self.pending:
            sink, priority = self.pending.popleft()
            self._left_pending(priority)
            sink.on_reset(CONNECTION_TERMINATION)
        if len(self.pending) > self.connecting:
            self._connect()

    def __repr__(self) -> str:
        count = f"{len(self.idle)} idle of {len(self.all)}, {len(self.pending)} wait"
        return f"<Http1Pool {self.host.address.text} {count}>"
