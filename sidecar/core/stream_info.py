"""What is known of one request and of the connection that it came by: what logs, formatters and matchers read.

The stream of the HTTP stage (and the session of a TCP proxy) *is* a ``StreamInfo``: one object per request, filled in
as the request advances. All times are seconds of the worker's monotonic clock, 0.0 for what has not happened;
``start_time`` alone is wall-clock time (seconds since the epoch). Source of the set: Envoy's ``StreamInfo``.
"""

from __future__ import annotations

from typing import Any, Protocol

from sidecar.core.address import Address
from sidecar.core.head import Field, RequestHead, ResponseHead


class ConnectionInfo:
    """A downstream connection. ``remote_address`` is the client's as far as trusted (PROXY protocol applied);
    ``direct_remote_address`` is the socket's. ``local_address`` is the original destination when that was restored.
    """

    __slots__ = (
        "id",
        "local_address",
        "direct_local_address",
        "remote_address",
        "direct_remote_address",
        "requested_server_name",
        "application_protocols",
        "transport_protocol",
        "start",
        "listener_name",
        "filter_chain_name",
        "termination_details",
        "transport_failure_reason",
        "proxy_protocol_tlvs",
        "tls",
        "session",
        "metadata",
        "forwarding",
        "rbac",
    )

    def __init__(self, id: int, local_address: Address, remote_address: Address, start: float) -> None:
        self.id = id
        self.local_address = local_address
        self.direct_local_address = local_address
        self.remote_address = remote_address
        self.direct_remote_address = remote_address
        self.requested_server_name = ""
        self.application_protocols: tuple[str, ...] = ()
        self.transport_protocol = "raw_buffer"
        self.start = start
        self.listener_name = ""
        self.filter_chain_name = ""
        self.termination_details = ""
        self.transport_failure_reason = ""
        self.proxy_protocol_tlvs: dict[int, bytes] | None = None
        self.tls: Any = None  # the peer's certificate details, once TLS is terminated here
        self.session: Any = None  # what serves the connection on a socket of its own, behind TLS
        self.metadata: dict[str, dict[str, Any]] | None = None
        self.rbac: dict[Any, int] | None = None  # what RBAC engines found out once for all requests of the connection
        self.forwarding: Any = None  # what the HTTP stage found out once for all requests of the connection

    def __repr__(self) -> str:
        return f"<ConnectionInfo {self.id} {self.remote_address.text} -> {self.local_address.text}>"


class UpstreamHost(Protocol):
    """The endpoint that served an attempt, as far as logs and formatters look."""

    address: Address
    hostname: str


class NamedRoute(Protocol):
    """The matched route, as far as logs and formatters look."""

    name: str
    virtual_host_name: str
    cluster_name: str
    metadata: dict[str, dict[str, Any]] | None


class StreamInfo:
    """One request (or one TCP session, whose ``request`` is None)."""

    __slots__ = (
        # who asked, and for what
        "connection",
        "request",
        "request_trailers",
        "remote_address",  # the client's address after X-Forwarded-For rules
        "start_time",
        "start",
        "request_id",  # as it goes upstream, b"" if there is none
        # what was decided
        "route",
        "cluster_name",
        "host",
        "upstream_local_address",
        "upstream_connection_id",
        "upstream_tls",  # as ``ConnectionInfo.tls``, of the connection to the upstream
        "upstream_version",  # of the protocol there: 11 or 20
        "upstream_failure_reason",  # why the transport to the upstream failed, "" if it did not
        "attempt_count",
        # of the last connection to an upstream on which an attempt ended before its time: its age in seconds, its earlier
        # requests, and whether the upstream closed it; not even None before
        "broken_connection",
        # how it ended
        "response",
        "response_trailers",
        "response_code",
        "response_code_details",
        "response_flags",
        # sizes in bytes: bodies, heads as they were on the wire, and all together on the upstream's side
        "bytes_received",
        "bytes_sent",
        "request_head_size",
        "response_head_size",
        "upstream_head_received",
        "upstream_bytes_sent",
        "upstream_bytes_received",
        # times
        "request_complete",
        "upstream_first_tx",
        "upstream_last_tx",
        "upstream_first_rx",
        "upstream_last_rx",
        "downstream_first_tx",
        "end",
        # what filters attached
        "dynamic_metadata",
        "filter_state",
    )

    def __init__(
        self, connection: ConnectionInfo, request: RequestHead | None, start_time: float, start: float
    ) -> None:
        self.connection = connection
        self.request = request
        self.request_trailers: list[Field] | None = None
        self.remote_address = connection.remote_address
        self.start_time = start_time
        self.start = start
        self.request_id = b""
        self.route: NamedRoute | None = None
        self.cluster_name = ""
        self.host: UpstreamHost | None = None
        self.upstream_local_address: Address | None = None
        self.upstream_connection_id = 0
        self.upstream_tls: Any = None
        self.upstream_version = 11
        self.upstream_failure_reason = ""
        self.attempt_count = 0
        self.response: ResponseHead | None = None
        self.response_trailers: list[Field] | None = None
        self.response_code = 0
        self.response_code_details = ""
        self.response_flags = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.request_head_size = 0
        self.response_head_size = 0
        self.upstream_head_received = 0
        self.upstream_bytes_sent = 0
        self.upstream_bytes_received = 0
        self.request_complete = 0.0
        self.upstream_first_tx = 0.0
        self.upstream_last_tx = 0.0
        self.upstream_first_rx = 0.0
        self.upstream_last_rx = 0.0
        self.downstream_first_tx = 0.0
        self.end = 0.0
        self.dynamic_metadata: dict[str, dict[str, Any]] | None = None
        self.filter_state: dict[str, Any] | None = None
