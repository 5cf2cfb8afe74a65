"""An HTTP/1 connection to a host: one request after the other, and what ends it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from sidecar.codec.errors import ProtocolError
from sidecar.codec.http1 import ResponseReader
from sidecar.codec.http1_head import proper_case, render_fields, spell
from sidecar.codec.http1_reader import BODY, CHUNK_DATA, CHUNK_END, CHUNK_SIZE, DONE, TRAILERS, TUNNEL
from sidecar.core.address import Address, from_socket_name
from sidecar.core.cork import AT_ONCE, BULK
from sidecar.core.head import Field, RequestHead
from sidecar.core.timer_wheel import Timed
from sidecar.core.upstream import (
    CONNECTION_TERMINATION,
    PROTOCOL_ERROR,
    UpstreamSink,
)

_BODYLESS = frozenset((b"GET", b"HEAD", b"DELETE", b"TRACE", b"CONNECT"))
_READ = 256 * 1024
_UNFINISHED = frozenset((BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILERS))
"""Where a reader stands within a message whose end it would recognise."""

if TYPE_CHECKING:
    from sidecar.pool.http1 import Http1Pool


Respond = Callable[[Any, Any, bytes], bool]
"""Takes care of a read of a connection that waits for a response, if it is a plain one: the express lane's way back."""


