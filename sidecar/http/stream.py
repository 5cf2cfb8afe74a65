"""A stream: one request and its response on their way through the filters, and all that is known of them.

The downstream connection calls ``begin``, ``on_data``, ``on_trailers``; the router answers through ``on_response_head``,
``on_response_data``, ``on_response_trailers`` or ``on_upstream_failure``. The plain path allocates nothing but this object.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

from sidecar.core import response_flags as flag
from sidecar.core.grpc import DEADLINE_EXCEEDED
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.http_filter import RouteChanged
from sidecar.core.sendable import sendable_fields
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from sidecar.http.connection_manager import ConnectionManager, Options
from sidecar.http.filter_chain import FilterChain
from sidecar.http.filtered_stream import RUNNING, FilteredStream
from sidecar.http.forwarding import upgrade_of
from sidecar.http.recreation import begin_again

log = logging.getLogger("sidecar.http")


class Downstream(Protocol):
    """Where a stream's response goes: the HTTP/1 connection, or one stream of an HTTP/2 connection."""

    info: ConnectionInfo
    full: bool

    def send_informational(self, head: ResponseHead) -> None: ...
    def send_head(self, head: ResponseHead, end: bool) -> None: ...
    def send_data(self, data: bytes, end: bool) -> None: ...
    def send_message(self, head: ResponseHead, body: bytes) -> None: ...
    def send_trailers(self, trailers: list[Field]) -> None: ...
    def finished(self) -> None: ...
    def close_after_response(self) -> None: ...
    def reset(self) -> None: ...
    def wake_by(self, due: float) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class UpstreamRequest(Protocol):
    """The router's side of the stream."""

    def on_data(self, data: bytes, end: bool) -> None: ...
    def on_request_data(self, data: bytes, end: bool) -> None: ...
    def on_request_trailers(self, trailers: list[Field]) -> None: ...
    def cancel(self) -> None: ...
    def on_timer(self, now: float) -> float: ...
    def pause_response(self) -> None: ...
    def resume_response(self) -> None: ...


