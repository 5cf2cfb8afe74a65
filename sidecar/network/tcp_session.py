"""One session of a TCP proxy: its way to an upstream connection, the two flows, its end and what it counts."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from sidecar.core.address import Address
from sidecar.core.response_flags import (
    CONNECT_ATTEMPTS_EXCEEDED,
    DURATION_TIMEOUT,
    NO_CLUSTER_FOUND,
    NO_HEALTHY_UPSTREAM,
    UPSTREAM_CONNECTION_FAILURE,
    UPSTREAM_OVERFLOW,
    UPSTREAM_REMOTE_RESET,
)
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.core.timer_wheel import Timed
from sidecar.core.upstream import CANNOT_BIND
from sidecar.network.loopback import do_not_pace, is_loopback
from sidecar.network.relay import Flow

if TYPE_CHECKING:
    from sidecar.network.tcp_proxy import TcpProxy

_CONNECT_FAILED = 503
_NO_LINGER = struct.pack("ii", 1, 0)
_CONNECT_TIMED_OUT = 504


class TcpSession(Timed):
    """Also the load balancer's context: nothing but the metadata and the connection tells hosts apart."""

    __slots__ = ("proxy", "connection", "record", "down", "up", "ended", "cluster", "host", "dial", "attempts",
                 "dial_start", "connected_at", "upward", "downward", "last", "closed", "subset", "expires")  # fmt: skip

    hash_key: int | None = None
    tried: tuple[object, ...] = ()
    host_selection_retry_max_attempts = 1
    override_host: None = None
    request = None

    def __init__(
        self, proxy: TcpProxy, info: ConnectionInfo, sock: socket.socket, ended: Callable[[StreamInfo], None]
    ) -> None:
        self.due = inf
        self.proxy = proxy
        self.connection = info
        self.down = sock
        self.up: socket.socket | None = None
        self.ended: Callable[[StreamInfo], None] | None = ended
        self.record = StreamInfo(info, None, proxy.worker.epoch + info.start, info.start)
        self.record.dynamic_metadata = info.metadata
        self.cluster: Any = None
        self.host: Any = None
        self.dial: Any = None
        self.attempts = 0
        self.dial_start = 0.0
        self.connected_at = 0.0
        self.upward: Flow | None = None
        self.downward: Flow | None = None
        self.last = info.start
        limit = proxy.config.max_downstream_connection_duration
        self.expires = info.start + limit if limit else inf
        self.closed = False
        self.subset: tuple[tuple[str, str], ...] | None = None

    # to the upstream

    def begin(self) -> None:
        """Choose a cluster and connect."""
        proxy = self.proxy
        proxy.stats.downstream_cx_total += 1
        if self.expires != inf:
            proxy.worker.wheel.arm(self, self.expires)
        name, self.subset = proxy.choose(self.connection)
        self.cluster = proxy.cluster_of(name)
        if self.cluster is None:
            proxy.stats.downstream_cx_no_route += 1
            self._give_up(NO_CLUSTER_FOUND)
            return
        self.record.cluster_name = name
        self._connect()

    def _connect(self) -> None:
        cluster = self.cluster
        stats, breaker = cluster.stats, cluster.breakers[0]
        if breaker.cx_active >= breaker.max_connections:
            stats.upstream_cx_overflow += 1
            self._give_up(UPSTREAM_OVERFLOW)
            return
        if self.attempts >= self.proxy.config.max_connect_attempts:
            stats.upstream_cx_connect_attempts_exceeded += 1
            self._give_up(CONNECT_ATTEMPTS_EXCEEDED)
            return
        self.host = host = cluster.pick(self)
        if host is None:
            stats.upstream_cx_none_healthy += 1
            self._give_up(NO_HEALTHY_UPSTREAM)
            return
        if breaker.rq_pending >= breaker.max_pending_requests:
            stats.upstream_rq_pending_overflow += 1
            self._give_up(UPSTREAM_OVERFLOW)
            return
        self.attempts += 1
        self.record.attempt_count = self.attempts
        self.record.host = host
        stats.upstream_rq_pending_total += 1
        stats.upstream_rq_pending_active += 1
        breaker.rq_pending += 1
        self._count_connection(1)
        stats.upstream_cx_total += 1
        host.cx_total += 1
        self.dial_start = self.proxy.worker.clock()
        timeout = cluster.config.connect_timeout
        info = self.connection
        self.dial = self.proxy.dialer_of(cluster, host).dial_socket(
            host.address, timeout, self._on_dialled, host.hostname, (info.remote_address, info.local_address)
        )

    def _on_dialled(self, sock: socket.socket | None, failure: str, timed_out: bool, local: Address | None) -> None:
        self.dial = None
        cluster, host = self.cluster, self.host
        stats, now = cluster.stats, self.proxy.worker.clock()
        self._left_pending()
        if sock is None:
            self._count_connection(-1)
            stats.upstream_rq_pending_failure_eject += 1
            stats.upstream_cx_destroy += 1
            stats.upstream_cx_connect_fail += 1
            host.cx_connect_fail += 1
            here = failure.startswith(CANNOT_BIND)
            if timed_out:
                stats.upstream_cx_connect_timeout += 1
            else:
                self.record.upstream_failure_reason = failure
            if cluster.outlier is not None:
                cluster.outlier.on_local_origin_failure(host, _CONNECT_TIMED_OUT if timed_out else _CONNECT_FAILED)
            if timed_out or here:
                stats.upstream_cx_destroy_local += 1
            else:
                stats.upstream_cx_destroy_remote += 1
            if not here:
                self.record.response_flags |= UPSTREAM_CONNECTION_FAILURE
            self._connect()
            return
        stats.upstream_cx_connect_ms.record(int((now - self.dial_start) * 1000))
        stats.upstream_rq_total += 1
        stats.upstream_rq_active += 1
        host.rq_total += 1
        host.rq_active += 1
        if cluster.outlier is not None:
            cluster.outlier.on_success(host, final=True)
        self.record.upstream_local_address = local
        self._relay(sock, now)

    def _relay(self, sock: socket.socket, now: float) -> None:
        proxy, record = self.proxy, self.record
        worker = proxy.worker
        self.up = sock
        self.connected_at = self.last = now
        record.upstream_connection_id = worker.next_id()
        if is_loopback(self.connection.direct_remote_address):
            do_not_pace(self.down)
        if is_loopback(self.host.address):
            do_not_pace(sock)
        limit = min(proxy.buffer_limit, self.cluster.config.per_connection_buffer_limit_bytes)
        self.upward = proxy.make_flow(worker.loop, self, self.down, sock, limit)
        self.downward = proxy.make_flow(worker.loop, self, sock, self.down, limit)
        self.upward.start()
        self.downward.start()
        idle = proxy.config.idle_timeout
        if idle:
            worker.wheel.arm(self, min(now + idle, self.expires))

    # the flows' side

    def on_moved(self, flow: Flow, size: int) -> None:
        now = self.last = self.proxy.worker.clock()
        stats, cluster_stats, record = self.proxy.stats, self.cluster.stats, self.record
        if flow is self.upward:
            stats.downstream_cx_rx_bytes_total += size
            cluster_stats.upstream_cx_tx_bytes_total += size
            if not record.upstream_first_tx:
                record.upstream_first_tx = now
            record.upstream_last_tx = now
        else:
            stats.downstream_cx_tx_bytes_total += size
            cluster_stats.upstream_cx_rx_bytes_total += size
            if not record.upstream_first_rx:
                record.upstream_first_rx = record.downstream_first_tx = now
            record.upstream_last_rx = now

    def on_stuck(self, flow: Flow) -> None:
        if flow is self.upward:
            self.proxy.stats.downstream_flow_control_paused_reading_total += 1
            self.cluster.stats.upstream_flow_control_backed_up_total += 1
        else:
            self.cluster.stats.upstream_flow_control_paused_reading_total += 1

    def on_unstuck(self, flow: Flow) -> None:
        self.last = self.proxy.worker.clock()
        if flow is self.upward:
            self.proxy.stats.downstream_flow_control_resumed_reading_total += 1
            self.cluster.stats.upstream_flow_control_drained_total += 1
        else:
            self.cluster.stats.upstream_flow_control_resumed_reading_total += 1

    def on_ended(self, flow: Flow, error: OSError | None, reading: bool) -> None:
        """One direction is over. After a failure to write, the other goes on: it has what the peer sent before.

        A reset of one side is passed on to the other, as Envoy does.
        """
        upward, downward = self.upward, self.downward
        if upward is None or downward is None:
            return
        if error is not None and reading:
            if flow is downward:
                self.record.response_flags |= UPSTREAM_REMOTE_RESET
            _reset_on_close(flow.target)
            self._close(remote_upstream=flow is downward)
        elif upward.ended and downward.ended:
            self._close(remote_upstream=flow is downward)

    # the end

    def on_timer(self, now: float) -> None:
        proxy = self.proxy
        if now >= self.expires:
            proxy.stats.max_downstream_connection_duration += 1
            self.record.response_flags |= DURATION_TIMEOUT
            self.abort()
            return
        idle = proxy.config.idle_timeout
        idle_due = self.last + idle if idle and self.up is not None else inf
        if now < idle_due:
            due = min(idle_due, self.expires)
            if due != inf:
                proxy.worker.wheel.arm(self, due)
            return
        proxy.stats.idle_timeout += 1
        self._close(remote_upstream=False)

    def abort(self) -> None:
        """End the session at once."""
        if self.dial is not None:
            self.dial.cancel()
            self.dial = None
            self._left_pending()
            self._count_connection(-1)
            self.cluster.stats.upstream_rq_cancelled += 1
            self.cluster.stats.upstream_cx_destroy += 1
            self.cluster.stats.upstream_cx_destroy_local += 1
        self._close(remote_upstream=False)

    def _give_up(self, flag: int) -> None:
        self.record.response_flags |= flag
        self._close(remote_upstream=False)

    def _close(self, remote_upstream: bool) -> None:
        if self.closed:
            return
        self.closed = True
        proxy, record = self.proxy, self.record
        now = proxy.worker.clock()
        proxy.worker.wheel.cancel(self)
        proxy.sessions.discard(self)
        if self.upward is not None and self.downward is not None:
            self.upward.stop()
            self.downward.stop()
            record.bytes_received = record.upstream_bytes_sent = self.upward.moved
            record.bytes_sent = record.upstream_bytes_received = self.downward.moved
            self.upward = self.downward = None
        self.down.close()
        if self.up is not None:
            self.up.close()
            self._count_upstream_end(now, remote_upstream)
        record.end = now
        for logger in proxy.access_loggers:
            logger(record)
        ended, self.ended = self.ended, None
        if ended is not None:
            ended(record)

    def _count_upstream_end(self, now: float, remote: bool) -> None:
        stats = self.cluster.stats
        self._count_connection(-1)
        stats.upstream_rq_active -= 1
        self.host.rq_active -= 1
        stats.upstream_cx_destroy += 1
        stats.upstream_cx_destroy_with_active_rq += 1
        if remote:
            stats.upstream_cx_destroy_remote += 1
            stats.upstream_cx_destroy_remote_with_active_rq += 1
        else:
            stats.upstream_cx_destroy_local += 1
            stats.upstream_cx_destroy_local_with_active_rq += 1
        stats.upstream_cx_length_ms.record(int((now - self.dial_start) * 1000))

    def _count_connection(self, change: int) -> None:
        self.cluster.stats.upstream_cx_active += change
        self.cluster.breakers[0].cx_active += change
        self.host.cx_active += change

    def _left_pending(self) -> None:
        self.cluster.stats.upstream_rq_pending_active -= 1
        self.cluster.breakers[0].rq_pending -= 1

    def __repr__(self) -> str:
        return f"<TcpSession {self.connection!r} to {self.record.cluster_name}: {self.upward!r} {self.downward!r}>"


def _reset_on_close(sock: socket.socket) -> None:
    """Make the close a reset, unless that would throw away bytes which are still on their way to the peer."""
    if sock.family == socket.AF_UNIX:
        return
    unsent = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    if not unsent:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
