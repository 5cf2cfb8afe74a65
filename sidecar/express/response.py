"""The way back in one function: a whole response of a known shape, from an HTTP/1 connection upstream to the client's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.codec.errors import ProtocolError
from sidecar.codec.http1 import persists
from sidecar.codec.http1_head import parse_response_head, status_line
from sidecar.codec.http1_reader import DONE, HEAD
from sidecar.codec.wire import FieldLines
from sidecar.core.head import ResponseHead
from sidecar.express.heads import OpenField, ShapedResponseHead, Template
from sidecar.express.keeping import keep
from sidecar.express.plan import render_template
from sidecar.express.shape import RESPONSE_VALUES, Cut, Pace, cut, differing, literal, without_values

_JOIN_BELOW = 16384
_SHAPES = 256
_SERVICE_TIME = b"x-envoy-upstream-service-time"
_FAIL_NOW = b"x-envoy-immediate-health-check-fail"


class ResponseShape:
    """Whole responses that differ in open values and body only, as one connection manager passes them on.

    ``date`` is the last one that was looked at: within its second no other comes. ``others`` is whether anything but date and
    length is open. ``render % (*values, service time or date if they are added, body)`` is what the client gets, and what
    ``last`` gives instead of ``render`` where its connection ends with the response.
    """

    __slots__ = (
        "accepts",
        "constants",
        "cut",
        "date",
        "date_at",
        "dated",
        "last_renders",
        "length_at",
        "lines",
        "others",
        "reason",
        "render",
        "service_time_at",
        "size",
        "status",
        "template",
        "unpack",
        "version",
    )  # fmt: skip

    def __init__(self, cut: Cut, head: ResponseHead, template: Template) -> None:
        self.cut = cut
        self.size = cut.size
        self.unpack = cut.unpack
        self.accepts = cut.accepts
        self.constants = cut.constants
        self.status = head.status
        self.reason = head.reason
        self.version = head.version
        self.template = template
        self.length_at = cut.names.index(b"content-length")
        self.date_at = cut.names.index(b"date") if b"date" in cut.names else -1
        self.date = b""
        self.others = len(cut.names) > 1 + (self.date_at >= 0)
        self.service_time_at = -1
        self.dated = False
        self.render = b""
        self.last_renders: dict[int, bytes] = {}
        self.lines: list[bytes] = []

    def last(self, version: int) -> bytes:
        """What renders the last response of a client's connection, for a request of this version: Http1Writer.send_head."""
        render = self.last_renders.get(version)
        if render is None:
            line = literal(status_line(self.status))
            if version == 10:
                line = b"HTTP/1.0" + line[8:]
            render = line + render_template(self.template.with_field(b"connection", b"close")) + b"%b"
            self.last_renders[version] = render
        return render

    def __repr__(self) -> str:
        return f"<ResponseShape {self.status} {self.cut!r}>"


class Responses:
    """The shapes of a cluster's responses, for one connection manager: by the size of their heads, and those of HTTP/2 by
    status and names of fields.
    """

    __slots__ = ("http2", "pace", "shapes", "volatile")

    def __init__(self) -> None:
        self.shapes: dict[int, ResponseShape] = {}
        self.http2: dict[tuple[Any, ...], Any] = {}
        self.volatile = set(RESPONSE_VALUES)
        self.pace = Pace()

    def learn(self, manager: Any, reader: Any, data: bytes, end: int, suppress_headers: bool) -> None:
        """Find out what becomes of responses such as this one, whose head ends with the empty line at ``end``.

        ``reader`` has the limits that it must keep to.
        """
        if end > reader.max_head_bytes or not self.pace.permits(manager.worker.clock()):
            return
        lines = data[:end].split(b"\r\n")
        before = self.shapes.get(end)
        if before is not None:
            self.volatile |= differing(before.lines, lines, len(self.volatile))
        shape = _shape(manager, data[: end + 4], reader.max_fields, self.volatile, suppress_headers)
        if shape is not None:
            shape.lines = without_values(lines, self.volatile)
            if len(self.shapes) >= _SHAPES:
                self.shapes.clear()
            self.shapes[end] = shape


