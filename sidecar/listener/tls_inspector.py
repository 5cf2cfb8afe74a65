"""The listener filter `tls_inspector`: tells TLS from plain text, and reads server name and application protocols."""

from __future__ import annotations

import socket
from typing import Protocol

from sidecar.config.listener_filters import TlsInspector as TlsInspectorConfig
from sidecar.core.stream_info import ConnectionInfo
from sidecar.listener.client_hello import ClientHelloTooLarge, NotClientHello, parse_client_hello
from sidecar.listener.listener_filter import CLOSE, MORE
from sidecar.listener.statistics import Recorder

_HANDSHAKE = 0x16


class TlsInspectorStats(Protocol):
    """`tls_inspector.`"""

    alpn_found: int
    alpn_not_found: int
    client_hello_too_large: int
    sni_found: int
    sni_not_found: int
    tls_found: int
    tls_not_found: int

    @property
    def bytes_processed(self) -> Recorder: ...


class TlsInspector:
    """Peeks at the ClientHello and takes nothing of it."""

    __slots__ = ("config", "peek", "stats")

    def __init__(self, config: TlsInspectorConfig, stats: TlsInspectorStats) -> None:
        self.config = config
        self.stats = stats
        self.peek = config.max_client_hello_size

    def inspect(self, sock: socket.socket, info: ConnectionInfo, data: bytes) -> int:
        stats = self.stats
        try:
            hello = parse_client_hello(data, self.peek)
        except ClientHelloTooLarge:
            stats.client_hello_too_large += 1
            return CLOSE
        except NotClientHello:
            stats.tls_not_found += 1
            stats.bytes_processed.record(len(data))
            broken = data[0] == _HANDSHAKE and self.config.close_connection_on_client_hello_parsing_errors
            return CLOSE if broken else 0
        if hello is None:
            return MORE
        stats.tls_found += 1
        stats.bytes_processed.record(len(data))
        info.transport_protocol = "tls"
        if hello.server_name:
            info.requested_server_name = hello.server_name
            stats.sni_found += 1
        else:
            stats.sni_not_found += 1
        if hello.application_protocols:
            info.application_protocols = hello.application_protocols
            stats.alpn_found += 1
        else:
            stats.alpn_not_found += 1
        return 0
