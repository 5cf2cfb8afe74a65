"""What the connection pools of one host have in common: who waits, what is being dialled, what is gone."""

from __future__ import annotations

from collections import deque
from typing import Any

from sidecar.core.tls_options import OFFERING_NOTHING, TransportSocketOptions
from sidecar.core.upstream import (
    CANNOT_BIND,
    CONNECTION_FAILURE,
    CONNECTION_TERMINATION,
    CONNECTION_TIMEOUT,
    LOCAL_CONNECTION_FAILURE,
    NO_POOL,
    OVERFLOW,
    UpstreamSink,
)
from sidecar.core.worker import Worker
from sidecar.pool.dialing import Dialer
from sidecar.pool.options import PoolOptions


class HostPool:
    """Connections to one host, by one protocol. Whoever finds none ready waits, in order, for those that are made."""

    __slots__ = (
        "all",
        "breakers",
        "connecting",
        "dialer",
        "draining",
        "high",
        "host",
        "options",
        "pending",
        "priority",
        "stats",
        "tls_options",
        "worker",
    )  # fmt: skip

    by_offer = False

    def __init__(
        self,
        worker: Worker,
        host: Any,
        stats: Any,
        breakers: tuple[Any, Any],
        options: PoolOptions,
        dialer: Dialer,
        tls_options: TransportSocketOptions = OFFERING_NOTHING,
    ) -> None:
        self.worker = worker
        self.host = host
        self.stats = stats
        self.breakers = breakers
        self.options = options
        self.dialer = dialer
        self.tls_options = tls_options
        self.all: set[Any] = set()
        self.high: set[Any] = set()  # those of them that were made for requests of the high priority
        self.priority = 0  # at which the pool itself counts while it has connections
        self.pending: deque[tuple[UpstreamSink, int]] = deque()
        self.connecting = 0
        self.draining = False

    def new_connection(self) -> Any:
        """A connection that is still to be dialled."""
        raise NotImplementedError

    def coming(self) -> int:
        """How many requests the connections that are being made will take."""
        raise NotImplementedError

    def connected(self, connection: Any) -> None:
        """A connection is ready: let those have it who wait."""
        raise NotImplementedError

    def left(self, connection: Any) -> None:
        """A connection is gone, and serves nobody any more."""
        raise NotImplementedError

    def forget(self, sink: UpstreamSink) -> None:
        """``sink`` no longer waits."""
        for entry in self.pending:
            if entry[0] is sink:
                self.pending.remove(entry)
                self.left_pending(entry[1])
                self.stats.upstream_rq_cancelled += 1
                return

    def connection_closed(self, connection: Any) -> None:
        """A connection is gone, for whatever reason; called once or twice."""
        if connection not in self.all:
            return
        self.all.discard(connection)
        self.left(connection)
        self.worker.wheel.cancel(connection)
        stats = self.stats
        stats.upstream_cx_destroy += 1
        stats.upstream_cx_active -= 1
        if connection.requests:
            stats.upstream_rq_per_cx.record(connection.requests)
        stats.upstream_cx_length_ms.record(int((self.worker.clock() - connection.opened) * 1000))
        self.host.cx_active -= 1
        if connection in self.high:
            self.high.discard(connection)
            self.breakers[1].cx_active -= 1
        else:
            self.breakers[0].cx_active -= 1
        if not self.all:
            self.breakers[self.priority].cx_pools -= 1
        if len(self.pending) > self.coming():
            self.connect(self.pending[0][1])

    def close(self) -> None:
        """End all connections now."""
        self.draining = True
        self.pending.clear()
        for connection in list(self.all):
            connection.abandon()

    def wait(self, sink: UpstreamSink, priority: int) -> None:
        """Let ``sink`` wait for a connection, and see to it that one comes."""
        breaker = self.breakers[priority]
        stats = self.stats
        if breaker.cx_pools >= breaker.max_connection_pools and not self.all:
            stats.upstream_cx_pool_overflow += 1
            sink.on_reset(NO_POOL)
            return
        if breaker.rq_pending >= breaker.max_pending_requests:
            stats.upstream_rq_pending_overflow += 1
            sink.on_reset(OVERFLOW)
            return
        self.pending.append((sink, priority))
        breaker.counters = stats
        breaker.rq_pending += 1
        stats.upstream_rq_pending_total += 1
        stats.upstream_rq_pending_active += 1
        if len(self.pending) > self.coming():
            if breaker.cx_active >= breaker.max_connections or self.host.cx_active >= breaker.max_connections_per_host:
                stats.upstream_cx_overflow += 1
                # As Envoy: a host without any connection may have one, however many the cluster has elsewhere.
                if not self.all and not self.connecting:
                    self.connect(priority)
            else:
                self.connect(priority)

    def left_pending(self, priority: int) -> None:
        """One who waited no longer does."""
        self.breakers[priority].rq_pending -= 1
        self.stats.upstream_rq_pending_active -= 1

    def connect(self, priority: int = 0) -> None:
        """Dial one more connection, which counts at the routing priority of whoever it is for."""
        self.connecting += 1
        breaker = self.breakers[priority]
        breaker.cx_active += 1
        if not self.all:
            breaker.cx_pools += 1
            self.priority = priority
        host, stats = self.host, self.stats
        host.cx_active += 1
        host.cx_total += 1
        stats.upstream_cx_total += 1
        stats.upstream_cx_active += 1
        connection = self.new_connection()
        connection.id = self.worker.next_id()
        connection.opened = self.worker.clock()
        self.all.add(connection)
        if priority:
            self.high.add(connection)
        self.dialer.dial(
            host.address, connection, self.options.connect_timeout, self._dialled, host.hostname, self.tls_options
        )

    def broken_off(self) -> None:
        """A connection was made and lost at once: as Envoy, it takes with it the one request that it was made for."""
        if self.pending:
            sink, priority = self.pending.popleft()
            self.left_pending(priority)
            sink.on_reset(CONNECTION_TERMINATION)
        if len(self.pending) > self.coming():
            self.connect(self.pending[0][1])

    def fail_pending(self, reason: str, failure: str) -> None:
        """A connection to the host failed: as Envoy, all who wait do so with it, and may retry elsewhere."""
        waiting, self.pending = self.pending, deque()
        for sink, priority in waiting:
            self.left_pending(priority)
            self.stats.upstream_rq_pending_failure_eject += 1
            sink.on_reset(reason, failure)

    def _dialled(self, connection: Any, failure: str | None, timed_out: bool) -> None:
        self.connecting -= 1
        if failure is not None:
            stats = self.stats
            here = failure.startswith(CANNOT_BIND)
            self.host.cx_connect_fail += 1
            stats.upstream_cx_connect_fail += 1
            if timed_out:
                stats.upstream_cx_connect_timeout += 1
            if timed_out or here:
                stats.upstream_cx_destroy_local += 1
            else:
                stats.upstream_cx_destroy_remote += 1
            connection.closed = True
            if connection.transport is not None:
                connection.transport.abort()
            waiting, self.pending = self.pending, deque()
            self.connection_closed(connection)
            self.pending = waiting
            if timed_out:
                self.fail_pending(CONNECTION_TIMEOUT, "")
            else:
                self.fail_pending(LOCAL_CONNECTION_FAILURE if here else CONNECTION_FAILURE, failure)
        elif connection.closed:  # it ended before we could use it
            self.broken_off()
        else:
            self.stats.upstream_cx_connect_ms.record(int((self.worker.clock() - connection.opened) * 1000))
            self.connected(connection)
        if self.worker.cork.waiting:
            self.worker.cork.pull()
