"""Pools that leave the protocol to somebody: to the client of each request, or to what ALPN agrees on with the host.

Source: Envoy's ``HttpProtocolOptions``, `use_downstream_protocol_config` and `auto_config`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from sidecar.core.upstream import UpstreamSink, UpstreamStream
from sidecar.pool.http1 import Http1Pool
from sidecar.pool.http2 import Http2Pool
from sidecar.pool.http2_connection import Http2Connection

_HTTP2: Final = 20


class ChoicePool:
    """The connections to one host by both protocols; ``choose`` says which one serves a request.

    Each pool is made for the first who wants it. ``ready`` are the connections that the express lane may open streams on;
    there are none that it may take whole.
    """

    __slots__ = ("draining", "http1", "http2", "make_http1", "make_http2", "ready")

    free = ()

    by_offer = False

    def __init__(self, make_http1: Callable[[], Http1Pool], make_http2: Callable[[], Http2Pool]) -> None:
        self.make_http1 = make_http1
        self.make_http2 = make_http2
        self.http1: Http1Pool | None = None
        self.http2: Http2Pool | None = None
        self.draining = False
        self.ready: Sequence[Http2Connection] = ()

    def choose(self, sink: UpstreamSink) -> Http1Pool | Http2Pool:
        """The pool for a request."""
        raise NotImplementedError

    def acquire(self, sink: UpstreamSink, priority: int) -> UpstreamStream | None:
        """A stream that is ready now, or None: then ``sink`` hears of one, or of a failure."""
        pool = self.of_http1() if sink.tunnels else self.choose(sink)
        return pool.acquire(sink, priority)

    def of_http1(self) -> Http1Pool:
        """The pool of HTTP/1 connections, and of those that carry bytes as they are."""
        if self.http1 is None:
            self.http1 = self.make_http1()
        return self.http1

    def of_http2(self) -> Http2Pool:
        if self.http2 is None:
            self.http2 = self.make_http2()
        return self.http2

    @property
    def all(self) -> set[Any]:
        """Every connection."""
        return set().union(*(pool.all for pool in self._made()))

    @property
    def pending(self) -> deque[tuple[UpstreamSink, int]]:
        """Who waits for a connection."""
        return deque(entry for pool in self._made() for entry in pool.pending)

    @property
    def connecting(self) -> int:
        """How many connections are being made."""
        return sum(pool.connecting for pool in self._made())

    def forget(self, sink: UpstreamSink) -> None:
        for pool in self._made():
            pool.forget(sink)

    def drain(self) -> None:
        """The host is gone or closing."""
        self.draining = True
        for pool in self._made():
            pool.drain()

    def drain_connections(self) -> None:
        """The host fares badly: further requests get new connections."""
        for pool in self._made():
            pool.drain_connections()

    def close(self) -> None:
        """End all connections now."""
        for pool in self._made():
            pool.close()

    def _made(self) -> list[Http1Pool | Http2Pool]:
        return [pool for pool in (self.http1, self.http2) if pool is not None]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.http1!r} {self.http2!r}>"


class Http2OnlyPool(ChoicePool):
    """HTTP/2, but for tunnels that end here: what is in those is not HTTP."""

    __slots__ = ()

    def choose(self, sink: UpstreamSink) -> Http1Pool | Http2Pool:
        pool = self.of_http2()
        self.ready = pool.ready
        return pool


class DownstreamPool(ChoicePool):
    """The protocol that the client spoke."""

    __slots__ = ()

    def choose(self, sink: UpstreamSink) -> Http1Pool | Http2Pool:
        return self.of_http2() if sink.request.version == _HTTP2 else self.of_http1()


class NegotiatedPool(ChoicePool):
    """What ALPN agrees on: the first connection tells, and from then on the host is known to speak that."""

    __slots__ = ("agreed",)

    def __init__(self, make_http1: Callable[[], Http1Pool], make_http2: Callable[[], Http2Pool]) -> None:
        super().__init__(make_http1, make_http2)
        self.agreed = "h2"

    def choose(self, sink: UpstreamSink) -> Http1Pool | Http2Pool:
        if self.agreed != "h2":
            return self.of_http1()
        pool = self.of_http2()
        pool.otherwise = self._hand_over
        return pool

    def _hand_over(self, connection: Http2Connection) -> None:
        """The host prefers HTTP/1: so do the connection, and all who wait for it."""
        self.agreed = "http/1.1"
        http1, http2 = self.of_http1(), self.of_http2()
        http2.all.discard(connection)
        http2.stats.upstream_cx_http2_total -= 1
        taken = http1.new_connection()
        taken.id, taken.opened = connection.id, connection.opened
        http1.all.add(taken)
        connection.transport.set_protocol(taken)
        taken.connection_made(connection.transport)
        http1.pending.extend(http2.pending)
        http2.pending.clear()
        http1.connected(taken)
        while len(http1.pending) > http1.coming() and http1.breakers[0].cx_active < http1.breakers[0].max_connections:
            http1.connect()
