"""A downstream HTTP/1 connection: reads requests, gives each a stream, writes its response (RFC 9112)."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

from sidecar.codec.errors import ProtocolError
from sidecar.codec.http1 import BROKEN, DONE, HEAD, TUNNEL, RequestReader
from sidecar.codec.http1_head import proper_case, render_fields, spell, status_line
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.timer_wheel import Timed
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.forwarding import upgrade_of
from sidecar.http.stream import Stream

_JOIN_BELOW = 16384
_MESSAGES_PER_READ = 32
_HELD_HIGH = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class Http1Connection(asyncio.Protocol, Timed):
    """The protocol that the listener gives a connection; also the ``Downstream`` of its streams, one after another."""

    __slots__ = (
        "chunked",
        "close_at",
        "closed",
        "closing",
        "expires",
        "full",
        "head_deadline",
        "idle_since",
        "info",
        "keep_alive",
        "manager",
        "now",
        "out",
        "paused",
        "proper_case",
        "reader",
        "requests",
        "stream",
        "transport",
        "turns",
        "worker",
    )  # fmt: skip

    def __init__(self, manager: ConnectionManager, info: ConnectionInfo) -> None:
        self.due = inf
        self.manager = manager
        self.worker = manager.worker
        self.info = info
        self.transport: Any = None
        options = manager.options
        self.reader = RequestReader(manager.lines_seen, options.max_request_head_bytes, options.max_request_fields)
        self.reader.sink = self
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
        self.head_deadline = inf
        self.idle_since = info.start
        self.expires = inf
        self.close_at = inf
        self.turns = 0
        self.proper_case = options.header_case == "proper"

    # the event loop's side

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        manager = self.manager
        transport.set_write_buffer_limits(high=manager.options.buffer_limit)
        manager.opened(self)
        options = manager.options
        if options.max_connection_duration != inf:
            self.expires = self.info.start + options.max_connection_duration
        if options.request_headers_timeout != inf:
            self.head_deadline = self.info.start + options.request_headers_timeout
        due = min(self.idle_since + options.idle_timeout, self.expires, self.head_deadline)
        if due != inf:
            self.worker.wheel.arm(self, due)

    def data_received(self, data: bytes) -> None:
        worker = self.worker
        self.now = worker.clock()
        self.manager.stats.downstream_cx_rx_bytes_total += len(data)
        try:
            self.reader.receive(data)
        except ProtocolError as error:
            self._protocol_error(error)
        self.turns = 0
        if self.stream is not None and self.reader.held is not None and self.reader.held_size() > _HELD_HIGH:
            self._pause()
        if worker.cork.waiting:
            worker.cork.pull()

    def eof_received(self) -> bool | None:
        """As Envoy, we take a FIN as the end of the connection: a request that is under way is given up."""
        return None

    def connection_lost(self, error: Exception | None) -> None:
        remote = not self.closed
        self.closed = True
        stream = self.stream
        if stream is not None:
            self.now = self.worker.clock()
            self.stream = None
            stream.on_downstream_closed(self.now)
        self.reader.sink = None
        self.worker.wheel.cancel(self)
        self.manager.closed(self, remote, stream is not None)
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

    # the reader's side

    def on_head(self, head: RequestHead, end: bool) -> None:
        if self.closing:
            return
        self.turns += 1
        self.requests += 1
        self.head_deadline = inf
        manager = self.manager
        self.keep_alive = self.reader.keep_alive and not manager.draining
        self.stream = stream = Stream(self, manager, head, self.now)
        stream.request_head_size = self.reader.head_size
        if b"upgrade" in head.index and upgrade_of(head) in manager.options.upgrade_types:
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

    def send_informational(self, head: ResponseHead) -> None:
        """Send a 1xx response; the final one is still to come."""
        if self.closed or head.version == 10:
            return
        self._collect(_CONTINUE if head.status == 100 else status_line(head.status) + render_fields(head.fields))

    def send_head(self, head: ResponseHead, end: bool) -> None:
        """Send a response's head with the framing that the request's version and method allow."""
        if self.closed:
            return
        stream = self.stream
        assert stream is not None
        request = stream.request
        fields = head.fields
        status = head.status
        self.chunked = False
        if b"content-length" not in head.index:
            if end:
                if status >= 200 and status != 204 and status != 304 and request.method != b"HEAD":
                    fields = [*fields, (b"content-length", b"0")]
            elif request.version == 11 and stream.tunnel is None:
                self.chunked = True
                fields = [*fields, (b"transfer-encoding", b"chunked")]
            elif stream.tunnel is None:
                self.keep_alive = False
        if self.reader.state != DONE and stream.tunnel is None and end:
            self.keep_alive = False
        if not self.keep_alive:
            if stream.tunnel is None:
                fields = [*fields, (b"connection", b"close")]
        elif request.version == 10:
            fields = [*fields, (b"connection", b"keep-alive")]
        if head.names is not None:
            fields = spell(fields, head.names)
        elif self.proper_case:
            fields = proper_case(fields)
        data = status_line(status) + render_fields(fields)
        stream.response_head_size = len(data)
        self._collect(data)

    def send_message(self, head: ResponseHead, body: bytes) -> None:
        """Send a response whose body is whole and has a Content-Length: head and data in one write."""
        stream = self.stream
        if self.closed or stream is None:
            return
        request = stream.request
        if (
            head.names is not None
            or self.proper_case
            or not self.keep_alive
            or self.reader.state != DONE
            or request.version == 10
            or request.method == b"HEAD"
            or self.out
            or len(body) >= _JOIN_BELOW
        ):
            self.send_head(head, False)
            self.send_data(body, True)
            return
        data = b"%b%b%b" % (status_line(head.status), render_fields(head.fields), body)
        size = len(data)
        stream.response_head_size = size - len(body)
        self.manager.stats.downstream_cx_tx_bytes_total += size
        self.transport.write(data)

    def send_data(self, data: bytes, end: bool) -> None:
        if self.closed:
            return
        if self.chunked:
            if data:
                self._collect(b"%x\r\n" % len(data))
                self._collect(data)
                self._collect(b"\r\n0\r\n\r\n" if end else b"\r\n")
            elif end:
                self._collect(_LAST_CHUNK)
        elif data:
            self._collect(data)

    def send_trailers(self, trailers: list[Field]) -> None:
        if self.chunked and not self.closed:
            self._collect(b"0\r\n" + render_fields(trailers if self.manager.options.trailers else []))

    def finished(self) -> None:
        """The stream is over: its response was sent whole. Await the next request, or close."""
        self.stream = None
        reader = self.reader
        if not self.keep_alive or reader.state != DONE:
            self.close_after_flush()
            return
        reader.next_message()
        self.idle_since = self.now
        headers_timeout = self.manager.options.request_headers_timeout
        if headers_timeout != inf:
            self.head_deadline = self.now + headers_timeout
            self.wake_by(self.head_deadline)
        if self.paused and not self.full:
            self._resume()
        if not self.turns:
            if reader.held is not None:
                self._take_held()
        elif self.turns >= _MESSAGES_PER_READ:  # let others have their turn before the rest of this read
            reader.state = DONE
            self.worker.loop.call_soon(self._next_turn)

    def reset(self) -> None:
        """End the connection now: the response cannot be completed."""
        self.stream = None
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
        self._pause()

    def resume_reading(self) -> None:
        if not self.full:
            self._resume()

    def flush(self) -> None:
        out = self.out
        if not out or self.closed:
            return
        size = sum(map(len, out))
        self.manager.stats.downstream_cx_tx_bytes_total += size
        if len(out) == 1:
            self.transport.write(out[0])
        elif size < _JOIN_BELOW:
            self.transport.write(b"".join(out))
        else:
            self.transport.writelines(out)
        out.clear()
        if self.closing:
            self._half_close()

    # timers and closing

    def on_timer(self, now: float) -> None:
        if self.closed:
            return
        self.now = now
        due = inf
        if now >= self.close_at:
            self._abort()
            return
        due = self.close_at
        stream = self.stream
        if stream is not None:
            due = min(due, stream.on_timer(now), self.expires if self.expires > now else inf)
        elif not self.closing:
            options = self.manager.options
            if now >= self.head_deadline and self.reader.partial is not None:
                self.manager.stats.downstream_rq_header_timeout += 1
                self._protocol_error(ProtocolError("request_header_timeout", 408))
            elif now >= self.idle_since + options.idle_timeout:
                self.manager.stats.downstream_cx_idle_timeout += 1
                self.close_after_flush()
            elif now >= self.expires:
                self.manager.stats.downstream_cx_max_duration_reached += 1
                self.close_after_flush()
            else:
                head = self.head_deadline if self.reader.partial is not None else inf
                due = min(due, self.idle_since + options.idle_timeout, self.expires, head)
        if self.worker.cork.waiting:
            self.worker.cork.pull()
        if due != inf and not self.closed:
            self.wake_by(due)

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

    def _half_close(self) -> None:
        delay = self.manager.options.delayed_close_timeout
        if self.full or delay:
            if self.transport.can_write_eof() and not self.transport.is_closing():
                self.transport.write_eof()
            self.close_at = self.worker.clock() + (delay or 1.0)
            self.wake_by(self.close_at)
            self._resume()
        else:
            self.closed = True
            self.transport.close()

    def _abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.transport.abort()

    def _protocol_error(self, error: ProtocolError) -> None:
        self.manager.stats.downstream_cx_protocol_error += 1
        self.keep_alive = False
        stream = self.stream
        if stream is None:
            stream = self.stream = Stream(self, self.manager, RequestHead(b"", b"", b"", []), self.now)
        stream.on_protocol_error(error.status, error.details)

    def _pause(self) -> None:
        if not self.paused and not self.closed:
            self.paused = True
            self.transport.pause_reading()
            self.manager.stats.downstream_flow_control_paused_reading_total += 1

    def _resume(self) -> None:
        if self.paused and not self.closed:
            self.paused = False
            self.transport.resume_reading()
            self.manager.stats.downstream_flow_control_resumed_reading_total += 1

    def _next_turn(self) -> None:
        if not self.closed and not self.closing and self.stream is None:
            self.now = self.worker.clock()
            self.reader.next_message()
            self._take_held()
            if self.worker.cork.waiting:
                self.worker.cork.pull()

    def _take_held(self) -> None:
        try:
            self.reader.take_held()
        except ProtocolError as error:
            self._protocol_error(error)
        self.turns = 0

    def _collect(self, data: bytes) -> None:
        if not self.out:
            self.worker.cork.waiting.append(self)
        self.out.append(data)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self.closing else "idle" if self.stream is None else "busy"
        return f"<Http1Connection {self.info!r} {state}, {self.requests} requests>"
