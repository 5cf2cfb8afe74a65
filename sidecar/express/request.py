"""The way to the upstream in one function: a whole request of a known shape, from the client's connection to the pool's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.codec.http1_reader import BODY, DONE, HEAD
from sidecar.express.learning import shape_of
from sidecar.express.plan import RequestShape, is_plain, make_plan
from sidecar.express.response import Responses, compile_response_lane
from sidecar.express.shape import CANONICAL_PATH, PATH, REQUEST_VALUES, Pace, differing, without_values

_LONGEST_BODY = 16384
_KINDS = 1024
_SHAPES = 1024
_PLANS = 256

Kind = dict[int, RequestShape]
"""The shapes that connections of one kind send, by the size of their heads behind the path: less than 0 with a body."""


class ExpressLane:
    """The lane of one connection manager. ``take(connection, data)`` is true if the read was taken care of."""

    __slots__ = (
        "kinds",
        "make_stream",
        "manager",
        "normalizes",
        "pace",
        "path",
        "responses",
        "shapes",
        "take",
        "volatile",
    )  # fmt: skip

    def __init__(
        self,
        manager: Any,
        router: Any,
        make_stream: Callable[..., Any],
        make_upstream_request: Callable[..., Any],
        new_request_id: Callable[[int], bytes],
        date_of: Callable[[int], bytes],
        normalizes: bool,
    ) -> None:
        self.manager = manager
        self.make_stream = make_stream
        self.normalizes = normalizes
        self.path = CANONICAL_PATH if normalizes else PATH
        self.kinds: dict[Any, Kind] = {}
        self.volatile = set(REQUEST_VALUES)
        self.responses: dict[str, Responses] = {}
        self.pace = Pace()
        self.shapes = 0  # learnt since there was room last; what they hold together is bounded
        self.take = self._compile(router, make_upstream_request, new_request_id, date_of)

    def kind_of(self, info: Any) -> Kind:
        """The shapes of connections like this one: what the preparation of a request reads of its connection."""
        tls = info.tls
        key = (info.remote_address.ip, info.local_address.port, None if tls is None else tls.identity)
        kind = self.kinds.get(key)
        if kind is None:
            if len(self.kinds) >= _KINDS:
                self.kinds.clear()
            kind = self.kinds[key] = {}
        return kind

    def learn(self, connection: Any, data: bytes) -> None:
        """Find out what becomes of requests such as this one, which has just gone through the stages."""
        if not self.pace.permits(connection.now):
            return
        at, end = data.find(b" HTTP/1.1\r\n"), data.find(b"\r\n\r\n") + 4
        if at < 0:
            return
        lines = data[at : end - 4].split(b"\r\n")
        kind: Kind = connection.kind
        size = end - at if end == len(data) else at - end
        before = kind.get(size)
        if before is not None:
            self.volatile |= differing(before.lines, lines, len(self.volatile))
        shape = shape_of(self.manager, connection.info, data[:end], at, len(data) - end, self.volatile)
        if shape is not None:
            shape.lines = without_values(lines, self.volatile)
            self.shapes += 1
            if self.shapes > _SHAPES:
                self.shapes = 1
                for each in self.kinds.values():
                    each.clear()
            if len(kind) >= _SHAPES:  # it may be one of those that were forgotten
                kind.clear()
            kind[size] = shape

    def responses_of(self, cluster_name: str) -> Responses:
        found = self.responses.get(cluster_name)
        if found is None:
            found = self.responses[cluster_name] = Responses()
        return found

    def _compile(
        self,
        router: Any,
        make_upstream_request: Callable[..., Any],
        new_request_id: Callable[[int], bytes],
        date_of: Callable[[int], bytes],
    ) -> Callable[[Any, bytes], bool]:
        manager = self.manager
        worker = manager.worker
        clock = worker.clock
        cork = worker.cork
        epoch: float = worker.epoch
        random = worker.random
        getrandbits = random.getrandbits
        stats = manager.stats
        router_stats = router.stats
        match = manager.routes.match
        cluster_of = router.cluster_of
        on_request = router.on_request
        options = manager.options
        path_characters = self.path
        normalizes = self.normalizes
        hooks = manager.default_chain.request
        make_stream = self.make_stream
        suppress_headers: bool = router.suppress_headers
        stream_idle_timeout: float = options.stream_idle_timeout
        max_stream_duration: float = options.max_stream_duration
        most: int = options.max_request_head_bytes
        request_timeout: float = options.request_timeout
        longest_body = min(_LONGEST_BODY, router.retry_budget_bytes)
        patience = min(stream_idle_timeout, max_stream_duration)
        respond = compile_response_lane(manager, router, date_of)
        responses_of = self.responses_of

        def take(connection: Any, data: bytes) -> bool:
            at = data.find(b" HTTP/1.1\r\n")
            size = len(data)
            body = None
            shape = connection.kind.get(size - at)
            if shape is None:
                end = data.find(b"\r\n\r\n", at) + 4
                shape = connection.kind.get(at - end)
                if shape is None:
                    return False
                body = data[end:]
                size = end
            if at < 0 or size > most:
                return False
            pieces = shape.unpack(data, at)
            if pieces[::2] != shape.constants or not data.startswith(shape.start):
                return False
            path = data[shape.path_at : at]
            if path.translate(None, path_characters):
                return False
            if normalizes and (b"//" in path or b"/." in path):
                return False
            values = pieces[1::2]
            if (values and not shape.accepts(values)) or manager.draining or not connection.keep_alive:
                return False
            if body is not None:
                length = values[shape.length_at]
                if not length.isdigit() or int(length) != len(body) or len(body) > longest_body:
                    return False
            # the connection: Http1Connection.on_head
            now = clock()
            info = connection.info
            idle = shape.idle
            if idle:
                stream = idle.pop()
                head = stream.request
                head.template = shape.head[3]
                stream.connection = info
                stream.downstream = connection
                stream.remote_address = shape.remote_address or info.remote_address
                stream.start_time = now + epoch
                stream.start = now
                stream.now = now
                stream.last_activity = now
                stream.cluster_name = ""
                stream.response = None
                stream.response_code = stream.bytes_sent = stream.response_head_size = stream.attempt_count = 0
                stream.upstream_head_received = stream.upstream_bytes_received = 0
                stream.response_code_details = ""
                stream.response_ended = stream.over = False
                stream.upstream_first_rx = stream.upstream_last_rx = stream.downstream_first_tx = stream.end = 0.0
                stream.upstream_first_tx = stream.upstream_last_tx = 0.0
                stream.upstream_connection_id = 0
                stream.upstream_local_address = stream.upstream_tls = None
                if hooks:
                    stream.dynamic_metadata = stream.filter_data = stream.filter_state = None
                    stream.response_flags = 0
                    stream.request_id = b""
                    stream.upstream_failure_reason = ""
            else:
                head = shape.new_head()
                stream = make_stream(connection, manager, head, now)
                stream.shape = shape
                stream.request_deadline = _NEVER_DUE
                stream.request_ended = True
                stream.idle_timeout = stream_idle_timeout
                if shape.remote_address is not None:
                    stream.remote_address = shape.remote_address
            head.path = path
            if shape.generated >= 0:
                values = [*values]
                if shape.replaced:
                    values[shape.generated] = new_request_id(getrandbits(128))
                else:
                    values.append(new_request_id(getrandbits(128)))
            head.values = values
            if shape.indexed:
                index = head.template.index.copy()
                for name, number in shape.places:
                    index[name] = values[number]
                head.index = index
            else:
                head.made_index = None
            connection.now = now
            connection.stream = stream
            connection.requests += 1
            reader = connection.reader
            reader.head_size = stream.request_head_size = size
            stats.downstream_cx_rx_bytes_total += len(data)
            if body is None:
                reader.state = DONE
                stream.request_complete = now
            else:
                reader.state = BODY
                reader.remaining = len(body)
                stream.request_complete = 0.0
                stream.request_ended = False
                stream.request_deadline = now + request_timeout
                stream.bytes_received = 0
            # the stream: Stream.begin
            stats.downstream_rq_total += 1
            stats.downstream_rq_active += 1
            stats.downstream_rq_http1_total += 1
            stream.duration_deadline = now + max_stream_duration
            if now + patience < connection.due:
                connection.wake_by(now + patience)
            try:
                route = match(head, stream)
                name = ""
                if route is not None:
                    if route.pick_cluster is not None:
                        name, entry = route.pick_cluster(head, random, stream)
                        stream.cluster_name = name
                        if entry is not None:
                            route = entry
                stream.route = route
                plan = shape.plans.get(route, 0)
                if plan == 0:
                    name = "" if route is None else route.cluster_name or name
                    plan = None
                    if name and is_plain(route) and (route.cluster_name or not route.pick_cluster):
                        plan = make_plan(shape, route, name, suppress_headers, responses_of(name))
                    if len(shape.plans) >= _PLANS:
                        shape.plans.clear()
                    shape.plans[route] = plan
                if plan is None:
                    stream.go_on(route, body is None)
                    return body is None or deliver(connection, body)
                for hook in hooks:
                    if hook(stream, body is None):
                        stream.paused_by(hook)
                        return body is None or deliver(connection, body)
            except Exception:
                stream.filter_failed()
                return body is None or deliver(connection, body)
            # the router: Router.on_request and UpstreamRequest.start
            cluster = cluster_of(plan.cluster_name)
            if cluster is None or (hooks and (head.made_fields is not None or shape.differs(head, path))):
                on_request(stream, body is None)
                return body is None or deliver(connection, body)
            router_stats.rq_total += 1
            stream.cluster_name = plan.cluster_name
            idle = plan.idle
            if idle:
                request = idle.pop()
                request.stream = stream
                request.cluster = cluster
                request.breaker = breaker = cluster.breakers[plan.priority]
            else:
                request = make_upstream_request(router, stream, route, cluster)
                breaker = request.breaker
                request.plan = plan
                request.body_end = request.bodyless = body is None
                request.retry = plan.retry
                request.timeout = plan.timeout
                request.per_try_timeout = plan.per_try_timeout
            request.request = head
            request.retries_left = plan.retries
            stream.upstream = request
            if body is None:
                if plan.timeout:
                    request.deadline = now + plan.timeout
            else:
                request.deadline = _NEVER_DUE
                request.body_end = False
                if plan.retry is not None:
                    request.body = []
                    request.body_size = 0
            if plan.per_try_timeout:
                request.try_deadline = now + plan.per_try_timeout
            host = cluster.pick(request)
            if host is None:
                request.no_host()
                return body is None or deliver(connection, body)
            head.template = plan.template
            if plan.expected is not None and (shape.indexed or head.made_index is not None):
                head.index[_EXPECTED] = plan.expected
            pool = host.pool
            if request.deadline < connection.due:
                connection.wake_by(request.deadline)
            if pool is None or not pool.idle or not pool.plain or breaker.rq_active >= breaker.max_requests:
                request.attempt(host)
                return body is None or deliver(connection, body)
            # the attempt: UpstreamRequest._attempt and _send
            if request.try_deadline < connection.due:
                connection.wake_by(request.try_deadline)
            stream.attempt_count = 1
            request.host = stream.host = host
            breaker.rq_active += 1
            host.rq_active += 1
            host.rq_total += 1
            upstream_stats = cluster.stats
            upstream_stats.upstream_rq_total += 1
            upstream_stats.upstream_rq_active += 1
            upstream = pool.idle.pop()
            request.upstream = upstream
            request.reused = upstream.requests > 0
            stream.upstream_connection_id = upstream.id
            stream.upstream_local_address = upstream.local_address
            stream.upstream_tls = upstream.tls
            request.sent_at = stream.upstream_first_tx = stream.upstream_last_tx = now
            # the pool's connection: Http1Connection.send_head
            upstream.sink = request
            upstream.respond = respond
            upstream.requests += 1
            answers = upstream.reader
            answers.method = head.method
            answers.upgrade = False
            answers.head_size = 0
            answers.sink = request
            answers.state = HEAD
            upstream.out.append(plan.render % (path, *values))
            cork.waiting.append(upstream)
            if body is not None:
                # the body: Stream.on_data, UpstreamRequest.on_request_data, Http1Connection.send_data
                upstream.out.append(body)
                reader.state = DONE
                reader.remaining = 0
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
            return True

        return take


def deliver(connection: Any, body: bytes) -> bool:
    """Go on with the body, after the stages have taken over with the head: Http1Reader._body."""
    reader = connection.reader
    if reader.state == BODY:
        reader.remaining = 0
        reader.state = DONE
        connection.on_data(body, True)
    return True


_NEVER_DUE = float("inf")
_EXPECTED = b"x-envoy-expected-rq-timeout-ms"
