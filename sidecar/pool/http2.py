"""HTTP/2 connection pools: one connection to a host carries many requests; another is made at the limit of its streams."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from sidecar.codec.hpack_texts import Texts
from sidecar.codec.http2_options import Http2Options
from sidecar.core.tls_options import OFFERING_NOTHING, TransportSocketOptions
from sidecar.core.upstream import UpstreamSink
from sidecar.core.worker import Worker
from sidecar.pool.dialing import Dialer
from sidecar.pool.host_pool import HostPool
from sidecar.pool.http2_connection import Http2Connection
from sidecar.pool.http2_exchange import Http2Exchange
from sidecar.pool.options import PoolOptions


class Http2Pool(HostPool):
    """The HTTP/2 connections to one host. ``texts`` is shared by the worker's connections; ``http2_stats`` by a cluster's."""

    __slots__ = ("http2", "http2_stats", "otherwise", "ready", "texts")

    def __init__(
        self,
        worker: Worker,
        host: Any,
        stats: Any,
        breakers: tuple[Any, Any],
        options: PoolOptions,
        dialer: Dialer,
        http2: Http2Options,
        http2_stats: Any,
        texts: Texts,
        tls_options: TransportSocketOptions = OFFERING_NOTHING,
    ) -> None:
        super().__init__(worker, host, stats, breakers, options, dialer, tls_options)
        self.http2 = http2
        self.http2_stats = http2_stats
        self.texts = texts
        self.otherwise: Callable[[Http2Connection], None] | None = None  # takes connections whose host prefers HTTP/1
        self.ready: list[Http2Connection] = []  # connections that may take further streams, the fullest first

    def acquire(self, sink: UpstreamSink, priority: int) -> Http2Exchange | None:
        """A stream on a connection that is ready now, or None: then ``sink`` hears of one, or of a failure."""
        for connection in self.ready:
            if connection.codec.available():
                return Http2Exchange(connection)
        self.wait(sink, priority)
        return None

    def serve(self) -> None:
        """There may be room for those who wait."""
        while self.pending:
            connection = next((one for one in self.ready if one.codec.available()), None)
            if connection is None:
                if len(self.pending) > self.coming() and not self.draining:
                    self.connect(self.pending[0][1])
                return
            sink, priority = self.pending.popleft()
            self.left_pending(priority)
            sink.on_ready(Http2Exchange(connection))

    def retire(self, connection: Http2Connection) -> None:
        """A connection takes no further streams; it ends when its last one has."""
        if connection in self.ready:
            self.ready.remove(connection)
        if not connection.exchanges:
            connection.close()

    def drain(self) -> None:
        """The host is gone or closing: no connection takes a further request."""
        self.draining = True
        self.drain_connections()

    def drain_connections(self) -> None:
        """The host fares badly: what is under way ends, and further requests get new connections."""
        for connection in list(self.ready):
            self.retire(connection)

    def new_connection(self) -> Http2Connection:
        self.stats.upstream_cx_http2_total += 1
        return Http2Connection(self)

    def coming(self) -> int:
        return self.connecting * self.http2.max_concurrent_streams

    def connected(self, connection: Http2Connection) -> None:
        if self.otherwise is not None and not connection.agreed():
            self.otherwise(connection)
            return
        now = self.worker.clock()
        connection.idle_since = now
        if self.options.max_duration != inf:
            connection.expires = connection.opened + self.options.max_duration
        connection.arm(now)
        self.ready.append(connection)
        self.serve()
        if self.draining:
            self.retire(connection)

    def left(self, connection: Http2Connection) -> None:
        if connection in self.ready:
            self.ready.remove(connection)

    def __repr__(self) -> str:
        return (
            f"<Http2Pool {self.host.address.text} {len(self.ready)} of {len(self.all)} ready, {len(self.pending)} wait>"
        )
