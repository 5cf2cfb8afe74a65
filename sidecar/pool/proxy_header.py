"""PROXY headers before connections to endpoints, versions 1 and 2 (HAProxy's `proxy-protocol.txt`), and pools that go by them.

Source: `envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, Final

from sidecar.core.address import Address, from_socket_name
from sidecar.core.tls_options import TransportSocketOptions
from sidecar.core.upstream import UpstreamSink
from sidecar.pool.named import NamedPools

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_LOCAL: Final = _SIGNATURE + b"\x20\x00\x00\x00"
_UNKNOWN: Final = b"PROXY UNKNOWN\r\n"


def compile_header(version: str, stats: Any) -> Callable[[socket.socket, TransportSocketOptions | None], bytes]:
    """What begins a connection, by its socket and what it is for. ``version`` is V1 or V2; the bytes are counted in
    ``stats``, those of the cluster.

    A connection that serves no downstream's (a health check, a call of the sidecar's own) says in version 1 who is at its
    ends, and in version 2 LOCAL. Ends without an IP address, or of two versions of IP, are UNKNOWN or LOCAL.
    """

    def header(sock: socket.socket, options: TransportSocketOptions | None) -> bytes:
        proxied = None if options is None else options.proxied
        if version == "V2":
            made = _LOCAL if proxied is None else version_2(*proxied)
        else:
            if proxied is None:
                proxied = (
                    from_socket_name(sock.family, sock.getsockname()),
                    from_socket_name(sock.family, sock.getpeername()),
                )
            made = version_1(*proxied)
        stats.upstream_cx_tx_bytes_total += len(made)
        return made

    return header


def version_1(source: Address, destination: Address) -> bytes:
    """The line of version 1."""
    if not _are_alike(source, destination):
        return _UNKNOWN
    family = "TCP6" if ":" in str(source.ip) else "TCP4"
    return f"PROXY {family} {source.ip} {destination.ip} {source.port} {destination.port}\r\n".encode()


def version_2(source: Address, destination: Address) -> bytes:
    """The binary header of version 2, without TLVs."""
    if not _are_alike(source, destination):
        return _LOCAL
    assert source.parsed is not None and destination.parsed is not None
    family = b"\x21" if source.parsed.version == 6 else b"\x11"
    ends = source.parsed.packed + destination.parsed.packed
    ports = source.port.to_bytes(2, "big") + destination.port.to_bytes(2, "big")
    return _SIGNATURE + b"\x21" + family + len(ends + ports).to_bytes(2, "big") + ends + ports


def _are_alike(source: Address, destination: Address) -> bool:
    return source.ip is not None and destination.ip is not None and (":" in source.ip) == (":" in destination.ip)


class ProxiedPools(NamedPools):
    """The connections to one host, each of which serves one downstream connection alone: the header speaks of that one."""

    __slots__ = ()

    def key(self, sink: UpstreamSink) -> Hashable:
        options = self.names(sink.request)
        stream = getattr(sink, "stream", None)  # a mirrored request and a health check have none
        connection = None if stream is None else stream.connection
        if connection is not None and connection.id:  # it is 0 where the sidecar calls for itself
            options = replace(options, proxied=(connection.remote_address, connection.local_address))
        return options
