"""Requests that become tunnels: upgrades and CONNECT, where bytes of another protocol follow the heads (RFC 9110 section 7.8)."""

from __future__ import annotations

from typing import Any

from sidecar.core.head import ResponseHead
from sidecar.core.upstream import UpstreamStream
from sidecar.router.recovery import Recovery


class Tunnel(Recovery):
    """What an upstream request does of its own where its stream has an ``upgrade``."""

    __slots__ = ()

    tunnel_held: list[bytes] | None

    def on_head(self, head: ResponseHead, end: bool) -> None:
        """A response's head, or what stands for it where a CONNECT ends here."""
        raise NotImplementedError

    @property
    def tunnels(self) -> bool:
        return bool(self.stream.upgrade == b"connect" and self.route.connect_terminates)

    def connect_through(self, connection: UpstreamStream) -> None:
        """CONNECT ends here: its payload goes to the host as it is, over a connection that carried nothing before."""
        while connection.requests:
            connection.cancel()
            fresh = self.host.pool.acquire(self, self.route.priority)
            if fresh is None:
                return
            connection = fresh
        self.waiting = False
        self.upstream = connection
        self.host.rq_total += 1
        self.cluster.stats.upstream_rq_total += 1
        stream = self.stream
        stream.upstream_connection_id = connection.id
        stream.upstream_local_address = connection.local_address
        stream.upstream_tls = connection.tls
        stream.upstream_version = connection.version
        self.sent_at = stream.upstream_first_tx = stream.now
        sink: Any = self  # the upstream request is one, as a whole
        connection.open_tunnel(sink)
        self.on_head(ResponseHead(200, []), False)

    def upgraded(self, head: ResponseHead) -> None:
        """The host has agreed to another protocol: from now on bytes pass as they are."""
        stream = self.stream
        self.head_passed = True
        stream.tunnel = self
        if stream.request_ended and stream.request.version == 20 and not self.router.suppress_headers:
            took = int((self.router.worker.clock() - self.sent_at) * 1000)
            head.set(b"x-envoy-upstream-service-time", b"%d" % took)
        stream.response_code_details = "via_upstream"
        stream.on_response_head(head, False)
        self.release_tunnel()

    def framed(self) -> bool:
        """Whether both sides speak HTTP/2, where every 2xx accepts an extended CONNECT (RFC 8441 section 5)."""
        return bool(self.stream.request.version == 20 and self.stream.upstream_version == 20)

    def hold_for_tunnel(self, data: bytes) -> None:
        """Keep what belongs to the upgraded protocol: a host that does not upgrade would take it for a request."""
        held = self.tunnel_held
        if held is None:
            held = self.tunnel_held = []
        held.append(data)
        if sum(map(len, held)) > self.router.retry_budget_bytes:
            self.stream.downstream.pause_reading()

    def release_tunnel(self) -> None:
        """The host has agreed: it gets what was kept."""
        held, self.tunnel_held = self.tunnel_held, None
        if held is not None and self.upstream is not None:
            self.upstream.send_data(b"".join(held), False)
            if not self.upstream.full:
                self.stream.downstream.resume_reading()
