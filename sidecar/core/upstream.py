"""Protocols between the router and what stands upstream of it: pools give connections, connections carry requests.

A request's sink is also the reader's sink: the response's head, data and trailers arrive at it directly.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from sidecar.core.address import Address
from sidecar.core.head import Field, RequestHead, ResponseHead

# Why an upstream connection or stream failed, in Envoy's words (StreamResetReason, as rendered in details and bodies).
CONNECTION_FAILURE: Final = "remote connection failure"
LOCAL_CONNECTION_FAILURE: Final = "local connection failure"

CANNOT_BIND: Final = "failed to bind to "
"""What the failure of a dial begins with that ended at this end: the source address cannot be had."""

CONNECTION_TIMEOUT: Final = "connection timeout"
CONNECTION_TERMINATION: Final = "connection termination"
OVERFLOW: Final = "overflow"
NO_POOL: Final = "no connection pool"  # as many as there may be have connections: for Envoy no reset, but no host
PROTOCOL_ERROR: Final = "protocol error"
LOCAL_RESET: Final = "local reset"
REMOTE_RESET: Final = "remote reset"
REFUSED_STREAM: Final = "remote refused stream reset"
CONNECT_ERROR: Final = "remote error with CONNECT request"


class UpstreamStream(Protocol):
    """One request on its way to an upstream. For HTTP/1 it is the connection itself."""

    @property
    def id(self) -> int:
        """The connection's number."""
        ...

    @property
    def local_address(self) -> Address | None: ...

    @property
    def requests(self) -> int:
        """Requests that this connection has carried, this one included."""
        ...

    @property
    def version(self) -> int:
        """Of the protocol: 11 or 20."""
        ...

    @property
    def tls(self) -> Any:
        """What is known of the host's certificate, as ``ConnectionInfo.tls``; None without TLS."""
        ...

    @property
    def full(self) -> bool:
        """Whether the write buffer is over its high watermark."""
        ...

    @property
    def answered(self) -> bool:
        """Whether anything of an answer to the current request has come, an interim response included."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the response has been read to its end: there is nothing left to cancel."""
        ...

    @property
    def head_size(self) -> int:
        """The octets of the response's head on the wire."""
        ...

    def send_head(self, sink: UpstreamSink, head: RequestHead, end: bool, now: float) -> None:
        """Send the request's head; the response goes to ``sink``."""
        ...

    def open_tunnel(self, sink: UpstreamSink) -> None:
        """Carry bytes as they are, both ways, until either side ends it."""
        ...

    def send_data(self, data: bytes, end: bool) -> None: ...

    def send_trailers(self, trailers: list[Field]) -> None: ...

    def pause_reading(self) -> None:
        """The downstream is full: take no more of the response."""
        ...

    def resume_reading(self) -> None: ...

    def cancel(self) -> None:
        """Nobody wants the response any more: end the exchange at once. The sink hears nothing further."""
        ...


class UpstreamSink(Protocol):
    """Who asked: the router's request."""

    @property
    def request(self) -> RequestHead:
        """The head that is to be sent."""
        ...

    @property
    def tunnels(self) -> bool:
        """Whether the host may speak first: the connection is to carry bytes as they are."""
        ...

    @property
    def offers(self) -> tuple[str, ...]:
        """What the connection is to offer by ALPN; empty for what the configuration says. Asked where a request has said it."""
        ...

    def on_head(self, head: ResponseHead, end: bool) -> None: ...

    def on_data(self, data: bytes, end: bool) -> None: ...

    def on_trailers(self, trailers: list[Field]) -> None: ...

    def on_message(self, head: ResponseHead, body: bytes) -> None: ...

    def on_reset(self, reason: str, failure: str = "") -> None:
        """The exchange broke; ``failure`` says what the transport reported, if anything."""
        ...

    def on_ready(self, stream: UpstreamStream) -> None:
        """The connection that ``acquire`` did not have at once."""
        ...

    def on_writable(self) -> None:
        """The connection has room again after ``on_full``."""
        ...

    def on_full(self) -> None:
        """The connection's write buffer passed its high watermark."""
        ...


class UpstreamPool(Protocol):
    """The connections to one host."""

    def acquire(self, sink: UpstreamSink, priority: int) -> UpstreamStream | None:
        """A connection that is ready now, or None: then ``sink.on_ready`` or ``sink.on_reset`` follows."""
        ...

    def forget(self, sink: UpstreamSink) -> None:
        """``sink`` no longer waits."""
        ...
