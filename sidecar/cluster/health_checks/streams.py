"""What probes by HTTP and gRPC have in common: one stream at a time, over a pool that serves the checks of one host."""

from __future__ import annotations

from typing import Any, Protocol

from sidecar.cluster.health_checks.results import NETWORK, NETWORK_TIMEOUT, Outcome
from sidecar.core.address import Address
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.upstream import CONNECTION_TIMEOUT, PROTOCOL_ERROR, UpstreamStream


class CheckPool(Protocol):
    """A pool for one host; connections that were used are kept, or not, as it was made for."""

    def acquire(self, sink: Any, priority: int) -> UpstreamStream | None: ...

    def forget(self, sink: Any) -> None: ...

    def close(self) -> None: ...


class Connections(Protocol):
    """Connections for the checks of a cluster's hosts, and the time."""

    def address_of(self, host: Any) -> Address:
        """Where a host is asked."""
        ...

    def pool(self, host: Any, address: Address) -> CheckPool:
        """A new pool."""
        ...

    def dial(self, host: Any, address: Address, protocol: Any, connected: Any) -> None:
        """Connect ``protocol``, then call ``connected`` with it, the failure in words or None, and whether it is that no
        time was left.
        """
        ...

    def count_protocol_error(self) -> None:
        """A host has broken the protocol: that is counted at its cluster."""
        ...

    def clock(self) -> float: ...

    def settle(self) -> None:
        """See to it that what was written leaves."""
        ...


class CheckStream:
    """The sink of a check's response. ``asking`` is whether an answer is wanted."""

    __slots__ = ("_address", "_pool", "asking", "connections", "outcome", "payload", "request", "stream")

    tunnels = False
    offers: tuple[str, ...] = ()

    def __init__(self, outcome: Outcome, connections: Connections) -> None:
        self.outcome = outcome
        self.connections = connections
        self.asking = False
        self.request: Any = None
        self.payload = b""
        self.stream: UpstreamStream | None = None
        self._pool: CheckPool | None = None
        self._address: Address | None = None

    def ask(self, request: RequestHead, payload: bytes) -> None:
        """Send a request, now or once there is a connection."""
        connections, host = self.connections, self.outcome.host
        address = connections.address_of(host)
        if self._pool is None or address != self._address:
            self.end_connections()
            self._pool, self._address = connections.pool(host, address), address
        self.request, self.payload = request, payload
        self.asking = True
        stream = self._pool.acquire(self, 0)
        if stream is not None:
            self.on_ready(stream)
            connections.settle()

    def on_ready(self, stream: UpstreamStream) -> None:
        self.stream = stream
        stream.send_head(self, self.request, not self.payload, self.connections.clock())
        if self.payload:
            stream.send_data(self.payload, True)

    def asked(self) -> None:
        """The answer has come, or will not."""
        self.asking = False
        self.stream = None

    def end_check(self) -> None:
        """Wait for the answer no longer."""
        stream = self.stream
        if self.asking:
            self.asked()
            if stream is not None:
                stream.cancel()
            elif self._pool is not None:
                self._pool.forget(self)
            self.connections.settle()

    def end_connections(self) -> None:
        """The next check is over a new connection."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def close(self) -> None:
        self.end_check()
        self.end_connections()

    def on_head(self, head: ResponseHead, end: bool) -> None:
        raise NotImplementedError

    def on_message(self, head: ResponseHead, body: bytes) -> None:
        raise NotImplementedError

    def on_data(self, data: bytes, end: bool) -> None:
        raise NotImplementedError

    def on_trailers(self, trailers: list[Field]) -> None:
        raise NotImplementedError

    def on_reset(self, reason: str, failure: str = "") -> None:
        if reason == PROTOCOL_ERROR:
            self.connections.count_protocol_error()
        if self.asking:
            self.asked()
            self.outcome.failed(NETWORK_TIMEOUT if reason == CONNECTION_TIMEOUT else NETWORK)

    def on_full(self) -> None:
        """Checks are small."""

    def on_writable(self) -> None:
        """Checks are small."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.outcome.host!r}{', asking' if self.asking else ''}>"
