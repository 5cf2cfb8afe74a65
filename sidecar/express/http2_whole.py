"""The way back in one step: a response of an HTTP/2 host that came whole, to a client that has room for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sidecar.codec.http1_reader import DONE, HEAD
from sidecar.codec.http2_head import Known
from sidecar.core.head import Field
from sidecar.express.heads import ShapedResponseHead
from sidecar.express.http2_blocks import filled
from sidecar.express.keeping import keep

_HEADER: Final = 9
_NUMBERS: Final = [b"%d" % number for number in range(100)]
_COUNTED: Final = [bytes((len(number),)) + number for number in _NUMBERS]
_MOST_SETTLED: Final = 8
_HOLE: Final = b"<where the service time stands>"
_COUNTED_HOLE: Final = bytes((len(_HOLE),)) + _HOLE

Whole = Callable[[Any, Any, Known, list[bytes], bytes, list[Field] | None], bool]
"""``whole(exchange, upstream, known, found, body, trailers)``: whether the response was passed on; nothing has happened if not.

``exchange`` is the pool's, on its connection ``upstream``, whose codec has closed the stream already. ``found`` stands at
the spots of the ``known`` block.
"""


def settle(connection: Any, known: Known, shape: Any, rendered: tuple[int, bytes], values: Sequence[bytes]) -> None:
    """Remember on a client's connection what becomes of a block of a host, but for the service time in it."""
    at = shape.service_time_at
    block = filled(rendered[1], (*values[:at], _HOLE, *values[at + 1 :]) if at >= 0 else (*values[:-1], _HOLE))
    before, _, behind = (block or b"").partition(_COUNTED_HOLE)
    if before:
        if len(connection.settled) >= _MOST_SETTLED:
            connection.settled.clear()
        connection.settled[known] = (rendered[0], before, behind)


def compile_whole(manager: Any, router: Any, date_of: Callable[[int], bytes]) -> Whole:
    """What ``take``, ``data`` and ``trailers`` of ``Answers`` do one after the other, for one connection manager."""
    worker = manager.worker
    clock = worker.clock
    corked = worker.cork.waiting
    suppress_headers: bool = router.suppress_headers
    manager_stats = manager.stats
    listener_codes = manager.listener_codes
    access_logs = manager.access_logs
    rq_time = manager_stats.downstream_rq_time
    options = manager.options

    def whole(
        exchange: Any, upstream: Any, known: Known, found: list[bytes], body: bytes, trailers: list[Field] | None
    ) -> bool:
        responses, binding = known.shape
        request = exchange.sink
        plan = request.plan
        stream = request.stream
        downstream = stream.downstream
        cluster = request.cluster
        host = request.host
        retry = request.retry
        shape = binding.shape
        status = shape.status
        if (
            plan.responses is not responses
            or not shape.ended
            or not stream.request_ended
            or request.interim
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
        same = found is known.values  # it is this very block
        http2 = downstream.version == 20
        settled = None
        if http2:
            connection = downstream.connection
            codec = connection.codec
            if same:
                settled = connection.settled.get(known)
                if settled is not None and (settled[0] != codec.encoder.epoch or took >= 100):
                    settled = None
        if settled is None or access_logs:
            values = binding.base if same else binding.values(found)
            if not suppress_headers:
                at = shape.service_time_at
                number = _NUMBERS[took] if took < 100 else b"%d" % took
                values = (*values, number) if at < 0 else (*values[:at], number, *values[at + 1 :])
            if shape.dated:
                values = (*values, date_of(int(stream.start_time + (now - stream.start))))
        if not http2:
            if (
                trailers is not None
                or not shape.sized
                or not downstream.keep_alive
                or downstream.out
                or downstream.full
                or downstream.paused
                or downstream.closed
                or downstream.reader.held is not None
                or downstream.reader.state != DONE
            ):
                return False
            block = shape.http1() % tuple(values)
            downstream.out += (block, body)
            corked.append(downstream)
            head_size = len(block)
        else:
            if settled is not None:
                _, before, behind = settled
                block = before + _COUNTED[took] + behind
            else:
                rendered = connection.renders.get(shape)
                if rendered is None or rendered[0] != codec.encoder.epoch:
                    return False
                block = filled(rendered[1], values)
                if block is None:
                    return False
                if same and shape.lasting and not suppress_headers:
                    settle(connection, known, shape, rendered, values)
            if not codec.send_message(downstream.id, block, body, trailers):
                return False
            if not connection.corked:
                connection.corked = True
                corked.append(connection)
            head_size = len(block) + _HEADER
        # the upstream request: UpstreamRequest._accept and _release
        stats = cluster.stats
        host.rq_success += 1
        host.rq_active -= 1
        request.breaker.rq_active -= 1
        stats.upstream_rq_active -= 1
        if plan.internal:
            stats.internal_codes[status] += 1
            times = stats.internal_upstream_rq_time
        else:
            stats.external_codes[status] += 1
            times = stats.external_upstream_rq_time
        if took < 100:
            times.recent[took] += 1
        else:
            times.record(took)
        # the pool's stream: Http2Exchange.end
        exchanges = upstream.exchanges
        del exchanges[exchange.stream_id]
        upstream.stats.streams_active -= 1
        if not exchange.full:
            exchange.sink = None
            upstream.spare.append(exchange)
        # the stream: Stream.on_response_head and response_sent
        if access_logs:  # nobody else asks what has become of it
            head = request.head
            if head is None or head.template is not shape.template:
                head = request.head = ShapedResponseHead(status, b"", 20, shape.template)
            head.values = values
            stream.response = head
            stream.response_code = status
            stream.response_code_details = "via_upstream"
            stream.response_head_size = head_size
            stream.bytes_sent = stream.upstream_bytes_received = len(body)
            stream.upstream_head_received = upstream.codec.received_head_size
            stream.upstream_first_rx = stream.upstream_last_rx = stream.downstream_first_tx = stream.end = now
        stream.now = now
        if trailers is not None:
            stream.response_trailers = trailers
            if plan.call and dict(trailers).get(b"grpc-status") != b"0":
                request._judge_end_of_call(trailers)
        listener_codes[status] += 1
        manager_stats.downstream_rq_active -= 1
        if stream.start is not request.sent_at:
            took = int((now - stream.start) * 1000)
        if took < 100:
            rq_time.recent[took] += 1
        else:
            rq_time.record(took)
        for write in access_logs:
            write(stream)
        if not http2:
            # the client's connection: Http1Connection.finished
            downstream.stream = None
            downstream.idle_since = now
            downstream.reader.state = HEAD
            if now + options.idle_timeout < downstream.due:
                downstream.wake_by(now + options.idle_timeout)
        else:
            # the client's stream: Http2Exchange.finished
            if downstream.unconsumed:
                downstream.give_back()
            exchanges_down = connection.exchanges
            del exchanges_down[downstream.id]
            downstream.through = None
            connection.stats.streams_active -= 1
            if not exchanges_down:
                connection.now = connection.idle_since = now
                if codec.draining:
                    connection.rest()
                elif now + options.idle_timeout < connection.due:
                    connection.wake_by(now + options.idle_timeout)
        if not http2:
            keep(request, stream)
        elif connection.spare is not None or downstream.full or downstream.paused:
            keep(request, stream)
            del downstream.stream
        elif keep(request, stream, True):
            connection.spare = downstream
        else:
            del downstream.stream
        if not exchanges or upstream.pool.pending:
            upstream.exchange_over()
        return True

    return whole
