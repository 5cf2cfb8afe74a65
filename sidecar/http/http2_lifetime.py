"""How long a downstream HTTP/2 connection lasts, and what it writes until then: keep-alive, rests, drains and ends (RFC 9113)."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any

from sidecar.codec.http2_frames import NO_ERROR, PROTOCOL_ERROR
from sidecar.codec.http2_server import ServerConnection
from sidecar.codec.http2_states import DEAD
from sidecar.core.timer_wheel import Timed
from sidecar.core.worker import Worker

if TYPE_CHECKING:
    from sidecar.http.connection_manager import ConnectionManager
    from sidecar.http.http2_exchange import Http2Exchange

_ALIVE = b"alive..?"


class Http2Lifetime(asyncio.Protocol, Timed):
    """``close_at``, ``expires``, ``drain_at`` (the second GOAWAY), ``ping_at`` and ``ping_due`` (a PING and its answer)
    are times of the worker's clock, ``inf`` for never. ``flushing`` are streams whose end waits for the client's window, to
    their deadlines; ``closing`` says that what is written now is the last, ``cut_short`` that something was under way.
    """

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
        "manager",
        "now",
        "ping_at",
        "ping_due",
        "stats",
        "ticked",
        "transport",
        "worker",
    )  # fmt: skip

    manager: ConnectionManager
    worker: Worker
    codec: ServerConnection
    counters: Any
    stats: Any
    transport: Any
    exchanges: dict[int, Http2Exchange]
    flushing: dict[int, float]
    now: float
    idle_since: float
    ticked: float
    head_began: float
    expires: float
    close_at: float
    drain_at: float
    ping_at: float
    ping_due: float
    corked: bool
    full: bool
    closed: bool
    closing: bool
    cut_short: bool

    def end_exchanges(self, details: str, flags: int) -> None:
        """All streams end, since the connection does."""
        raise NotImplementedError

    def turned_away(self, stream_id: int, code: int, details: str) -> None:
        """A stream ended before it had begun."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        self.full = True
        self.codec.pause()

    def resume_writing(self) -> None:
        self.full = False
        self.codec.resume()
        self.cork()
        self.worker.cork.pull()

    def cork(self) -> None:
        """What the codec has to say leaves with the rest of this turn."""
        if not self.corked and not self.closed and self.codec.out:
            self.corked = True
            self.worker.cork.waiting.append(self)

    def wake_by(self, due: float) -> None:
        """Make sure that the timer wakes this connection at ``due`` or before; a call that changes nothing is cheap."""
        if due < self.due:
            self.worker.wheel.arm(self, due)

    def flush(self) -> None:
        self.corked = False
        codec = self.codec
        if self.full or self.closed:
            return
        if self.closing or codec.bulky:
            self._write(codec.take())
        elif codec.out:
            data = b"".join(codec.take())
            self.counters.downstream_cx_tx_bytes_total += len(data)
            self.transport.write(data)

    def _write(self, pieces: list[bytes]) -> None:
        if self.close_at != inf:  # the last word has been said: what a late reset has to say is not
            return
        size = sum(map(len, pieces))
        self.counters.downstream_cx_tx_bytes_total += size
        if size >= self.worker.join_below:
            self.transport.writelines(pieces)
        elif size:
            self.transport.write(b"".join(pieces))
        if self.closing and not self.codec.waiting:
            self._half_close()

    def flush_later(self, stream_id: int) -> None:
        """The response's end waits for the client's window: not for ever."""
        if self.codec.is_queued(stream_id):
            due = self.flushing[stream_id] = self.now + self.manager.options.stream_idle_timeout
            self.wake_by(due)

    def rest(self) -> None:
        """No exchange is left: wait for the next, or end."""
        self.now = self.idle_since = self.worker.clock()
        codec = self.codec
        if codec.draining and self.drain_at == inf:
            if not self.flushing:
                self.close_after_flush()
        else:
            self.wake_by(self.now + self.manager.options.idle_timeout)

    def _flushed(self) -> None:
        """Look whether what waited for the client's window has left."""
        for stream_id in [stream_id for stream_id in self.flushing if not self.codec.is_queued(stream_id)]:
            del self.flushing[stream_id]
        if not self.flushing and not self.exchanges:
            self.rest()

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
            self.turned_away(codec.block_stream, NO_ERROR, "request_header_timeout")
            self.end_exchanges("request_header_timeout", 0)
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
        if not self.exchanges and not self.flushing:
            self.close_after_flush()

    def on_ping_ack(self, opaque: bytes) -> None:
        if opaque == _ALIVE:
            self.ping_due = inf
            self.ping_at = self.manager.options.keepalive.next_ping(self.now, self.worker.ping_random)
            self.wake_by(self.ping_at)

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
