"""A downstream HTTP/2 connection: streams begin and end on it, each with a stream of ours behind it (RFC 9113)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf
from typing import Any

from sidecar.codec.errors import ProtocolError
from sidecar.codec.http2_control import Http2Error
from sidecar.codec.http2_failures import count_error, count_refused
from sidecar.codec.http2_frames import INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR
from sidecar.codec.http2_head import Known
from sidecar.codec.http2_server import ServerConnection
from sidecar.codec.http2_states import DEAD, IN_BLOCK
from sidecar.core import response_flags as flag
from sidecar.core.cork import AT_ONCE, BULK
from sidecar.core.head import Field, RequestHead
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.timer_wheel import Timed
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.http2_exchange import Http2Exchange
from sidecar.http.http2_resets import REMOTE_RESET, TOO_MANY_STREAMS, UNEXPECTED_UNDERSCORE, words_of
from sidecar.http.stream import Stream

_ALIVE = b"alive..?"


class Http2Connection(asyncio.Protocol, Timed):
    """The protocol that the listener gives a connection, and the sink of its codec."""

    __slots__ = (
        "close_at",
        "closed",
        "closing",
        "codec",
        "corked",
        "counters",
        "cut_short",
        "drain_at",
        "exchanges",
        "expires",
        "flushing",
        "full",
        "head_began",
        "idle_since",
        "info",
        "kind",
        "lane",
        "leaving",
        "manager",
        "now",
        "ping_at",
        "ping_due",
        "renders",
        "requests",
        "stats",
        "ticked",
        "transport",
        "worker",
    )  # fmt: skip

    version = 20

    def __init__(self, manager: ConnectionManager, info: ConnectionInfo) -> None:
        self.due = inf
        self.manager = manager
        self.worker = manager.worker
        self.info = info
        self.counters = manager.stats
        self.stats = manager.http2_stats  # of the codec
        self.codec = ServerConnection(manager.options.http2, manager.texts)
        self.codec.sink = self
        self.lane: Any = manager.lane
        self.kind: Any = None if manager.lane is None else manager.lane.kind_of(info)
        self.codec.layouts = self.kind
        self.renders: dict[Any, tuple[int, bytes]] = {}  # the express lane's header blocks
        self.transport: Any = None
        self.exchanges: dict[int, Http2Exchange] = {}
        self.flushing: dict[int, float] = {}  # streams whose end waits for the client's window, to their deadlines
        self.now = self.idle_since = self.ticked = info.start
        self.requests = 0
        self.corked = False
        self.full = False
        self.closed = False
        self.leaving = False  # the client has said so
        self.closing = False  # what is written now is the last
        self.cut_short = False  # the connection broke with something under way
        self.expires = inf
        self.close_at = inf
        self.drain_at = inf  # when the second GOAWAY is due
        self.head_began = inf
        self.ping_at = self.ping_due = inf  # when the next keep-alive PING is sent, and when its answer is due

    # the event loop's side

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        manager = self.manager
        options = manager.options
        transport.set_write_buffer_limits(high=options.buffer_limit)
        manager.opened(self)
        if options.max_connection_duration != inf:
            self.expires = self.info.start + options.max_connection_duration
        self.ping_at = options.keepalive.next_ping(self.info.start, self.worker.random)
        self.wake_by(min(self.idle_since + options.idle_timeout, self.expires, self.ping_at))
        self.cork()
        self.worker.cork.settle()

    def data_received(self, data: bytes) -> None:
        worker = self.worker
        codec = self.codec
        self.now = worker.clock()
        self.counters.downstream_cx_rx_bytes_total += len(data)
        try:
            codec.receive(data)
        except Http2Error as error:
            self._broken(error)
        if codec.out and not self.corked:
            self.cork()
        if codec.state or codec.interrupted or self.leaving or self.flushing or self.head_began != inf or self.manager.draining:
            self._after_a_read()
        cork = worker.cork
        if cork.waiting and (not cork.scheduled or len(cork.waiting) >= AT_ONCE or len(data) >= BULK):
            cork.settle(len(data))

    def eof_received(self) -> bool | None:
        """As Envoy, we take a FIN as the end of the connection."""
        return None

    def connection_lost(self, error: Exception | None) -> None:
        remote = not self.closed and not self.closing
        self.closed = True
        active = bool(self.exchanges) or self.cut_short
        now = self.now = self.worker.clock()
        for exchange in tuple(self.exchanges.values()):
            exchange.stream.on_downstream_closed(now)
            del exchange.stream
        self.stats.streams_active -= len(self.exchanges)
        self.exchanges.clear()
        self.codec.give_up()
        self.worker.wheel.cancel(self)
        self.manager.closed(self, remote, active)
        if self.worker.cork.waiting:
            self.worker.cork.pull()

    def pause_writing(self) -> None:
        self.full = True
        self.codec.pause()

    def resume_writing(self) -> None:
        self.full = False
        self.codec.resume()
        self.cork()
        self.worker.cork.pull()

    # the codec's side

    def on_known(self, stream_id: int, known: Known, values: list[bytes], end: bool) -> bool:
        binding = known.shape
        if binding.shape.end is not end:
            return False
        path = values[0] if binding.path is None else binding.path
        lane = self.lane
        if path.translate(None, lane.path) or (lane.normalizes and (b"//" in path or b"/." in path)):
            return False
        self.on_laid_out(binding.shape, stream_id, path, binding.values(values), end)
        return True

    def on_head(self, stream_id: int, head: RequestHead, end: bool) -> None:
        lane = self.lane
        if lane is not None:
            shape = lane.recognise(self, head, end)
            if shape is not None:
                known = self.codec.known
                if known is not None and known.shape is None:
                    shape.bind(known)
                elif known is None and self.codec.fields is not None:
                    lane.lay_out(self.kind, self.codec.fields, shape)
                if self._express(shape, stream_id, head.path, shape.values_of(head.index), end):
                    return
        manager = self.manager
        if manager.judge_http2 is not None:
            try:
                manager.judge_http2(head)
            except ProtocolError:
                self.codec.reset(stream_id, INTERNAL_ERROR)
                self.stats.tx_reset += 1
                self._turned_away(stream_id, INTERNAL_ERROR, UNEXPECTED_UNDERSCORE)
                return
        self.requests += 1
        self.stats.streams_active += 1
        now = self.now
        exchange = self.exchanges[stream_id] = Http2Exchange(self, stream_id, now)
        exchange.stream = stream = Stream(exchange, manager, head, now)
        stream.request_head_size = self.codec.received_head_size
        most = manager.options.max_requests
        if most and self.requests == most:
            manager.stats.downstream_cx_max_requests_reached += 1
            self.drain()
        stream.begin(end)

    def _express(self, shape: Any, stream_id: int, path: bytes, values: Sequence[bytes], end: bool) -> bool:
        """Let the express lane take a request of this shape, if its path is plain."""
        lane = self.lane
        if path.translate(None, lane.path) or (lane.normalizes and (b"//" in path or b"/." in path)):
            return False
        self.on_laid_out(shape, stream_id, path, values, end)
        return True

    def on_laid_out(self, shape: Any, stream_id: int, path: bytes, values: Sequence[bytes], end: bool) -> None:
        now = self.now
        exchange = self.exchanges[stream_id] = Http2Exchange(self, stream_id, now)
        self.requests += 1
        self.stats.streams_active += 1
        self.lane.forward_http2(shape, exchange, self, now, path, values, self.codec.received_head_size, None, end)

    def on_data(self, stream_id: int, data: bytes, end: bool) -> None:
        exchange = self.exchanges.get(stream_id)
        if exchange is None:
            self.codec.consumed(stream_id, len(data))
            return
        now = exchange.now = self.now
        through = exchange.through
        if through is not None and not end and not through.complete:
            stream = exchange.stream
            stream.bytes_received += len(data)
            stream.now = stream.last_activity = now
            through.send_data(data, False)
            if exchange.paused:
                exchange.unconsumed += len(data)
            else:
                self.codec.consumed(stream_id, len(data))
            return
        exchange.stream.on_data(data, end)
        if exchange.paused:
            exchange.unconsumed += len(data)
        else:
            self.codec.consumed(stream_id, len(data))

    def on_trailers(self, stream_id: int, fields: list[Field]) -> None:
        self.stats.trailers += 1
        exchange = self.exchanges.get(stream_id)
        if exchange is not None:
            exchange.now = exchange.stream.now = self.now
            exchange.stream.request_head_size += self.codec.received_head_size
            exchange.stream.on_trailers(fields)

    def on_reset(self, stream_id: int, code: int, details: str) -> None:
        stats = self.stats
        if details == REMOTE_RESET:
            stats.rx_reset += 1
        else:
            stats.tx_reset += 1
            count_error(stats, details)
        self.flushing.pop(stream_id, None)
        exchange = self.exchanges.pop(stream_id, None)
        if exchange is not None:
            answered = exchange.stream.response is not None
            exchange.stream.on_downstream_closed(self.now, *words_of(code, details, answered))
            del exchange.stream
            if exchange.unconsumed:
                self.codec.consumed(stream_id, exchange.unconsumed)
            self.exchange_over()

    def on_refused(self, stream_id: int, code: int, details: str) -> None:
        if code != NO_ERROR:
            self.stats.tx_reset += 1
            count_refused(self.stats, code, details)
        else:
            self.cut_short = True
        if details != TOO_MANY_STREAMS:
            self._turned_away(stream_id, code, details)

    def on_window(self, stream_id: int) -> None:
        exchange = self.exchanges.get(stream_id)
        if exchange is not None and exchange.full:
            exchange.full = False
            exchange.stream.on_downstream_writable()

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """The client will open no more streams; what is under way goes on, and the connection ends behind it."""
        self.leaving = True

    def on_settings(self) -> None:
        """Nothing to do: the codec has done it."""

    def on_ping_ack(self, opaque: bytes) -> None:
        if opaque == _ALIVE:
            self.ping_due = inf
            self.ping_at = self.manager.options.keepalive.next_ping(self.now, self.worker.random)
            self.wake_by(self.ping_at)

    # the exchanges' side

    def cork(self) -> None:
        """What the codec has to say leaves with the rest of this turn."""
        if not self.corked and not self.closed and self.codec.out:
            self.corked = True
            self.worker.cork.waiting.append(self)

    def unwanted(self, stream_id: int) -> None:
        """The response is whole and the request is not: nobody reads the rest of it."""
        if self.codec.is_queued(stream_id):
            return  # the end of the response waits; what comes until then is thrown away
        self.codec.reset(stream_id, NO_ERROR)
        self.stats.tx_reset += 1
        self.cork()

    def exchange_over(self) -> None:
        """An exchange has ended: so may the connection."""
        self.stats.streams_active -= 1
        if not self.exchanges:
            self.rest()

    def rest(self) -> None:
        """No exchange is left: wait for the next, or end."""
        self.now = self.idle_since = self.worker.clock()
        codec = self.codec
        if codec.goaway_received or (codec.draining and self.drain_at == inf):
            if not self.flushing:
                self.close_after_flush()
        else:
            self.wake_by(self.now + self.manager.options.idle_timeout)

    def flush_later(self, stream_id: int) -> None:
        """The response's end waits for the client's window: not for ever."""
        if self.codec.is_queued(stream_id):
            due = self.flushing[stream_id] = self.now + self.manager.options.stream_idle_timeout
            self.wake_by(due)

    def _flushed(self) -> None:
        """Look whether what waited for the client's window has left."""
        for stream_id in [stream_id for stream_id in self.flushing if not self.codec.is_queued(stream_id)]:
            del self.flushing[stream_id]
        if not self.flushing and not self.exchanges:
            self.rest()

    def wake_by(self, due: float) -> None:
        """Make sure that the timer wakes this connection at ``due`` or before; a call that changes nothing is cheap."""
        if due < self.due:
            self.worker.wheel.arm(self, due)

    def flush(self) -> None:
        self.corked = False
        codec = self.codec
        if self.full or self.closed:
            return
        if codec.bulky:
            self._write(codec.take())
        elif codec.out:
            data = b"".join(codec.take())
            self.counters.downstream_cx_tx_bytes_total += len(data)
            self.transport.write(data)
        if self.closing and not codec.waiting and self.close_at == inf:
            self._half_close()

    def _write(self, pieces: list[bytes]) -> None:
        size = sum(map(len, pieces))
        self.counters.downstream_cx_tx_bytes_total += size
        if size < self.worker.join_below:
            self.transport.write(b"".join(pieces))
        else:
            self.transport.writelines(pieces)

    # draining and closing

    def streams(self) -> int:
        return len(self.exchanges)

    def drain(self) -> None:
        """Ask the client to open no more streams, take none after the drain timeout, and close behind the last of them.

        Source: RFC 9113 section 6.8, and Envoy's `drain_timeout`.
        """
        if not self.codec.draining and not self.closing:
            self.codec.shutdown_notice()
            self.stats.goaway_sent += 1
            if self.manager.draining:
                self.counters.downstream_cx_drain_close += 1
            self.drain_at = self.worker.clock() + self.manager.options.drain_timeout
            self.wake_by(self.drain_at)
            self.cork()
            self.worker.cork.settle()

    def close_after_flush(self) -> None:
        """Close once everything is written."""
        if self.closed or self.closing:
            return
        self.closing = True
        self.cork()
        if not self.corked and not self.codec.waiting:
            self._half_close()

    def on_timer(self, now: float) -> None:
        if self.closed:
            return
        self.now = now
        if now >= self.close_at:
            self.manager.stats.downstream_cx_delayed_close_timeout += 1
            self._abort()
            return
        if now >= self.ping_due:
            self.stats.keepalive_timeout += 1
            self._abort()
            return
        if not self.closing:
            self._check_connection(now)
        for exchange in tuple(self.exchanges.values()):
            if exchange.id in self.exchanges:  # one that times out may take another with it
                exchange.now = now
                self.wake_by(exchange.stream.on_timer(now))
        for stream_id, flush_due in tuple(self.flushing.items()):
            self._check_flush(stream_id, flush_due)
        self.wake_by(min(self.close_at, self.ping_due))
        if self.codec.out:
            self.cork()
        if self.worker.cork.waiting:
            self.worker.cork.pull()

    def _check_connection(self, now: float) -> None:
        """The deadlines of the connection itself."""
        options, stats = self.manager.options, self.manager.stats
        codec = self.codec
        codec.tick(now - self.ticked)
        self.ticked = now
        if now >= self.head_began + options.head_patience:
            stats.downstream_rq_header_timeout += 1
            codec.go_away(PROTOCOL_ERROR)
            self.cut_short = True
            self._turned_away(codec.block_stream, NO_ERROR, "request_header_timeout")
            self._end_exchanges("request_header_timeout", 0)
            self.close_after_flush()
            return
        if now >= self.expires:
            stats.downstream_cx_max_duration_reached += 1
            self.expires = inf
            self.drain()
        if now >= self.drain_at:
            self._last_goaway()
        if now >= self.ping_at:
            self.ping_at = inf
            self.ping_due = now + options.keepalive.timeout
            codec.ping(_ALIVE)
        idle_due = inf if self.exchanges or codec.draining else self.idle_since + options.idle_timeout
        if now >= idle_due:
            stats.downstream_cx_idle_timeout += 1
            self.drain()
            idle_due = inf
        self.wake_by(min(idle_due, self.expires, self.drain_at, self.ping_at, self.head_began + options.head_patience))

    def _check_flush(self, stream_id: int, due: float) -> None:
        if not self.codec.is_queued(stream_id):
            del self.flushing[stream_id]
        elif self.now >= due:
            del self.flushing[stream_id]
            self.stats.tx_flush_timeout += 1
            self.codec.reset(stream_id, NO_ERROR)
        else:
            self.wake_by(due)

    def _last_goaway(self) -> None:
        self.drain_at = inf
        self.codec.go_away()
        self.stats.goaway_sent += 1
        if not self.exchanges:
            self.close_after_flush()

    def _after_a_read(self) -> None:
        codec = self.codec
        if self.manager.draining and self.requests:
            self.drain()
        if self.flushing:
            self._flushed()
        if self.leaving and not self.exchanges and not self.flushing:
            self.close_after_flush()
        if codec.interrupted:
            self.transport.pause_reading()
            self.worker.loop.call_soon(self._next_turn)
        if codec.state == IN_BLOCK:
            if self.head_began == inf:
                self.head_began = self.now
                self.wake_by(self.now + self.manager.options.head_patience)
        else:
            self.head_began = inf

    def _next_turn(self) -> None:
        """Go on with a read that brought very much."""
        if self.closed or not self.codec.interrupted:
            return
        self.now = self.worker.clock()
        try:
            self.codec.take_held()
        except Http2Error as error:
            self._broken(error)
        if not self.codec.interrupted:
            self.transport.resume_reading()
        self.cork()
        self._after_a_read()
        if self.worker.cork.waiting:
            self.worker.cork.pull()

    def _broken(self, error: Http2Error) -> None:
        """The client has broken the protocol, or overdone it: GOAWAY is on its way, and all streams end."""
        self.manager.stats.downstream_cx_protocol_error += 1
        if error.details == "http2.too_many_resets":
            self.manager.stats.downstream_rq_too_many_premature_resets += 1
        self.stats.goaway_sent += 1
        count_error(self.stats, error.details)
        if self.exchanges:
            self.cut_short = True
        self._end_exchanges(error.details, flag.DOWNSTREAM_PROTOCOL_ERROR)
        self.close_after_flush()

    def _end_exchanges(self, details: str, flags: int) -> None:
        exchanges, self.exchanges = self.exchanges, {}
        self.stats.streams_active -= len(exchanges)
        self.codec.waiting.clear()
        for exchange in exchanges.values():
            exchange.stream.on_downstream_closed(self.now, details, flags)
            del exchange.stream

    def _turned_away(self, stream_id: int, code: int, details: str) -> None:
        """A stream ended before it had begun: its head is none, or more than is allowed. It is counted and logged."""
        exchange = Http2Exchange(self, stream_id, self.now)
        Stream(exchange, self.manager, RequestHead(b"", b"", b"", [], 20, b""), self.now).turned_away(
            *words_of(code, details, False)
        )

    def _half_close(self) -> None:
        delay = self.manager.options.delayed_close_timeout
        if self.codec.state != DEAD:
            self.codec.state = DEAD  # takes nothing more
        if delay or self.transport.get_write_buffer_size():
            if self.transport.can_write_eof() and not self.transport.is_closing():
                self.transport.write_eof()
            self.close_at = self.worker.clock() + (delay or 1.0)
            self.wake_by(self.close_at)
        else:
            self.closed = True
            self.transport.close()

    def _abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.transport.abort()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self.closing else f"{len(self.exchanges)} streams"
        return f"<Http2Connection {self.info!r} {state}, {self.requests} requests>"