def _shape(
    manager: Any, block: bytes, most_fields: int, volatile: set[bytes], suppress_headers: bool
) -> ResponseShape | None:
    """What becomes of a response with this head, if it is a plain one; found out by what the stages make of it."""
    pieces = cut(block, volatile)
    if pieces is None or b"content-length" not in pieces.names:
        return None
    try:
        head, framing = parse_response_head(block[:-4], FieldLines(), most_fields, b"GET")
    except ProtocolError:
        return None
    connection = head.index.get(b"connection", b"keep-alive")
    if framing <= 0 or head.status >= 500 or head.version != 11 or not persists(connection, head.version):
        return None
    passed = passed_on(manager, head, pieces.names, block, suppress_headers)
    if passed is None:
        return None
    template, service_time_at, dated = passed
    shape = ResponseShape(pieces, head, template)
    shape.service_time_at = service_time_at
    shape.dated = dated
    shape.render = literal(status_line(head.status)) + render_template(template) + b"%b"
    return shape


def passed_on(
    manager: Any, head: ResponseHead, names: tuple[bytes, ...], block: bytes, suppress_headers: bool
) -> tuple[Template, int, bool] | None:
    """What the client gets of a response with this head, in which the fields called ``names`` are open.

    The template, which value is replaced by the service time (-1: that is added as the next one), and whether a date is
    added behind all others; None if it is not so simple. ``block`` is where everything is found that came. ``head`` is
    changed.
    """
    if _FAIL_NOW in head.index:
        return None  # the host is to be taken for failed: for the stages
    given = {name: head.index[name] for name in names}
    if not suppress_headers:
        if _SERVICE_TIME in head.index:
            head.set(_SERVICE_TIME, b"0")
        else:
            head.add(_SERVICE_TIME, b"0")
    manager.finish_response(_Trial(head))
    order: list[bytes] = []
    opened: list[OpenField] = []
    for at, (name, value) in enumerate(head.fields):
        own_time = name == _SERVICE_TIME and not suppress_headers
        own_date = name == b"date" and name not in given and value not in block
        if own_time or own_date or name in given:
            if name in given and not own_time and value != given[name]:
                return None
            opened.append((at, name, len(order)))
            order.append(name)
    added = tuple(order[len(names) :])
    if tuple(order[: len(names)]) != names or added not in ((), (_SERVICE_TIME,), (_SERVICE_TIME, b"date"), (b"date",)):
        return None
    service_time_at = names.index(_SERVICE_TIME) if _SERVICE_TIME in names and not suppress_headers else -1
    return Template(head.fields, head.index, tuple(opened)), service_time_at, b"date" in added


class _Trial:
    """As much of a stream as the finishing of a response's head looks at."""

    __slots__ = ("now", "response", "start", "start_time", "tunnel")

    def __init__(self, response: ResponseHead) -> None:
        self.response = response
        self.tunnel = None
        self.now = self.start = self.start_time = 0.0


