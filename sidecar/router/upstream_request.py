"""A request on its way upstream: picking a host, waiting for a connection, timeouts, retries, and the way back.

One object serves all attempts of a request, one after the other: an attempt that is given up is cancelled at its
connection first, so nothing of it arrives here any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from sidecar.core import response_flags as flag
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.override_host import OverrideHost
from sidecar.core.sendable import sendable_fields, unsendable
from sidecar.core.timer_wheel import Callback
from sidecar.core.upstream import (
    NO_POOL,
    OVERFLOW,
    UpstreamStream,
)
from sidecar.router.retry_policy import HEDGE_ON_PER_TRY_TIMEOUT, NO_RETRIES, RetryPolicy
from sidecar.router.rewrite import set_host
from sidecar.router.shadow import ShadowRequest, shadow_head, wanted
from sidecar.router.timeouts import request_timeouts
from sidecar.router.tunnel import Tunnel

if TYPE_CHECKING:
    from sidecar.router.router import Router

_CONTROLS = frozenset(
    (
        b"x-envoy-retry-on",
        b"x-envoy-retry-grpc-on",
        b"x-envoy-max-retries",
        b"x-envoy-retriable-status-codes",
        b"x-envoy-retriable-header-names",
        b"x-envoy-upstream-rq-timeout-ms",
        b"x-envoy-upstream-rq-per-try-timeout-ms",
        b"x-envoy-expected-rq-timeout-ms",
        b"x-envoy-hedge-on-per-try-timeout",
        b"x-envoy-upstream-rq-timeout-alt-response",
    )
)


class UpstreamRequest(Tunnel):
    """What the stream holds while its request is upstream; the load balancer's context, and the reader's sink."""

    __slots__ = ()

    hedges = False
    """Whether an attempt that reaches its time limit may go on beside the next one."""
    attentive = False
    """Whether responses may take their host out."""

    observes = False
    """Whether it asks for a host that a filter names, and hands on load reports."""

    offering = False
    """Whether it looks for what its connections are to offer by ALPN in the filter state."""

    offers: tuple[str, ...] = ()
    """What its connections offer by ALPN, if it is not what the cluster says."""

    def __init__(self, router: Router, stream: Any, route: Any, cluster: Any) -> None:
        self.router = router
        self.stream = stream
        self.route = route
        self.cluster = cluster
        self.breaker = cluster.breakers[route.priority]
        self.host: Any = None
        self.upstream: UpstreamStream | None = None
        self.retry: RetryPolicy | None = None
        self.tried: tuple[Any, ...] = ()
        self.override_host: OverrideHost | None = None
        self.body: list[bytes] | None = None
        self.deadline = self.try_deadline = inf
        self.backoff: Callback | None = None
        self.trailers: list[Field] | None = None
        self.tunnel_held: list[bytes] | None = None  # what the client sent before the host agreed to an upgrade
        self.waiting = self.retrying = self.head_passed = self.interim = False
        self.abandoned = self.repeated = False  # the body is too large to be repeated; it was repeated once
        self.reused = False
        self.retries = 0
        self.timeout_status = 504
        self.mirrors: Sequence[Any] = ()
        self.plan: Any = None  # what the express lane keeps of it
        self.head: Any = None

    @property
    def subset(self) -> Any:
        """The metadata that the host must have, for balancers with subsets."""
        return self.route.metadata_match

    @property
    def hash_key(self) -> int | None:
        """The hash of the route's hash policy, for balancers that want one."""
        hash_key = self.route.hash_key
        return hash_key(self.stream) if hash_key is not None else None

    @property
    def connection(self) -> Any:
        """The downstream connection, for ORIGINAL_DST clusters."""
        return self.stream.connection

    def start(self, request: RequestHead, end: bool) -> None:
        """Begin: ``request`` has passed the filters; ``end`` if it has no body."""
        stream, route, router = self.stream, self.route, self.router
        self.request = request
        retry = route.retry
        index = request.index
        timeout = route.timeout or 0.0
        per_try = 0.0 if retry is None else retry.per_try_timeout or 0.0
        if not _CONTROLS.isdisjoint(index):  # those of clients who may not use them were removed before
            if index.get(HEDGE_ON_PER_TRY_TIMEOUT) == b"true" and not self.hedges:
                router.hedge(stream, route, self.cluster, end)
                return
            retry = (retry or NO_RETRIES).for_request(request)
            timeout, per_try = request_timeouts(route, retry, request, router.respect_expected_timeout)
            if request.remove(b"x-envoy-upstream-rq-timeout-alt-response"):
                self.timeout_status = 204
        self.timeout = timeout
        self.per_try_timeout = per_try
        host = self.cluster.pick(self)
        if host is None:
            self.no_host()
            return
        if route.mutate_request is not None:
            route.mutate_request(stream)
        if route.rewrite is not None:
            route.rewrite(request, stream)
        wrong = unsendable(request)
        if wrong:
            self._refuse(wrong, host)
            return
        if not router.suppress_headers:
            expected = per_try or timeout
            if expected:
                request.set(b"x-envoy-expected-rq-timeout-ms", b"%d" % int(expected * 1000 + 1e-6))
        if retry is not None and retry.retriable_request_headers:
            retry = retry.for_request(request)
        if retry is not None:
            self.retry = retry
            self.retries_left = retry.num_retries
            if not end and not stream.upgrade:
                self.body = []
                self.body_size = 0
        self.body_end = self.bodyless = end
        if route.mirrors:
            self.mirrors = wanted(route.mirrors, router.worker.random)
            if self.mirrors and self.body is None and not end:
                self.body = []
                self.body_size = 0
            if end:
                self._mirror()
        if end and timeout:
            self.deadline = stream.now + timeout
            stream.downstream.wake_by(self.deadline)
        self.attempt(host)

    def _refuse(self, wrong: str, host: Any) -> None:
        """Answer a request that may not leave as it is, for a host that was to have it."""
        self.stream.host = host
        self.stream.attempt_count += 1
        words = "".join("_" if letter.isspace() else letter for letter in wrong)
        details = f"filter_removed_required_request_headers{{{words}}}"
        self.stream.reply(503, wrong.encode("latin-1"), details=details, flags=flag.DOWNSTREAM_PROTOCOL_ERROR)

    def attempt(self, host: Any) -> None:
        """Send the request to ``host``, now or once there is a connection."""
        stream = self.stream
        stream.attempt_count += 1
        self.host = stream.host = host
        if self.route.auto_host_rewrite and host.hostname:
            set_host(self.request, host.hostname.encode(), self.route.append_x_forwarded_host, True)
        if self.route.include_request_attempt_count:
            self.request.set(b"x-envoy-attempt-count", b"%d" % stream.attempt_count)
        if not (stream.upgrade and self.tunnels):  # which are connections, and bounded as these are
            breaker = self.breaker
            if breaker.rq_active >= breaker.max_requests:
                host.rq_error += 1
                self.cluster.stats.upstream_rq_active_overflow += 1
                self._end_retry()
                self._failed(OVERFLOW, "", sent=False)
                return
            breaker.rq_active += 1
        host.rq_active += 1
        self.cluster.stats.upstream_rq_active += 1
        pool = host.pool
        if pool is None:
            pool = self.router.pool_of(self.cluster, host)
        self.waiting = True
        connection = pool.acquire(self, self.route.priority)
        if connection is not None:
            if stream.upgrade and self.tunnels:
                self.connect_through(connection)
            else:
                self._send(connection)

    # the pool's side

    def on_ready(self, connection: UpstreamStream) -> None:
        stream = self.stream
        stream.now = self.router.worker.clock()
        if stream.upgrade and self.tunnels:
            self.connect_through(connection)
        else:
            self._send(connection)

    def _send(self, connection: UpstreamStream) -> None:
        self.waiting = False
        self.upstream = connection
        self.host.rq_total += 1
        self.cluster.stats.upstream_rq_total += 1
        self.reused = connection.requests > 0
        stream = self.stream
        stream.upstream_connection_id = connection.id
        stream.upstream_local_address = connection.local_address
        stream.upstream_tls = connection.tls
        stream.upstream_version = connection.version
        now = self.sent_at = stream.upstream_first_tx = stream.now
        if self.body_end:
            retry = self.retry
            if self.per_try_timeout or (retry is not None and retry.per_try_idle_timeout):
                self.time_tries(now)
        body = self.body
        if body is None:
            end = self.body_end
            connection.send_head(self, self.request, end, now)
            if end:
                stream.upstream_last_tx = now
            return
        end = self.body_end and not body and self.trailers is None
        connection.send_head(self, self.request, end, now)
        if not end:
            last = len(body) - 1
            for at, data in enumerate(body):
                connection.send_data(data, at == last and self.body_end and self.trailers is None)
            if self.trailers is not None:
                connection.send_trailers(self.trailers)
            elif self.body_end and not body:
                connection.send_data(b"", True)
        if self.body_end:
            stream.upstream_last_tx = now
        else:
            if self.abandoned or (self.retry is None and not self.mirrors):
                self.body = None  # kept only until there was a connection
            if not connection.full:
                stream.downstream.resume_reading()

    def on_full(self) -> None:
        self.stream.downstream.pause_reading()

    def on_writable(self) -> None:
        self.stream.downstream.resume_reading()

    def on_reset(self, reason: str, failure: str = "") -> None:
        sent = not self.waiting
        self.waiting = False
        if self.upstream is not None:
            self.note_connection(self.upstream)
            if self.upstream.answered:
                self.reused = False  # the host has seen the request
        self.stream.now = self.router.worker.clock()
        self._release(False)
        if reason == NO_POOL:
            self.stream.host = None
            self.no_pool()
            return
        host = self.host
        cluster = self.cluster
        if reason == OVERFLOW:
            self.stream.host = None  # as Envoy: it was not asked
        else:
            host.rq_error += 1
            if cluster.outlier is not None:
                cluster.outlier.on_local_origin_failure(host, reason)
        self.stream.upstream_failure_reason = failure
        self._failed(reason, failure, sent=sent)

    # the downstream's side

    def on_request_data(self, data: bytes, end: bool) -> None:
        stream = self.stream
        connection = self.upstream
        body = self.body
        if stream.upgrade and stream.tunnel is None:
            self.hold_for_tunnel(data)
            return
        if end:
            self.body_end = True
        if body is not None:
            body.append(data)
            self.body_size += len(data)
            if self.body_size > self.router.retry_budget_bytes:
                if not self.abandoned and (self.retry is not None or self.mirrors):
                    self.abandoned = True
                    self.mirrors = []
                    self.cluster.stats.retry_or_shadow_abandoned += 1
                if connection is not None:
                    self.body = None  # too large to repeat: from now on it only passes through
        elif connection is None:
            self.body = [data]
            self.body_size = len(data)
        if end:
            self._request_ended()
        if connection is not None:
            connection.send_data(data, end)
            if end:
                stream.upstream_last_tx = stream.now
            elif body is None and connection.version == 20:
                stream.pass_through(connection)
        elif self.body_size > self.router.retry_budget_bytes:
            stream.downstream.pause_reading()

    def passed_through(self, now: float) -> None:
        """The body ends, and its end goes to the host without passing here."""
        stream = self.stream
        self.body_end = True
        stream.upstream_last_tx = now
        if self.per_try_timeout or self.retry is not None:
            self.time_tries(now)
        if self.timeout and self.deadline == inf:
            self.deadline = now + self.timeout
            stream.downstream.wake_by(self.deadline)

    def on_request_trailers(self, trailers: list[Field]) -> None:
        self.body_end = True
        self.trailers = trailers
        self._request_ended()
        if self.body is None and self.upstream is None:
            self.body = []
        if self.upstream is not None:
            self.upstream.send_trailers(trailers)
            self.stream.upstream_last_tx = self.stream.now

    def cancel(self) -> None:
        """The downstream is gone, or has its answer."""
        self._give_up()

    def pause_response(self) -> None:
        if self.upstream is not None:
            self.upstream.pause_reading()

    def resume_response(self) -> None:
        if self.upstream is not None:
            self.upstream.resume_reading()

    # the response: what the reader calls

    def on_message(self, head: ResponseHead, body: bytes) -> None:
        connection = self.upstream
        if self._accept(head):
            stream = self.stream
            stream.upstream_bytes_received = len(body)
            stream.upstream_last_rx = stream.now
            self._release(True)
            stream.on_response(head, body)
        elif self.upstream is None and connection is not None:
            connection.cancel()  # as Envoy, which decides on the head and does not read the body of an answer given up

    def on_head(self, head: ResponseHead, end: bool) -> None:
        if self._accept(head):
            stream = self.stream
            if end:
                stream.upstream_last_rx = stream.now
                self._release(True)
            stream.on_response_head(head, end)
            if stream.tunnel is self and not end:
                self.release_tunnel()

    def _accept(self, head: ResponseHead) -> bool:
        """Judge a response by its head; True if it goes to the downstream from here."""
        stream = self.stream
        status = head.status
        if status < 200:
            if not self.interim:  # as Envoy, the first one
                stats = self.cluster.stats
                codes = stats.internal_codes if self._internal() else stats.external_codes
                codes[status] += 1
            if status == 101:
                self.upgraded(head)
            else:
                # As Envoy, which has begun to answer then: there is no other attempt, and no limit for this one.
                self.interim = self.abandoned = True
                self.per_try_timeout = 0.0
                self.try_deadline = inf
                stream.on_informational(head)
            return False
        worker = self.router.worker
        now = stream.now = stream.last_activity = stream.upstream_first_rx = worker.clock()
        host = self.host
        cluster = self.cluster
        stats = cluster.stats
        judged = status if b"grpc-status" not in head.index else self._judged(head)
        if status >= 500 or judged >= 500:
            host.rq_error += 1
            if cluster.outlier is not None:
                cluster.outlier.on_status(host, judged, False)
        else:
            host.rq_success += 1
            if cluster.outlier is not None and (host.consecutive_5xx or host.consecutive_gateway):
                cluster.outlier.on_status(host, judged)
        if host.consecutive_local_origin:
            cluster.outlier.on_success(host)
        retry = self.retry
        if retry is not None and (retry.retriable_status[status] or retry.header_matchers) and retry.would_retry(head):
            if self._retry(head, "", True):
                return False
        elif self.retries:
            stats.upstream_rq_retry_success += 1
        self.head_passed = True
        stream.upstream_head_received = self.upstream.head_size  # type: ignore[union-attr]
        stream.response_code_details = "via_upstream"
        if 200 <= status < 300 and (self.request.method == b"CONNECT" or (stream.upgrade and self.framed())):
            stream.tunnel = self
        took = int((now - self.sent_at) * 1000)
        if b"x-envoy-internal" in self.request.index and self._internal():
            stats.internal_codes[status] += 1
            stats.internal_upstream_rq_time.record(took)
        else:
            stats.external_codes[status] += 1
            stats.external_upstream_rq_time.record(took)
        if not stream.request_ended:
            if stream.upgrade == b"websocket" and status < 300 and stream.tunnel is None:
                stream.reply(status, details="websocket_handshake_unsuccessful")
                return False
        elif not self.router.suppress_headers:
            text = b"%d" % took
            if b"x-envoy-upstream-service-time" in head.index:
                head.set(b"x-envoy-upstream-service-time", text)
            else:
                head.fields.append((b"x-envoy-upstream-service-time", text))
                head.index[b"x-envoy-upstream-service-time"] = text
        route = self.route
        if route.include_attempt_count_in_response:
            head.set(b"x-envoy-attempt-count", b"%d" % stream.attempt_count)
        if route.mutate_response is not None:
            stream.response = head
            stream.response_code = status
            route.mutate_response(stream)
            sendable_fields(stream.response)
        return True

    def on_data(self, data: bytes, end: bool) -> None:
        stream = self.stream
        stream.upstream_bytes_received += len(data)
        stream.now = stream.last_activity = self.router.worker.clock()
        if end:
            stream.upstream_last_rx = stream.now
            self._release(True)
            if stream.tunnel is self and stream.upstream_version == 11 and not (stream.request_ended or self.tunnels):
                stream.response_flags |= flag.UPSTREAM_CONNECTION_TERMINATION
                stream.response_code_details = "upstream_reset_after_response_started{connection_termination}"
        stream.on_response_data(data, end)

    def on_trailers(self, trailers: list[Field]) -> None:
        stream = self.stream
        stream.now = stream.last_activity = stream.upstream_last_rx = self.router.worker.clock()
        self._judge_trailers(trailers)
        self._release(True)
        stream.on_response_trailers(trailers)

    # within

    def _mirror(self) -> None:
        """Send the copies: the request is complete."""
        router, stream = self.router, self.stream
        for mirror in self.mirrors:
            name = mirror.cluster_name or (self.request.get(mirror.cluster_header) or b"").decode("latin-1")
            cluster = router.cluster_of(name)
            if cluster is not None:
                head = shadow_head(mirror, self.request, router.local_ip, stream)
                body = list(self.body or ())
                ShadowRequest(router, cluster, head, body, self.trailers, stream.connection).start(self.timeout)
        self.mirrors = []

    def _request_ended(self) -> None:
        if self.mirrors:
            self._mirror()
        if self.upstream is not None and (self.per_try_timeout or self.retry is not None):
            self.time_tries(self.stream.now)
        if self.timeout and self.deadline == inf:
            self.deadline = self.stream.now + self.timeout
            self.stream.downstream.wake_by(self.deadline)

    def __repr__(self) -> str:
        state = "waiting" if self.waiting else "backing off" if self.backoff is not None else "sent"
        return f"<UpstreamRequest to {self.cluster.name}, attempt {self.stream.attempt_count}, {state}>"