class Stream(FilteredStream):
    """One HTTP exchange. Filters see it as ``FilterStream``."""

    __slots__ = (
        "downstream",
        "duration_deadline",
        "idle_timeout",
        "last_activity",
        "request_deadline",
        "shape",
        "tunnel",
        "upgrade",
    )  # fmt: skip

    request: RequestHead
    route: Any

    def __init__(self, downstream: Downstream, manager: ConnectionManager, request: RequestHead, now: float) -> None:
        worker = manager.worker
        StreamInfo.__init__(self, downstream.info, request, now + worker.epoch, now)
        self.downstream = downstream
        self.manager = manager
        self.worker = worker
        self.now = self.last_activity = now
        self.chain: FilterChain = manager.default_chain
        self.upstream: Any = None
        self.filter_data: dict[object, Any] | None = None
        self.request_at = self.response_at = RUNNING
        self.request_ended = self.response_ended = False
        self.held_request: list[bytes] | None = None
        self.held_response: list[bytes] | None = None
        self.over = False
        self.tunnel: Any = None  # what carries the bytes of an upgraded protocol, once it does
        self.upgrade = b""
        self.local = False
        self.passing_data = False
        self.shape: Any = None  # of the request, where the express lane made the stream

    # the request

    def begin(self, end: bool, prepare: Callable[[Any], bool] | None = None) -> None:
        """Take the request through the filters to the router. ``prepare`` stands for the connection manager's own."""
        manager = self.manager
        stats = manager.stats
        stats.downstream_rq_total += 1
        stats.downstream_rq_active += 1
        if self.request.version == 20:
            stats.downstream_rq_http2_total += 1
        if end:
            self.request_ended = True
            self.request_complete = self.now
        self._set_deadlines(manager.options, end)
        try:
            if (prepare or manager.prepare)(self):
                return
            route = manager.routes.match(self.request, self)
            if route is not None:
                if route.pick_cluster is not None:
                    self.cluster_name, entry = route.pick_cluster(self.request, self.worker.random, self)
                    if entry is not None:
                        route = entry
                self.route = route
        except Exception:
            self.filter_failed()
            return
        self.go_on(route, end)

    def go_on(self, route: Any, end: bool) -> None:
        """The request is prepared and its route is known: through the filters, to the router."""
        manager = self.manager
        try:
            if route is not None:
                if route.limit is not None:
                    route.limit(self)
                if route.per_filter:
                    self.chain = route.request_chain or manager.chain_for(route)
            if b"upgrade" in self.request.index or self.request.method == b"CONNECT":
                if self._upgrade_refused():
                    return
            chain = self.chain
            for hook in chain.request:
                if hook(self, end):
                    self.paused_by(hook)
                    return
        except RouteChanged:
            self.go_elsewhere(hook, end)
            return
        except Exception:
            self.filter_failed()
            return
        manager.router.on_request(self, end)

    def on_data(self, data: bytes, end: bool) -> None:
        """A piece of the request's body."""
        self.bytes_received += len(data)
        self.now = self.last_activity = now = self.downstream.now
        if end:
            self.request_ended = True
            self.request_complete = now
        if self.response_ended:
            return
        if self.request_at == RUNNING and self.chain.plain_request:
            upstream = self.upstream
            if upstream is not None:
                upstream.on_request_data(data, end)
            return
        self.filter_request_data(data, end, 0)

    def pass_through(self, upstream: Any) -> None:
        """From now on nobody looks at the request's body: pieces of it may go to the upstream's stream at once."""
        downstream: Any = self.downstream
        if self.request.version == 20 and self.request_at == RUNNING and self.chain.plain_request:
            downstream.through = upstream

    def on_trailers(self, trailers: list[Field]) -> None:
        """The request's trailers: its end."""
        self.request_trailers = trailers
        self.request_ended = True
        self.request_complete = self.now
        if self.response_ended:
            return
        try:
            for _, hook in self.chain.request_trailers:
                hook(self, trailers)
        except Exception:
            self.filter_failed()
            return
        if self.request_at != RUNNING:
            self.filter_request_data(b"", True, 0)
        elif self.upstream is not None:
            self.upstream.on_request_trailers(trailers)

    def turned_away(self, details: str, flags: int) -> None:
        """The request was refused by its head, before any filter saw it: there is nothing to answer."""
        stats = self.manager.stats
        stats.downstream_rq_total += 1
        stats.downstream_rq_http2_total += 1
        stats.downstream_rq_rx_reset += 1
        stats.downstream_rq_time.record(0)
        self.over = True
        self.end = self.now
        self.response_code_details = details
        self.response_flags = flags
        for write in self.manager.access_logs:
            write(self)

    # the response

    def on_informational(self, head: ResponseHead) -> None:
        """A 1xx response from the upstream; we have answered ``Expect`` ourselves, unless that is configured away."""
        if self.manager.options.forward_continue:
            self.downstream.send_informational(head)

    def on_response_head(self, head: ResponseHead, end: bool) -> None:
        """The response's head, from the router or from a local reply."""
        self.response = head
        self.response_code = status = head.status
        manager = self.manager
        manager.listener_codes[status] += 1
        chain = self.chain
        if not chain.plain_response:
            try:
                for at, hook in chain.response:
                    if self.response_at == RUNNING or at < self.response_at:
                        if hook(self, end):
                            self.response_at = at
                            if end:
                                self.held_response = []
                                self.response_ended = True
                            return
            except Exception:
                self.filter_failed()
                return
            sendable_fields(head)
        self.send_head(head, end)

    def on_response(self, head: ResponseHead, body: bytes) -> None:
        """A whole response at once."""
        if self.chain.plain_response:
            self.response = head
            self.response_code = status = head.status
            manager = self.manager
            manager.listener_codes[status] += 1
            manager.finish_response(self)
            self.downstream_first_tx = self.now
            self.bytes_sent += len(body)
            self.downstream.send_message(head, body)
            self.response_sent()
            return
        self.on_response_head(head, False)
        if not self.over:
            self.on_response_data(body, True)

    def on_response_data(self, data: bytes, end: bool) -> None:
        """A piece of the response's body."""
        if not self.chain.plain_response:
            try:
                filtered = self.filter_response_data(data, end)
            except Exception:
                self.filter_failed()
                return
            if filtered is None or self.over or self.response_at != RUNNING:
                return
            data = filtered
        self.bytes_sent += len(data)
        self.downstream.send_data(data, end)
        if end:
            self.response_sent()

    def on_response_trailers(self, trailers: list[Field]) -> None:
        """The response's trailers: its end."""
        self.response_trailers = trailers
        if not self.chain.plain_response:
            try:
                data = self.filter_response_data(b"", True)
            except Exception:
                self.filter_failed()
                return
            if data is None or self.over or self.response_at != RUNNING:
                return
            if data:
                self.bytes_sent += len(data)
                self.downstream.send_data(data, False)
        self.end_with_trailers(trailers)

    def on_upstream_failure(
        self,
        status: int,
        body: bytes,
        details: str,
        flags: int,
        headers: Sequence[Field] = (),
        mutate: Callable[[Any], None] | None = None,
    ) -> None:
        """The router gave up: answer, or break off what has begun."""
        self.upstream = None
        if self.response is None or self.response_at != RUNNING:  # none, or a filter holds it
            self.reply(status, body, details=details, flags=flags, headers=headers, mutate=mutate)
        else:
            self.response_flags |= flags
            self.response_code_details = details
            self.reset(details)

    # the end

    def reset(self, details: str) -> None:
        """End the stream without a (further) response."""
        if self.over:
            return
        if not self.response_code_details:
            self.response_code_details = details
        if self.upstream is not None:
            upstream, self.upstream = self.upstream, None
            upstream.cancel()
        self.manager.stats.downstream_rq_tx_reset += 1
        self.manager.stats.downstream_rq_rx_reset += 1  # Envoy counts a reset of either side here
        downstream = self.downstream
        self._over()
        if self.request.version != 20 and self.response is not None and self.response.status in (204, 304):
            downstream.finished()  # such a response is its head
        else:
            downstream.reset()
        self.worker.cork.settle()

    def again(self, body: bytes, trailers: list[Field] | None) -> None:
        """Begin again with the request as it is now, and with all that belongs to it: an internal redirect."""
        begin_again(self, body, trailers)

    def superseded(self) -> None:
        """Another stream goes on in the stead of this one."""
        self.response_code_details = "internal_redirect"
        self._over()

    # what the downstream reports

    def on_downstream_closed(
        self,
        now: float,
        details: str = "downstream_remote_disconnect",
        flags: int = flag.DOWNSTREAM_CONNECTION_TERMINATION,
    ) -> None:
        """The client is gone, or wants no response any more."""
        self.now = now
        if self.over:
            return
        self.response_flags |= flags
        self.response_code_details = details
        if self.upstream is not None:
            upstream, self.upstream = self.upstream, None
            upstream.cancel()
        self.manager.stats.downstream_rq_rx_reset += 1
        if self.tunnel is not None:
            self.manager.stats.downstream_rq_response_before_rq_complete += 1
        self._over()

    def on_protocol_error(self, status: int, body: bytes, details: str) -> None:
        """What the client sent is not HTTP, or too much of it."""
        self.response_flags |= flag.DOWNSTREAM_PROTOCOL_ERROR
        if self.response is None and not self.over:
            if self.request_complete == 0.0 and self.upstream is None and not self.cluster_name:
                stats = self.manager.stats
                if self.request.method == b"":
                    stats.downstream_rq_total += 1
                    stats.downstream_rq_active += 1
            self.reply(status, body, details=details)
        elif not self.over:
            self.reset(details)

    def on_downstream_full(self) -> None:
        if self.upstream is not None:
            self.upstream.pause_response()

    def on_downstream_writable(self) -> None:
        if self.upstream is not None:
            self.upstream.resume_response()

    def on_timer(self, now: float) -> float:
        """Check the deadlines; the time of the next one."""
        self.now = now
        stats = self.manager.stats
        if now >= self.duration_deadline:
            stats.downstream_rq_max_duration_reached += 1
            self._time_out(b"downstream duration timeout", "max_duration_timeout", 0, DEADLINE_EXCEEDED)
            return inf
        if now >= self.request_deadline and not self.request_ended:
            stats.downstream_rq_timeout += 1
            self.reply(408, b"request timeout", details="request_overall_timeout")
            return inf
        idle_due = self.last_activity + self.idle_timeout
        if now >= idle_due:
            stats.downstream_rq_idle_timeout += 1
            self._time_out(b"stream timeout", "stream_idle_timeout", flag.STREAM_IDLE_TIMEOUT)
            return inf
        due = min(idle_due, self.duration_deadline, inf if self.request_ended else self.request_deadline)
        upstream = self.upstream
        if upstream is not None:
            next_due = upstream.on_timer(now)
            if next_due < due:
                due = next_due
        return due

    # within

    def _set_deadlines(self, options: Options, end: bool) -> None:
        now = self.now
        self.idle_timeout = options.stream_idle_timeout
        self.duration_deadline = now + options.max_stream_duration
        self.request_deadline = inf if end else now + options.request_timeout
        due = now + self.idle_timeout
        if self.duration_deadline < due:
            due = self.duration_deadline
        if self.request_deadline < due:
            due = self.request_deadline
        if due != inf:
            self.downstream.wake_by(due)

    def _time_out(self, body: bytes, details: str, flags: int, grpc_status: int | None = None) -> None:
        status = 504 if self.request_ended else 408
        self.reply(status, body, details=details, flags=flags, grpc_status=grpc_status)

    def _upgrade_refused(self) -> bool:
        """Whether the request asks for a protocol that neither route nor connection manager lets through."""
        request = self.request
        kind = b"connect" if request.method == b"CONNECT" else upgrade_of(request)
        if not kind:
            return False
        manager = self.manager
        route = self.route
        allowed = kind in manager.options.upgrades
        if route is not None:
            allowed = route.upgrades.get(kind, allowed)
        if kind == b"connect" and route is None:
            self.downstream.close_after_response()
            return False
        if not allowed:
            manager.stats.downstream_rq_ws_on_non_ws_route += 1
            self.refuse(403, b"", "upgrade_failed")
            return True
        self.upgrade = kind
        manager.stats.downstream_cx_upgrades_total += 1
        manager.stats.downstream_cx_upgrades_active += 1
        chain = manager.upgrade_chains.get(kind)
        if chain is not None:
            self.chain = chain
        return False

    def send_head(self, head: ResponseHead, end: bool) -> None:
        self.manager.finish_response(self)
        self.downstream_first_tx = self.now
        self.downstream.send_head(head, end)
        if end:
            self.response_sent()

    def response_sent(self) -> None:
        self.response_ended = True
        upstream = self.upstream
        if upstream is not None:
            self.upstream = None
            if not self.request_ended:
                upstream.cancel()
        downstream = self.downstream
        self._over()
        downstream.finished()

    def _over(self) -> None:
        """The end of every stream, once: statistics, hooks, access logs."""
        self.over = True
        manager = self.manager
        now = self.end = self.now
        stats = manager.stats
        stats.downstream_rq_active -= 1
        if self.upgrade:
            stats.downstream_cx_upgrades_active -= 1
        stats.downstream_rq_time.record(int((now - self.start) * 1000))
        for hook in self.chain.complete:
            try:
                hook(self)
            except Exception:
                log.exception("HTTP filter %s failed at the end of a stream", hook.__self__.name)  # type: ignore[attr-defined]
        for write in manager.access_logs:
            write(self)
        self.filter_data = None

    def __repr__(self) -> str:
        request = self.request
        return f"<Stream {request.method!r} {request.path!r} -> {self.response_code or 'pending'}>"
