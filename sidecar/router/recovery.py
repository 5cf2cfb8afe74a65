"""What a request upstream does when something goes wrong: deadlines, retries, and the answer in the host's stead."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from sidecar.core import response_flags as flag
from sidecar.core.grpc import http_status_of, is_grpc, parse_grpc_status
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.timer_wheel import Callback
from sidecar.core.upstream import (
    CONNECTION_FAILURE,
    CONNECTION_TERMINATION,
    CONNECTION_TIMEOUT,
    LOCAL_CONNECTION_FAILURE,
    OVERFLOW,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    UpstreamStream,
)
from sidecar.router.retry_policy import NO_RETRIES, RetryPolicy

if TYPE_CHECKING:
    from sidecar.router.router import Router

_FLAGS = {
    CONNECTION_FAILURE: flag.UPSTREAM_CONNECTION_FAILURE,
    LOCAL_CONNECTION_FAILURE: flag.UPSTREAM_CONNECTION_FAILURE,
    CONNECTION_TIMEOUT: flag.UPSTREAM_CONNECTION_FAILURE,
    CONNECTION_TERMINATION: flag.UPSTREAM_CONNECTION_TERMINATION,
    OVERFLOW: flag.UPSTREAM_OVERFLOW,
    PROTOCOL_ERROR: flag.UPSTREAM_PROTOCOL_ERROR,
}
_NOT_CONNECTED = frozenset((CONNECTION_FAILURE, LOCAL_CONNECTION_FAILURE, CONNECTION_TIMEOUT))
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"))
_OVERLOADED = ((b"x-envoy-overloaded", b"true"),)
_TIMEOUT = "timeout"
_PER_TRY_TIMEOUT = "per try timeout"
_BODY = b"upstream connect error or disconnect/reset before headers. "


class Recovery:
    """The attempts of a request. An attempt that is given up is cancelled at its connection first, so nothing of it
    arrives here any more; ``UpstreamRequest`` knows how an attempt is made."""

    __slots__ = (
        "abandoned",
        "attempt_at",
        "backoff",
        "body",
        "bodyless",
        "body_end",
        "body_size",
        "breaker",
        "cluster",
        "deadline",
        "end_sent",
        "head",
        "head_passed",
        "host",
        "host_selection_retry_max_attempts",
        "interim",
        "mirrors",
        "override_host",
        "per_try_timeout",
        "plan",
        "repeated",
        "request",
        "retries",
        "retries_left",
        "retry",
        "retrying",
        "reused",
        "route",
        "router",
        "sent_at",
        "stream",
        "timeout",
        "timeout_status",
        "trailers",
        "tried",
        "try_deadline",
        "tunnel_held",
        "upstream",
        "waiting",
    )  # fmt: skip

    router: Router
    request: RequestHead
    upstream: UpstreamStream | None
    body: list[bytes] | None
    retry: RetryPolicy | None
    backoff: Callback | None
    stream: Any
    route: Any
    cluster: Any
    host: Any
    breaker: Any
    waiting: bool
    retrying: bool
    head_passed: bool
    interim: bool
    abandoned: bool
    repeated: bool
    reused: bool
    bodyless: bool
    retries: int
    retries_left: int
    timeout_status: int
    deadline: float
    try_deadline: float
    attempt_at: float
    tried: Any

    def attempt(self, host: Any) -> None:
        """Send the request to ``host``, now or once there is a connection."""
        raise NotImplementedError

    def on_timer(self, now: float) -> float:
        """Check the request's deadlines; the next one."""
        if now >= self.deadline:
            stats = self.cluster.stats
            stats.upstream_rq_timeout += 1
            self._host_timed_out()
            self._give_up()
            self._time_out("response_timeout")
            return inf
        if now >= self.try_deadline and not self.head_passed:
            self.try_deadline = inf
            self.cluster.stats.upstream_rq_per_try_timeout += 1
            self._host_timed_out()
            self._give_up()
            if not self._retry(None, _PER_TRY_TIMEOUT, True):
                self._time_out("upstream_per_try_timeout")
                return inf
        due = self.deadline if self.head_passed else min(self.deadline, self.try_deadline)
        retry = self.retry
        if retry is not None and retry.per_try_idle_timeout and (self.waiting or self.upstream is not None):
            idle_due = max(self.attempt_at, self.stream.last_activity) + retry.per_try_idle_timeout
            return min(due, self._idle() if now >= idle_due else idle_due)
        return due

    def _idle(self) -> float:
        """Nothing has happened in the attempt for too long; the time of the next deadline."""
        self.cluster.stats.upstream_rq_per_try_idle_timeout += 1
        self._host_timed_out()
        self._give_up()
        if self.head_passed or not self._retry(None, _PER_TRY_TIMEOUT, True):
            self._time_out("upstream_per_try_idle_timeout")
        return inf

    def _host_timed_out(self) -> None:
        host = self.host
        if host is not None:
            host.rq_timeout += 1
            if self.cluster.outlier is not None:
                self.cluster.outlier.on_local_origin_failure(host, _TIMEOUT)

    def _give_up(self) -> None:
        if self.backoff is not None:
            self.router.worker.wheel.cancel(self.backoff)
            self.backoff = None
            self._end_retry()
        if self.waiting:
            self.waiting = False
            self.host.pool.forget(self)
            self._release(False)
        elif self.upstream is not None:
            connection = self.upstream
            self._release(False)
            if not connection.complete:
                connection.cancel()

    def no_host(self) -> None:
        """Answer that nobody can take the request."""
        self.cluster.stats.upstream_cx_none_healthy += 1
        stream = self.stream
        stream.upstream = None
        stream.attempt_count = stream.attempt_count or 1
        self._answer(503, b"no healthy upstream", "no_healthy_upstream", flag.NO_HEALTHY_UPSTREAM)

    def _failed(self, reason: str, failure: str, sent: bool) -> None:
        """The attempt broke before or within the response."""
        if not self.head_passed and self._retry(None, reason, sent):
            return
        stream = self.stream
        words = reason.replace(" ", "_")
        if self.head_passed or self.interim:
            details = "upstream_reset_after_response_started{%s}" % words
            if (self.request.get(b"content-type") or b"").startswith(b"application/grpc"):
                self.router.stats.rq_reset_after_downstream_response_started += 1
        elif failure:
            details = "upstream_reset_before_response_started{%s|%s}" % (words, failure.replace(" ", "_"))
        else:
            details = "upstream_reset_before_response_started{%s}" % words
        body = (
            _BODY
            + (b"retried and the latest " if stream.attempt_count > 1 else b"")
            + b"reset reason: "
            + reason.encode()
        )
        status = 502 if reason == PROTOCOL_ERROR else 503
        headers = _OVERLOADED if reason == OVERFLOW and not self.router.suppress_headers else ()
        flags = _FLAGS.get(reason, flag.UPSTREAM_REMOTE_RESET)
        self._answer(status, body, details, flags, headers)

    def _answer(self, status: int, body: bytes, details: str, flags: int, headers: Sequence[Field] = ()) -> None:
        """The router gives up, and answers in the host's stead if the host has not begun to; the cluster counts it."""
        if not self.head_passed and not self.interim:
            stats = self.cluster.stats
            codes = stats.internal_codes if self._internal() else stats.external_codes
            codes[status] += 1
        self.stream.on_upstream_failure(status, body, details, flags, headers, self._mutate_reply)

    def _time_out(self, details: str) -> None:
        body = b"upstream request timeout" if self.timeout_status == 504 else b""
        self._answer(self.timeout_status, body, details, flag.UPSTREAM_REQUEST_TIMEOUT)

    def _internal(self) -> bool:
        return self.request.index.get(b"x-envoy-internal") == b"true"

    def _mutate_reply(self, stream: Any) -> None:
        """What the route says about responses holds for those that the router makes itself, too."""
        route = self.route
        if route.include_attempt_count_in_response:
            stream.response.set(b"x-envoy-attempt-count", b"%d" % stream.attempt_count)
        if route.mutate_response is not None:
            route.mutate_response(stream)

    def _judged(self, head: ResponseHead) -> int:
        """The HTTP status by which the host is judged: that of the gRPC status in the head of a response to a call."""
        told = head.index[b"grpc-status"]
        return http_status_of(parse_grpc_status(told)) if told and is_grpc(self.request) else head.status

    def _judge_trailers(self, trailers: list[Field]) -> None:
        """The host has counted a success; a call may turn out to be an error at its end. Outlier detection, as Envoy's,
        does not look at trailers."""
        head = self.stream.response
        if head is not None and head.status < 500 and not head.index.get(b"grpc-status") and is_grpc(self.request):
            told = dict(trailers).get(b"grpc-status")
            if not told or http_status_of(parse_grpc_status(told)) >= 500:
                self.host.rq_success -= 1
                self.host.rq_error += 1

    def _retry(self, head: ResponseHead | None, reason: str, sent: bool) -> bool:
        """Repeat the request, if that is wanted and the limits allow it. ``sent``: something of it left for the host."""
        stream = self.stream
        if stream.over or self.abandoned:
            return False
        retry = self.retry
        stats = self.cluster.stats
        breaker = self.breaker
        delay = None
        if head is None and (retry is None or not _wanted(retry, reason, sent)):
            if not self._certainly_unprocessed(reason):
                return False
            retry = retry or NO_RETRIES
            delay = 0.0
        elif self.retries_left <= 0:
            stats.upstream_rq_retry_limit_exceeded += 1
            stream.response_flags |= flag.UPSTREAM_RETRY_LIMIT_EXCEEDED
            return False
        else:
            self.retries_left -= 1
        assert retry is not None
        self._end_retry()
        if not breaker.may_retry():
            stats.upstream_rq_retry_overflow += 1
            stream.response_flags |= flag.UPSTREAM_OVERFLOW
            return False
        if head is not None:
            stats.retry_codes[head.status] += 1
            if retry.reset_headers:
                delay = retry.rate_limited_back_off(
                    head, stream.now + self.router.worker.epoch, self.router.worker.random
                )
                if delay is not None:
                    stats.upstream_rq_retry_backoff_ratelimited += 1
        self._give_up()
        if delay is None:
            delay = retry.back_off(self.retries, self.router.worker.random)
            stats.upstream_rq_retry_backoff_exponential += 1
        self.retries += 1
        stats.upstream_rq_retry += 1
        breaker.retries_active += 1
        self.retrying = True
        if retry.host_predicates is not None:
            self.tried = retry.host_predicates.after(self.tried, self.host)
            self.host_selection_retry_max_attempts = retry.host_selection_retry_max_attempts
        self.try_deadline = inf
        self.backoff = stream.call_in(delay, self._again)
        return True

    def _again(self) -> None:
        self.backoff = None
        host = self.cluster.pick(self)
        if host is None:
            self._end_retry()
            self.no_host()
            return
        self.attempt(host)

    def _certainly_unprocessed(self, reason: str) -> bool:
        """Whether the host cannot have acted on the attempt, so that repeating it once is safe whatever is configured.

        It refused the stream, or its GOAWAY named an earlier one as the last (RFC 9113 section 8.7); or an idempotent
        request without a body was sent on a reused connection that closed before a byte of an answer, since the host had
        closed it while it was idle (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1).
        """
        if self.repeated or self.abandoned:
            return False
        if reason == REFUSED_STREAM:
            return (self.bodyless or self.body is not None) and self._mark_repeated()
        return (
            reason == CONNECTION_TERMINATION
            and self.reused
            and self.bodyless
            and self.request.method in _IDEMPOTENT
            and self._mark_repeated()
        )

    def _mark_repeated(self) -> bool:
        self.repeated = True
        return True

    def _end_retry(self) -> None:
        if self.retrying:
            self.retrying = False
            self.breaker.retries_active -= 1

    def _release(self, success: bool) -> None:
        """The attempt is over at its host."""
        self.upstream = None
        self.breaker.rq_active -= 1
        self.host.rq_active -= 1
        self.cluster.stats.upstream_rq_active -= 1
        if self.retrying:
            self._end_retry()


def _wanted(retry: RetryPolicy, reason: str, sent: bool) -> bool:
    """Whether the policy wants a failed attempt repeated; never after an overflow, which trying again would worsen."""
    if reason == OVERFLOW:
        return False
    if reason in _NOT_CONNECTED:
        return retry.on_connect_failure
    if reason == REFUSED_STREAM and retry.on_refused_stream:
        return True
    return retry.on_reset or (not sent and retry.on_reset_before_request)
