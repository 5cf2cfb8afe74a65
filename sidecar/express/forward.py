"""The middle of the lane: a request of a known shape, from its connection through routes, filters and balancer to a pool.

What stands before differs by the client's protocol, what stands behind by the host's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sidecar.codec.http1_reader import DONE, HEAD
from sidecar.core.http_filter import RouteChanged
from sidecar.express.keeping import as_new, put_away, set_free
from sidecar.express.plan import RequestShape, is_plain, make_plan, make_variant

_PLANS = 256
_NEVER_DUE = float("inf")
_UNKNOWN = object()
_EXPECTED = b"x-envoy-expected-rq-timeout-ms"


def request_ended(request: Any, stream: Any, connection: Any, plan: Any, body: bytes, now: float) -> None:
    """The whole body of a request has gone to the host with its head: Stream.on_data, UpstreamRequest.on_request_data."""
    stream.bytes_received = len(body)
    stream.request_ended = True
    stream.request_complete = now
    request.body_end = True
    if plan.retry is not None:
        request.body.append(body)
        request.body_size = len(body)
    if plan.timeout:
        request.deadline = now + plan.timeout
        if request.deadline < connection.due:
            connection.wake_by(request.deadline)


Forward = Callable[..., bool]
"""``forward(shape, downstream, connection, now, path, values, head_size, body, end)``.

