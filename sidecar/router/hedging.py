"""Hedging: an attempt that reaches its per-try timeout goes on beside the next one, and the first good answer counts.

Source: Envoy's ``HedgePolicy.hedge_on_per_try_timeout``.
"""

from __future__ import annotations

from math import inf
from typing import Any

from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.upstream import OVERFLOW, PROTOCOL_ERROR, UpstreamStream
from sidecar.router.recovery import TIMEOUT
from sidecar.router.upstream_request import UpstreamRequest


class HedgedRequest(UpstreamRequest):
    """An upstream request of which several attempts may be under way: the last one as in any other, the others in ``late``."""

    __slots__ = ("late", "timed_out")

    hedges = True

    def __init__(self, router: Any, stream: Any, route: Any, cluster: Any) -> None:
        super().__init__(router, stream, route, cluster)
        self.late: list[LateAttempt] = []
        self.timed_out = False  # the last attempt has reached its limit, and nothing came of that

    def attempt(self, host: Any) -> None:
        self.timed_out = False
        retry = self.retry
        if retry is not None and retry.hedges:
            self._tell_timeout(0.0)  # the host may take as long as there is time for the whole
        super().attempt(host)

    def cancel(self) -> None:
        self._drop_late()
        super().cancel()

    def no_host(self) -> None:
        self._drop_late()
        super().no_host()

    # time

    def _try_timed_out(self) -> bool:
        retry = self.retry
        if retry is None or not retry.hedges:
            return super()._try_timed_out()
        if self.cluster.outlier is not None:
            self.cluster.outlier.on_local_origin_failure(self.host, TIMEOUT, self.timeout_status)
        self.timed_out = True
        if retry.retries and not self.abandoned and self._has_retries_left() and self._has_room_for_retry():
            assert self.upstream is not None
            self.late.append(LateAttempt(self, self.upstream))
            self.upstream = None
            self._retry_in(None, retry, True)
        return True

    def _idle(self) -> float:
        retry = self.retry
        if retry is None or not retry.hedges:
            return super()._idle()
        if not self.head_passed and not self.timed_out:
            self._try_timed_out()
        return inf

    def _all_timed_out(self) -> None:
        stats = self.cluster.stats
        for late in self.late:
            stats.upstream_rq_timeout += 1
            late.host.rq_timeout += 1
            self._count(self.timeout_status)
        self._drop_late()
        super()._all_timed_out()

    def _host_timed_out(self) -> None:
        if self.timed_out:  # outlier detection has heard of it
            self.host.rq_timeout += 1
        else:
            super()._host_timed_out()

    # what comes of the attempts

    def _accept(self, head: ResponseHead) -> bool:
        accepted = super()._accept(head)
        if accepted or head.status < 200:
            self._drop_late()
        return accepted

    def _retry(self, head: ResponseHead | None, reason: str, sent: bool) -> bool:
        if super()._retry(head, reason, sent):
            return True
        if head is None or not self.late or self.abandoned:
            return False
        if head.status < 500:
            self._success_was_none()
        self._give_up()  # a bad answer, and another attempt may have a better one
        return True

    def _failed(self, reason: str, failure: str, sent: bool) -> None:
        if not self.late or self.head_passed:
            super()._failed(reason, failure, sent)
        elif not self._retry(None, reason, sent):
            self._count(502 if reason == PROTOCOL_ERROR else 503)

    def _count(self, status: int) -> None:
        stats = self.cluster.stats
        (stats.internal_codes if self._internal() else stats.external_codes)[status] += 1

    def _drop_late(self) -> None:
        for late in self.late:
            late.cancel()
        self.late.clear()

    def takes(self, late: LateAttempt, head: ResponseHead) -> bool:
        """Whether the answer of a late attempt counts: then that is the request's attempt from now on."""
        retry = self.retry
        others = self.waiting or self.upstream is not None or self.backoff is not None or len(self.late) > 1
        if others and retry is not None and retry.would_retry(head):
            self.late.remove(late)
            if self.cluster.outlier is not None:
                self.cluster.outlier.on_status(late.host, head.status, False)
            late.host.rq_error += 1
            late.release()
            return False
        self.adopt(late)
        return True

    def adopt(self, late: LateAttempt) -> None:
        """From now on a late attempt is the request's own, and the only one."""
        stream = self.stream
        self.late.remove(late)
        self._give_up()
        self._drop_late()
        self.retry = None  # there is nothing to decide about this answer
        self.retries = 0
        connection = self.upstream = late.connection
        self.host = stream.host = late.host
        self.sent_at = stream.upstream_first_tx = stream.upstream_last_tx = late.sent_at
        stream.upstream_connection_id = connection.id
        stream.upstream_local_address = connection.local_address
        stream.upstream_tls = connection.tls
        stream.upstream_version = connection.version

    def late_failed(self, late: LateAttempt, reason: str, failure: str) -> None:
        """A late attempt broke: the request has failed if no other is under way."""
        self.late.remove(late)
        late.release()
        late.host.rq_error += 1
        if self.cluster.outlier is not None and reason != OVERFLOW:
            self.cluster.outlier.on_local_origin_failure(late.host, reason)
        if self.waiting or self.upstream is not None or self.backoff is not None or self.late:
            self._count(502 if reason == PROTOCOL_ERROR else 503)
            return
        self.stream.now = self.router.worker.clock()
        self.stream.upstream_failure_reason = failure
        self.note_connection(late.connection)
        self.abandoned = True  # another attempt was made for this one
        super()._failed(reason, failure, True)


