"""One request on an HTTP/2 connection to a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.codec.http2_frames import INTERNAL_ERROR, NO_ERROR
from sidecar.core.head import Field, RequestHead
from sidecar.core.upstream import UpstreamSink

_LONGEST_CRUMB = 4096

if TYPE_CHECKING:
    from sidecar.core.address import Address
    from sidecar.pool.http2_connection import Http2Connection


class Http2Exchange:
    """The ``UpstreamStream`` of HTTP/2: a stream of a connection, from the request's head to the response's end."""

    __slots__ = (
        "answer",
        "answered",
        "complete",
        "connection",
        "full",
        "head_size",
        "held",
        "held_end",
        "held_trailers",
        "paused",
        "request_ended",
        "sink",
        "stream_id",
        "unconsumed",
    )  # fmt: skip

    version = 20
    sink: UpstreamSink

    def __init__(self, connection: Http2Connection) -> None:
        self.connection = connection
        self.stream_id = 0
        self.answer: Any = None  # the express lane's way back
        self.answered = False  # something of an answer has come, an interim response included
        self.complete = False  # the response has been read to its end, or the stream has been reset
        self.full = False  # the request's body finds no room at the host
        self.paused = False  # the response finds no room at the client
        self.request_ended = False
        self.head_size = 0
        self.held: list[bytes] | None = None  # what has come meanwhile
        self.held_end = False
        self.held_trailers: list[Field] | None = None
        self.unconsumed = 0  # octets of it, which the host has not been given back

    @property
    def id(self) -> int:
        """The connection's number."""
        return self.connection.id

    @property
    def local_address(self) -> Address | None:
        return self.connection.local_address

    @property
    def requests(self) -> int:
        """Requests that the connection has carried."""
        return self.connection.requests

    @property
    def tls(self) -> Any:
        return self.connection.tls

    def send_head(self, sink: UpstreamSink, head: RequestHead, end: bool, now: float) -> None:
        self.begin(sink, self.connection.codec.open(head, end), end)

    def begin(self, sink: UpstreamSink, stream_id: int, end: bool) -> None:
        """The request's head has been sent on this stream; ``end``: and all of it."""
        self.sink = sink
        self.stream_id = stream_id
        self.request_ended = end
        connection = self.connection
        connection.exchanges[stream_id] = self
        connection.stats.streams_active += 1
        if not connection.corked:
            connection.cork()
        if connection.ages:
            connection.check_age()

    def open_tunnel(self, sink: UpstreamSink) -> None:
        raise NotImplementedError("bytes as they are go over connections of their own")

    def send_data(self, data: bytes, end: bool) -> None:
        connection = self.connection
        self.request_ended = end
        if connection.codec.send_data(self.stream_id, data, end) and not self.full:
            self.full = True
            self.sink.on_full()
        if not connection.corked:
            connection.cork()

    def send_trailers(self, trailers: list[Field]) -> None:
        connection = self.connection
        self.request_ended = True
        connection.codec.send_trailers(self.stream_id, trailers)
        connection.cork()

    def pause_reading(self) -> None:
        """The downstream is full: the host is given no more room for this stream."""
        if not self.paused:
            self.paused = True
            self.connection.pool.stats.upstream_flow_control_paused_reading_total += 1

    def resume_reading(self) -> None:
        if self.paused:
            self.paused = False
            connection = self.connection
            connection.pool.stats.upstream_flow_control_resumed_reading_total += 1
            self._deliver()
            # The host may be waiting for nothing but this window, and nothing else may happen here.
            connection.cork()
            connection.pool.worker.cork.settle()

    def hold(self, data: bytes, end: bool) -> None:
        """Keep a piece of the response until the downstream has room."""
        held = self.held
        if held is None:
            held = self.held = []
        if held and len(held[-1]) + len(data) <= _LONGEST_CRUMB:
            held[-1] += data
        else:
            held.append(data)
        self.unconsumed += len(data)
        self.held_end = end

    def hold_trailers(self, fields: list[Field]) -> None:
        """Keep the end of the response behind its data."""
        if self.held is None:
            self.held = []
        self.held_trailers = fields

    def _deliver(self) -> None:
        held = self.held
        if held is None:
            return
        connection = self.connection
        while held and not self.paused and not self.complete:
            data = held.pop(0)
            self.unconsumed -= len(data)
            connection.deliver(self, data, self.held_end and not held)
        if not held and not self.paused and not self.complete:
            self.held = None
            fields, self.held_trailers = self.held_trailers, None
            if fields is not None:
                connection.deliver_trailers(self, fields)

    def give_back(self) -> None:
        """Tell the host that what was held is out of the way."""
        self.held = None
        size, self.unconsumed = self.unconsumed, 0
        if size:
            self.connection.codec.consumed(self.stream_id, size)
            self.connection.cork()

    def cancel(self) -> None:
        """Nobody wants the response any more. The code is Envoy's: hosts take any as the end of what they do for it."""
        self.end(INTERNAL_ERROR)

    def end(self, code: int = NO_ERROR) -> None:
        """The exchange is over here; what of it is still open is reset with ``code``."""
        connection = self.connection
        self.complete = True
        if connection.exchanges.pop(self.stream_id, None) is None:
            return
        connection.stats.streams_active -= 1
        if self.stream_id in connection.codec.streams:
            connection.stats.tx_reset += 1
            connection.pool.stats.upstream_rq_tx_reset += 1
            connection.codec.reset(self.stream_id, code)
        self.give_back()
        connection.cork()
        connection.exchange_over()

    def __repr__(self) -> str:
        return f"<Http2Exchange {self.stream_id} on {self.connection!r}>"
