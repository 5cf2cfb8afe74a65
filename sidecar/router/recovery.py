"""What a request upstream does when something goes wrong: deadlines, retries, and the answer in the host's stead."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from sidecar.core import response_flags as flag
from sidecar.core.grpc import http_status_of, is_grpc, parse_grpc_status
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.sendable import sendable_fields
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
from sidecar.router.retry_priority import TriedPriorities
from sidecar.router.timeouts import tell_timeout
from sidecar.router.unprocessed import Unprocessed

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
_OVERLOADED = ((b"x-envoy-overloaded", b"true"),)
TIMEOUT = "timeout"
PER_TRY_TIMEOUT = "per try timeout"
_BODY = b"upstream connect error or disconnect/reset before headers. "


class Recovery(Unprocessed):
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
        "interim",
        "mirrors",
        "override_host",
        "per_try_timeout",
        "plan",
        "reported",
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
        "tried_priorities",
        "try_deadline",
        "tunnel_held",
        "upstream",
        "waiting",
    )  # fmt: skip

    router: Router
    request: RequestHead
    upstream: UpstreamStream | None
    body: list[bytes] | None
    body_end: bool
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
    reported: bool  # the host has told its load, to those who observe that
    reused: bool
    bodyless: bool
    retries: int
    retries_left: int
    timeout_status: int
    timeout: float
    per_try_timeout: float
    deadline: float
    try_deadline: float
    attempt_at: float
    tried_priorities: TriedPriorities

    @property
    def tunnels(self) -> bool:
        """Whether CONNECT ends here."""
        raise NotImplementedError

    def attempt(self, host: Any) -> None:
        """Send the request to ``host``, now or once there is a connection."""
        raise NotImplementedError

    def on_timer(self, now: float) -> float:
        """Check the request's deadlines; the next one."""
        if now >= self.deadline:
            self._all_timed_out()
            return inf
        if now >= self.try_deadline and not self.head_passed:
            self.try_deadline = inf
            # It counts from the end of the request, once there is a connection: then it is set anew.
            if self.upstream is not None and self.body_end and not self._try_timed_out():
                return inf
        due = self.deadline if self.head_passed else min(self.deadline, self.try_deadline)
        retry = self.retry
        if retry is not None and retry.per_try_idle_timeout and self.upstream is not None and self.body_end:
            idle_due = max(self.attempt_at, self.stream.last_activity) + retry.per_try_idle_timeout
            return min(due, self._idle() if now >= idle_due else idle_due)
        return due

    def time_tries(self, now: float) -> None:
        """The request is whole and at a host: the limits of one try count from ``now``."""
        if self.per_try_timeout:
            self.try_deadline = now + self.per_try_timeout
            self.stream.downstream.wake_by(self.try_deadline)
        retry = self.retry
        if retry is not None and retry.per_try_idle_timeout:
            self.attempt_at = now
            self.stream.downstream.wake_by(now + retry.per_try_idle_timeout)

    def _all_timed_out(self) -> None:
        """The time for the whole request is up."""
        if self.waiting or self.upstream is not None:
            self.cluster.stats.upstream_rq_timeout += 1
            self._host_timed_out()
        self._give_up()
        self._time_out("response_timeout")

    def _try_timed_out(self) -> bool:
        """The time for the attempt is up; whether the request goes on."""
        self.cluster.stats.upstream_rq_per_try_timeout += 1
        self._host_timed_out()
        self._give_up()
        if self._retry(None, PER_TRY_TIMEOUT, True):
            return True
        self._time_out("upstream_per_try_timeout")
        return False

    def _idle(self) -> float:
        """Nothing has happened in the attempt for too long; the time of the next deadline."""
        self.cluster.stats.upstream_rq_per_try_idle_timeout += 1
        self._host_timed_out()
        self._give_up()
        if self.head_passed or not self._retry(None, PER_TRY_TIMEOUT, True):
            self._time_out("upstream_per_try_idle_timeout")
        return inf

    def _host_timed_out(self) -> None:
        host = self.host
        if host is not None:
            host.rq_timeout += 1
            if not self.head_passed:
                host.rq_error += 1
            if self.cluster.outlier is not None:
                self.cluster.outlier.on_local_origin_failure(host, TIMEOUT, self.timeout_status)

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
            self.note_connection(connection)
            self._release(False)
            if not connection.complete:
                connection.cancel()

    def note_connection(self, connection: Any) -> None:
        """The attempt ends before its time: keep what logs may tell of its connection."""
        carrier = connection if connection.version == 11 else connection.connection
        age = self.router.worker.clock() - carrier.opened
        by_host = connection.version == 11 and connection.closed_by_host
        self.stream.broken_connection = (age, max(carrier.requests - 1, 0), by_host)

    def no_host(self) -> None:
        """Answer that nobody can take the request."""
        self.cluster.stats.upstream_cx_none_healthy += 1
        self.no_pool()

    def no_pool(self) -> None:
        """The same where there is a host, which may have no connections."""
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
            sendable_fields(stream.response)

    def _judged(self, head: ResponseHead) -> int:
        """The HTTP status by which the host is judged: that of the gRPC status in the head of a response to a call."""
        told = head.index[b"grpc-status"]
        return http_status_of(parse_grpc_status(told)) if told and is_grpc(self.request) else head.status

    def _judge_trailers(self, trailers: list[Field]) -> None:
        """Judge the host by them, unless its head was an error already, or told how the call has ended."""
        head = self.stream.response
        if head is not None and head.status < 500 and not head.index.get(b"grpc-status"):
            self._judge_end_of_call(trailers)

    def _judge_end_of_call(self, trailers: list[Field]) -> None:
        """The host has counted a success; a call may turn out to be an error at its end. Outlier detection, as Envoy's,
        does not look at trailers."""
        if is_grpc(self.request):
            told = dict(trailers).get(b"grpc-status")
            if not told or http_status_of(parse_grpc_status(told)) >= 500:
                self._success_was_none()

    def _success_was_none(self) -> None:
        """What the host has counted as a success was an error. For outlier detection it stays a success, as in Envoy."""
        self.host.rq_success -= 1
        self.host.rq_error += 1
        if self.cluster.outlier is not None:
            self.cluster.outlier.kept_success(self.host)

    def _retry(self, head: ResponseHead | None, reason: str, sent: bool) -> bool:
        """Repeat the request, if that is wanted and the limits allow it. ``sent``: something of it left for the host."""
        stream = self.stream
        if stream.over or self.abandoned:
            return False
        retry = self.retry
        stats = self.cluster.stats
        delay = None
        if head is None and (retry is None or not _wanted(retry, reason, sent)):
            if not self._unprocessed(reason, sent):
                return False
            retry = retry or NO_RETRIES
            delay = 0.0
        elif not self._has_retries_left():
            return False
        assert retry is not None
        if not self._has_room_for_retry(unasked=delay is not None):
            return False
        if head is not None:
            if head.status < 500:  # as Envoy, an answer that is not taken is an error of the host
                self._success_was_none()
            stats.retry_codes[head.status] += 1
            if retry.reset_headers:
                delay = retry.rate_limited_back_off(
                    head, stream.now + self.router.worker.epoch, self.router.worker.random
                )
                if delay is not None:
                    stats.upstream_rq_retry_backoff_ratelimited += 1
        self._give_up()
        self._retry_in(delay, retry, reason == PER_TRY_TIMEOUT)
        return True

    def _has_retries_left(self) -> bool:
        """Take one of the retries that the policy allows, if there is one."""
        if self.retries_left <= 0:
            self.cluster.stats.upstream_rq_retry_limit_exceeded += 1
            self.stream.response_flags |= flag.UPSTREAM_RETRY_LIMIT_EXCEEDED
            return False
        self.retries_left -= 1
        return True

    def _has_room_for_retry(self, unasked: bool = False) -> bool:
        """Whether the cluster's circuit breaker lets one more retry through, which nobody has asked for if ``unasked``."""
        self._end_retry()
        breaker = self.breaker
        if breaker.may_repeat() if unasked else breaker.may_retry():
            return True
        self.cluster.stats.upstream_rq_retry_overflow += 1
        self.stream.response_flags |= flag.UPSTREAM_OVERFLOW
        return False

    def _retry_in(self, delay: float | None, retry: RetryPolicy, after_timeout: bool) -> None:
        """Make another attempt in ``delay`` seconds, or as the policy's back-off says."""
        stats = self.cluster.stats
        if delay is None:
            delay = retry.back_off(self.retries, self.router.worker.random)
            stats.upstream_rq_retry_backoff_exponential += 1
        if retry.priority_update_frequency:
            if not self.retries:
                self.tried_priorities = TriedPriorities(retry.priority_update_frequency)
            self.tried_priorities.attempted(self.host)
        self.retries += 1
        stream = self.stream
        stream.upstream_first_tx = stream.upstream_last_tx = stream.upstream_first_rx = 0.0  # those of one attempt
        stats.upstream_rq_retry += 1
        self.breaker.retries_active += 1
        self.retrying = True
        if retry.host_predicates is not None:
            self.tried = retry.host_predicates.after(self.tried, self.host)
            self.host_selection_retry_max_attempts = retry.host_selection_retry_max_attempts
        if self.route.include_is_timeout_retry_header:
            self.request.set(b"x-envoy-is-timeout-retry", b"true" if after_timeout else b"false")
        self.try_deadline = inf
        self.backoff = stream.call_in(delay, self._again)

    def _again(self) -> None:
        self.backoff = None
        self.stream.upstream_failure_reason = ""  # that was the last attempt's
        retry = self.retry
        if retry is not None and retry.priority_update_frequency:
            host = self.tried_priorities.pick(self.cluster, self)
        else:
            host = self.cluster.pick(self)
        if host is None:
            self._end_retry()
            self.no_host()
            return
        self._tell_timeout(self.per_try_timeout)
        self.attempt(host)

    def _tell_timeout(self, per_try_timeout: float) -> None:
        """Tell the host how much time is left."""
        elapsed = 0.0 if self.deadline == inf else self.stream.now - (self.deadline - self.timeout)
        tell_timeout(self.request, self.route, self.timeout, per_try_timeout, elapsed, not self.router.suppress_headers)

    def _end_retry(self) -> None:
        if self.retrying:
            self.retrying = False
            self.breaker.retries_active -= 1

    def _release(self, success: bool) -> None:
        """The attempt is over at its host."""
        self.upstream = None
        if not (self.stream.upgrade and self.tunnels):
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
