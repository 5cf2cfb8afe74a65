"""Streams as they are when they are logged, built by hand from what is known of a request."""

from __future__ import annotations

from typing import Any

from sidecar.core.address import Address
from sidecar.core.head import Field, RequestHead, ResponseHead
from sidecar.core.stream_info import ConnectionInfo, StreamInfo


class LoggedHost:
    """An endpoint as formats see it."""

    def __init__(self, address: Address, hostname: str = "", metadata: dict[str, dict[str, Any]] | None = None) -> None:
        self.address = address
        self.hostname = hostname
        self.metadata = metadata or {}


class LoggedRoute:
    """A route as formats see it."""

    def __init__(self, name: str, metadata: dict[str, dict[str, Any]] | None = None) -> None:
        self.name = name
        self.virtual_host_name = "everything"
        self.cluster_name = ""
        self.metadata = metadata


def connection(local: str = "127.0.0.1", remote: str = "127.0.0.2") -> ConnectionInfo:
    """Connection 7, from port 4321 to port 80."""
    return ConnectionInfo(7, Address(local, 80), Address(remote, 4321), 1.0)


def http_stream(*fields: Field, path: bytes = b"/a?b=c", method: bytes = b"GET", **slots: Any) -> StreamInfo:
    """A request to example.org that got a 200 after a quarter of a second; `slots` are set on the stream."""
    stream = StreamInfo(connection(), RequestHead(method, path, b"example.org", list(fields)), 1700000000.25, 8.0)
    stream.response = ResponseHead(200, [(b"x-envoy-upstream-service-time", b"3")])
    stream.response_code = 200
    stream.response_code_details = "via_upstream"
    stream.bytes_received, stream.bytes_sent = 5, 83
    stream.host = LoggedHost(Address("10.0.0.1", 8080))
    stream.upstream_local_address = Address("10.0.0.2", 3210)
    stream.cluster_name = "backend"
    stream.request_complete = 8.0
    stream.upstream_first_tx = stream.upstream_last_tx = 8.0625
    stream.upstream_first_rx = stream.upstream_last_rx = 8.125
    stream.downstream_first_tx = 8.125
    stream.end = 8.25
    for name, value in slots.items():
        setattr(stream, name, value)
    return stream


def tcp_stream() -> StreamInfo:
    """A TCP session: there is no request."""
    stream = StreamInfo(connection(), None, 1700000000.25, 8.0)
    stream.bytes_received, stream.bytes_sent, stream.end = 18, 58, 9.0
    stream.host = LoggedHost(Address("10.0.0.1", 8080))
    return stream
