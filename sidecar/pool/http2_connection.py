"""An HTTP/2 connection to a host: many requests at a time, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from sidecar.codec import http2_frames as code_of
from sidecar.codec.http2_client import ClientConnection
from sidecar.codec.http2_control import Http2Error
from sidecar.codec.http2_failures import count_error
from sidecar.codec.http2_head import Known
from sidecar.core.address import Address, from_socket_name
from sidecar.core.cork import AT_ONCE, BULK
from sidecar.core.head import Field, ResponseHead
from sidecar.core.timer_wheel import Timed
from sidecar.core.upstream import CONNECT_ERROR, CONNECTION_TERMINATION, PROTOCOL_ERROR, REFUSED_STREAM, REMOTE_RESET
from sidecar.pool.http2_exchange import Http2Exchange

if TYPE_CHECKING:
    from sidecar.pool.http2 import Http2Pool

_ALIVE = b"alive..?"
_REMOTE = frozenset(("http2.remote_reset", "http2.goaway"))
_REASONS = {
    code_of.REFUSED_STREAM: REFUSED_STREAM,
    code_of.CONNECT_ERROR: CONNECT_ERROR,
    code_of.PROTOCOL_ERROR: PROTOCOL_ERROR,
}


class Http2Connection(asyncio.Protocol, Timed):
    """A connection to a host, and the sink of its codec."""

    __slots__ = (
        "ages",
        "closed",
        "codec",
        "corked",
        "exchanges",
        "expires",
        "full",
        "id",
        "idle_since",
        "local_address",
        "now",
        "opened",
        "ping_at",
        "ping_due",
        "pool",
        "renders",
        "spare",
        "stats",
        "ticked",
        "tls",
        "transport",
    )  # fmt: skip

    version = 20
    exchange_type = Http2Exchange

    def __init__(self, pool: Http2Pool) -> None:
        self.due = inf
        self.pool = pool
        self.stats = pool.http2_stats
        self.codec = ClientConnection(pool.http2, pool.texts)
        self.codec.sink = self
        self.exchanges: dict[int, Http2Exchange] = {}
        self.transport: Any = None
        self.tls: Any = None
        self.local_address: Address | None = None
        self.id = 0
        options = pool.options
        self.ages = bool(options.max_requests) or options.keepalive.after_idle != inf  # something is due at requests
        self.renders: dict[Any, tuple[int, bytes]] = {}  # the express lane's header blocks
        self.spare: list[Http2Exchange] = []  # exchanges that have ended, as new: no more than were active at a time
        self.now = self.opened = self.idle_since = self.ticked = 0.0
        self.expires = inf
        self.ping_at = self.ping_due = inf  # when the next keep-alive PING is sent, and when its answer is due
        self.corked = False
        self.full = False
        self.closed = False

    @property
    def requests(self) -> int:
        """Requests that the connection has carried."""
        return self.codec.opened_streams

    # the event loop's side

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=self.pool.options.buffer_limit)
        sock = transport.get_extra_info("socket")
        self.local_address = from_socket_name(sock.family, sock.getsockname())
        self.tls = transport.get_extra_info("tls")
        if self.pool.otherwise is None or self.agreed():
            self.cork()
            self.pool.worker.cork.settle()

    def data_received(self, data: bytes) -> None:
        pool = self.pool
        pool.stats.upstream_cx_rx_bytes_total += len(data)
        clock = pool.worker.clock
        self.now = clock()
        codec = self.codec
        try:
            codec.receive(data)
        except Http2Error as error:
            self._broken(error)
        if codec.out and not self.corked:
            self.cork()
        if codec.interrupted:
            self.transport.pause_reading()
            pool.worker.loop.call_soon(self._next_turn)
        cork = pool.worker.cork
        if cork.waiting and (not cork.scheduled or len(cork.waiting) >= AT_ONCE or len(data) >= BULK):
            cork.settle(len(data))

    def eof_received(self) -> bool | None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed:
            self.closed = True
            stats = self.pool.stats
            stats.upstream_cx_destroy_remote += 1
            if self.exchanges:
                stats.upstream_cx_destroy_remote_with_active_rq += 1
                stats.upstream_cx_destroy_with_active_rq += 1
        self.pool.connection_closed(self)
        self.spare.clear()
        failure = None if self.transport is None else self.transport.get_extra_info("tls_failure")
        self._end_exchanges(CONNECTION_TERMINATION, "" if failure is None else failure.words)
        self.codec.give_up()
        if self.pool.worker.cork.waiting:
            self.pool.worker.cork.pull()

    def pause_writing(self) -> None:
        self.full = True
        self.codec.pause()

    def resume_writing(self) -> None:
        self.full = False
        self.codec.resume()
        self.cork()
        self.pool.worker.cork.pull()

    # the codec's side

    def on_head(self, stream_id: int, head: ResponseHead, end: bool) -> None:
        exchange = self.exchanges.get(stream_id)
        if exchange is None:
            return
        exchange.answered = True
        exchange.head_size = self.codec.received_head_size
        if end:
            exchange.complete = True
        elif exchange.answer is not None:
            if exchange.answer.recognise(exchange, self.codec.known, head):
                return
        exchange.answer = None
        exchange.sink.on_head(head, end)
        if end:
            exchange.end()

    def on_known(
        self,
        stream_id: int,
        known: Known,
        values: list[bytes],
        end: bool,
        body: bytes | None = None,
        trailers: list[Field] | None = None,
    ) -> bool | None:
        exchange = self.exchanges.get(stream_id)
        if exchange is None or exchange.answer is None or end:
            return None
        if body is not None:
            if exchange.paused or exchange.held is not None:
                return None
            whole = exchange.answer.whole
            return True if whole(exchange, self, known, values, body, trailers) else None
        exchange.answered = True
        exchange.head_size = self.codec.received_head_size
        return False if exchange.answer.head(exchange, known, values) else None

    def on_laid_out(self, shape: Any, stream_id: int, path: bytes, values: Sequence[bytes], end: bool) -> None:
        """A host asks for nothing."""

    def on_data(self, stream_id: int, data: bytes, end: bool) -> None:
        exchange = self.exchanges.get(stream_id)
        if exchange is None:
            self.codec.consumed(stream_id, len(data))
            return
        if exchange.paused or exchange.held is not None:
            exchange.hold(data, end)
        else:
            self.deliver(exchange, data, end)

    def deliver(self, exchange: Http2Exchange, data: bytes, end: bool) -> None:
        """Hand on a piece of a response's body."""
        if end:
            exchange.complete = True
        if exchange.answer is not None:
            exchange.answer.data(exchange, data, end)
        else:
            exchange.sink.on_data(data, end)
            if end:
                exchange.end()
        self.codec.consumed(exchange.stream_id, len(data))

    def on_trailers(self, stream_id: int, fields: list[Field]) -> None:
        exchange = self.exchanges.get(stream_id)
        if exchange is None:
            return
        if exchange.paused or exchange.held is not None:
            exchange.hold_trailers(fields)
        else:
            self.deliver_trailers(exchange, fields)

    def deliver_trailers(self, exchange: Http2Exchange, fields: list[Field]) -> None:
        """Hand on a response's trailers."""
        exchange.complete = True
        if exchange.answer is not None:
            exchange.answer.trailers(exchange, fields)
        else:
            exchange.sink.on_trailers(fields)
            exchange.end()

    def on_reset(self, stream_id: int, code: int, details: str) -> None:
        """A stream was reset: by the host, for what it did wrong, or since it will not process it (GOAWAY)."""
        remote = details in _REMOTE
        if details == "http2.remote_reset":
            self.stats.rx_reset += 1
        elif not remote:
            self.stats.tx_reset += 1
            count_error(self.stats, details)
        exchange = self.exchanges.pop(stream_id, None)
        if exchange is None:
            return
        self.stats.streams_active -= 1
        exchange.complete = True
        exchange.give_back()
        reason = _REASONS.get(code, REMOTE_RESET) if remote else PROTOCOL_ERROR
        if not remote:
            self.pool.stats.upstream_rq_tx_reset += 1
        elif reason != REFUSED_STREAM:
            self.pool.stats.upstream_rq_rx_reset += 1
        exchange.sink.on_reset(REMOTE_RESET if details == "http2.too_many_headers" else reason)  # as Envoy
        self.exchange_over()

    def on_refused(self, stream_id: int, code: int, details: str) -> None:
        """A host opens no streams: there is nothing to refuse."""

    def on_window(self, stream_id: int) -> None:
        exchange = self.exchanges.get(stream_id)
        if exchange is not None and exchange.full:
            exchange.full = False
            exchange.sink.on_writable()

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.pool.stats.upstream_cx_close_notify += 1
        self.pool.retire(self)

    def on_settings(self) -> None:
        if self.pool.pending:
            self.pool.serve()

    def on_ping_ack(self, opaque: bytes) -> None:
        if opaque == _ALIVE:
            self.ping_due = inf
            now = self.pool.worker.clock()
            self.ping_at = self.pool.options.keepalive.next_ping(now, self.pool.worker.ping_random)
            self.arm(now)

    # the exchanges' side

    def agreed(self) -> bool:
        """Whether ALPN has settled on HTTP/2."""
        return self.tls is not None and self.tls.application_protocol == "h2"

    def cork(self) -> None:
        """What the codec has to say leaves with the rest of this turn."""
        if not self.corked and not self.closed and self.transport is not None and self.codec.out:
            self.corked = True
            self.pool.worker.cork.waiting.append(self)

    def check_age(self) -> None:
        """A request is being sent: after as many as are configured it was the last, and after a long rest we ask whether
        the host is still there.
        """
        worker = self.pool.worker
        keepalive = self.pool.options.keepalive
        now = worker.clock()
        if len(self.exchanges) == 1 and self.ping_due == inf and now >= self.idle_since + keepalive.after_idle:
            self.ping_at = inf
            self.ping_due = now + keepalive.timeout
            self.codec.ping(_ALIVE)
            self.arm(now)
        most = self.pool.options.max_requests
        if most and self.requests >= most:
            self.pool.stats.upstream_cx_max_requests += 1
            self.pool.retire(self)

    def exchange_over(self) -> None:
        """An exchange has ended: another may take its place, or the connection ends."""
        pool = self.pool
        if self.closed:
            return
        if not self.exchanges:
            self.idle_since = pool.worker.clock()
            if self not in pool.ready:
                self.close()
                return
        if pool.pending:
            pool.serve()

    def flush(self) -> None:
        self.corked = False
        if self.full or self.closed:
            return
        codec = self.codec
        if codec.bulky:
            self._write(codec.take())
        elif codec.out:
            data = b"".join(codec.take())
            self.pool.stats.upstream_cx_tx_bytes_total += len(data)
            self.transport.write(data)

    def _write(self, pieces: list[bytes]) -> None:
        size = sum(map(len, pieces))
        self.pool.stats.upstream_cx_tx_bytes_total += size
        if size < self.pool.worker.join_below:
            self.transport.write(b"".join(pieces))
        else:
            self.transport.writelines(pieces)

    # the connection's end

    def close(self) -> None:
        """End a connection without exchanges; what is to be said is said before."""
        if not self.closed:
            if not self.codec.draining:
                self.codec.go_away()
                self.stats.goaway_sent += 1
            self.flush()
            self._close_here()
            self.transport.close()

    def abandon(self) -> None:
        """The process ends: so does the connection, now."""
        if self.transport is not None:
            self.transport.abort()

    def on_timer(self, now: float) -> None:
        """The connection may have been idle, alive or silent for too long."""
        if self.closed:
            return
        options, stats = self.pool.options, self.pool.stats
        self.codec.tick(now - self.ticked)
        self.ticked = now
        if now >= self.ping_due:
            self.stats.keepalive_timeout += 1
            self._close_here()
            self.transport.abort()
            self._end_exchanges(CONNECTION_TERMINATION, "")
        elif not self.exchanges and now >= self.idle_since + options.idle_timeout:
            stats.upstream_cx_idle_timeout += 1
            self.close()
        elif now >= self.expires:
            stats.upstream_cx_max_duration_reached += 1
            self.expires = inf
            self.pool.retire(self)
        else:
            if now >= self.ping_at:
                self.ping_at = inf
                self.ping_due = now + options.keepalive.timeout
                self.codec.ping(_ALIVE)
                self.cork()
        if not self.closed:
            self.arm(now)
        if self.pool.worker.cork.waiting:
            self.pool.worker.cork.pull()

    def arm(self, now: float) -> None:
        """Wake when something may be due."""
        options = self.pool.options
        if self.ping_at == inf and self.ping_due == inf:
            self.ping_at = options.keepalive.next_ping(now, self.pool.worker.ping_random)
        idle = options.idle_timeout
        due = max(self.idle_since + idle if idle else inf, now + 1.0)
        due = min(due, self.expires, self.ping_at, self.ping_due)
        if due != inf:
            self.pool.worker.wheel.arm(self, due)

    def _next_turn(self) -> None:
        """Go on with a read that brought very much."""
        if self.closed or not self.codec.interrupted:
            return
        self.now = self.pool.worker.clock()
        try:
            self.codec.take_held()
        except Http2Error as error:
            self._broken(error)
        if self.codec.interrupted:
            self.pool.worker.loop.call_soon(self._next_turn)
        else:
            self.transport.resume_reading()
        self.cork()
        if self.pool.worker.cork.waiting:
            self.pool.worker.cork.pull()

    def _broken(self, error: Http2Error) -> None:
        """The host has broken the protocol, or overdone it: GOAWAY, and the end of all exchanges."""
        self.pool.stats.upstream_cx_protocol_error += 1
        self.stats.goaway_sent += 1
        count_error(self.stats, error.details)
        self.flush()
        self._end_exchanges(PROTOCOL_ERROR, "")  # as Envoy: first these, and then the connection
        self._close_here()
        self.transport.close()

    def _end_exchanges(self, reason: str, failure: str) -> None:
        exchanges, self.exchanges = self.exchanges, {}
        self.stats.streams_active -= len(exchanges)
        if reason == PROTOCOL_ERROR:
            self.pool.stats.upstream_rq_tx_reset += len(exchanges)
        else:
            self.pool.stats.upstream_rq_pending_failure_eject += len(exchanges)
        for exchange in exchanges.values():
            exchange.complete = True
            exchange.sink.on_reset(reason, failure)

    def _close_here(self) -> None:
        self.closed = True
        stats = self.pool.stats
        stats.upstream_cx_destroy_local += 1
        if self.exchanges:
            stats.upstream_cx_destroy_local_with_active_rq += 1
            stats.upstream_cx_destroy_with_active_rq += 1
        self.pool.connection_closed(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self.exchanges)} streams"
        return f"<Http2Connection {self.id} to {self.pool.host.address.text}, {state}, {self.requests} requests>"