``downstream`` is the ``Downstream`` of the stream that is made, and ``connection`` what has the timer. ``body`` is a body
that came with the head, and that has not been taken from the connection yet; ``end``: there is none, nor will be. True if
``body`` was taken care of.
"""


def compile_forward(
    lane: Any,
    router: Any,
    make_upstream_request: Callable[..., Any],
    new_request_id: Callable[[int], bytes],
    respond: Callable[..., bool],
    answers: Callable[[], Any],
    http2: bool,
) -> Forward:
    """The way of plain requests of one connection manager, for clients of HTTP/1 or for those of HTTP/2.

    ``respond`` takes whole responses of HTTP/1 hosts back, what ``answers`` gives those of HTTP/2 hosts.
    """
    answer = request_block = None
    manager = lane.manager
    worker = manager.worker
    cork = worker.cork
    random = worker.random
    getrandbits = random.getrandbits
    stats = manager.stats
    router_stats = router.stats
    routes = manager.routes
    match = routes.match
    cluster_of = router.cluster_of
    on_request = router.on_request
    options = manager.options
    hooks = manager.default_chain.request
    make_stream = lane.make_stream
    suppress_headers: bool = router.suppress_headers
    stream_idle_timeout: float = options.stream_idle_timeout
    max_stream_duration: float = options.max_stream_duration
    request_timeout: float = options.request_timeout
    patience = min(stream_idle_timeout, max_stream_duration)
    responses_of = lane.responses_of

    def forward(
        shape: RequestShape,
        downstream: Any,
        connection: Any,
        now: float,
        path: bytes,
        values: Sequence[bytes],
        head_size: int,
        body: bytes | None,
        end: bool,
    ) -> bool:
        nonlocal answer, request_block
        stream = downstream.stream if http2 else None
        if stream is None or stream.shape is not shape:
            if stream is not None:
                set_free(stream)
            info = connection.info
            idle = shape.idle
            if idle:
                stream = idle.pop()
                stream.connection = info
                stream.downstream = downstream
                stream.remote_address = shape.remote_address or info.remote_address
                stream.start_time = now + worker.epoch
                stream.start = now
                stream.now = now
                stream.last_activity = now
            else:
                stream = make_stream(downstream, manager, shape.new_head(), now)
                stream.shape = shape
                stream.request_ended = end
                stream.request_deadline = _NEVER_DUE
                stream.idle_timeout = stream_idle_timeout
                if shape.remote_address is not None:
                    stream.remote_address = shape.remote_address
            downstream.stream = stream
        else:  # the one that served the connection's request before
            stream.start_time = now + worker.epoch
            stream.start = now
            stream.now = now
            stream.last_activity = now
        request = stream.upstream
        if hooks:
            as_new(stream)
            stream.cluster_name = ""
            stream.upstream = stream.dynamic_metadata = stream.filter_data = stream.filter_state = None
            stream.response_flags = 0
            stream.request_id = b""
            stream.upstream_failure_reason = ""
        head = stream.request
        head.template = shape.template
        head.path = path
        if shape.generated >= 0:
            if shape.replaced:
                values = [*values]
                values[shape.generated] = new_request_id(getrandbits(128))
            else:
                values = [*values, new_request_id(getrandbits(128))]
        head.values = values
        if shape.indexed:
            index = head.template.index.copy()
            for open_name, number in shape.places:
                index[open_name] = values[number]
            head.index = index
        else:
            head.made_index = None
        stream.request_head_size = head_size
        if end:
            stream.request_complete = now
        else:
            stream.request_complete = 0.0
            stream.request_ended = False
            stream.bytes_received = 0
            stream.request_deadline = now + request_timeout
            if stream.request_deadline < connection.due:
                connection.wake_by(stream.request_deadline)
        # the stream: Stream.begin
        stats.downstream_rq_total += 1
        stats.downstream_rq_active += 1
        if http2:
            stats.downstream_rq_http2_total += 1
        stream.duration_deadline = now + max_stream_duration
        if now + patience < connection.due:
            connection.wake_by(now + patience)
        try:
            if shape.routes is routes.routes:
                plan: Any = shape.certain
                stream.route = route = plan.route
            else:
                stream.cluster_name = name = ""
                route = match(head, stream)
                if route is not None:
                    if route.pick_cluster is not None:
                        name, entry = route.pick_cluster(head, random, stream)
                        stream.cluster_name = name
                        if entry is not None:
                            route = entry
                stream.route = route
                plan = shape.plans.get(route, _UNKNOWN)
                if plan is _UNKNOWN:
                    name = "" if route is None else route.cluster_name or name
                    plan = None
                    if name and is_plain(route) and (route.cluster_name or not route.pick_cluster):
                        plan = make_plan(shape, route, name, suppress_headers, responses_of(name))
                        if not route.pick_cluster and routes.certain(head.authority) is route:
                            shape.certain, shape.routes = plan, routes.routes
                    if len(shape.plans) >= _PLANS:
                        shape.plans.clear()
                    shape.plans[route] = plan
                if plan is None:
                    stream.upstream = None
                    as_new(stream)
                    stream.go_on(route, end)
                    return False
            for hook in hooks:
                if hook(stream, end):
                    stream.paused_by(hook)
                    return False
        except RouteChanged:
            stream.go_elsewhere(hook, end)
            return False
        except Exception:
            stream.upstream = None
            as_new(stream)
            stream.filter_failed()
            return False
        # the router: Router.on_request and UpstreamRequest.start
        cluster = cluster_of(plan.cluster_name)
        if hooks:
            template = head.template
            if head.made_fields is not None or shape.differs(head, path):
                cluster = None
            elif template is not shape.template:  # a filter has taken fields away, or added some
                values = head.values
                variant = plan.variants.get(template, _UNKNOWN)
                plan = make_variant(plan, shape, route, template, suppress_headers) if variant is _UNKNOWN else variant
                if plan is None:
                    cluster = None
        if cluster is None:
            stream.upstream = None
            as_new(stream)
            on_request(stream, end)
            return False
        router_stats.rq_total += 1
        stream.cluster_name = plan.cluster_name
        if request is None or request.plan is not plan or request.cluster is not cluster:
            if request is not None:
                put_away(request)
            idle = plan.idle
            if idle:
                request = idle.pop()
                request.stream = stream
                request.cluster = cluster
                request.breaker = cluster.breakers[plan.priority]
            else:
                request = make_upstream_request(router, stream, route, cluster)
                request.plan = plan
                request.body_end = request.bodyless = end
                request.retry = plan.retry
                request.timeout = plan.timeout
                request.per_try_timeout = plan.per_try_timeout
                request.retries_left = plan.retries
            request.request = head
        breaker = request.breaker
        stream.upstream = request
        if end:
            if plan.timeout:
                request.deadline = now + plan.timeout
                if request.deadline < connection.due:
                    connection.wake_by(request.deadline)
        else:
            request.deadline = _NEVER_DUE
            request.body_end = False
            if plan.retry is not None:
                request.body = []
                request.body_size = 0
        if plan.per_try_timeout:
            request.try_deadline = now + plan.per_try_timeout
            if request.try_deadline < connection.due:
                connection.wake_by(request.try_deadline)
        pick = cluster.pick
        host = pick(request)
        if host is None:
            as_new(stream)
            request.no_host()
            return False
        head.template = plan.template
        if plan.expected is not None and (shape.indexed or head.made_index is not None):
            head.index[_EXPECTED] = plan.expected
            if head.made_fields is not None:  # a route has looked at them
                head.made_fields.append((_EXPECTED, plan.expected))
        pool = host.pool
        if pool is None or breaker.rq_active >= breaker.max_requests:
            as_new(stream)
            request.attempt(host)
            return False
        free = pool.free
        if free:
            if http2 and not end:  # it would have to be told how its body ends
                as_new(stream)
                request.attempt(host)
                return False
            carrier = free[-1]
        else:
            block = None
            if pool.ready:
                if request_block is None:
                    answer = answers()
                    request_block = answer.request_block
                carrier = pool.ready[0]
                block = request_block(plan, carrier, path, values)
            if block is None or (body is not None and not carrier.codec.admits(len(body))):
                as_new(stream)
                request.attempt(host)
                return False
        # the attempt: UpstreamRequest._attempt and _send
        stream.attempt_count = 1
        request.host = stream.host = host
        breaker.rq_active += 1
        host.rq_active += 1
        host.rq_total += 1
        upstream_stats = cluster.stats
        upstream_stats.upstream_rq_total += 1
        upstream_stats.upstream_rq_active += 1
        stream.upstream_connection_id = carrier.id
        stream.upstream_local_address = carrier.local_address
        stream.upstream_tls = carrier.tls
        request.sent_at = stream.upstream_first_tx = stream.upstream_last_tx = now
        if not free:
            # a stream of the pool's connection: Http2Exchange.send_head
            stream.upstream_version = 20
            request.reused = carrier.codec.next_id > 1
            spare = carrier.spare
            request.upstream = upstream = spare.pop() if spare else carrier.exchange_type(carrier)
            upstream.answer = answer
            if body is None:
                upstream.begin(request, carrier.codec.open_block(block, end), end)
                if not end:
                    stream.upstream_last_tx = 0.0
                    if http2 and plan.retry is None:
                        downstream.through = upstream
                        source = connection.codec.streams[downstream.id]
                        if source.expected < 0:
                            source.owner = downstream
                            source.pipe = type(downstream).pass_on
                return False
            upstream.begin(request, carrier.codec.open_message(block, body), True)
            if not http2:
                connection.reader.state = DONE
                connection.reader.remaining = 0
            request_ended(request, stream, connection, plan, body, now)
            return True
        # the pool's connection: Http1Connection.send_head
        stream.upstream_version = 11
        del free[-1]
        request.reused = carrier.requests > 0
        request.upstream = carrier
        carrier.sink = request
        carrier.respond = respond
        carrier.requests += 1
        reader = carrier.reader
        reader.method = head.method
        reader.upgrade = False
        reader.head_size = 0
        reader.sink = request
        reader.state = HEAD
        carrier.out.append(plan.render % (path, *values))
        cork.waiting.append(carrier)
        if body is not None:
            # the body: Stream.on_data, UpstreamRequest.on_request_data, Http1Connection.send_data
            carrier.out.append(body)
            connection.reader.state = DONE
            connection.reader.remaining = 0
            request_ended(request, stream, connection, plan, body, now)
        return True

    return forward