class Http1Connection(asyncio.Protocol, Timed):
    """A connection to a host, and the request that it carries: the ``UpstreamStream`` of HTTP/1."""

    __slots__ = (
        "chunked",
        "closed",
        "closed_by_host",
        "expires",
        "full",
        "id",
        "idle_since",
        "local_address",
        "opened",
        "out",
        "paused",
        "pool",
        "reader",
        "request_open",
        "requests",
        "respond",
        "retiring",
        "sink",
        "tls",
        "transport",
    )  # fmt: skip

    version = 11

    def __init__(self, pool: Http1Pool) -> None:
        self.due = inf
        self.pool = pool
        options = pool.options
        self.reader = ResponseReader(pool.lines_seen, options.max_head_bytes, options.max_fields)
        self.reader.keep_case = options.header_case == "preserve"
        self.reader.keep_trailers = options.trailers
        self.sink: UpstreamSink | None = None
        self.respond: Respond | None = None
        self.out: list[bytes] = []
        self.chunked = False
        self.request_open = False  # the request has not been sent to its end
        self.requests = 0
        self.id = 0
        self.local_address: Address | None = None
        self.opened = self.idle_since = 0.0
        self.expires = inf
        self.full = False
        self.paused = False
        self.closed = self.closed_by_host = False
        self.retiring = False  # carries no further request
        self.tls: Any = None
        self.transport: Any = None

    # the event loop's side

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=self.pool.options.buffer_limit)
        sock = transport.get_extra_info("socket")
        self.local_address = from_socket_name(sock.family, sock.getsockname())
        self.tls = transport.get_extra_info("tls")

    def data_received(self, data: bytes) -> None:
        pool = self.pool
        respond = self.respond
        if respond is not None and respond(self, self.sink, data):
            cork = pool.worker.cork
            if not cork.scheduled or len(cork.waiting) >= AT_ONCE:
                cork.settle()
            return
        reader = self.reader
        pool.stats.upstream_cx_rx_bytes_total += len(data)
        try:
            reader.receive(data)
        except ProtocolError:
            self._protocol_error()
        else:
            if reader.state == DONE:
                self._response_complete()
            elif reader.interrupted:
                self.transport.pause_reading()
                pool.worker.loop.call_soon(self._next_turn)
        cork = pool.worker.cork
        if cork.waiting and (not cork.scheduled or len(cork.waiting) >= AT_ONCE or len(data) >= BULK):
            cork.settle(len(data))

    def eof_received(self) -> bool | None:
        reader = self.reader
        if self.sink is None:
            self._closed_remotely()  # before the next request takes it
        elif reader.state == TUNNEL:
            sink = self.sink
            self._closed_remotely()
            self.sink = self.reader.sink = None
            sink.on_data(b"", True)
        elif reader.state in _UNFINISHED or reader.partial:
            self._closed_remotely()
            self._protocol_error()  # as Envoy: a message that ends in its midst
            self.transport.abort()
        elif reader.eof() and reader.state == DONE:
            self.sink = reader.sink = None
            self._closed_remotely()
            self.transport.abort()
        if self.pool.worker.cork.waiting:
            self.pool.worker.cork.pull()
        return None

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None and self.sink is not None and not self.closed:
            self._read_out()
        self._closed_remotely()
        sink = self.sink
        if sink is not None:
            self.sink = self.reader.sink = None
            broken = self.reader.state in _UNFINISHED or self.reader.partial
            if broken:
                self.pool.stats.upstream_cx_protocol_error += 1
            failure = self.transport.get_extra_info("tls_failure")
            sink.on_reset(
                PROTOCOL_ERROR if broken else CONNECTION_TERMINATION, "" if failure is None else failure.words
            )
        if self.pool.worker.cork.waiting:
            self.pool.worker.cork.pull()

    def _read_out(self) -> None:
        """Writing failed; what the peer had sent before it went (a 413, say) is still there to be read."""
        descriptor = self.transport.get_extra_info("socket").fileno()
        while self.sink is not None:
            try:
                data = os.read(descriptor, _READ)
            except OSError:
                return
            if not data:  # after an error this is no proper end
                return
            self.data_received(data)
            while self.reader.interrupted and not self.closed:
                self._next_turn()

    def _closed_remotely(self) -> None:
        if not self.closed:
            self.closed = self.closed_by_host = True
            stats = self.pool.stats
            stats.upstream_cx_destroy_remote += 1
            if self.sink is not None:
                stats.upstream_cx_destroy_remote_with_active_rq += 1
                stats.upstream_cx_destroy_with_active_rq += 1
        self.pool.connection_closed(self)

    def _protocol_error(self) -> None:
        self.pool.stats.upstream_cx_protocol_error += 1
        sink, self.sink = self.sink, None
        self._close_here(active=sink is not None)
        if sink is not None:
            sink.on_reset(PROTOCOL_ERROR)

    def _next_turn(self) -> None:
        """Go on with a read of very many chunks."""
        reader = self.reader
        if self.closed or not reader.interrupted:
            return
        try:
            reader.take_held()
        except ProtocolError:
            self._protocol_error()
        else:
            if reader.interrupted:
                self.pool.worker.loop.call_soon(self._next_turn)
            elif not self.paused:
                self.transport.resume_reading()
            if reader.state == DONE:
                self._response_complete()
        if self.pool.worker.cork.waiting:
            self.pool.worker.cork.pull()

    def pause_writing(self) -> None:
        self.full = True
        if self.sink is not None:
            self.sink.on_full()

    def resume_writing(self) -> None:
        self.full = False
        if self.sink is not None:
            self.sink.on_writable()

    # the request's side

    def send_head(self, sink: UpstreamSink, head: RequestHead, end: bool, now: float) -> None:
        self.sink = sink
        self.respond = None
        self.requests += 1
        self.reader.expect(head.method, sink, b"upgrade" in head.index)
        fields = head.fields
        if end:
            if head.method not in _BODYLESS and b"content-length" not in head.index and b"upgrade" not in head.index:
                fields = [*fields, (b"content-length", b"0")]
        else:
            self.request_open = True
            if b"content-length" not in head.index and b"upgrade" not in head.index and head.method != b"CONNECT":
                self.chunked = True
                fields = [*fields, (b"transfer-encoding", b"chunked")]
        host = b"host"
        if head.names is not None:
            fields = spell(fields, head.names)
            host = head.names.get(host, host)
        elif self.pool.options.header_case == "proper":
            fields = proper_case(fields)
            host = b"Host"
        data = b"%b %b HTTP/1.1\r\n%b: %b\r\n%b" % (
            head.method, head.path or head.authority, host, head.authority, render_fields(fields)
        )  # fmt: skip
        self._collect(data)

    def open_tunnel(self, sink: UpstreamSink) -> None:
        self.sink = self.reader.sink = sink
        self.respond = None
        self.requests += 1
        self.request_open = True
        self.reader.state = TUNNEL
        if self.reader.held is not None:
            self.pool.worker.loop.call_soon(self._deliver_early)

    def _deliver_early(self) -> None:
        """What the host of a tunnel said before it was asked."""
        if not self.closed:
            self.reader.take_held()
            if not self.paused:
                self.transport.resume_reading()
            if self.pool.worker.cork.waiting:
                self.pool.worker.cork.pull()

    def send_data(self, data: bytes, end: bool) -> None:
        if self.chunked:
            if data:
                self._collect(b"%x\r\n" % len(data))
                self._collect(data)
                self._collect(b"\r\n0\r\n\r\n" if end else b"\r\n")
            elif end:
                self._collect(b"0\r\n\r\n")
        elif data:
            self._collect(data)
        if end:
            if self.reader.state == TUNNEL and self.sink is not None and self.sink.tunnels:
                self.flush()  # the client of a tunnel that ends here has nothing more to say
                if self.transport.can_write_eof():
                    self.transport.write_eof()
            self._request_complete()

    def send_trailers(self, trailers: list[Field]) -> None:
        if self.chunked:
            self._collect(b"0\r\n" + render_fields(trailers if self.pool.options.trailers else []))
        self._request_complete()

    def pause_reading(self) -> None:
        if not self.paused and not self.closed:
            self.paused = True
            self.transport.pause_reading()
            self.pool.stats.upstream_flow_control_paused_reading_total += 1

    def resume_reading(self) -> None:
        if self.paused and not self.closed:
            self.paused = False
            if not self.reader.interrupted:
                self.transport.resume_reading()
            self.pool.stats.upstream_flow_control_resumed_reading_total += 1

    @property
    def head_size(self) -> int:
        """The octets of the response's head."""
        return self.reader.head_size

    @property
    def answered(self) -> bool:
        """Whether anything of an answer to the current request has come: an interim response or part of a head, too."""
        return self.reader.head_size > 0 or self.reader.partial is not None

    @property
    def complete(self) -> bool:
        """Whether the response has been read to its end."""
        return self.reader.state == DONE

    def cancel(self) -> None:
        self.sink = None
        self._close_here(active=True)

    def close(self) -> None:
        """End an idle connection."""
        self._close_here(active=False)

    def abandon(self) -> None:
        """The process ends: so does the connection, now."""
        self.out.clear()
        if self.transport is not None:
            self.transport.abort()

    def flush(self) -> None:
        out = self.out
        if not out or self.closed:
            return
        pool = self.pool
        if len(out) == 1:
            data = out.pop()
            pool.stats.upstream_cx_tx_bytes_total += len(data)
            self.transport.write(data)
            return
        size = sum(map(len, out))
        pool.stats.upstream_cx_tx_bytes_total += size
        if size < pool.worker.join_below:
            self.transport.write(b"".join(out))
        else:
            self.transport.writelines(out)
        out.clear()

    # between requests

    def on_timer(self, now: float) -> None:
        """The connection may have been idle, or alive, for too long."""
        if self.closed:
            return
        options = self.pool.options
        if self.sink is None and now >= self.idle_since + options.idle_timeout:
            self.pool.stats.upstream_cx_idle_timeout += 1
            self._close_here(active=False)
            return
        if now >= self.expires:
            self.pool.stats.upstream_cx_max_duration_reached += 1
            if self.sink is None:
                self._close_here(active=False)
                return
            self.expires = inf
            self.retire()
        self.arm(now)

    def retire(self) -> None:
        """What is under way ends; nothing follows it."""
        self.retiring = True
        self.respond = None  # the express lane would keep it

    def arm(self, now: float) -> None:
        """Wake when the idle timeout or the maximum duration may have passed, if there is either."""
        idle = self.pool.options.idle_timeout
        due = min(max(self.idle_since + idle if idle else inf, now + 1.0), self.expires)
        if due != inf:
            self.pool.worker.wheel.arm(self, due)

    def _collect(self, data: bytes) -> None:
        if not self.out:
            self.pool.worker.cork.waiting.append(self)
        self.out.append(data)

    def _request_complete(self) -> None:
        self.request_open = False
        if self.reader.state == DONE and self.sink is None:
            self._close_here(active=False)

    def _response_complete(self) -> None:
        """The sink has the whole response; the connection goes back to the pool if both sides may use it again."""
        sink = self.sink
        if sink is None:
            if not self.closed and self.reader.held is not None:
                if self.idle_since:
                    self._close_here(active=False)  # bytes that nobody asked for: whose response would they be?
                else:
                    self.transport.pause_reading()  # only just connected: the pool decides
            return
        self.sink = self.reader.sink = None
        pool = self.pool
        reader = self.reader
        if (
            self.request_open
            or reader.held is not None
            or not reader.keep_alive
            or pool.draining
            or self.retiring
            or (pool.options.max_requests and self.requests >= pool.options.max_requests)
        ):
            if pool.options.max_requests and self.requests >= pool.options.max_requests:
                pool.stats.upstream_cx_max_requests += 1
            if not reader.keep_alive:
                pool.stats.upstream_cx_close_notify += 1
            self._close_here(active=self.request_open)
            return
        self.chunked = False
        if self.paused:
            self.resume_reading()
        self.idle_since = pool.worker.clock()
        pool.put_back(self)

    def _close_here(self, active: bool) -> None:
        if self.closed:
            return
        self.closed = True
        self.reader.stop()  # this may have been called from within a read
        stats = self.pool.stats
        stats.upstream_cx_destroy_local += 1
        if active:
            stats.upstream_cx_destroy_local_with_active_rq += 1
            stats.upstream_cx_destroy_with_active_rq += 1
        self.pool.connection_closed(self)
        self.transport.abort()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "busy" if self.sink is not None else "idle"
        return f"<Http1Connection {self.id} to {self.pool.host.address.text}, {state}, {self.requests} requests>"
