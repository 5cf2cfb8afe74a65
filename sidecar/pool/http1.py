"""HTTP/1 connection pools: one for each host, idle connections reused last in, first out."""

from __future__ import annotations

from math import inf
from typing import Any

from sidecar.codec.wire import FieldLines
from sidecar.core.tls_options import OFFERING_NOTHING, TransportSocketOptions
from sidecar.core.upstream import UpstreamSink
from sidecar.core.worker import Worker
from sidecar.pool.dialing import Dialer
from sidecar.pool.host_pool import HostPool
from sidecar.pool.http1_connection import Http1Connection
from sidecar.pool.options import PoolOptions


class Http1Pool(HostPool):
    """The HTTP/1 connections to one host."""

    __slots__ = ("free", "idle", "lines_seen")

    ready = ()

    def __init__(
        self,
        worker: Worker,
        host: Any,
        stats: Any,
        breakers: tuple[Any, Any],
        options: PoolOptions,
        dialer: Dialer,
        lines_seen: FieldLines,
        tls_options: TransportSocketOptions = OFFERING_NOTHING,
    ) -> None:
        super().__init__(worker, host, stats, breakers, options, dialer, tls_options)
        self.lines_seen = lines_seen
        self.idle: list[Http1Connection] = []
        # Those that the express lane takes: it knows one spelling of names.
        self.free: list[Http1Connection] | tuple[()] = self.idle if options.header_case == "lower" else ()

    def acquire(self, sink: UpstreamSink, priority: int) -> Http1Connection | None:
        """A connection that is ready now, or None: then ``sink`` hears of one, or of a failure."""
        idle = self.idle
        if idle:
            return idle.pop()
        self.wait(sink, priority)
        return None

    def put_back(self, connection: Http1Connection) -> None:
        """A connection is free: the next who waits gets it, or it rests."""
        if self.pending:
            sink, priority = self.pending.popleft()
            self.left_pending(priority)
            sink.on_ready(connection)
        elif self.draining:
            connection.close()
        else:
            self.idle.append(connection)

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
                connection.retire()

    def new_connection(self) -> Http1Connection:
        self.stats.upstream_cx_http1_total += 1
        return Http1Connection(self)

    def coming(self) -> int:
        return self.connecting

    def connected(self, connection: Http1Connection) -> None:
        if connection.reader.held is not None and not (self.pending and self.pending[0][0].tunnels):
            connection.close()  # an answer before the question
            self.broken_off()
            return
        now = self.worker.clock()
        connection.idle_since = now
        if self.options.max_duration != inf:
            connection.expires = connection.opened + self.options.max_duration
        connection.arm(now)
        self.put_back(connection)

    def left(self, connection: Http1Connection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)

    def __repr__(self) -> str:
        count = f"{len(self.idle)} idle of {len(self.all)}, {len(self.pending)} wait"
        return f"<Http1Pool {self.host.address.text} {count}>"
