"""The way back of responses from HTTP/2 hosts: a head of a known shape, then data and trailers as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sidecar.codec.hpack_table import SECRET, VOLATILE
from sidecar.codec.http1_head import status_line
from sidecar.codec.http1_reader import DONE
from sidecar.codec.http2_head import Known, copy_head
from sidecar.core.head import Field, ResponseHead
from sidecar.express.heads import ShapedResponseHead, Template
from sidecar.express.http2_binding import binding_of
from sidecar.express.http2_blocks import request_block, response_block
from sidecar.express.http2_end import compile_end_of_exchange
from sidecar.express.http2_shapes import values_at
from sidecar.express.http2_whole import compile_whole
from sidecar.express.keeping import keep
from sidecar.express.plan import render_template
from sidecar.express.response import Responses, passed_on
from sidecar.express.shape import MOST_VARYING, literal, may_vary

_SHAPES: Final = 256
_HEADER: Final = 9
_NUMBERS: Final = [b"%d" % number for number in range(100)]
_NEVER_OPEN: Final = frozenset((b"connection", b"upgrade"))


class Http2ResponseShape:
    """Responses with these names of fields, and the same values but at ``names``, as a connection manager passes them on.

    ``ended`` says whether their requests have been sent to the end: only then is it told how long the host took.
    """

    __slots__ = (
        "constant_names",
        "constants",
        "constants_of",
        "dated",
        "ended",
        "lasting",
        "names",
        "render",
        "service_time_at",
        "sized",
        "status",
        "template",
        "values_of",
    )  # fmt: skip

    def __init__(
        self,
        head: ResponseHead,
        ended: bool,
        names: tuple[bytes, ...],
        template: Template,
        service_time_at: int,
        dated: bool,
    ) -> None:
        self.status = head.status
        self.ended = ended
        self.names = names
        self.values_of = values_at(names)
        self.constant_names = tuple(name for name in head.index if name not in names)
        self.constants_of = values_at(self.constant_names)
        self.constants = self.constants_of(head.index)
        self.template = template
        self.service_time_at = service_time_at
        self.dated = dated
        self.lasting = not dated and SECRET.isdisjoint(names)  # what is filled in may be remembered
        self.sized = b"content-length" in head.index  # HTTP/1 needs no chunks for it
        self.render = b""

    def http1(self) -> bytes:
        """The head as HTTP/1 has it, with ``%b`` for each value."""
        if not self.render:
            self.render = literal(status_line(self.status)) + render_template(self.template)
        return self.render

    def __repr__(self) -> str:
        return f"<Http2ResponseShape {self.status}, open {self.names}>"


class Answers:
    """The way back for one connection manager; ``date_of`` gives the Date of a second."""

    request_block = staticmethod(request_block)  # what goes to the same hosts

    __slots__ = ("data", "manager", "suppress_headers", "take", "trailers", "whole")

    def __init__(self, manager: Any, router: Any, date_of: Callable[[int], bytes]) -> None:
        self.manager = manager
        self.suppress_headers: bool = router.suppress_headers
        self.take, self.data, self.trailers = _compile(manager, router, date_of)
        self.whole = compile_whole(manager, router, date_of)

    def recognise(self, exchange: Any, known: Known | None, head: ResponseHead) -> bool:
        """Take a response whose head has been decoded, if it is plain; find out what becomes of it if it is new."""
        request = exchange.sink
        responses: Responses = request.plan.responses
        index = head.index
        if len(index) != len(head.fields):
            return False  # the index has one field of a name
        ended: bool = request.stream.request_ended
        key = (head.status, ended, *index)
        shape = responses.http2.get(key)
        if shape is None or shape.constants_of(index) != shape.constants:
            if shape is not None and len(responses.volatile) < MOST_VARYING:
                pairs = zip(shape.constant_names, shape.constants, strict=True)
                responses.volatile |= {name for name, value in pairs if index[name] != value and may_vary(name)}
            shape = self._learn(responses, key, head, ended)
            if shape is None:
                return False
        if known is not None:
            binding = binding_of(known, shape, b"")
            known.shape = None if binding is None else (responses, binding)
        return bool(self.take(exchange, shape, shape.values_of(index)))

    def head(self, exchange: Any, known: Known, values: list[bytes]) -> bool:
        """Take a response whose block is of a known shape, if that was found out for this connection manager."""
        responses, binding = known.shape
        if exchange.sink.plan.responses is not responses:
            return False
        return bool(self.take(exchange, binding.shape, binding.values(values)))

    def _learn(
        self, responses: Responses, key: tuple[Any, ...], head: ResponseHead, ended: bool
    ) -> Http2ResponseShape | None:
        index = head.index
        if (
            not 200 <= head.status < 500
            or b"grpc-status" in index
            or head.status in (204, 304)
            or len(index) != len(head.fields)
            or not responses.pace.permits(self.manager.worker.clock())
        ):
            return None
        names = tuple(
            [name for name in index if (name in responses.volatile or name in VOLATILE) and name not in _NEVER_OPEN]
        )
        trial = copy_head(head)
        assert type(trial) is ResponseHead
        passed = passed_on(self.manager, trial, names, b"\n".join(index.values()), self.suppress_headers or not ended)
        if passed is None:
            return None
        if len(responses.http2) >= _SHAPES:
            responses.http2.clear()
        shape = responses.http2[key] = Http2ResponseShape(head, ended, names, *passed)
        return shape

    def __repr__(self) -> str:
        return "<Answers>"


def _compile(manager: Any, router: Any, date_of: Callable[[int], bytes]) -> tuple[Any, Any, Any]:
    """``take(exchange, shape, values)``, ``data(exchange, data, end)`` and ``trailers(exchange, fields)``.

    ``exchange`` is the pool's. ``take`` does nothing if it returns False; if it has taken a head, data and trailers are for
    the others.
    """
    worker = manager.worker
    clock = worker.clock
    suppress_headers: bool = router.suppress_headers
    manager_stats = manager.stats
    listener_codes = manager.listener_codes
    access_logs = manager.access_logs
    rq_time = manager_stats.downstream_rq_time
    end_exchange = compile_end_of_exchange(manager.options)
    corked = worker.cork.waiting

    def take(exchange: Any, shape: Http2ResponseShape, values: Sequence[bytes]) -> bool:
        request = exchange.sink
        stream = request.stream
        downstream = stream.downstream
        cluster = request.cluster
        host = request.host
        retry = request.retry
        status = shape.status
        if (
            request.interim
            or stream.request_ended is not shape.ended
            or stream.upgrade
            or (retry is not None and retry.retriable_status[status])
            or (
                cluster.outlier is not None
                and (host.consecutive_5xx or host.consecutive_gateway or host.consecutive_local_origin)
            )
        ):
            return False
        now = clock()
        took = int((now - request.sent_at) * 1000)
        if shape.ended and not suppress_headers:
            at = shape.service_time_at
            if at < 0:
                values = (*values, _NUMBERS[took] if took < 100 else b"%d" % took)
            else:
                values = (*values[:at], b"%d" % took, *values[at + 1 :])
        if shape.dated:
            values = (*values, date_of(int(stream.start_time + (now - stream.start))))
        if downstream.version == 20:
            connection = downstream.connection
            out = response_block(shape, connection, values)
            if out is None or not connection.codec.send_block(downstream.id, out):
                return False
            stream.response_head_size = len(out) + _HEADER
            if not connection.corked and not connection.closed:
                connection.corked = True
                corked.append(connection)
            source = exchange.connection.codec.streams.get(exchange.stream_id)
            if source is not None and source.expected < 0:
                source.owner = exchange
                source.pipe = piece
        else:
            if (
                not shape.sized
                or not downstream.keep_alive
                or downstream.paused
                or downstream.closed
                or downstream.reader.held is not None
                or downstream.reader.state != DONE
            ):
                return False
            out = shape.http1() % tuple(values)
            stream.response_head_size = len(out)
            downstream.chunked = False
            if not downstream.out:
                corked.append(downstream)
            downstream.out.append(out)
        # the upstream request: UpstreamRequest._accept
        host.rq_success += 1
        stats = cluster.stats
        if request.plan.internal:
            stats.internal_codes[status] += 1
            times = stats.internal_upstream_rq_time
        else:
            stats.external_codes[status] += 1
            times = stats.external_upstream_rq_time
        if took < 100:
            times.recent[took] += 1
        else:
            times.record(took)
        request.head_passed = True
        # the stream: Stream.on_response_head
        head = request.head
        if head is None or head.template is not shape.template:
            head = request.head = ShapedResponseHead(status, b"", 20, shape.template)
        head.values = values
        stream.response = head
        stream.response_code = status
        stream.response_code_details = "via_upstream"
        stream.upstream_head_received = exchange.head_size
        stream.now = stream.last_activity = stream.upstream_first_rx = stream.downstream_first_tx = now
        listener_codes[status] += 1
        return True

    def piece(exchange: Any, octets: bytes) -> bool:
        if exchange.answer is None or exchange.paused or exchange.held is not None:
            return False
        stream = exchange.sink.stream
        downstream = stream.downstream
        connection = downstream.connection
        codec = connection.codec
        sent = codec.streams.get(downstream.id)
        if sent is None or not codec.send_piece(sent, octets):
            return False
        if not connection.corked:
            connection.corked = True
            corked.append(connection)
        size = len(octets)
        stream.bytes_sent += size
        stream.upstream_bytes_received += size
        stream.last_activity = exchange.connection.now
        return True

    def data(exchange: Any, octets: bytes, end: bool) -> None:
        stream = exchange.sink.stream
        downstream = stream.downstream
        size = len(octets)
        stream.bytes_sent += size
        stream.upstream_bytes_received += size
        if downstream.version != 20:
            downstream.send_data(octets, end)
            if end:
                finish(exchange, stream, downstream, None)
            else:
                stream.last_activity = clock()
            return
        connection = downstream.connection
        if connection.codec.send_data(downstream.id, octets, end) and not downstream.full:
            downstream.full = True
            stream.on_downstream_full()
        if not connection.corked and connection.codec.out and not connection.closed:
            connection.corked = True
            corked.append(connection)
        if end:
            finish(exchange, stream, downstream, connection)
        else:
            stream.last_activity = clock()

    def trailers(exchange: Any, fields: list[Field]) -> None:
        request = exchange.sink
        stream = request.stream
        downstream = stream.downstream
        stream.response_trailers = fields
        if request.plan.call and dict(fields).get(b"grpc-status") != b"0":
            request._judge_end_of_call(fields)
        if downstream.version != 20:
            downstream.send_trailers(fields)
            finish(exchange, stream, downstream, None)
            return
        connection = downstream.connection
        connection.codec.send_trailers(downstream.id, fields)
        connection.cork()
        finish(exchange, stream, downstream, connection)

    def finish(exchange: Any, stream: Any, downstream: Any, connection: Any) -> None:
        now = clock()
        request = exchange.sink
        if not stream.request_ended:  # before the request
            stream.now = stream.upstream_last_rx = now
            request._release(True)
            stream.response_sent()
            exchange.end()
            return
        cluster = request.cluster
        host = request.host
        # the upstream request: UpstreamRequest._release
        host.rq_active -= 1
        request.breaker.rq_active -= 1
        cluster.stats.upstream_rq_active -= 1
        # the pool's stream: Http2Exchange.end
        upstream = exchange.connection
        if exchange.unconsumed or exchange.stream_id in upstream.codec.streams:
            exchange.end()
        else:
            del upstream.exchanges[exchange.stream_id]
            upstream.stats.streams_active -= 1
            if not upstream.exchanges or upstream.pool.pending:
                upstream.exchange_over()
        # the stream: Stream.response_sent
        stream.upstream_last_rx = stream.end = stream.now = now
        request.upstream = None
        manager_stats.downstream_rq_active -= 1
        took = int((now - stream.start) * 1000)
        if took < 100:
            rq_time.recent[took] += 1
        else:
            rq_time.record(took)
        for write in access_logs:
            write(stream)
        if downstream.version == 20:
            end_exchange(downstream, connection, now)
        else:
            downstream.finished()
        keep(request, stream)

    return take, data, trailers
