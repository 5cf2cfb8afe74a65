"""One stream of a downstream HTTP/2 connection, as the HTTP stream behind it sees it: where its response goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.codec.http2_frames import INTERNAL_ERROR, NO_ERROR
from sidecar.core.head import Field, ResponseHead

if TYPE_CHECKING:
    from sidecar.http.http2_connection import Http2Connection


class Http2Exchange:
    """The ``Downstream`` of one stream. ``now`` is the time of the read that is being handled."""

    __slots__ = ("connection", "full", "id", "info", "now", "paused", "stream", "through", "unconsumed", "version")

    version: int
    connection: Http2Connection
    id: int
    info: Any
    now: float
    stream: Any  # of the request; of a spare one, that of the next

    full: bool  # the response finds no room at the client
    paused: bool  # the request's body finds no room at the upstream
    through: Any  # the upstream's stream, where nothing but it looks at the body
    unconsumed: int  # octets of it that the client has not been given back

    def send_informational(self, head: ResponseHead) -> None:
        """Send a 1xx response; the final one is still to come."""
        connection = self.connection
        connection.manager.listener_codes[head.status] += 1
        connection.codec.send_head(self.id, head, False)
        connection.cork()

    def send_head(self, head: ResponseHead, end: bool) -> None:
        connection = self.connection
        codec = connection.codec
        codec.send_head(self.id, head, end)
        self.stream.response_head_size = codec.sent_head_size
        if not connection.corked:
            connection.cork()

    def send_message(self, head: ResponseHead, body: bytes) -> None:
        """Send a response whose body is whole."""
        self.send_head(head, False)
        self.send_data(body, True)

    def send_data(self, data: bytes, end: bool) -> None:
        connection = self.connection
        if connection.codec.send_data(self.id, data, end) and not self.full:
            self.full = True
            self.stream.on_downstream_full()
        if not connection.corked:
            connection.cork()

    def send_trailers(self, trailers: list[Field]) -> None:
        connection = self.connection
        connection.codec.send_trailers(self.id, trailers)
        connection.cork()

    def finished(self) -> None:
        """The response was sent whole, or waits in the codec for the client's window."""
        connection = self.connection
        if not self.stream.request_ended:
            stats = connection.manager.stats
            stats.downstream_rq_response_before_rq_complete += 1
            stats.downstream_rq_rx_reset += 1
            connection.unwanted(self.id)
        elif self.id in connection.codec.streams:
            connection.flush_later(self.id)
        self._end()

    def reset(self) -> None:
        """The response cannot be completed."""
        connection = self.connection
        connection.codec.reset(self.id, INTERNAL_ERROR if self.stream.response is not None else NO_ERROR)
        connection.stats.tx_reset += 1
        connection.cork()
        self._end()

    def close_after_response(self) -> None:
        """Nothing: other streams have no part in it."""

    def wake_by(self, due: float) -> None:
        connection = self.connection
        if due < connection.due:
            connection.worker.wheel.arm(connection, due)

    def pause_reading(self) -> None:
        """The upstream is full: the client is given no more room for this stream."""
        if not self.paused:
            self.paused = True
            self.connection.manager.stats.downstream_flow_control_paused_reading_total += 1

    def resume_reading(self) -> None:
        if self.paused:
            self.paused = False
            connection = self.connection
            connection.manager.stats.downstream_flow_control_resumed_reading_total += 1
            self.give_back()
            connection.worker.cork.settle()  # the client may be waiting for nothing but this window

    def pass_on(self, data: bytes) -> bool:
        """Some of the request's body: whether the upstream's stream, which alone looks at it, took it at once."""
        through = self.through
        if through is None or through.complete:
            return False
        upstream = through.connection
        codec = upstream.codec
        out = codec.streams.get(through.stream_id)
        if out is None or not codec.send_piece(out, data):
            return False
        if not upstream.corked:
            upstream.cork()
        stream = self.stream
        stream.bytes_received += len(data)
        stream.now = stream.last_activity = self.now = self.connection.now
        return True

    def give_back(self) -> None:
        """Tell the client that what was held of the request is out of the way."""
        size, self.unconsumed = self.unconsumed, 0
        if size:
            connection = self.connection
            connection.codec.consumed(self.id, size)
            connection.cork()

    def _end(self) -> None:
        connection = self.connection
        self.give_back()
        if connection.exchanges.pop(self.id, None) is not None:
            self.let_go()
            connection.exchange_over()

    def let_go(self) -> None:
        """Forget what refers to this: it is over."""
        del self.stream
        self.through = None

    def __repr__(self) -> str:
        return f"<Http2Exchange {self.id} of {self.info!r}>"


_new = object.__new__


def new_exchange(connection: Http2Connection, stream_id: int, now: float) -> Http2Exchange:
    """An exchange on a stream that begins. CPython needs twice as long for a class with ``__init__``."""
    exchange = _new(Http2Exchange)
    exchange.version = 20
    exchange.connection = connection
    exchange.id = stream_id
    exchange.stream = None
    exchange.info = connection.info
    exchange.now = now
    exchange.full = exchange.paused = False
    exchange.through = None
    exchange.unconsumed = 0
    return exchange
