"""A downstream HTTP/2 connection: streams begin and end on it, each with a stream of ours behind it (RFC 9113)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from sidecar.codec.errors import ProtocolError
from sidecar.codec.http2_control import Http2Error
from sidecar.codec.http2_failures import count_error, count_refused
from sidecar.codec.http2_frames import INTERNAL_ERROR, NO_ERROR
from sidecar.codec.http2_head import Known
from sidecar.codec.http2_server import ServerConnection
from sidecar.codec.http2_states import IN_BLOCK
from sidecar.core import response_flags as flag
from sidecar.core.characters import NOTHING
from sidecar.core.cork import AT_ONCE, BULK
from sidecar.core.head import Field, RequestHead
from sidecar.core.stream_info import ConnectionInfo
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.http2_exchange import Http2Exchange, new_exchange
from sidecar.http.http2_lifetime import Http2Lifetime
from sidecar.http.http2_resets import REMOTE_RESET, TOO_MANY_STREAMS, UNEXPECTED_UNDERSCORE, words_of
from sidecar.http.stream import Stream


class Http2Connection(Http2Lifetime):
    """The protocol that the listener gives a connection, and the sink of its codec."""

    __slots__ = (
        "forward",
        "info",
        "kind",
        "lane",
        "most_at_once",
        "renders",
        "settled",
        "shapes",
        "spare",
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
        self.kind: Any = None
        if manager.lane is not None:
            self.kind = manager.lane.kind_of(info)
            self.shapes = manager.lane.for_http2()
            self.forward = self.shapes.forward
            self.most_at_once = manager.lane.longest_body
        self.codec.layouts = self.kind
        self.renders: dict[Any, tuple[int, bytes]] = {}  # the express lane's header blocks
        self.settled: dict[Any, tuple[int, bytes, bytes]] = {}  # and what it makes of whole blocks of hosts
        self.transport: Any = None
        self.exchanges: dict[int, Http2Exchange] = {}
        self.spare: Http2Exchange | None = None  # one that has ended, and is as new
        self.flushing: dict[int, float] = {}  # streams whose end waits for the client's window, to their deadlines
        self.now = self.idle_since = self.ticked = info.start
        self.corked = False
        self.full = False
        self.closed = False
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
        self.ping_at = options.keepalive.next_ping(self.info.start, self.worker.ping_random)
        self.wake_by(min(self.idle_since + options.idle_timeout, self.expires, self.ping_at))
        self.cork()
        self.worker.cork.settle()

    @property
    def requests(self) -> int:
        """Requests that have begun on this connection."""
        return self.codec.opened_streams

    def data_received(self, data: bytes) -> None:
        worker = self.worker
        codec = self.codec
        clock = worker.clock
        self.now = clock()
        size = len(data)
        self.counters.downstream_cx_rx_bytes_total += size
        try:
            codec.receive(data)
        except Http2Error as error:
            self._broken(error)
        if codec.out and not self.corked:
            self.cork()
        if codec.state or codec.interrupted or self.flushing or self.head_began != inf or self.manager.draining:
            self._after_a_read()
        cork = worker.cork
        if cork.waiting and (not cork.scheduled or size >= BULK or len(cork.waiting) >= AT_ONCE):
            cork.settle(size)

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
            exchange.let_go()
        self.stats.streams_active -= len(self.exchanges)
        self.exchanges.clear()
        spare, self.spare = self.spare, None
        if spare is not None:
            spare.stream.upstream = None  # nothing that refers to itself is left
            spare.let_go()
        self.codec.give_up()
        self.worker.wheel.cancel(self)
        self.manager.closed(self, remote, active)
        if self.worker.cork.waiting:
            self.worker.cork.pull()

    # the codec's side

    def on_known(
        self,
        stream_id: int,
        known: Known,
        values: list[bytes],
        end: bool,
        body: bytes | None = None,
        trailers: list[Field] | None = None,
    ) -> bool | None:
        binding = known.shape
        shape = binding.shape
        path = binding.path
        if path is None:
            path = values[0]
            if not self.lane.accepts(path):
                return None
        elif self.lane.path is NOTHING:  # closed for now; otherwise this path was accepted before
            return None
        if shape.end is not end or (body is not None and len(body) > self.most_at_once):
            return None
        now = self.now
        exchange = self.spare
        if exchange is None:
            exchange = new_exchange(self, stream_id, now)
        else:
            self.spare = None
            exchange.id = stream_id
            exchange.now = now
        self.exchanges[stream_id] = exchange
        self.stats.streams_active += 1
        values = binding.values(values)
        forward = self.forward
        size = self.codec.received_head_size
        return forward(shape, exchange, self, now, path, values, size, body, end)  # type: ignore[no-any-return]

    def on_head(self, stream_id: int, head: RequestHead, end: bool) -> None:
        lane = self.lane
        if lane is not None and head.path[:1] == b"/":
            shape = self.shapes.recognise(self, head, end)
            if shape is not None:
                known = self.codec.known
                if known is not None and known.shape is None and lane.accepts(head.path):
                    shape.bind(known)
                elif known is None and self.codec.fields is not None:
                    self.shapes.lay_out(self.kind, self.codec.fields, shape)
                if self._express(shape, stream_id, head.path, shape.values_of(head.index), end):
                    return
        manager = self.manager
        if manager.judge_http2 is not None:
            try:
                manager.judge_http2(head)
            except ProtocolError:
                self.codec.reset(stream_id, INTERNAL_ERROR)
                self.stats.tx_reset += 1
                self.turned_away(stream_id, INTERNAL_ERROR, UNEXPECTED_UNDERSCORE)
                return
        self.stats.streams_active += 1
        now = self.now
        exchange = self.exchanges[stream_id] = new_exchange(self, stream_id, now)
        exchange.stream = stream = Stream(exchange, manager, head, now)
        stream.request_head_size = self.codec.received_head_size
        most = manager.options.max_requests
        if most and self.requests >= most and not self.codec.draining:
            manager.stats.downstream_cx_max_requests_reached += 1
            self.drain()
        stream.begin(end)

    def _express(self, shape: Any, stream_id: int, path: bytes, values: Sequence[bytes], end: bool) -> bool:
        """Let the express lane take a request of this shape, if its path is plain."""
        if not self.lane.accepts(path):
            return False
        self.on_laid_out(shape, stream_id, path, values, end)
        return True

    def on_laid_out(self, shape: Any, stream_id: int, path: bytes, values: Sequence[bytes], end: bool) -> None:
        now = self.now
        exchange = self.spare
        if exchange is None:
            exchange = new_exchange(self, stream_id, now)
        else:
            self.spare = None
            exchange.id = stream_id
            exchange.now = now
        self.exchanges[stream_id] = exchange
        self.stats.streams_active += 1
        forward = self.forward
        forward(shape, exchange, self, now, path, values, self.codec.received_head_size, None, end)

    def on_data(self, stream_id: int, data: bytes, end: bool) -> None:
        exchange = self.exchanges.get(stream_id)
        if exchange is None:
            self.codec.consumed(stream_id, len(data))
            return
        now = exchange.now = self.now
        through = exchange.through
        if through is not None and not through.complete:
            stream = exchange.stream
            stream.bytes_received += len(data)
            stream.now = stream.last_activity = now
            if end:
                stream.request_ended = True
                stream.request_complete = now
                stream.upstream.passed_through(now)
            through.send_data(data, end)
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
            exchange.let_go()
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
            self.turned_away(stream_id, code, details)

    def on_window(self, stream_id: int) -> None:
        exchange = self.exchanges.get(stream_id)
        if exchange is not None and exchange.full:
            exchange.full = False
            exchange.stream.on_downstream_writable()

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        """Nothing: it is about streams that we would open, and who says it closes the connection itself (as in Envoy)."""

    def on_settings(self) -> None:
        """Nothing to do: the codec has done it."""

    # the exchanges' side

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

    # behind a read

    def streams(self) -> int:
        return len(self.exchanges)

    def _after_a_read(self) -> None:
        codec = self.codec
        if self.manager.draining and self.requests:
            self.drain()
        if self.flushing:
            self._flushed()
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
        self.end_exchanges(error.details, flag.DOWNSTREAM_PROTOCOL_ERROR)
        self.close_after_flush()

    def end_exchanges(self, details: str, flags: int) -> None:
        exchanges, self.exchanges = self.exchanges, {}
        self.stats.streams_active -= len(exchanges)
        for queued in self.codec.waiting:
            queued.waiting = False
        self.codec.waiting.clear()
        for exchange in exchanges.values():
            exchange.stream.on_downstream_closed(self.now, details, flags)
            exchange.let_go()

    def turned_away(self, stream_id: int, code: int, details: str) -> None:
        """A stream ended before it had begun: its head is none, or more than is allowed. It is counted and logged."""
        exchange = new_exchange(self, stream_id, self.now)
        Stream(exchange, self.manager, RequestHead(b"", b"", b"", [], 20, b""), self.now).turned_away(
            *words_of(code, details, False)
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self.closing else f"{len(self.exchanges)} streams"
        return f"<Http2Connection {self.info!r} {state}, {self.requests} requests>"
