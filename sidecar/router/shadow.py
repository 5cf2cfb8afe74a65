"""Mirrored requests: a copy that goes to another cluster, whose answer nobody waits for.

Source: Envoy's ``RouteAction.request_mirror_policies``.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import TYPE_CHECKING, Any

from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.sendable import sendable_fields
from sidecar.core.timer_wheel import Timed
from sidecar.core.upstream import NO_POOL, UpstreamStream
from sidecar.router.route import Mirror

if TYPE_CHECKING:
    from sidecar.router.router import Router

_SUFFIX = b"-shadow"


def wanted(mirrors: tuple[Mirror, ...], random: Random) -> list[Mirror]:
    """The mirrors that this request goes to."""
    return [
        mirror
        for mirror in mirrors
        if mirror.fraction is None or random.random() * mirror.fraction[1] < mirror.fraction[0]
    ]


def shadow_head(mirror: Mirror, request: RequestHead, local_ip: bytes, stream: Any = None) -> RequestHead:
    """The request's head as the mirror sends it: ``-shadow`` behind the host's name, before its port.

    It says that it comes from here: ``x-envoy-internal``, and ``local_ip`` at the end of X-Forwarded-For.
    """
    head = request.copy()
    head.set(b"x-envoy-internal", b"true")
    forwarded = head.get(b"x-forwarded-for")
    head.set(b"x-forwarded-for", local_ip if forwarded is None else forwarded + b"," + local_ip)
    if mirror.host:
        head.authority = mirror.host
    elif mirror.append_shadow_suffix:
        host, colon, port = head.authority.rpartition(b":")
        if colon and port.isdigit() and not host.endswith(b":"):
            head.authority = host + _SUFFIX + b":" + port
        else:
            head.authority += _SUFFIX
    for change in mirror.changes:
        change(head, stream)
    sendable_fields(head)
    return head


class ShadowRequest(Timed):
    """One mirrored request, sent whole; its response is read and thrown away. Also the balancer's context."""

    __slots__ = (
        "answered",
        "body",
        "breaker",
        "cluster",
        "connection",
        "hash_key",
        "host",
        "host_selection_retry_max_attempts",
        "over",
        "override_host",
        "request",
        "router",
        "sent_at",
        "subset",
        "trailers",
        "tried",
        "upstream",
        "waiting",
    )  # fmt: skip

    def __init__(
        self,
        router: Router,
        cluster: Any,
        request: RequestHead,
        body: list[bytes],
        trailers: list[Field] | None,
        connection: Any,
    ) -> None:
        self.due = inf
        self.router = router
        self.cluster = cluster
        self.host: Any = None
        self.breaker = cluster.breakers[0]
        self.upstream: UpstreamStream | None = None
        self.request = request
        self.body = body
        self.trailers = trailers
        self.waiting = self.answered = False
        self.connection = connection
        self.hash_key: int | None = None
        self.subset = None
        self.tried: tuple[Any, ...] = ()
        self.host_selection_retry_max_attempts = 0
        self.override_host: None = None
        self.over = True
        self.sent_at = 0.0

    def start(self, timeout: float) -> None:
        """Send it, if there is a host and room for it; give up after ``timeout`` seconds (0 for never)."""
        cluster = self.cluster
        stats = cluster.stats
        self.router.async_client_stats.rq_total += 1
        host = self.host = cluster.pick(self)
        breaker = self.breaker
        if host is None:
            stats.upstream_cx_none_healthy += 1
            stats.internal_codes[503] += 1
            return
        if breaker.rq_active >= breaker.max_requests:
            stats.upstream_rq_active_overflow += 1
            stats.internal_codes[503] += 1
            return
        self.over = False
        breaker.rq_active += 1
        host.rq_active += 1
        stats.upstream_rq_active += 1
        worker = self.router.worker
        if timeout:
            worker.wheel.arm(self, worker.clock() + timeout)
        pool = host.pool or self.router.pool_of(cluster, host)
        self.waiting = True
        upstream = pool.acquire(self, 0)
        if upstream is not None:
            self.on_ready(upstream)

    tunnels = False
    offers: tuple[str, ...] = ()

    def on_ready(self, stream: UpstreamStream) -> None:
        self.waiting = False
        self.upstream = stream
        self.host.rq_total += 1
        self.cluster.stats.upstream_rq_total += 1
        now = self.sent_at = self.router.worker.clock()
        body, trailers = self.body, self.trailers
        stream.send_head(self, self.request, not body and trailers is None, now)
        for at, data in enumerate(body):
            stream.send_data(data, trailers is None and at == len(body) - 1)
        if trailers is not None:
            stream.send_trailers(trailers)

    def on_head(self, head: ResponseHead, end: bool) -> None:
        if head.status >= 200:
            self._count(head)
            if end:
                self._end()

    def on_message(self, head: ResponseHead, body: bytes) -> None:
        self._count(head)
        self._end()

    def on_data(self, data: bytes, end: bool) -> None:
        if end:
            self._end()

    def on_trailers(self, trailers: list[Field]) -> None:
        self._end()

    def on_reset(self, reason: str, failure: str = "") -> None:
        if reason != NO_POOL:
            self.host.rq_error += 1
            if self.cluster.outlier is not None:
                self.cluster.outlier.on_local_origin_failure(self.host, reason)
        if not self.answered:
            self.cluster.stats.internal_codes[503] += 1
        self._end()

    def on_full(self) -> None:
        """The whole body is handed over already: nothing can be held back."""

    def on_writable(self) -> None:
        """See ``on_full``."""

    def on_timer(self, now: float) -> None:
        if self.over:
            return
        self.cluster.stats.upstream_rq_timeout += 1
        if not self.answered:
            self.cluster.stats.internal_codes[504] += 1
        upstream, waiting = self.upstream, self.waiting
        if self.cluster.outlier is not None:
            self.cluster.outlier.on_local_origin_failure(self.host, "timeout", 504)
        self._end()
        if waiting:
            self.host.pool.forget(self)
        elif upstream is not None:
            upstream.cancel()
        self.router.worker.cork.settle()  # its place may be a request's now

    def _count(self, head: ResponseHead) -> None:
        self.answered = True
        stats = self.cluster.stats
        stats.internal_codes[head.status] += 1
        stats.internal_upstream_rq_time.record(int((self.router.worker.clock() - self.sent_at) * 1000))
        host, outlier = self.host, self.cluster.outlier
        if head.status >= 500:
            host.rq_error += 1
        else:
            host.rq_success += 1
        if outlier is not None:
            outlier.on_status(host, head.status)

    def _end(self) -> None:
        if self.over:
            return
        self.over = True
        self.waiting = False
        self.upstream = None
        self.router.worker.wheel.cancel(self)
        self.breaker.rq_active -= 1
        self.host.rq_active -= 1
        self.cluster.stats.upstream_rq_active -= 1

    def __repr__(self) -> str:
        return f"<ShadowRequest to {self.cluster.name}>"