class LateAttempt:
    """An attempt beside which another one was made: it hears of its connection in the request's stead."""

    __slots__ = ("connection", "host", "request", "sent_at", "upstream", "wins")

    tunnels = False
    offers: tuple[str, ...] = ()

    def __init__(self, upstream: HedgedRequest, connection: Any) -> None:
        self.upstream = upstream
        self.request: RequestHead = upstream.request
        self.connection = connection
        self.host = upstream.host
        self.sent_at = upstream.sent_at
        self.wins = False
        connection.sink = self
        if connection.version == 11:
            connection.reader.sink = self

    def on_head(self, head: ResponseHead, end: bool) -> None:
        upstream = self.upstream
        if self.wins:
            upstream.on_head(head, end)
        elif head.status < 200:
            upstream.adopt(self)
            self.wins = True
            upstream.on_head(head, end)
        elif upstream.takes(self, head):
            self.wins = True
            upstream.on_head(head, end)
        elif not self.connection.complete:
            self.connection.cancel()

    def on_message(self, head: ResponseHead, body: bytes) -> None:
        upstream = self.upstream
        if self.wins or upstream.takes(self, head):
            self.wins = True
            upstream.on_message(head, body)
        else:
            self.connection.cancel()

    def on_data(self, data: bytes, end: bool) -> None:
        self.upstream.on_data(data, end)

    def on_trailers(self, trailers: list[Field]) -> None:
        self.upstream.on_trailers(trailers)

    def on_reset(self, reason: str, failure: str = "") -> None:
        if self.wins:
            self.upstream.on_reset(reason, failure)
        else:
            self.upstream.late_failed(self, reason, failure)

    def on_full(self) -> None:
        """The whole request has been handed over: nothing can be held back."""

    def on_writable(self) -> None:
        """See ``on_full``."""

    def on_ready(self, stream: UpstreamStream) -> None:
        raise AssertionError("a late attempt has its connection")

    def cancel(self) -> None:
        """Nobody waits for its answer any more."""
        self.release()
        if not self.connection.complete:
            self.connection.cancel()

    def release(self) -> None:
        """The attempt is over at its host."""
        upstream = self.upstream
        upstream.breaker.rq_active -= 1
        self.host.rq_active -= 1
        upstream.cluster.stats.upstream_rq_active -= 1

    def __repr__(self) -> str:
        return f"<LateAttempt at {self.host.address.text}>"