def compile_response_lane(
    manager: Any, router: Any, date_of: Callable[[int], bytes], http2: bool = False, last: bool = False
) -> Callable[..., bool]:
    """``respond(connection, request, data)``: whether the read was a whole plain response, and has been passed on.

    ``connection`` is the pool's, ``request`` the upstream request that waits for it. Nothing has happened if it was not.
    ``last``: for clients of HTTP/1 whose connection ends with the response, because the request says so.
    """
    worker = manager.worker
    clock = worker.clock
    cork = worker.cork
    suppress_headers: bool = router.suppress_headers
    manager_stats = manager.stats
    listener_codes = manager.listener_codes
    access_logs = manager.access_logs
    options = manager.options
    rq_time = manager_stats.downstream_rq_time
    if http2:
        from sidecar.express.http2_blocks import response_block
        from sidecar.express.http2_end import compile_end_of_exchange

        end_exchange = compile_end_of_exchange(options)

    def respond(connection: Any, request: Any, data: bytes) -> bool:
        reader = connection.reader
        if reader.state != HEAD or reader.partial is not None or request.interim:
            return False
        plan = request.plan
        end = data.find(b"\r\n\r\n")
        shape = plan.answers.get(end)
        if shape is None:
            if end > 0 and connection.requests > 1:
                plan.responses.learn(manager, reader, data, end, suppress_headers)
            return False
        pieces = shape.unpack(data, 0)
        if pieces[::2] != shape.constants:
            plan.responses.learn(manager, reader, data, end, suppress_headers)
            return False
        values = pieces[1::2]
        length = values[shape.length_at]
        body = data[shape.size :]
        size = len(body)
        if not length.isdigit() or int(length) != size or size >= _JOIN_BELOW:
            return False
        date_at = shape.date_at
        if date_at < 0 or values[date_at] != shape.date or shape.others:
            if not shape.accepts(values):
                return False
            if date_at >= 0:
                shape.date = values[date_at]
        stream = request.stream
        downstream = stream.downstream
        status = shape.status
        host = request.host
        cluster = request.cluster
        retry = request.retry
        pool = connection.pool
        if http2:
            if not stream.request_ended or not size:  # then the head is the end
                return False
        elif (
            downstream.keep_alive is last
            or downstream.out
            or downstream.full
            or downstream.paused
            or downstream.reader.held is not None
            or downstream.reader.state != DONE
        ):
            return False
        if (
            pool.draining
            or pool.pending
            or connection.paused
            or (pool.options.max_requests and connection.requests >= pool.options.max_requests)
            or (retry is not None and retry.retriable_status[status])
            or (
                cluster.outlier is not None
                and (host.consecutive_5xx or host.consecutive_gateway or host.consecutive_local_origin)
            )
        ):
            return False
        now = clock()
        took = int((now - request.sent_at) * 1000)
        if not suppress_headers:
            if shape.service_time_at < 0:
                values += (b"%d" % took,)
            else:
                at = shape.service_time_at
                values = (*values[:at], b"%d" % took, *values[at + 1 :])
        if shape.dated:
            values += (date_of(int(stream.start_time + (now - stream.start))),)
        if http2:
            client = downstream.connection
            codec = client.codec
            out = response_block(shape, client, values)
            if out is None:
                return False
            at_once = codec.send_message(downstream.id, out, body, None)
            if not at_once and not codec.send_block(downstream.id, out):
                return False
            head_size = len(out) + 9
        else:
            out = (shape.last(stream.request.version) if last else shape.render) % (*values, body)
            head_size = len(out) - size
        # the upstream request: UpstreamRequest._accept and _release
        stats = cluster.stats
        host.rq_success += 1
        host.rq_active -= 1
        request.breaker.rq_active -= 1
        stats.upstream_rq_active -= 1
        stats.upstream_cx_rx_bytes_total += len(data)
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
        # the pool's connection: Http1Connection._response_complete and Http1Pool.put_back
        reader.state = DONE
        reader.sink = connection.sink = None
        reader.head_size = shape.size
        connection.idle_since = now
        pool.idle.append(connection)
        # the stream: Stream.on_response, and the head as the connection manager finishes it
        if access_logs:  # nobody else asks what has become of it
            head = request.head
            if head is None or head.template is not shape.template:
                head = request.head = ShapedResponseHead(status, shape.reason, shape.version, shape.template)
            head.values = values
            stream.response = head
            stream.response_code = status
            stream.response_code_details = "via_upstream"
            stream.response_head_size = head_size
            stream.bytes_sent = stream.upstream_bytes_received = size
            stream.upstream_head_received = shape.size
            stream.upstream_first_rx = stream.upstream_last_rx = stream.downstream_first_tx = stream.end = now
        stream.now = now
        listener_codes[status] += 1
        manager_stats.downstream_rq_active -= 1
        took = int((now - stream.start) * 1000)
        if took < 100:
            rq_time.recent[took] += 1
        else:
            rq_time.record(took)
        if http2:
            # the client's stream: Http2Exchange.send_data and finished
            if not at_once:
                codec.send_data(downstream.id, body, True)
            if not client.corked and not client.closed:
                client.corked = True
                cork.waiting.append(client)
            end_exchange(downstream, client, now)
        else:
            # the client's connection: Http1Connection.send_message and finished
            downstream.out.append(out)
            cork.waiting.append(downstream)
            downstream.stream = None
            if last:
                downstream.close_after_flush()
            else:
                downstream.idle_since = now
                downstream.reader.state = HEAD
                if now + options.idle_timeout < downstream.due:
                    downstream.wake_by(now + options.idle_timeout)
        for write in access_logs:
            write(stream)
        if http2 and client.spare is None and not downstream.full and not downstream.paused:
            if keep(request, stream, True):
                downstream.stream = stream
                client.spare = downstream
        else:
            keep(request, stream)
        return True

    return respond
