"""A downstream HTTP/1 connection: reads requests, gives each a stream, writes its response (RFC 9112)."""

from __future__ import annotations

import select
from math import inf
from typing import Any

from sidecar.codec.errors import ProtocolError
from sidecar.codec.http1 import RequestReader
from sidecar.codec.http1_head import reason_phrase
from sidecar.codec.http1_reader import BROKEN, DONE, HEAD, TUNNEL
from sidecar.core import response_flags as flag
from sidecar.core.cork import AT_ONCE, BULK
from sidecar.core.head import Field, RequestHead
from sidecar.core.stream_info import ConnectionInfo
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.forwarding import upgrade_of
from sidecar.http.http1_writer import Http1Writer
from sidecar.http.stream import Stream

_MESSAGES_PER_READ = 32
_HELD_HIGH = 64 * 1024
_PROBE_EVERY = 1.0  # seconds between looks at a peer that is not being read from
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Http1Connection(Http1Writer):
    """The protocol that the listener gives a connection; also the ``Downstream`` of its streams, one after another."""

    __slots__ = (
        "close_at",
        "expires",
        "full",
        "head_began",
        "idle_since",
        "info",
        "kind",
        "now",
        "paused",
        "requests",
        "retire_at",
        "turns",
        "upstream_full",
    )  # fmt: skip

    version = 11

    def __init__(self, manager: ConnectionManager, info: ConnectionInfo) -> None:
        self.due = inf
        self.manager = manager
        self.worker = manager.worker
        self.info = info
        self.transport: Any = None
        options = manager.options
        self.reader = RequestReader(
            manager.lines_seen,
            options.max_request_head_bytes,
            options.max_request_fields,
            options.accept_http_10,
            options.allow_absolute_url,
        )
        self.reader.sink = self
        self.reader.judge = manager.judge
        self.reader.keep_case = options.header_case == "preserve"
        self.stream: Stream | None = None
        self.out: list[bytes] = []
        self.now = info.start
        self.chunked = False
        self.keep_alive = True
        self.requests = 0
        self.closed = False
        self.closing = False  # a last response is on its way; nothing more is read
        self.full = False
        self.paused = False
        self.upstream_full = False  # the request's body finds no room there
        self.head_began = inf  # when the first byte of an unfinished head came
        self.idle_since = info.start
        self.expires = inf
        self.retire_at = inf  # it has lasted long enough: closes with its next response, or idle then
        self.close_at = inf
        self.turns = 0
        self.proper_case = options.header_case == "proper"
        self.kind: Any = None if manager.lane is None else manager.lane.kind_of(info)

    # the event loop's side

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        manager = self.manager
        transport.set_write_buffer_limits(high=manager.options.buffer_limit)
        manager.opened(self)
        options = manager.options
        manager.unused.begin(self)
        if options.max_connection_duration != inf:
            self.expires = self.info.start + options.max_connection_duration
            self.worker.wheel.arm(self, self.expires)

    def data_received(self, data: bytes) -> None:
        worker = self.worker
        reader = self.reader
        lane = self.manager.lane
        if lane is not None and self.stream is None and reader.state == HEAD and reader.partial is None:
            if lane.take(self, data):
                cork = worker.cork
                if cork.waiting and (not cork.scheduled or len(cork.waiting) >= AT_ONCE):
                    cork.settle()
                return
        else:
            lane = None
        self.now = worker.clock()
        self.manager.stats.downstream_cx_rx_bytes_total += len(data)
        try:
            reader.receive(data)
        except ProtocolError as error:
            self._protocol_error(error)
        self.turns = 0
        if lane is not None and 0 < reader.head_size <= len(data) and lane.may_recur(self):
            lane.learn(self, data)
        if reader.held is not None:
            self._hold_back()
        elif reader.partial is not None and self.head_began == inf and self.stream is None:
            self.head_began = self.now
            self.wake_by(self.now + self.manager.options.head_patience)
        cork = worker.cork
        if cork.waiting and (not cork.scheduled or len(cork.waiting) >= AT_ONCE or len(data) >= BULK):
            cork.settle(len(data))

    def eof_received(self) -> bool | None:
        """As Envoy, we take a FIN as the end of the connection: a request that is under way is given up."""
        return None

    def connection_lost(self, error: Exception | None) -> None:
        remote = not self.closed and not self.closing
        self.closed = True
        stream = self.stream
        if stream is not None:
            self.now = self.worker.clock()
            self.stream = None
            stream.on_downstream_closed(self.now)
        elif self.head_began != inf and remote:
            self._left_within_a_head()
        self.reader.sink = None
        self.worker.wheel.cancel(self)
        self.manager.unused.end(self)
        self.manager.closed(self, remote, stream is not None or (self.head_began != inf and remote))
        if self.worker.cork.waiting:
            self.worker.cork.pull()

    def pause_writing(self) -> None:
        self.full = True
        if self.stream is not None:
            self.stream.on_downstream_full()

    def resume_writing(self) -> None:
        self.full = False
        if self.stream is not None:
            self.stream.on_downstream_writable()
            if self.worker.cork.waiting:
                self.worker.cork.pull()
        elif self.reader.state == DONE:
            self._next_turn()

    # the reader's side

    def on_head(self, head: RequestHead, end: bool) -> None:
        if self.closing:
            return
        self.turns += 1
        self.requests += 1
        self.head_began = inf
        manager = self.manager
        self.keep_alive = self.reader.keep_alive and not manager.draining and self.retire_at == inf
        self.stream = stream = Stream(self, manager, head, self.now)
        stream.request_head_size = self.reader.head_size
        if b"upgrade" in head.index and end and upgrade_of(head):
            self.reader.state = TUNNEL  # whatever follows belongs to the upgraded protocol
            end = False
        elif head.method == b"CONNECT":
            self.reader.state = TUNNEL
            end = False
        if manager.options.max_requests and self.requests >= manager.options.max_requests:
            self.keep_alive = False
            manager.stats.downstream_cx_max_requests_reached += 1
        stream.begin(end)

    def on_data(self, data: bytes, end: bool) -> None:
        if self.stream is not None:
            self.stream.on_data(data, end)

    def on_message(self, head: RequestHead, body: bytes) -> None:
        """The reader of requests gives head and body apart."""
        self.on_head(head, False)
        self.on_data(body, True)

    def on_trailers(self, trailers: list[Field]) -> None:
        if self.stream is not None:
            if self.manager.options.trailers:
                self.stream.on_trailers(trailers)
            else:
                self.stream.on_data(b"", True)

    # the stream's side

    def finished(self) -> None:
        """The stream is over: its response was sent whole. Await the next request, or close."""
        self.stream = None
        self.upstream_full = False
        reader = self.reader
        if not self.keep_alive or reader.state != DONE:
            if reader.state != DONE:
                self.manager.stats.downstream_rq_response_before_rq_complete += 1
                self.manager.stats.downstream_rq_rx_reset += 1
            self.close_after_flush()
            return
        self.now = self.idle_since = now = self.worker.clock()
        self.wake_by(now + self.manager.options.idle_timeout)
        if self.turns >= _MESSAGES_PER_READ:  # let others have their turn before the rest of this read
            self.worker.loop.call_soon(self._next_turn)
            return
        if self.full:  # no further answer before this one has found room
            return
        if not self.turns and reader.held is not None:  # when the pool has its connection back
            self.worker.loop.call_soon(self._next_turn)
            return
        reader.next_message()
        if self.paused:
            self._may_resume()

    def reset(self) -> None:
        """End the connection now: the response cannot be completed."""
        self.stream = None
        self.flush()
        self._abort()

    def close_after_response(self) -> None:
        """The next response is the last of this connection."""
        self.keep_alive = False

    def wake_by(self, due: float) -> None:
        """Make sure that the timer wakes this connection at ``due`` or before; a call that changes nothing is cheap."""
        if due < self.due:
            self.worker.wheel.arm(self, due)

    def pause_reading(self) -> None:
        """The upstream is full: take no more of the request."""
        self.upstream_full = True
        self._pause()

    def resume_reading(self) -> None:
        self.upstream_full = False
        if self.paused:
            self._may_resume()

    # timers and closing

    def expire(self) -> None:
        """The time for a first request is over; whether one came is seen there."""
        self.on_timer(self.worker.clock())

    def on_timer(self, now: float) -> None:
        if self.closed:
            return
        self.now = now
        due = inf
        if now >= self.close_at:
            self.manager.stats.downstream_cx_delayed_close_timeout += 1
            self._abort()
            return
        due = self.close_at
        if self.paused and not self.closing:
            if self._peer_is_gone():
                self.transport.abort()
                return
            due = min(due, now + _PROBE_EVERY)
        if now >= self.expires:
            self.manager.stats.downstream_cx_max_duration_reached += 1
            self.expires = inf
            self.retire_at = now + self.manager.options.drain_timeout
            self.keep_alive = False
        stream = self.stream
        if stream is not None:
            due = min(due, stream.on_timer(now), self.expires)
        elif not self.closing:
            options = self.manager.options
            if now >= self.head_began + options.head_patience:
                self._head_timed_out(now - self.head_began)
            elif self.head_began != inf:
                due = min(due, self.head_began + options.head_patience, self.expires)
            elif now >= self.idle_since + options.idle_timeout:
                self.manager.stats.downstream_cx_idle_timeout += 1
                self.close_after_flush()
            elif now >= self.retire_at:
                self.close_after_flush()
            else:
                due = min(due, self.idle_since + options.idle_timeout, self.expires, self.retire_at)
        if self.worker.cork.waiting:
            self.worker.cork.pull()
        if due != inf and not self.closed:
            self.wake_by(due)

    def streams(self) -> int:
        return 0 if self.stream is None else 1

    def retire(self, due: float) -> bool:
        """Close with the next response, which says so, or idle at ``due``; False if one is on its way without a word of it."""
        if self.retire_at != inf:
            return True
        if self.stream is not None and self.stream.response_head_size:
            return False
        self.retire_at = due
        self.keep_alive = False
        self.wake_by(due)
        return True

    def drain(self) -> None:
        """Close as soon as no request is under way."""
        self.keep_alive = False
        if self.stream is None and not self.closing and self.reader.state == HEAD and self.reader.partial is None:
            self.close_after_flush()

    def close_after_flush(self) -> None:
        """Close once everything is written; give the peer the delayed-close time to read it (Envoy's option)."""
        if self.closed or self.closing:
            return
        self.closing = True
        self.reader.state = BROKEN
        if not self.out:
            self._half_close()

    def _end_with(self, data: bytes) -> None:
        delay = self.manager.options.delayed_close_timeout
        if delay and self.info.tls is not None:
            self.transport.write_last(data)
            self._await_end(delay)
        else:
            self.transport.write(data)
            self._half_close()

    def _half_close(self) -> None:
        delay = self.manager.options.delayed_close_timeout
        if delay or self.transport.get_write_buffer_size():
            if self.transport.can_write_eof() and not self.transport.is_closing():
                self.transport.write_eof()
            self._await_end(delay or 1.0)
        else:
            self.closed = True
            self.transport.close()

    def _await_end(self, seconds: float) -> None:
        """Give the peer time to read what was written, and to close."""
        self.close_at = self.worker.clock() + seconds
        self.wake_by(self.close_at)
        self._resume()

    def _abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.transport.abort()

    def _protocol_error(self, error: ProtocolError) -> None:
        if error.head is None:
            self.manager.stats.downstream_cx_protocol_error += 1
        self.keep_alive = False
        stream = self.stream
        if stream is None:
            stream = self.stream = Stream(self, self.manager, error.head or RequestHead(b"", b"", b"", []), self.now)
        if error.head is not None:
            self.manager.stats.downstream_rq_total += 1
            self.manager.stats.downstream_rq_active += 1
            self.reader.state = DONE  # nothing of the request is missing
            stream.reply(error.status, details=error.details)
        else:
            stream.on_protocol_error(error.status, reason_phrase(error.status), error.details)

    def _pause(self) -> None:
        if not self.paused and not self.closed:
            self.paused = True
            self.transport.pause_reading()
            self.wake_by(self.worker.clock() + _PROBE_EVERY)
            self.manager.stats.downstream_flow_control_paused_reading_total += 1

    def _resume(self) -> None:
        if self.paused and not self.closed:
            self.paused = False
            self.transport.resume_reading()
            self.manager.stats.downstream_flow_control_resumed_reading_total += 1

    def _may_resume(self) -> None:
        reader = self.reader
        if not self.upstream_full and not reader.interrupted and reader.held_size() <= _HELD_HIGH:
            self._resume()

    def _hold_back(self) -> None:
        """A read brought more than is wanted now."""
        reader = self.reader
        if reader.interrupted:
            self._pause()
            self.worker.loop.call_soon(self._more_chunks)
        elif reader.held_size() > _HELD_HIGH:
            self._pause()

    def _more_chunks(self) -> None:
        if not self.closed and self.reader.interrupted:
            self.now = self.worker.clock()
            self._take_held()
            if self.worker.cork.waiting:
                self.worker.cork.pull()

    def _next_turn(self) -> None:
        reader = self.reader
        if not self.closed and not self.closing and not self.full and self.stream is None and reader.state == DONE:
            self.now = self.worker.clock()
            reader.next_message()
            self._take_held()
            if self.stream is None and not self.keep_alive and reader.partial is None:
                self.close_after_flush()  # a drain came between
            if self.worker.cork.waiting:
                self.worker.cork.pull()

    def _take_held(self) -> None:
        try:
            self.reader.take_held()
        except ProtocolError as error:
            self._protocol_error(error)
        self.turns = 0
        if self.reader.held is not None:
            self._hold_back()
        if self.paused:
            self._may_resume()

    def _peer_is_gone(self) -> bool:
        """Whether the peer closed its side, which the event loop does not notice while reading is paused."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), _GONE)
        return bool(poll.poll(0))

    def _left_within_a_head(self) -> None:
        """As Envoy, a head that was begun counts and is logged as a request."""
        stats = self.manager.stats
        stats.downstream_rq_total += 1
        stats.downstream_rq_active += 1
        now = self.worker.clock()
        Stream(self, self.manager, RequestHead(b"", b"", b"", []), now).on_downstream_closed(now)

    def _head_timed_out(self, waited: float) -> None:
        """A head was begun and not finished: 408, as the shortest of three timeouts words it."""
        options, stats = self.manager.options, self.manager.stats
        self.keep_alive = False
        self.head_began = inf
        stats.downstream_rq_total += 1
        stats.downstream_rq_active += 1
        stream = self.stream = Stream(self, self.manager, RequestHead(b"", b"", b"", []), self.now)
        if waited >= options.request_headers_timeout:
            stats.downstream_rq_header_timeout += 1
            stream.reply(408, b"request header timeout", details="request_header_timeout")
        elif waited >= options.request_timeout:
            stats.downstream_rq_timeout += 1
            stream.reply(408, b"request timeout", details="request_overall_timeout")
        else:
            stats.downstream_rq_idle_timeout += 1
            flags = flag.STREAM_IDLE_TIMEOUT
            stream.reply(408, b"stream timeout", details="stream_idle_timeout", flags=flags)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self.closing else "idle" if self.stream is None else "busy"
        return f"<Http1Connection {self.info!r} {state}, {self.requests} requests>"
